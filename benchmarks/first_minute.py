"""How long a newcomer waits: from Enter to the first image and to the last of `examples/prompts.txt`.

    python benchmarks/first_minute.py [--runs 3] [--sheet docs/first-minute.png]

Each run has an empty output. `cold` has empty caches, as on the first day: the model is made and XLA compiles. `warm`
is the same command on the next day: both are there. Times are `promptmill render --json`'s own, from the start of the
command to the moment an image is safe in the output. Prints a Markdown table: medians, and the range behind them.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sheet", type=Path, help="save the last run's images as one")
    options = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} cores; Python {platform.python_version()}, jax {version('jax')}; ",
        end="",
    )
    print(
        f"commit {git('rev-parse', '--short', 'HEAD')}{' with changes' if git('status', '--porcelain', '-uno') else ''}"
    )
    print("\n| caches | first image, s | last image, s | images/s between | what |\n|---|---|---|---|---|")
    for name in ("cold", "warm"):
        with tempfile.TemporaryDirectory() as folder:
            if name == "warm":
                render(Path(folder), Path(folder) / "before")
            reports = [render_fresh(name, Path(folder), number) for number in range(options.runs)]
            show(name, reports)
            if options.sheet and name == "warm":
                shutil.copy(reports[-1]["contact_sheet"], options.sheet)


def render_fresh(name: str, folder: Path, number: int) -> dict[str, Any]:
    caches = folder if name == "warm" else folder / f"caches-{number}"
    return render(caches, folder / f"out-{number}")


def render(caches: Path, output: Path) -> dict[str, Any]:
    """One `promptmill render`, with caches of its own."""
    environ = {**os.environ, "XDG_CACHE_HOME": str(caches)}
    command = [sys.executable, "-m", "promptmill", "render", "examples/prompts.txt", "--output", str(output), "--json"]
    done = subprocess.run(command, env=environ, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def show(name: str, reports: list[dict[str, Any]]) -> None:
    cells = [
        spread([report[field] for report in reports]) for field in ("first_image_s", "last_image_s", "images_per_s")
    ]
    print(
        f"| {name} | {' | '.join(cells)} | {reports[0]['rendered']} images, median and range of {len(reports)} runs |"
    )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def git(*args: str) -> str:
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
