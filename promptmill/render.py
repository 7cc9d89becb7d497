"""`promptmill render`: all in one. The same path as in production, on this machine: queue, worker, output."""

import contextlib
import dataclasses
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import redis

from producer.broker import connect, embedded_server
from producer.job import JobId
from producer.ledger import Failure, Ledger, RunStatus
from producer.mismatches import mismatches
from producer.models import POCKET, TINY_RANDOM
from producer.output import Output
from producer.outputs import open_output
from producer.plan import Plan, check_run_name, read_plan, write_plan
from producer.submit import images_present, submit
from producer.workers import WorkerReport, Workers
from promptmill.check_options import check_environ, check_options
from promptmill.local_worker import LocalWorker, WorkerFailed
from promptmill.options import broker_option, env, job_defaults, job_options, json_option, run_option
from promptmill.progress import Progress

if TYPE_CHECKING:
    from types import FrameType

POLL_S = 0.1
SHOWN_FAILURES = 5


@dataclasses.dataclass(frozen=True)
class Report:
    """What `render` did. Times are seconds from the start of the command."""

    run: str
    output: str
    images: int
    present: int
    rendered: int
    failed: int
    first_image_s: float | None = None
    last_image_s: float | None = None
    images_per_s: float | None = None
    contact_sheet: str | None = None
    failures: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@click.command("render")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--output",
    default="out",
    envvar=env("output"),
    metavar="URL",
    show_default=True,
    help="Folder, or gs://bucket/prefix.",
)
@run_option
@broker_option
@click.option("--verbose", "-v", is_flag=True, help="Show the worker's log.")
@json_option
@check_options
@job_options
def command(
    files: tuple[str, ...],
    output: str,
    run: str | None,
    broker: str | None,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Render prompt files here and now, on whatever JAX finds: queue, worker and all.

    Every row of a FILE (.txt, .jsonl) becomes a job. The flags named after a job's fields are the defaults of rows
    that do not say otherwise. Without --broker it starts a Redis of its own. The same command again renders only
    what is missing. Exit code 1: some jobs failed.
    """
    started = time.time()
    plan = read_plan(files, job_defaults(given), given["preset"])
    place = open_output(output)
    place.check()
    run = name_run(run, plan, files, place.url)
    warn(plan, given["preset"])
    sources = [Path(file).name for file in files]
    write_plan(place.child(run), run, plan, sources)
    there = images_present(place.child(run)) & plan.first_index.keys()
    if len(there) == len(plan.first_index):
        report = Report(run, place.child(run).url, len(there), len(there), 0, 0)
    else:
        with _sigterm_as_ctrl_c():
            report = _render(plan, place, run, there, sources, broker, verbose, started, check_environ(given))
    if not report.failed and report.rendered:
        from promptmill.contact_sheet import write_contact_sheet

        sheet = write_contact_sheet(place.child(run), plan)
        report = dataclasses.replace(report, contact_sheet=f"{report.output}/{sheet}")
    _tell(report, as_json)
    return 1 if report.failed else 0


def name_run(run: str | None, plan: Plan, files: Sequence[str], output_url: str) -> str:
    """The run's name: as given, or from the first file's and the jobs. Raises PlanError."""
    return check_run_name(run) if run else plan.default_name(Path(files[0]).stem, output_url)


def warn(plan: Plan, preset: str | None) -> None:
    """Says it aloud when the pictures are going to be noise, or settings do not suit their model."""
    for sentence in mismatches(plan.jobs, preset):
        click.secho(f"warning: {sentence}", err=True, fg="yellow")
    models = {shape.model for shape in plan.shapes}
    if POCKET in models:
        text = (
            f"{POCKET}: a tiny SDXL of promptmill's own, which draws emoji of 64x64 pixels on plain backgrounds.\n"
            "For the real one: --model stabilityai/stable-diffusion-xl-base-1.0, or a folder in diffusers' layout."
        )
        click.secho(text, err=True, fg="cyan")
    if TINY_RANDOM in models:
        text = (
            f"{TINY_RANDOM}: a small SDXL with RANDOM weights. Its pictures are NOISE; they try the machinery only.\n"
            "For real pictures: --model stabilityai/stable-diffusion-xl-base-1.0, or a folder in diffusers' layout."
        )
        click.secho(text, err=True, fg="yellow", bold=True)


def _render(
    plan: Plan,
    place: Output,
    run: str,
    there: Set[JobId],
    sources: list[str],
    broker: str | None,
    verbose: bool,
    started: float,
    checks: Mapping[str, str],
) -> Report:
    with contextlib.ExitStack() as stack:
        url = broker or stack.enter_context(embedded_server())
        client = connect(url)
        worker = stack.enter_context(LocalWorker(url, verbose=verbose, own_broker=broker is None, environ=checks))
        submit(plan, output=place, run=run, client=client, sources=sources, there=there)
        missing = Counter(plan.jobs[at].model for job_id, at in plan.first_index.items() if job_id not in there)
        try:
            status = _wait(client, run, worker, missing)
        except KeyboardInterrupt:
            status = Ledger(client).status(run)
            click.echo(f"stopping: {status.done} of {status.images} images are there", err=True)
            click.echo("the same command again renders the rest", err=True)
            raise
        return _report(place.child(run).url, status, len(there), list(Ledger(client).failures(run)), started)


def _wait(client: redis.Redis, run: str, worker: LocalWorker, missing: Mapping[str, int]) -> RunStatus:
    """Until every job of the run is done or failed. `missing` counts the images to render by model.

    Raises WorkerFailed when nothing is left but what the worker cannot render, or the worker itself has stopped.
    """
    ledger, workers = Ledger(client), Workers(client)
    status = ledger.status(run)
    with Progress("images", status.images) as progress:
        while not status.finished:
            time.sleep(POLL_S)
            status = ledger.status(run)
            progress.to(status.done + status.failed)
            worker.watch(status.done + status.failed)
            for report in workers.alive():
                if report.name == worker.name:
                    progress.note(f"{report.state}, {status.failed} failed" if status.failed else report.state)
                    if report.problems and status.left <= sum(missing[model] for model in report.problems):
                        raise WorkerFailed(_problems(report, status))
    return status


def _problems(report: WorkerReport, status: RunStatus) -> str:
    reasons = [f"cannot render with {model}: {why}" for model, why in report.problems.items()]
    return "\n".join([*reasons, f"{status.done} of {status.images} images are there"])


def _report(url: str, status: RunStatus, present: int, failures: list[Failure], started: float) -> Report:
    first_now = status.first_done is not None and status.first_done >= started  # else a lasting Redis tells of before
    return Report(
        run=status.run,
        output=url,
        images=status.images,
        present=present,
        rendered=status.done - present,
        failed=status.failed,
        first_image_s=round(status.first_done - started, 2) if status.first_done and first_now else None,
        last_image_s=round(status.last_done - started, 2) if status.last_done and first_now else None,
        images_per_s=round(status.images_per_s, 2) if status.images_per_s and first_now else None,
        failures=[dataclasses.asdict(failure) for failure in sorted(failures, key=lambda failure: failure.index)],
    )


def _tell(report: Report, as_json: bool) -> None:
    for failure in report.failures[:SHOWN_FAILURES]:
        click.secho(f"failed: place {failure['index']} of the run: {failure['reason']}", err=True, fg="red")
    if report.failed > SHOWN_FAILURES:
        click.echo(
            f"... and {report.failed - SHOWN_FAILURES} more: promptmill render --json lists them all",
            err=True,
        )
    if not report.rendered and not report.failed:
        click.echo(f"nothing to render: all {report.images} images are there already", err=True)
    else:
        click.echo(_summary(report), err=True)
    if report.contact_sheet:
        click.echo(f"all on one sheet: {report.contact_sheet}", err=True)
    click.echo(json.dumps(dataclasses.asdict(report), ensure_ascii=False) if as_json else f"{report.output}/images")


def _summary(report: Report) -> str:
    text = f"{report.rendered} images rendered"
    text += f", {report.present} were there already" if report.present else ""
    text += f", {report.failed} failed" if report.failed else ""
    if report.first_image_s is not None:
        text += f"; first image after {report.first_image_s:.1f} s, last after {report.last_image_s:.1f} s"
    if report.images_per_s:
        text += f" ({report.images_per_s:.1f} images/s between them)"
    return text


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """A supervisor's SIGTERM stops everything as cleanly as Ctrl-C does."""

    def interrupt(number: int, frame: "FrameType | None") -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
