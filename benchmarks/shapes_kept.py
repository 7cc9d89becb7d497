"""Memory of a worker's process over many sizes, one after the other, with more and fewer programs kept.

    python -m benchmarks.shapes_kept --sizes 30 --kept 30 --kept 4

Each line is a process of its own: resident memory after the first size and after the last.
"""

import json
import multiprocessing
from pathlib import Path

import click


def resident_mb() -> float:
    """The process's resident memory in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def measure(sizes: int, kept: int) -> dict[str, float]:
    """Make and run the program of `sizes` sizes of tiny-random."""
    import os

    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    from promptmill.producer.job import Shape
    from promptmill.worker.checks import Checks
    from promptmill.worker.programs import Programs
    from promptmill.worker.settings import WorkerSettings

    programs = Programs(WorkerSettings(shapes_kept=kept), Checks({}))
    said = {"sizes": sizes, "kept": kept, "before_mb": resident_mb()}
    for number in range(sizes):
        programs.make(Shape("tiny-random", 64 + 8 * number, 64, True))
        if number == 0:
            said["first_mb"] = resident_mb()
    return {**said, "last_mb": resident_mb()}


@click.command()
@click.option("--sizes", default=30, show_default=True, help="Sizes, 8 pixels apart.")
@click.option("--kept", multiple=True, type=int, default=(30, 4), show_default=True, help="--shapes-kept.")
def main(sizes: int, kept: tuple[int, ...]) -> None:
    """Print a line of JSON for each number of programs kept."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for number in kept:
            click.echo(json.dumps(pool.apply(measure, (sizes, number))))


if __name__ == "__main__":
    main()
