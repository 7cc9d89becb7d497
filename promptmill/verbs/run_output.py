"""Where a run lies that a user names: by the folder or URL of its output, or by its name, which Redis knows."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptmill.producer.outputs.output import Output


def find_run_output(run: str, broker: str | None) -> "Output":
    """The run's own output: `out/RUN`, `gs://bucket/prefix/RUN`, or that of RUN in Redis.

    Raises PlanError for a folder or URL without a run, LedgerError for a name that Redis does not know.
    """
    from promptmill.producer.errors import LedgerError, PlanError
    from promptmill.producer.layout import RUN_JSON
    from promptmill.producer.outputs.open import open_output
    from promptmill.producer.plan_files import read_run
    from promptmill.verbs.runs import connected, find_run

    output = open_output(run)
    if read_run(output) is not None:
        return output
    if "/" in run:
        raise PlanError(f"{output.url} has no {RUN_JSON}: name the folder of one run, such as out/RUN")
    try:
        return open_output(find_run(connected(broker), run).output).child(run)
    except LedgerError as error:
        raise LedgerError(f"{error}; nor is it a folder with a {RUN_JSON}") from error


def failures_of(run: str, broker: str | None) -> dict[int, str]:
    """The reasons of a run's failed jobs by index; none where RUN is a folder, or a Redis does not know it."""
    from promptmill.producer.errors import PromptmillError
    from promptmill.producer.queue.ledger import Ledger
    from promptmill.verbs.runs import connected

    name = run.rstrip("/").rpartition("/")[2]
    try:
        client = connected(broker)
        return {failure.index: failure.reason for failure in Ledger(client).failures(name)}
    except PromptmillError:
        return {}
