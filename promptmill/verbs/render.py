"""`promptmill render`: all in one. The same path as in production, on this machine: queue, worker, output."""

import contextlib
import dataclasses
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click
import redis

from promptmill.embedded import Embedded, embedded_server
from promptmill.local_worker import LocalWorker
from promptmill.producer.broker import connect, eviction
from promptmill.producer.growth import placed
from promptmill.producer.layout import CONTACT_SHEET
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output, OutputError
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import read_run
from promptmill.producer.presence import Present, find_present
from promptmill.producer.queue.ledger import Ledger, RunStatus
from promptmill.producer.submit import check_output, submit
from promptmill.producer.words import are, count, have
from promptmill.verbs.dry_run import dry_run, dry_run_options
from promptmill.verbs.failures import FailedJob, failed_jobs, tell_failures
from promptmill.verbs.growing_options import change_of, growing_options, start_in
from promptmill.verbs.options import broker_option, json_option, run_option
from promptmill.verbs.planning import (
    make_plan,
    name_run,
    plan_options,
    prompt_file_options,
    source_names,
    tell_skipped,
    warn,
    warn_of_images,
)
from promptmill.verbs.rates import duration
from promptmill.verbs.rendering import wait, wait_for_report
from promptmill.verbs.runs import watching
from promptmill.verbs.worker_options import check_environ, check_options

if TYPE_CHECKING:
    from types import FrameType


@dataclasses.dataclass(frozen=True)
class Report:
    """What `render` did. Times are seconds from the start of the command; `images_per_s` is without the `stopped_s` in
    which nothing could be rendered; `truncated` counts prompts that were too long."""

    run: str
    output: str
    images: int
    present: int
    rendered: int
    failed: int
    first_image_s: float | None = None
    last_image_s: float | None = None
    images_per_s: float | None = None
    stopped_s: float = 0.0
    contact_sheet: str | None = None
    on_sheet: str | None = None
    truncated: int = 0
    failures: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@click.command("render")
