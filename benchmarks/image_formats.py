"""What an image costs in each format that `--image-format` knows: bytes, and CPU seconds to write and to read it.

    python -m benchmarks.image_formats [--images 4] [--side 1024] [--write docs/performance.md]

Files are written as a worker writes them, with the job inside. Images are drawn with the spectrum that photographs have
(amplitude falls with the frequency; Field, 1987) and coloured alike, with a plain area beside: no photograph is shipped
here. CPU seconds are those of this process alone, so that a busy machine changes them little; the least of three
rounds, rounds interleaved.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import circumstances, table, write_section
from promptmill.producer.image_formats import Encoding, open_image
from promptmill.producer.job import Job
from promptmill.worker.encode import encode

ENCODINGS = [Encoding.parse(text) for text in ("png", "webp", "jxl", "jpeg", "jpeg:85", "webp:90", "jxl:90")]
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--write", type=Path, help="put the table into this page")
    options = parser.parse_args()
    text = "\n\n".join(
        [
            f"`python -m benchmarks.image_formats`: {circumstances(('pillow', 'pillow-jxl-plugin'))}.",
            f"{options.images} images of {options.side}x{options.side}; CPU seconds per image:",
            measured(options.images, options.side),
        ]
    )
    print(text)
    if options.write:
        write_section(options.write, "image formats", text)


def measured(images: int, side: int) -> str:
    """The table."""
    pixels = [_pixels(seed, side) for seed in range(images)]
    job = Job(prompt="a red fox in the snow, photograph, golden hour", width=side, height=side)
    least: dict[Encoding, tuple[float, float]] = {}
    size, error = dict[Encoding, int](), dict[Encoding, float]()
    for _ in range(ROUNDS):
        for encoding in ENCODINGS:
            started = time.process_time()
            files = [encode(one, job, encoding=encoding) for one in pixels]
            written = time.process_time()
            read = [_read(file) for file in files]
            found = (written - started) / images, (time.process_time() - written) / images
            least[encoding] = tuple(map(min, zip(least.get(encoding, found), found, strict=True)))  # type: ignore[assignment]
            size[encoding] = sum(map(len, files)) // images
            error[encoding] = float(
                np.mean([np.abs(a - b.astype(int)).mean() for a, b in zip(pixels, read, strict=True)])
            )
    png = size[Encoding()]
    lines = [
        [
            _shown(encoding),
            f"{size[encoding]:,}",
            f"{size[encoding] / png:.2f}",
            f"{least[encoding][0]:.3f}",
            f"{least[encoding][1]:.3f}",
            "the same" if not error[encoding] else f"{error[encoding]:.2f} off",
        ]
        for encoding in ENCODINGS
    ]
    return table(["format", "bytes", "of PNG's", "to write", "to read", "pixels (of 255)"], lines)


def _difference(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    return float(np.mean([np.abs(one - other.astype(int)).mean() for one, other in zip(some, others, strict=True)]))


def _shown(encoding: Encoding) -> str:
    quality = encoding.quality or encoding.row.quality
    return f"{encoding.format}, {f'quality {quality}' if quality else 'lossless'}"


def _read(file: bytes) -> np.ndarray:
    with open_image(file, Image.open) as image:
        return np.asarray(image)


def _pixels(seed: int, side: int) -> np.ndarray:
    """An image whose amplitudes fall as 1/f; its channels are alike, and a quarter of it is plain."""
    draw = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    frequency[0, 0] = 1
    grey, *tints = (_field(draw, frequency, side) for _ in range(4))
    channels = [128 + 45 * grey + 10 * tint for tint in tints]
    image = np.clip(np.stack(channels, axis=-1) + draw.normal(0, 1, (side, side, 1)), 0, 255).astype(np.uint8)
    image[: side // 2, : side // 2] = image[0, 0]
    return image


def _field(draw: np.random.Generator, frequency: np.ndarray, side: int) -> np.ndarray:
    phases = np.exp(2j * np.pi * draw.random(frequency.shape))
    field = np.fft.irfft2(phases / frequency**1.2, s=(side, side))
    return np.asarray((field - field.mean()) / field.std())


if __name__ == "__main__":
    main()
