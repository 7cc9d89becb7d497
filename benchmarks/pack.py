"""How fast a run is packed, in how much memory; beside plain `tar` over the same images, in one interleaved run.

    python -m benchmarks.pack [--images 1000] [--many 1000 20000 200000] [--rows 100000 2000000] [--write PAGE]

Images are what a worker writes of 512x512 pixels, half of them noise, so that a PNG does not shrink to nothing; those
of `--many`, which shows the memory of the whole of `pack`, are of 64x64 and one colour. `manifest` reads every image
and hashes it; `shards` reads them again, compares the digests, writes the shard, durable, under its name. The peers are
`tar -cf` and `sync` of its file, which hashes nothing, and the same through `tee` into `sha256sum`, without and with
`sha256sum` of each image before: what packing computes. Each row is a process of its own; the median of five rounds,
rounds interleaved.
`--rows` writes the manifest alone, of jobs without images.
"""

import argparse
import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.report import circumstances, table, write_section
from promptmill.dataset.finish import finish
from promptmill.dataset.manifest import MANIFEST, write_manifest
from promptmill.dataset.options import PackOptions
from promptmill.dataset.pack import pack
from promptmill.dataset.rows import Rows
from promptmill.producer.image_files import PNG_JOB_KEYWORD
from promptmill.producer.job import Job
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.plan import PlanOptions, plan_jobs
from promptmill.producer.plan_files import load_plan, write_plan
from promptmill.worker.encode import encode_png, job_record

WAYS: dict[str, PackOptions] = {
    "webdataset": PackOptions(shard_size=1000),
    "parquet": PackOptions(format="parquet", shard_size=1000),
    "imagefolder": PackOptions(format="imagefolder", shard_size=1000),
    "webdataset, WebP lossless": PackOptions(shard_size=1000, image_format="webp"),
    "webdataset, JPEG 95": PackOptions(shard_size=1000, image_format="jpeg"),
    "webdataset, JPEG XL lossless": PackOptions(shard_size=1000, image_format="jxl"),
}
PEERS = {
    "tar": "tar -cf {target} -C {run} images",
    "tar, sha256sum of it": "tar -cf - -C {run} images | tee {target} | sha256sum > /dev/null",
    "tar, sha256sum of it and of each image": "find {run}/images -type f -print0 | xargs -0 -P {cores} -n 64 sha256sum"
    " > /dev/null; tar -cf - -C {run} images | tee {target} | sha256sum > /dev/null",
}
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--many", type=int, nargs="*", default=[1000, 20_000, 200_000])
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000, 2_000_000])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    text = "\n\n".join(
        [
            f"`python -m benchmarks.pack`: {circumstances(('pyarrow', 'pillow', 'pillow-jxl-plugin'))}.",
            throughput(options.images, options.side, options.ways),
            memory(options.many, options.rows),
        ]
    )
    print(text)
    if options.write:
        write_section(options.write, "packing", text)


def make_run(folder: Path, images: int, side: int, *, plain: bool = False) -> int:
    """A finished run; the bytes of its images, of one colour where they are `plain`. With side 0 it has none."""
    output, size = Folder(folder), 0
    rows = ({"prompt": f"a red fox in the snow, number {n}", "seed": n} for n in range(images))
    with plan_jobs(rows, PlanOptions({"model": "tiny-random", "width": side or 64, "height": side or 64})) as plan:
        write_plan(output, "r", plan)
        for planned in plan if side else ():
            path = folder / image_name(planned.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            job = plan.whole(planned)
            data = _stamped(job, side) if plain else encode_png(_pixels(planned.index, side), job)
            size += path.write_bytes(data)
    return size


def _stamped(job: Job, side: int) -> bytes:
    """A PNG of one colour with the job inside, of which only the text chunk is made anew: a twentieth of the time."""
    head, tail = _plain(side)
    content = b"iTXt" + PNG_JOB_KEYWORD.encode() + b"\0\0\0\0\0" + job_record(job).encode()
    return head + struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content)) + tail


