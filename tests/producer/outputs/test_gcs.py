"""What only a bucket does: lost answers, lists in pages, metadata, and errors that a user understands."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import promptmill.producer.outputs.gcs
from promptmill.producer.outputs.gcs import MAX_METADATA_BYTES, Bucket
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import (
    Existing,
    Output,
    OutputError,
    OutputRefused,
    OutputUnavailable,
    OutputUrlError,
    Put,
)
from tests.fake_gcs import FakeGcs
from tests.gcs_wire import Answer, Wire, serve


@pytest.fixture
def wire(fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    with serve(fake_gcs.port) as wire:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", wire.url)
        yield wire


@pytest.fixture
def output(wire: Wire, fake_gcs: FakeGcs) -> Output:
    return open_output(fake_gcs.create_bucket(f"b{uuid.uuid4().hex}") + "/out")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promptmill.producer.outputs.gcs, "_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(promptmill.producer.outputs.gcs, "_CHECK_RETRY_SECONDS", 0.1)


# --- put_once --------------------------------------------------------------------------------------------


def test_a_write_whose_answer_was_lost_is_adopted(wire: Wire, output: Output) -> None:
    # Given a server that writes the object, and a network that loses its answer
    def lose_first_answer(request: str, answer: Answer) -> Answer | None:
        return None if len(wire.uploads()) == 1 and request in wire.uploads() else answer

    wire.interfere = lose_first_answer
    # When the client repeats the upload by itself, and is told 412
    told = output.put_once("a", b"pixels")
    # Then that is our own object
    assert told is Put.ADOPTED
    assert len(wire.uploads()) == 2
    assert output.get("a") == b"pixels"


def test_a_write_that_failed_for_a_moment_is_repeated(wire: Wire, output: Output) -> None:
    def busy_once(request: str, answer: Answer) -> Answer | None:
        return (503, b"busy") if len(wire.uploads()) == 1 and request in wire.uploads() else answer

    wire.interfere = busy_once
    assert output.put_once("a", b"pixels") is Put.ADOPTED


def test_a_412_without_an_object_is_an_error(wire: Wire, output: Output) -> None:
    def refuse(request: str, answer: Answer) -> Answer | None:
        if request.startswith("POST /upload/"):
            return 412, b"{}"
        return (404, b"{}") if request.startswith("GET") else answer

    wire.interfere = refuse
    with pytest.raises(OutputError, match="says it exists, yet it does not"):
        output.put_once("a", b"pixels")


def test_every_upload_is_one_request_with_the_precondition(wire: Wire, output: Output) -> None:
    output.put_once("a", b"x" * 8 * 2**20)
    (upload,) = wire.uploads()
    assert "uploadType=multipart" in upload
    assert "ifGenerationMatch=0" in upload


def test_more_than_a_multipart_upload_holds_is_written_too(wire: Wire, output: Output) -> None:
    data = bytes(range(256)) * 40_000
    output.put_once("a", data)
    assert "uploadType=resumable" in wire.uploads()[0]
    assert "ifGenerationMatch=0" in wire.uploads()[0]
    assert output.get("a") == data


def test_prompts_of_every_script_survive_in_the_metadata(output: Output) -> None:
    job = json.dumps({"prompt": 'A "red" apple,\n赤いリンゴ, تفاحة حمراء 🍎'}, ensure_ascii=False)
    seen: list[Existing] = []
    output.put_once("a", b"1", metadata={"promptmill": job})

    def look(there: Existing) -> bool:
        seen.append(there)
        return True

    output.put_once("a", b"2", ours=look)
    assert seen[0].metadata["promptmill"] == job
    assert seen[0].read() == output.get("a") == b"1"


def test_metadata_that_google_would_refuse_is_refused_here(wire: Wire, output: Output) -> None:
    # The test's server takes about 3,000 bytes only, so the answer is made up.
    wire.interfere = lambda request, answer: (200, b"{}")
    fits = "é" * ((MAX_METADATA_BYTES - 24) // 2)  # beside the keys and the checksum
    assert output.put_once("a", b"", metadata={"promptmill": fits}) is Put.CREATED
    with pytest.raises(OutputError, match="8194 bytes of metadata, and Google takes 8192"):
        output.put_once("b", b"", metadata={"promptmill": fits + "é"})
    assert len(wire.uploads()) == 1


# --- list ------------------------------------------------------------------------------------------------


def test_a_long_list_comes_in_pages(wire: Wire, fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more objects than a page holds
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    url = fake_gcs.create_bucket(f"b{uuid.uuid4().hex}")
    names = [f"images/{at % 256:02x}/{at}" for at in range(1100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: open_output(url).put_once(name, b""), names))
    # When the list is read, then one page is fetched first and the next when it is needed
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", wire.url)
    listed = open_output(url).list("images/")
    first = next(listed)
    assert len(wire.pages()) == 1
    assert sorted([first, *listed]) == sorted(names)
    assert len(wire.pages()) == 2


def test_the_folders_that_the_console_makes_are_no_objects(wire: Wire, output: Output) -> None:
    names = ["out/", "out/images/", "out/images/a"]
    page = json.dumps({"items": [{"name": name} for name in names]}).encode()
    wire.interfere = lambda request, answer: (200, page)
    assert list(output.list()) == ["images/a"]


# --- connections and errors ------------------------------------------------------------------------------


def test_all_outputs_share_one_client_that_has_a_connection_for_each_thread(wire: Wire) -> None:
    one, two = open_output("gs://one"), open_output("gs://two/prefix")
    assert isinstance(one, Bucket)
    assert isinstance(two, Bucket)
    assert one.client is two.client
    assert one.client._http.get_adapter("https://storage.googleapis.com")._pool_maxsize == 64
    few = open_output("gs://one", connections=3)
    assert isinstance(few, Bucket)
    assert few.client._http.get_adapter(wire.url)._pool_maxsize == 3


def test_a_missing_bucket_is_named(wire: Wire) -> None:
    output = open_output("gs://nowhere/run")
    said = 'bucket "nowhere" does not exist or cannot be seen'
    for use in (output.check, lambda: output.put_once("a", b""), lambda: list(output.list())):
        with pytest.raises(OutputRefused, match=said):
            use()


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "roles/storage.objectUser"), (401, "gcloud auth application-default login"), (400, "POST http")],
)
def test_a_refusal_is_said_at_once(wire: Wire, output: Output, status: int, said: str) -> None:
    wire.interfere = lambda request, answer: (status, b"{}")
    with pytest.raises(OutputError, match=said) as refusal:
        output.put_once("a", b"")
    assert not isinstance(refusal.value, OutputUnavailable)
    assert isinstance(refusal.value, OutputRefused) == (status != 400), "400 is about this object"
    assert len(wire.uploads()) == 1


def test_a_server_that_stays_down_is_unavailable(impatient: None, wire: Wire, output: Output) -> None:
    wire.interfere = lambda request, answer: (503, b"{}")
    uses = [
        output.check,
        lambda: output.put_once("a", b""),
        lambda: output.get("a"),
        lambda: list(output.list()),
    ]
    for use in uses:
        with pytest.raises(OutputUnavailable, match=f"no good answer from {wire.url}: .*(HTTP status )?503"):
            use()


def test_a_server_that_is_not_there_is_unavailable(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(OutputUnavailable, match=r"cannot use gs://a: no good answer from http://127\.0\.0\.1:9"):
        open_output("gs://a").check()


def test_an_emulator_without_a_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:4443")
    with pytest.raises(OutputUrlError, match="expected a URL such as http://localhost:4443"):
        open_output("gs://a")


def test_without_credentials_the_user_learns_how_to_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(OutputError, match="gcloud auth application-default login") as refusal:
        open_output("gs://a")
    assert "/nowhere/key.json" in str(refusal.value)
