"""Google's own client behind a bucket of ours, before each fault that Google's published retry cases know, and more.

Each method that we call x each fault x once, twice and for ever: retried and right, or an error that is the output's
fault and not the job's (OutputUnavailable), after which the same call is right again. Names of methods and faults are
those of googleapis/conformance-tests, storage/v1/retry_tests.json. Of its scenarios, `storage.objects.get`, `list`,
`insert`, `delete` and `rewrite` are ours; all of our writes have a precondition; we call nothing else.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import google.cloud.storage.blob
import google.cloud.storage.retry
import pytest

import promptmill.producer.outputs.gcs as gcs
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output, OutputError, OutputRefused, OutputUnavailable, Put
from tests.fake_gcs import FakeGcs
from tests.faulty_wire import FOR_EVER, FaultyWire, faulty_wire

DATA = bytes(range(256)) * 4
ONE_REQUEST = 1 << 18  # what is more goes piece by piece: less than really, so that many cases are soon over
LARGE = bytes(range(256)) * (ONE_REQUEST // 256 + 1)


@dataclass(frozen=True)
class Use:
    """A call of ours, which is `right` when it returns True, and the API's method in it that is to fail."""

    method: str
    right: Callable[[Output], bool]


def _put(output: Output, name: str, data: bytes) -> bool:
    put = output.put_once(name, data)
    return put in (Put.CREATED, Put.ADOPTED) and output.get(name) == data


def _open(output: Output) -> bool:
    assert isinstance(output, gcs.Bucket)
    with output.open("there") as file:
        return file.read() == DATA


def _reach(output: Output) -> bool:
    output.reach()
    return True


def _move(output: Output) -> bool:
    if output.exists("from"):  # else an earlier try has moved it, and nobody heard
        output.move("from", "to")
    return output.get("to") == DATA and not output.exists("from")


USES = {
    "put_once": Use("storage.objects.insert", lambda output: _put(output, "new", DATA)),
    "put_once of much, its beginning": Use("storage.objects.insert", lambda output: _put(output, "large", LARGE)),
    "put_once of much, a piece": Use("storage.objects.insert piece", lambda output: _put(output, "large", LARGE)),
    "put_once again": Use("storage.objects.insert", lambda output: output.put_once("there", DATA) is Put.ADOPTED),
    "get": Use("storage.objects.get media", lambda output: output.get("there") == DATA),
    "read": Use("storage.objects.get media", lambda output: output.read("there", 7, 500) == DATA[7:507]),
    "open": Use("storage.objects.get media", _open),
    "exists": Use("storage.objects.get", lambda output: output.exists("there") and not output.exists("nothing")),
    "metadata": Use("storage.objects.get", lambda output: output.metadata("there")["k"] == "v"),
    "list": Use("storage.objects.list", lambda output: {"there", "from"} <= set(output.list())),
    "scan": Use("storage.objects.list", lambda output: {one.size for one in output.scan("there")} == {len(DATA)}),
    "children": Use("storage.objects.list", lambda output: list(output.children()) == ["sub"]),
    "reach": Use("storage.objects.list", _reach),
    "move, its copy": Use("storage.objects.rewrite", _move),
    "move, its deletion": Use("storage.objects.delete", _move),
}  # fmt: skip
PASSING = (
    "return-408", "return-429", "return-500", "return-502", "return-503", "return-504",
    "return-reset-connection", "return-broken-stream", "stall", "lost answer",
)  # fmt: skip
QUICK = ("return-503", "return-reset-connection", "return-broken-stream", "lost answer")
"""One of each kind; the others run with the slow tests."""
CASES = [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in PASSING]
WRITES = ("storage.objects.insert", "storage.objects.rewrite", "storage.objects.delete")


@pytest.fixture(scope="module")
def wire(fake_gcs: FakeGcs) -> Iterator[FaultyWire]:
    with faulty_wire(fake_gcs.port) as wire:
        yield wire


@pytest.fixture(scope="module")
def bucket(fake_gcs: FakeGcs) -> str:
    return fake_gcs.create_bucket(f"b{uuid.uuid4().hex}")