@cache
def _plain(side: int) -> tuple[bytes, bytes]:
    """An image without texts, before and after the place for one."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 150)).save(file, "PNG")
    data = file.getvalue()
    at = data.index(b"IDAT") - 4
    return data[:at], data[at:]


def _pixels(seed: int, side: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, side)
    smooth = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 128.0), axis=-1).astype(np.uint8)
    smooth[: side // 2] = draw.integers(0, 256, (side // 2, side, 3), dtype=np.uint8)
    return smooth


def throughput(images: int, side: int, ways: list[str]) -> str:
    """The table beside `tar`."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "r"
        size = make_run(run, images, side)
        found: dict[str, list[dict[str, float]]] = {way: [] for way in (*PEERS, *ways)}
        for _ in range(ROUNDS):
            for way, rounds in found.items():
                rounds.append(tarred(PEERS[way], run) if way in PEERS else measured(f"pack:{way}", run))
    middle = {way: {name: median(told[name] for told in rounds) for name in rounds[0]} for way, rounds in found.items()}
    lines = [
        [
            way,
            f"{images / told['shards']:,.0f}",
            f"{size / told['shards'] / 1e6:,.0f}",
            f"{middle['tar']['shards'] / told['shards']:.2f}",
            f"{told['bytes'] / size:.2f}",
            f"{images / told['manifest']:,.0f}" if told["manifest"] else "-",
            f"{told['peak']:.0f}" if told["peak"] else "-",
        ]
        for way, told in middle.items()
    ]
    head = ["way", "images/s", "MB/s read", "of tar's speed", "bytes of the images'", "manifest, images/s", "peak, MB"]
    return f"{images:,} images of {side}x{side}, {size / images / 1000:.0f} kB each:\n\n{table(head, lines)}"


def tarred(command: str, run: Path) -> dict[str, float]:
    """A peer's seconds and bytes."""
    target = run.parent / "plain.tar"
    filled = command.format(target=target, run=run, cores=os.cpu_count())
    started = time.perf_counter()
    subprocess.run(f"{filled} && sync {target}", shell=True, check=True)
    seconds, size = time.perf_counter() - started, target.stat().st_size
    target.unlink()
    return {"shards": seconds, "bytes": size, "manifest": 0, "peak": 0}


def memory(many: list[int], rows: list[int]) -> str:
    """Peak memory over numbers of images, and of rows."""
    lines = []
    for what, counts, side in (("all", many, 64), ("manifest", rows, 0)):
        for count in counts:
            with tempfile.TemporaryDirectory() as name:
                make_run(Path(name) / "r", count, side, plain=True)
                told = measured(what, Path(name) / "r")
            lines.append(
                [
                    "pack" if what == "all" else "manifest alone, no images",
                    *(f"{count:,}", f"{told['seconds']:,.0f}", f"{told['peak']:.0f}"),
                ]
            )
    return table(["what", "jobs", "seconds", "peak, MB"], lines)


def measured(what: str, run: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.pack", "--child", what, str(run)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    for name in ("data", "packing"):
        shutil.rmtree(run / name, ignore_errors=True)
    for name in (MANIFEST, "_SUCCESS", "README.md", "croissant.json", "failures.jsonl"):
        (run / name).unlink(missing_ok=True)
    return found


def child(what: str, folder: str) -> dict[str, float]:
    """Seconds, and this process' peak in MB."""
    output, run = Folder(Path(folder)), Path(folder)
    told: dict[str, float] = {}
    with load_plan(output) as plan, tempfile.TemporaryDirectory(dir=run.parent) as scratch:
        started = time.perf_counter()
        if what == "all":
            finish(output, plan, {})
        else:
            write_manifest(Path(scratch) / MANIFEST, output, plan, {})
        marked = time.perf_counter()
        told["seconds"] = told["manifest"] = marked - started
        if what.startswith("pack:"):
            with Rows(Path(scratch) / MANIFEST) as rows:
                shards = list(pack(output, rows, Path(scratch), WAYS[what.removeprefix("pack:")]))
            told["shards"] = time.perf_counter() - marked
            told["bytes"] = sum(shard.bytes + sum(image.bytes for image in shard.images) for shard in shards)
    return {**told, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


if __name__ == "__main__":
    main()
