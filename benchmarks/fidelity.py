"""How near ours is to PyTorch's: measures, and writes the tables of docs/fidelity.md between their markers.

    python -m benchmarks.fidelity [--only parts images samplers ...] [--model FOLDER] [--write docs/fidelity.md]

Needs the extra `import` (torch, diffusers). The measurements are those of tests/parity, where limits are asserted; here
they are only told. `--model` is measured in bfloat16 beside the small random one. Takes about ten minutes on two cores.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from benchmarks.report import circumstances, table, write_section
from promptmill.producer.families.samplers import SAMPLERS
from promptmill.worker.sdxl.tiny import write_tiny_random
from tests.parity import images, measure, precision, test_samplers
from tests.parity.image_mistakes import IMAGE_MISTAKES
from tests.parity.matrix import PARTS
from tests.parity.mistakes import PART_MISTAKES
from tests.parity.refiner import write_refiner

PACKAGES = ("jax", "flax", "numpy", "torch", "diffusers", "transformers")
SAMPLER_TESTS = (
    test_samplers.test_every_spacing_sigma_schedule_and_prediction_agrees,
    test_samplers.test_a_jobs_own_spacing_and_sigma_schedule_agree,
    test_samplers.test_every_other_field_of_a_file_means_the_same,
    test_samplers.test_explicit_timesteps_and_sigmas_agree,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--model", type=Path, help="a diffusers folder to measure in bfloat16 too")
    parser.add_argument("--write", type=Path, help="the Markdown file whose sections are replaced")
    options = parser.parse_args()
    for name in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            made = SECTIONS[name](Path(scratch), options.model)
        text = f"Measured on {circumstances(PACKAGES, device=_device())}.\n\n{made}"
        print(f"{text}\n")
        if options.write:
            write_section(options.write, f"fidelity, {name}", text)


def _device() -> str:
    return f"JAX on {jax.devices()[0].device_kind}, PyTorch on the CPU"


def parts(scratch: Path, model: Path | None) -> str:
    """Each network in each configuration."""
    rows = [measure.part_row(name, scratch / name).cells() for name in PARTS]
    return table(["network", "configuration", "what it has", "relative error", "PyTorch's own rounding"], rows)


def whole_images(scratch: Path, model: Path | None) -> str:
    """From prompt and seed to pixels; with a refiner; with guidance as an input."""
    base = write_tiny_random(scratch / "base", seed=3, changes=images.CHANGES)
    by_input = write_tiny_random(scratch / "by-input", seed=3, changes=images.GUIDANCE_AS_INPUT)
    alone, refined = measure.Sides.of(base), measure.Sides.of(base, write_refiner(scratch / "refiner", base))
    rows = [alone.row(name, request) for name, request in images.IMAGES.items()]
    rows += [refined.row(f"refiner: {name}", request) for name, request in images.REFINED.items()]
    rows.append(measure.Sides.of(by_input).row("guidance scale as an input", images.GUIDED_BY_INPUT))
    return table(["image", "sampler", "PSNR, dB", "farthest, grey levels", "values that differ"], _cells(rows))


def samplers(scratch: Path, model: Path | None) -> str:
    """Whole trajectories of each sampler, over all that it can be told."""
    rows = []
    for name in SAMPLERS:
        comparison = test_samplers.Comparison(scratch)
        for compare_all in SAMPLER_TESTS:
            compare_all(name, comparison)
        agreed, refused = str(comparison.agreed), str(comparison.refused)
        rows.append([f"`{name}`", f"`{SAMPLERS[name].scheduler}`", agreed, f"{comparison.worst:.1e}", refused])
    return table(["sampler", "diffusers' class", "trajectories", "largest error", "refused"], rows)


def planted(scratch: Path, model: Path | None) -> str:
    """What the harness shows when something is wrong."""
    rows = [_network_row(scratch, name) for name in PART_MISTAKES]
    base = write_tiny_random(scratch / "base", seed=3, changes=images.CHANGES)
    sides = measure.Sides.of(base)
    # Compiled before anything is planted.
    for name in dict.fromkeys(mistake.image for mistake in IMAGE_MISTAKES.values()):
        sides.render(images.IMAGES[name])
    rows += [_image_row(sides, name) for name in IMAGE_MISTAKES]
    return table(["mistake", "where", "what shows"], rows)


def _network_row(scratch: Path, name: str) -> list[str]:
    mistake = PART_MISTAKES[name]
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as monkeypatch:
        mistake.plant(monkeypatch)
        row = measure.part_row(mistake.part, scratch / name)
    jax.clear_caches()
    return [mistake.says, mistake.part, f"relative error {row.worst:.1e}"]


def _image_row(sides: measure.Sides, name: str) -> list[str]:
    mistake = IMAGE_MISTAKES[name]
    with pytest.MonkeyPatch.context() as monkeypatch:
        mistake.plant(monkeypatch)
        row = sides.row(name, images.IMAGES[mistake.image])
    return [mistake.says, mistake.image, f"{row.psnr:.1f} dB"]


def bfloat16(scratch: Path, model: Path | None) -> str:
    """What each part costs in bfloat16, in the small random model and in another."""
    folders = {"tiny-random": write_tiny_random(scratch / "tiny")} | ({model.name: model} if model else {})
    rows = [[name, *row.cells()] for name, folder in folders.items() for row in precision.rows(folder)]
    return table(["model", "in bfloat16", "latents, relative error", "PSNR, dB", "worst PSNR, dB"], rows)


def _cells(rows: list[measure.ImageRow]) -> list[list[str]]:
    return [row.cells() for row in rows]


SECTIONS: dict[str, Callable[[Path, Path | None], str]] = {
    "parts": parts,
    "images": whole_images,
    "samplers": samplers,
    "planted": planted,
    "bfloat16": bfloat16,
}

if __name__ == "__main__":
    main()
