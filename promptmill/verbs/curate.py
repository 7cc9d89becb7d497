"""`promptmill curate`: what of a run is worth keeping, as a list."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from promptmill.producer.words import count
from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.runs import answer
from promptmill.verbs.verify import check_packages

if TYPE_CHECKING:
    from promptmill.dataset.curate import Score


@click.command("curate")
@click.argument("run", metavar="RUN")
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("curation"),
    show_default=True,
    metavar="FOLDER",
    help="Folder for the table and the lists.",
)
@click.option(
    "--near",
    type=click.IntRange(0, 7),
    default=3,
    show_default=True,
    help="Images look alike if their 64-bit dHash differs in at most this many bits.",
)
@click.option("--keep-alike", is_flag=True, help="Keep images that look alike.")
@click.option("--keep-same", is_flag=True, help="Keep images with the same pixels.")
@click.option(
    "--min", "least", multiple=True, metavar="NAME=NUMBER", help="Keep images with at least this: sharpness=50."
)
@click.option("--max", "most", multiple=True, metavar="NAME=NUMBER", help="Keep images with at most this.")
@click.option(
    "--score",
    "scores",
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="A scoring function of yours; its numbers become columns.",
)
@broker_option
@json_option
def command(
    run: str,
    to: Path,
    near: int,
    keep_alike: bool,
    keep_same: bool,
    least: Sequence[str],
    most: Sequence[str],
    scores: Sequence[str],
    broker: str | None,
    as_json: bool,
) -> int:
    """Measure RUN's images, find those that are the same, look alike or show nothing, and list what to keep.

    Writes curation.parquet, keep.txt, drop.jsonl and prompts.txt into a folder; the run is not changed.
    Measures are brightness, contrast, sharpness and bytes.
    """
    check_packages()
    from promptmill.dataset.curate import Filters, curate
    from promptmill.dataset.manifest_text import rows_of_run
    from promptmill.verbs.run_output import failures_of, find_run_output

    filters = Filters(_bounds("--min", least), _bounds("--max", most), None if keep_alike else near, keep_same)
    functions = {name: load_score(name) for name in scores}
    output = find_run_output(run, broker)
    counts = curate(output, rows_of_run(output, lambda: failures_of(output, broker)), to, filters, functions)
    dropped = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()) if reason != "kept")
    sentence = f"{to}: {count(counts['kept'], 'image')} to keep{f'; {dropped}' if dropped else ''}"
    answer(as_json, sentence, to=str(to), **counts)
    return 0


def _bounds(flag: str, given: Sequence[str]) -> dict[str, float]:
    bounds = {}
    for one in given:
        name, _, number = one.partition("=")
        try:
            bounds[name.strip()] = float(number)
        except ValueError as error:
            raise click.UsageError(f"{flag} {one}: expected NAME=NUMBER, such as sharpness=50") from error
    return bounds


def load_score(name: str) -> "Score":
    """The function that MODULE:FUNCTION names, also of a module in this folder. Raises click.UsageError."""
    module, colon, function = name.partition(":")
    if not colon:
        raise click.UsageError(f"--score {name}: expected MODULE:FUNCTION")
    if "" not in sys.path:
        sys.path.append("")
    try:
        score: Score = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise click.UsageError(f"--score {name}: {error}") from error
    return score
