"""Where a run lies that a user names: by the folder or URL of its output, or by its name, which Redis knows."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptmill.dataset.findings import LedgerFacts
    from promptmill.producer.outputs.output import Output


def find_run_output(run: str, broker: str | None) -> "Output":
    """The run's own output: `out/RUN`, `gs://bucket/prefix/RUN`, or that of RUN in Redis.

    Raises PlanError for a folder or URL without a run, LedgerError for a name that Redis does not know.
    """
    from promptmill.producer.errors import BrokerError, LedgerError, PlanError
    from promptmill.producer.layout import RUN_JSON
    from promptmill.producer.outputs.open import open_output
    from promptmill.producer.plan_files import read_run
    from promptmill.verbs.runs import connected, find_run

    output = open_output(run)
    output.reach()
    if read_run(output) is not None:
        return output
    if "/" in run:
        raise PlanError(f"{output.url} has no {RUN_JSON}: name the folder of one run, such as out/RUN")
    try:
        return open_output(find_run(connected(broker), run).output).child(run)
    except LedgerError as error:
        raise LedgerError(f"{error}; nor is it a folder with a {RUN_JSON}") from error
    except BrokerError as error:
        raise BrokerError(f"{output.url} has no {RUN_JSON}, and as the name of a run: {error}") from error


def find_any_run_output(run: str, broker: str | None) -> "Output":
    """The same, also for a run whose run.json is damaged or gone, if something else of it is there."""
    from promptmill.producer.errors import PlanError
    from promptmill.producer.layout import MANIFEST, page_name
    from promptmill.producer.outputs.open import open_output

    try:
        return find_run_output(run, broker)
    except PlanError:
        output = open_output(run)
        if any(output.exists(name) for name in (MANIFEST, page_name(0), "_SUCCESS")):
            return output
        raise


def ledger_of(output: "Output", broker: str | None) -> "LedgerFacts | None":
    """What Redis knows of the run in this output; None where no Redis answers, or knows another run by its name."""
    import redis

    from promptmill.dataset.findings import LedgerFacts
    from promptmill.producer.errors import BrokerError, LedgerError, PlanError
    from promptmill.producer.plan_files import read_run
    from promptmill.producer.queue.ledger import Ledger
    from promptmill.producer.submit import done_bits
    from promptmill.verbs.runs import connected, run_url

    name = output.url.rstrip("/").rpartition("/")[2]
    try:
        client = connected(broker)
        ledger = Ledger(client)
        url, digest = run_url(ledger.status(name)), ledger.digest(name) or ""
        if url != output.url and digest != (read_run(output) or {}).get("digest"):
            return None
        failures = {failure.index: failure.reason for failure in ledger.failures(name)}
        return LedgerFacts(digest, done_bits(client, name), failures)
    except (BrokerError, LedgerError, PlanError, redis.RedisError):
        return None


def failures_of(output: "Output", broker: str | None) -> dict[int, str]:
    """The reasons of a run's failed jobs by index; none where no Redis knows the run."""
    facts = ledger_of(output, broker)
    return {} if facts is None else dict(facts.failures)