@pytest.fixture
def output(wire: FaultyWire, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Output]:
    """A prefix with some objects. Google's client retries as it does, but sooner; at last its writes are looked at."""
    monkeypatch.setattr(google.cloud.storage.blob, "_MAX_MULTIPART_SIZE", ONE_REQUEST)
    monkeypatch.setattr(gcs, "ONE_REQUEST_BYTES", ONE_REQUEST)
    quick = google.cloud.storage.retry.DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.05)
    monkeypatch.setattr(google.cloud.storage.retry, "DEFAULT_RETRY", quick)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", wire.url)
    wire.heal()
    output = open_output(f"{bucket}/{uuid.uuid4().hex}")
    output.put_once("there", DATA, metadata={"k": "v"})
    output.put_once("from", DATA)
    output.put_once("sub/one", DATA)
    wire.asked.clear()
    yield output
    wire.heal()
    bare = [path for method, path in wire.asked if method in WRITES and "ifGenerationMatch=" not in path]
    assert bare == [], "a write without a precondition must not be tried again"


@pytest.fixture
def stalls(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Where an answer never ends: wait less for it."""
    if "stall" in request.node.name:
        monkeypatch.setattr(gcs, "_REQUEST_TIMEOUT_SECONDS", (10, 0.5))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "_RETRY_SECONDS", 0.3)
    monkeypatch.setattr(gcs, "_CHECK_RETRY_SECONDS", 0.3)


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("fault", CASES)
@pytest.mark.parametrize("use", USES)
def test_what_passes_is_retried_and_right(
    output: Output, wire: FaultyWire, stalls: None, use: str, fault: str, times: int
):
    wire.inject(USES[use].method, fault, times=times)
    assert USES[use].right(output)
    assert wire.injected == times


@pytest.mark.parametrize("use", USES)
def test_a_reset_and_then_503_is_retried_and_right(output: Output, wire: FaultyWire, use: str):
    """The published cases' third one, of every method."""
    wire.inject(USES[use].method, "return-reset-connection", "return-503")
    assert USES[use].right(output)
    assert wire.injected == 2


@pytest.mark.parametrize("fault", CASES)
@pytest.mark.parametrize("use", USES)
def test_what_stays_is_the_outputs_fault_and_over_later(
    output: Output, wire: FaultyWire, stalls: None, impatient: None, use: str, fault: str
):
    wire.inject(USES[use].method, fault, times=FOR_EVER)
    with pytest.raises(OutputUnavailable):
        USES[use].right(output)
    wire.heal()
    assert USES[use].right(output)


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_bytes_that_differ_are_read_again(output: Output, wire: FaultyWire, times: int):
    """Of a whole object: a part has no checksum, and whoever reads in parts holds the whole against its digest."""
    wire.inject("storage.objects.get media", "corrupt", times=times)
    assert output.get("there") == DATA
    assert wire.injected == times


def test_bytes_that_always_differ_are_the_outputs_fault(output: Output, wire: FaultyWire):
    wire.inject("storage.objects.get media", "corrupt", times=FOR_EVER)
    with pytest.raises(OutputUnavailable, match="do not match their checksum"):
        output.get("there")


@pytest.mark.parametrize("fault", ["return-400", "return-401"])
@pytest.mark.parametrize("use", USES)
def test_what_does_not_pass_is_said_at_once(output: Output, wire: FaultyWire, use: str, fault: str):
    wire.inject(USES[use].method, fault, times=FOR_EVER)
    with pytest.raises(OutputError) as refusal:
        USES[use].right(output)
    assert wire.injected == 1
    assert isinstance(refusal.value, OutputRefused) == (fault == "return-401"), "400 is about this object"
    assert not isinstance(refusal.value, OutputUnavailable)


@pytest.mark.parametrize("fault", ["return-404", "return-410"])
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_an_upload_whose_session_is_forgotten_begins_anew(output: Output, wire: FaultyWire, fault: str, times: int):
    use = USES["put_once of much, a piece"]
    wire.inject(use.method, fault, times=times)
    assert use.right(output)
    assert wire.injected == times


def test_every_method_that_the_client_has_called_is_in_the_table(output: Output, wire: FaultyWire):
    for use in USES.values():
        use.right(output)
    called: set[Any] = {method for method, _ in wire.asked}
    assert called == {use.method for use in USES.values()}
