"""From the command line to a plan: what `submit` and `render` do alike before their ways part."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from promptmill.producer.words import are, count
from promptmill.progress import Progress
from promptmill.verbs.expansion_options import expansion_of, expansion_options
from promptmill.verbs.image_options import encoding_of, image_options
from promptmill.verbs.options import job_defaults, job_matrix, job_options
from promptmill.verbs.reading_options import reading_of, reading_options

if TYPE_CHECKING:
    from promptmill.producer.growth import Change
    from promptmill.producer.outputs.output import Output
    from promptmill.producer.plan import Plan, PlanOptions

F = TypeVar("F", bound=Callable[..., Any])

PACKED = (".gz", ".zst")

_ON_ERROR = click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do about wrong rows: stop before anything is enqueued, or skip them.",
)
_REJECTS = click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write wrong rows to this file, as JSON lines.  [with --on-error skip, OUTPUT/RUN/rejects.jsonl]",
)


def prompt_file_options(function: F) -> F:
    """The argument FILE... and all that says what its rows mean."""
    for add in (image_options, job_options, expansion_options, reading_options, _REJECTS, _ON_ERROR):
        function = add(function)
    return click.argument("files", nargs=-1, required=True, metavar="FILE...")(function)


def plan_options(given: Mapping[str, Any], start: int = 0) -> "PlanOptions":
    """What the flags say about rows, of which the first has the index `start` in its run."""
    from promptmill.producer.plan import PlanOptions

    return PlanOptions(
        defaults=job_defaults(given),
        preset=given["preset"],
        reading=reading_of(given),
        expansion=expansion_of(given, job_matrix(given)),
        on_error=given["on_error"],
        rejects=given["rejects"],
        start=start,
        encoding=encoding_of(given),
    )


def make_plan(files: Sequence[str], options: "PlanOptions", *, needed: bool = True) -> "Plan":
    """The plan of prompt files, with the rows counted on the way."""
    from promptmill.producer.plan import plan_run

    with Progress("read", None, unit="jobs") as progress:
        return plan_run(files, options, progress=progress.to, needed=needed)


def tell_skipped(plan: "Plan") -> None:
    """Says which rows were left out: the first of them, and how many."""
    for error in plan.rejects.first:
        click.secho(f"skipped: {error}", err=True, fg="yellow")
    if plan.rejects.unlisted:
        click.secho(f"... and {count(plan.rejects.unlisted, 'more row')}", err=True, fg="yellow")


def name_run(
    run: str | None, plan: "Plan", files: Sequence[str], root: "Output", change: "Change | None" = None
) -> str:
    """The run's name: as given, or that of the files' run in `root`, or a new one. Raises PlanError, OutputError."""
    from promptmill.producer.growth import Change
    from promptmill.producer.plan import check_run_name
    from promptmill.producer.run_names import find_name

    if run:
        return check_run_name(run)
    return find_name(root, stem_of(files[0]), plan, source_names(files), change or Change.NONE)


def stem_of(file: str) -> str:
    """What a run of this file is called: `prompts` of `gs://bucket/prompts.csv.gz`, `stdin` of `-`."""
    if file == "-":
        return "stdin"
    name = Path(file.partition("://")[2].partition("?")[0] if "://" in file else file).name
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    return Path(name).stem


def source_names(files: Sequence[str]) -> list[str]:
    """The files as the run's record names them: no folders of this machine."""
    return [file if "://" in file else Path(file).name for file in files]


def warn_of_images(output_url: str, broken: int, taken: int, names: Sequence[str]) -> None:
    """Says what lies under the names of images and is none of them."""
    if broken:
        text = f"warning: {are(broken, 'image')} there, but cut off or empty: to be rendered anew"
        click.secho(text, err=True, fg="yellow")
    if taken:
        shown = "".join(f"\n  {output_url}/{name}" for name in names[:3])
        text = f"warning: {are(taken, 'name')} taken by what is not the job's image, so that it will fail:{shown}"
        click.secho(text, err=True, fg="yellow")


def warn(plan: "Plan", preset: str | None) -> None:
    """Says it aloud when the images are going to be noise, or settings do not suit their model."""
    from promptmill.producer.models import POCKET, TINY_RANDOM

    for sentence in plan.warnings(preset):
        click.secho(f"warning: {sentence}", err=True, fg="yellow")
    models = {shape.model for shape in plan.shapes}
    if POCKET in models:
        text = (
            f"{POCKET}: promptmill's own tiny SDXL, which draws 64x64 emoji on plain backgrounds.\n"
            "For other images: --model stabilityai/stable-diffusion-xl-base-1.0, or a folder in diffusers' layout."
        )
        click.secho(text, err=True, fg="cyan")
    if TINY_RANDOM in models:
        text = (
            f"{TINY_RANDOM}: a small SDXL with RANDOM weights. Its images are NOISE; they try the machinery only.\n"
            "For real images: --model stabilityai/stable-diffusion-xl-base-1.0, or a folder in diffusers' layout."
        )
        click.secho(text, err=True, fg="yellow", bold=True)