@prompt_file_options
@click.option(
    "--output",
    default="out",
    metavar="URL",
    show_default=True,
    help="Folder, or gs://bucket/prefix.",
)
@run_option
@broker_option
@click.option("--verbose", "-v", is_flag=True, help="Show the worker's log.")
@growing_options
@dry_run_options
@json_option
@check_options
def command(
    files: tuple[str, ...],
    output: str,
    run: str | None,
    broker: str | None,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Render prompt files on this machine, with a queue and a worker of its own.

    Every row of a FILE (docs/prompt-files.md) becomes a job, or several. The flags named after a job's fields
    hold for rows that do not have the field. Without --broker it starts a Redis of its own. The same command again
    renders only what is missing. Exit code 1: some jobs failed.
    """
    if given["dry_run"]:
        return dry_run(files, output, run, broker, as_json, given)
    started, change, root = time.time(), change_of(given), open_output(output)
    root.reach()
    with (
        make_plan(files, plan_options(given, start_in(root, run, source_names(files), change))) as plan,
        contextlib.ExitStack() as stack,
    ):
        tell_skipped(plan)
        plan.encoding.row.load_plugin()  # else its own worker could not write any image
        run = name_run(run, plan, files, root, change)
        there = find_present(plan, root.child(run))
        here = _Here(broker, verbose, check_environ(given), stack)
        if there.images < plan.images:
            check_output(plan, root, run, here.client)
        warn(plan, given["preset"])
        if there.images < plan.images and read_run(root.child(run)) is None:
            here.start()
        with placed(root.child(run), run, plan, source_names(files), change) as whole:
            found = there if whole is plan else find_present(whole, root.child(run))
            report = _render_plan(whole, found, files, root, run, here, started)
    _tell(report, as_json)
    return 1 if report.failed else 0


class _Here:
    """The Redis that was named, or one of our own, and our worker: each started when it is needed first."""

    def __init__(
        self, broker: str | None, verbose: bool, checks: Mapping[str, str], stack: contextlib.ExitStack
    ) -> None:
        self._broker = broker
        self._verbose = verbose
        self._checks = checks
        self._stack = stack

    @cached_property
    def embedded(self) -> Embedded | None:
        return None if self._broker else self._stack.enter_context(embedded_server())

    @property
    def url(self) -> str:
        return self.embedded.url if self.embedded else str(self._broker)

    @cached_property
    def client(self) -> redis.Redis:
        """Raises BrokerError."""
        return connect(self.url)

    def start(self) -> None:
        """Start the worker before a new run is written: one that cannot start leaves none behind."""
        _ = self.worker

    @cached_property
    def worker(self) -> LocalWorker:
        """A worker that is up. Raises WorkerFailed."""
        if warning := eviction(self.client):
            click.echo(f"Warning: {warning}", err=True)
        self._stack.enter_context(_sigterm_as_ctrl_c())
        worker = LocalWorker(self.url, verbose=self._verbose, embedded=self.embedded, environ=self._checks)
        wait_for_report(self._stack.enter_context(worker), self.client)
        return worker


def _render_plan(
    plan: Plan,
    there: Present,
    files: Sequence[str],
    root: Output,
    run: str,
    here: "_Here",
    started: float,
) -> Report:
    sources, run_output = source_names(files), root.child(run)
    warn_of_images(run_output.url, there.broken, there.taken, there.names)
    if there.images == plan.images:
        report = Report(run, run_output.url, plan.images, plan.images, 0, 0)
    else:
        report = _render(plan, root, run, there, sources, here, started)
    return _with_sheet(report, plan, run_output)


def _with_sheet(report: Report, plan: Plan, run_output: Output) -> Report:
    """Draw the sheet, where there are images that it does not show yet. One that cannot be written is a warning."""
    if not report.rendered and (not report.present or run_output.exists(CONTACT_SHEET)):
        return report
    from promptmill.contact_sheet import make_sheet, write_sheet

    failed = {failure["index"] for failure in report.failures}
    sheet = make_sheet(run_output, plan, [job.index for job in plan if job.first and job.index not in failed])
    try:
        return dataclasses.replace(report, contact_sheet=write_sheet(run_output, sheet), on_sheet=sheet.sentence)
    except (OutputError, OSError) as error:
        click.echo(f"warning: the contact sheet could not be written: {error}", err=True)
        return report


def _render(
    plan: Plan,
    root: Output,
    run: str,
    there: Present,
    sources: list[str],
    here: "_Here",
    started: float,
) -> Report:
    client, worker = here.client, here.worker
    submit(plan, output=root, run=run, client=client, sources=sources, there=there)
    missing = _missing(plan, there)
    try:
        status = wait(watching(here.url), run, worker, missing, waits_for_redis=here.embedded is None)
    except KeyboardInterrupt:
        with contextlib.suppress(redis.RedisError):  # it may be what was waited for
            status = Ledger(client).status(run)
            click.echo(f"stopping: {status.done} of {count(status.images, 'image')} are there", err=True)
        click.echo("the same command again renders the rest", err=True)
        raise
    failures = sorted(Ledger(client).failures(run), key=lambda failure: failure.index)
    planned = {job.index: job for job in plan.at([failure.index for failure in failures])}
    return _report(root.child(run).url, status, there.images, failed_jobs(failures, planned), started)


def _missing(plan: Plan, there: Present) -> Counter[str]:
    """The images to render, by model."""
    missing: Counter[str] = Counter()
    for shape, images in plan.shapes.items():
        missing[shape.model] += images - there.shapes[shape]
    return missing


def _report(url: str, status: RunStatus, present: int, failures: list[FailedJob], started: float) -> Report:
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
        stopped_s=round(status.stopped_s, 1) if first_now else 0.0,
        truncated=status.truncated,
        failures=failures,
    )


def _tell(report: Report, as_json: bool) -> None:
    tell_failures(report.failures, report.failed, "promptmill render --json lists them all")
    if not report.rendered and not report.failed:
        all_are = f"all {are(report.images, 'image')}" if report.images > 1 else "its image is"
        click.echo(f"nothing to render: {all_are} there already", err=True)
    else:
        click.echo(_summary(report), err=True)
    if report.truncated:
        text = f"{have(report.truncated, 'image')} a prompt longer than its windows of 77 tokens: the end was truncated"
        click.secho(f"{text}, and is in the image's record (--prompt-windows N)", err=True, fg="yellow")
    if report.contact_sheet:
        click.echo(f"{report.on_sheet}: {report.contact_sheet}", err=True)
    click.echo(json.dumps(dataclasses.asdict(report), ensure_ascii=False) if as_json else f"{report.output}/images")


def _summary(report: Report) -> str:
    text = f"{count(report.rendered, 'image')} rendered"
    text += f", {report.present} were there already" if report.present else ""
    text += f", {report.failed} failed" if report.failed else ""
    if report.first_image_s is not None:
        text += f"; first image after {report.first_image_s:.1f} s, last after {report.last_image_s:.1f} s"
    if report.images_per_s:
        when = f"but for {duration(report.stopped_s)} of standing still" if report.stopped_s else "between them"
        text += f" ({report.images_per_s:.1f} images/s {when})"
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
