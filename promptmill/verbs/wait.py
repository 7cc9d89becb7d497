"""`promptmill wait`: until a run is over."""

import time

import click

from promptmill.producer.words import count
from promptmill.verbs.failures import SHOWN_FAILURES, Planned, failed_jobs, tell_failures
from promptmill.verbs.runs import OVER, answer, find_run, go_on_without_redis, run_options, run_url, watching

POLL_S = 0.5


def _checked(context: click.Context, option: click.Parameter, url: str | None) -> str | None:
    """A mistyped address is told now, not when the run is over; and not repeated, as it has a secret."""
    from promptmill.notices import check_webhook

    try:
        if url:
            check_webhook(url)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return url


@click.command("wait")
@run_options
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Give up after this long, with exit code 2.  [never]",
)
@click.option(
    "--webhook",
    metavar="URL",
    callback=_checked,
    help="POST JSON to this URL when the run is over, or failing (--failure-rate).",
)
@click.option(
    "--exec",
    "exec_",
    metavar="COMMAND",
    help="Run this in a shell then, with NOTICE_EVENT, NOTICE_RUN, ... in its environment.",
)
@click.option(
    "--failure-rate",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="Notify once, as `failing`, when more than this share of the jobs has failed, such as 0.05.",
)
def command(
    run: str,
    broker: str | None,
    as_json: bool,
    timeout_s: float | None,
    webhook: str | None,
    exec_: str | None,
    failure_rate: float | None,
) -> int:
    """Wait until RUN is finished or cancelled; --webhook and --exec notify others.

    Exit code 1: it has failed jobs. If Redis goes away meanwhile, it waits for that too.
    """
    from promptmill.notices import Notices, is_failing

    notices = Notices(webhook, exec_, lambda problem: click.secho(f"warning: {problem}", err=True, fg="yellow"))
    client = watching(broker)
    status, began = find_run(client, run), time.monotonic()
    while status.state not in OVER:
        if failure_rate is not None and is_failing(status, failure_rate):
            notices.send("failing", status, run_url(status))
            failure_rate = None
        if timeout_s is not None and time.monotonic() - began >= timeout_s:
            left = f"{status.left} of {count(status.images, 'image')} left"
            raise click.ClickException(f"run {run!r}: {left} after {timeout_s:g} s")
        time.sleep(POLL_S)
        status = go_on_without_redis(lambda: find_run(client, run))
    notices.send(status.state, status, run_url(status))
    figures = {"images": status.images, "done": status.done, "failed": status.failed, "cancelled": status.cancelled}
    words = f"{run}: {status.state}, {status.done} of {count(status.images, 'image')}"
    words += f", {status.failed} failed" if status.failed else ""
    if status.failed:
        from promptmill.producer.queue.ledger import Ledger

        failures = sorted(Ledger(client).failures(run), key=lambda failure: failure.index)[:SHOWN_FAILURES]
        planned = Planned(run_url(status)).at(failure.index for failure in failures)
        tell_failures(failed_jobs(failures, planned), status.failed, f"promptmill status {run} --json lists them all")
    answer(as_json, words, run=run, state=status.state, output=run_url(status), **figures)
    return int(status.failed > 0)
