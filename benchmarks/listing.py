"""How fast an output is listed: what submitting anew, resuming and packing do first.

    python -m benchmarks.listing [--objects 20000] [--bucket gs://bucket/prefix] [--write docs/scaling.md]

`names` asks for names and sizes; `looked at` also decides whether each is an image that is there, as `submit` does. The
objects are small PNGs that a worker would write. A bucket is yours: with STORAGE_EMULATOR_HOST, an emulator's.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.report import circumstances, table, write_section
from promptmill.producer.job import Job
from promptmill.producer.layout import IMAGES, image_metadata, image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from promptmill.producer.presence import look_at_images

WRITERS = 16


def fill(output: Output, objects: int) -> None:
    """Small PNGs under the names of so many jobs, with what a worker writes beside them."""
    from promptmill.worker.encode import encode

    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)

    def write(number: int) -> None:
        job = Job(prompt=f"image {number}", width=64, height=64)
        metadata = image_metadata(job.id, "r", number, job.fields(), worker="w@host", render_s=1.0)
        output.put_once(image_name(job.id), encode(pixels, job), content_type="image/png", metadata=metadata)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(objects)))


def rates(output: Output) -> tuple[int, float, float]:
    """How many objects there are; names per second, and looks per second."""
    started = time.perf_counter()
    names = sum(1 for _ in output.scan(f"{IMAGES}/"))
    listed_s = time.perf_counter() - started
    started = time.perf_counter()
    looked = sum(1 for _ in look_at_images(output))
    looked_s = time.perf_counter() - started
    assert looked == names
    return names, names / listed_s, names / looked_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--bucket", help="an output in a bucket, too")
    parser.add_argument("--write", type=Path, help="put the table into this page")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, url in (("a folder", folder), ("a bucket", options.bucket)):
            if url:
                output = open_output(url)
                fill(output, options.objects)
                number, names, looks = rates(output)
                rows.append([name, f"{number:,}", f"{names:,.0f}", f"{looks:,.0f}"])
    said = circumstances(("google-cloud-storage",))
    text = f"`python -m benchmarks.listing`: {said}.\n\n{table(['output', 'objects', 'names/s', 'looked at/s'], rows)}"
    print(text)
    if options.write:
        write_section(options.write, "listing", text)


if __name__ == "__main__":
    main()
