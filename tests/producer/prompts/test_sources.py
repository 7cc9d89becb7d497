"""Where prompt files lie: packed, several, patterns, streams, buckets, the hub; and what they cost in memory."""

import contextlib
import gzip
import json
import os
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import promptmill.producer.outputs.gcs
from promptmill.producer.errors import PromptFileError
from promptmill.producer.outputs.open import open_output
from promptmill.producer.prompts.files import Reading, read_prompt_files
from tests.fake_gcs import FakeGcs
from tests.gcs_wire import Answer, Wire
from tests.producer.outputs.test_gcs import wire
from tests.producer.prompts.formats import PACK, in_format, prompts, read, said

__all__ = ["wire"]

# --- packed ----------------------------------------------------------------------------------------------

MANY = "".join(f"prompt {n} {uuid.UUID(int=n * 7919**9 % 2**128)}\n" for n in range(5000)).encode()


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_packed_file_that_is_cut_anywhere_is_told(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"a.txt{packed}"
    whole = PACK[packed](MANY)
    for end in (*range(1, 40), len(whole) // 2, len(whole) - 5, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(PromptFileError, match=f"^{path}: cannot be read to its end: "):
            read(path)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_what_is_not_packed_is_told(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"a.txt{packed}"
    path.write_bytes(b"a cat\n")
    with pytest.raises(PromptFileError, match=f"^{path}: cannot be read"):
        read(path)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_packed_files_one_after_another_are_one_file(tmp_path: Path, packed: str) -> None:
    """As `cat a.gz b.gz` and parallel packers make them."""
    path = tmp_path / f"a.txt{packed}"
    path.write_bytes(b"".join(PACK[packed](text) for text in (b"one\ntw", b"", b"o\n", MANY)))
    assert len(read(path)) == 5002
    assert prompts(read(path))[:2] == ["one", "two"]


# --- several, patterns, formats --------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "sub/c.txt", "d.jsonl", "[e].txt", "sub/deep/f.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"prompt": "d"}) if name == "d.jsonl" else f"prompt of {name}")
    return tmp_path


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["[ab].txt"], "ab"),
        (["?.txt"], "ab"),
        (["**/*.txt"], "[abcf"),
        (["d.jsonl", "b.txt", "b.txt"], "dbb"),
        (["[e].txt"], "["),
    ],
)
def test_patterns_are_read_in_order(folder: Path, names: list[str], found: str) -> None:
    read_in = prompts(read(*[folder / name for name in names]))
    assert [prompt.removeprefix("prompt of ").rpartition("/")[2][0] for prompt in read_in] == list(found)


def test_each_row_comes_with_its_file(folder: Path) -> None:
    names = [name for name, _ in read_prompt_files([f"{folder}/?.txt"])]
    assert names == [f"{folder}/a.txt", f"{folder}/b.txt"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("*.csv", "no file has such a name"),
        ("s*", "no file has such a name"),
        ("sub", "is a folder, not a prompt file; .*/sub/\\*.txt are those in it"),
        ("\0*", "cannot be read: its name has a NUL"),
    ],
)
def test_a_pattern_that_finds_nothing_is_told(folder: Path, name: str, problem: str) -> None:
    with pytest.raises(PromptFileError, match=problem):
        read(folder / name)


def test_all_files_are_looked_for_before_the_first_is_read(folder: Path) -> None:
    with pytest.raises(PromptFileError, match="no such file"):
        read_prompt_files([f"{folder}/a.txt", f"{folder}/missing.txt"])
    (folder / "a.doc").touch()
    with pytest.raises(PromptFileError, match=r"a.doc: is not a known prompt file"):
        read_prompt_files([f"{folder}/a.txt", f"{folder}/a.doc"])


@pytest.mark.parametrize("name", ["prompts", "a.dat", "a.dat.gz", "a.gz"])
def test_a_format_may_be_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(PACK[".gz" if name.endswith(".gz") else ""](b"prompt,seed\na cat,7\n"))
    with pytest.raises(PromptFileError, match="is not a known prompt file"):
        read(path)
    assert said(read(path, format="csv")) == [({"prompt": "a cat", "seed": 7}, {})]
    assert said(read(path, format=".CSV")) == [({"prompt": "a cat", "seed": 7}, {})]


# --- streams ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def fed(chunks: Iterable[bytes], take: Callable[[int], object]) -> Iterator[None]:
    """Writes chunks into a pipe, each as soon as it may, while the block runs; `take` is given the other end."""
    out, into = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(into, "wb", buffering=0) as pipe:
            for chunk in chunks:
                pipe.write(chunk)

    thread = threading.Thread(target=feed)
    take(out)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(
    ("chunks", "given", "expected"),
    [
        ([b"a cat\na dog"], None, ["a cat", "a dog"]),
        ([b"{red|blue} cat\n"], None, ["{red|blue} cat"]),
        ([b"\xef\xbb\xbf", b"\n \n", b"{", b'"prompt": ', b'"a cat"}'], None, ["a cat"]),
        ([b"prompt\n", b"a cat\n"], "csv", ["a cat"]),
        (["\ufeffa cat\n".encode("utf-16-le")[at : at + 1] for at in range(14)], None, ["a cat"]),
        ([in_format(".parquet", [{"prompt": "a cat"}])], "parquet", ["a cat"]),
        ([gzip.compress(b"a cat\n")], "txt.gz", ["a cat"]),
        ([zstandard.compress(in_format(".parquet", [{"prompt": "a cat"}]))], "parquet.zst", ["a cat"]),
        ([], None, []),
        ([b"a"], None, ["a"]),
    ],
)
def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, chunks: list[bytes], given: str | None, expected: list[str]
) -> None:
    with fed(chunks, lambda out: monkeypatch.setattr("sys.stdin", os.fdopen(out))):
        assert prompts(read("-", format=given)) == expected


def test_a_shells_pipe_is_a_stream(tmp_path: Path) -> None:
    """As in `promptmill submit <(generate)`."""
    os.mkfifo(tmp_path / "63")
    thread = threading.Thread(target=lambda: (tmp_path / "63").write_text('{"prompt": "a cat"}\n'))
    thread.start()
    assert prompts(read(tmp_path / "63")) == ["a cat"]
    thread.join()


def test_wrong_rows_of_standard_input_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with fed([b"a cat\n\x00\n"], lambda out: monkeypatch.setattr("sys.stdin", os.fdopen(out))):
        _, wrong = read("-")
    assert str(wrong) == "stdin:2: prompt: has a control character (U+0000) at character 1"


# --- buckets ---------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(wire: Wire, fake_gcs: FakeGcs) -> str:
    return fake_gcs.create_bucket(f"b{uuid.uuid4().hex}")


def put(url: str, **objects: bytes) -> None:
    for name, data in objects.items():
        open_output(url).put_once(name, data)


def test_a_bucket_has_prompt_files_of_every_kind(bucket: str) -> None:
    rows = [{"prompt": "a cat", "seed": 7}]
    for suffix in (".jsonl", ".csv", ".parquet"):
        for packed, pack in PACK.items():
            name = f"in/a{suffix}{packed}"
            put(bucket, **{name: pack(in_format(suffix, rows))})
            assert said(read(f"{bucket}/{name}")) == [({"prompt": "a cat", "seed": 7}, {})], name


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("in/*.txt", ["a", "b"]),
        ("in/**/*.txt", ["a", "b", "c"]),
        ("**/c.txt", ["c"]),
        ("*/[b].txt", ["b"]),
        ("in/[x].txt.gz", ["x"]),
    ],
)
def test_patterns_in_a_bucket(bucket: str, pattern: str, found: list[str]) -> None:
    names = {"in/b.txt": b"b", "in/a.txt": b"a", "in/sub/c.txt": b"c", "other/d.csv": b"", "in/[x].txt.gz": b""}
    put(bucket, **names | {"in/[x].txt.gz": gzip.compress(b"x")})
    assert prompts(read(f"{bucket}/{pattern}")) == found


@pytest.mark.parametrize(
    ("name", "problem"),
    [("/in/c.txt", "no such object"), ("/in/*.csv", "no such object"), ("", "expected gs://bucket/object")],
)
def test_an_object_that_is_not_there_is_told(bucket: str, name: str, problem: str) -> None:
    with pytest.raises(PromptFileError) as caught:
        read(bucket + name)
    assert str(caught.value) == f"{bucket}{name}: {problem}"


def test_a_missing_bucket_is_told(wire: Wire) -> None:
    with pytest.raises(PromptFileError, match=r"^gs://nowhere/a.txt: "):
        read("gs://nowhere/a.txt")
    with pytest.raises(PromptFileError, match=r'^gs://nowhere/.*bucket "nowhere" does not exist'):
        read("gs://nowhere/*.txt")


def test_an_object_is_read_in_pieces(bucket: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promptmill.producer.outputs.gcs, "_READ_BYTES", 50_000)
    put(bucket, **{"a.txt": MANY})
    rows = read_prompt_files([f"{bucket}/a.txt"])
    next(rows)
    first = sum("alt=media" in request for request in wire.requests)
    assert 1 + sum(1 for _ in rows) == 5000
    pieces = sum("alt=media" in request for request in wire.requests)
    assert first < len(MANY) // 50_000 <= pieces


def test_an_object_that_is_written_anew_meanwhile_is_not_mixed(
    bucket: str, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promptmill.producer.outputs.gcs, "_READ_BYTES", 50_000)
    put(bucket, **{"a.txt": MANY})
    rows = read_prompt_files([f"{bucket}/a.txt"])
    next(rows)
    output = open_output(bucket)
    assert isinstance(output, promptmill.producer.outputs.gcs.Bucket)
    output.client.bucket(output.bucket).blob("a.txt").upload_from_string(MANY.upper())
    with pytest.raises(PromptFileError, match=r"a.txt: cannot be read: .* was deleted or written anew while"):
        list(rows)


def test_a_refusal_while_reading_is_a_sentence(bucket: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: str, answer: Answer) -> Answer:
        return (403, b"{}") if "alt=media" in request else answer

    put(bucket, **{"a.txt": b"a cat"})
    wire.interfere = refuse
    with pytest.raises(PromptFileError, match=f"^{bucket}/a.txt: cannot be read: .*roles/storage.objectUser"):
        read(f"{bucket}/a.txt")


# --- the hub ---------------------------------------------------------------------------------------------


def has_datasets() -> bool:
    try:
        import datasets  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.skipif(has_datasets(), reason="datasets is installed")
def test_the_hub_is_a_sentence_without_its_library() -> None:
    with pytest.raises(PromptFileError, match=r"^hf://owner/name: .*pip install datasets"):
        read("hf://owner/name")


@pytest.mark.skipif(not has_datasets(), reason="needs datasets")
def test_a_dataset_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library looks for a folder of that name before it asks the hub."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        path = tmp_path / "owner" / "name" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(in_format(".parquet", [{"text": f"a {split} cat", "seed": 7, "by": "ann", "pic": b"\xff"}]))
    for query, split in (("", "train"), ("?split=test", "test")):
        rows = read(f"hf://owner/name{query}", columns={"prompt": "text"})
        assert said(rows) == [({"prompt": f"a {split} cat", "seed": 7}, {"by": "ann"})]
    assert prompts(read("hf://owner/name")) == ["a train cat"]  # `text` is a name for prompts
    with pytest.raises(PromptFileError, match=r"^hf://owner/name: pic2: no such column"):
        read("hf://owner/name", columns={"prompt": "pic2"})
    with pytest.raises(PromptFileError, match=r"^hf://owner/name.split=none: cannot be read: "):
        read("hf://owner/name?split=none")


# --- memory ----------------------------------------------------------------------------------------------

ROWS = 40_000


def stream(line: Callable[[int], str], header: str = "") -> Iterator[bytes]:
    yield header.encode()
    for start in range(0, ROWS, 1000):
        yield "".join(f"{line(n)}\n" for n in range(start, start + 1000)).encode()


@pytest.mark.parametrize(
    ("given", "line", "header"),
    [
        ("txt", lambda n: f"a photograph of object number {n} on a wooden table, soft light", ""),
        ("jsonl", lambda n: json.dumps({"prompt": f"object number {n}", "seed": n, "author": f"ann {n}"}), ""),
        ("csv", lambda n: f'"object, number {n} on a wooden table",{n},ann {n}', "prompt,seed,author\n"),
    ],
)
def test_memory_is_flat_over_a_stream(
    monkeypatch: pytest.MonkeyPatch, given: str, line: Callable[[int], str], header: str
) -> None:
    with fed(stream(line, header), lambda out: monkeypatch.setattr("sys.stdin", os.fdopen(out))):
        tracemalloc.start()
        assert sum(1 for _ in read_prompt_files(["-"], Reading(format=given))) == ROWS
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_memory_is_flat_whatever_a_file_unpacks_to(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"a.jsonl{packed}"
    path.write_bytes(PACK[packed]((b" " * 1023 + b"\n") * (40 << 10)))
    assert path.stat().st_size < 1 << 18
    tracemalloc.start()
    assert read(path) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


def test_memory_is_flat_over_parquet(tmp_path: Path) -> None:
    texts = [f"{uuid.UUID(int=n * 7919**9 % 2**128)}" * 2 for n in range(200_000)]
    table = pa.table({"prompt": texts, "jpg": [b"x" * 100] * len(texts)})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="NONE", row_group_size=len(texts))
    size = (tmp_path / "a.parquet").stat().st_size
    del table, texts
    before, most = pa.total_allocated_bytes(), 0
    for _ in read_prompt_files([str(tmp_path / "a.parquet")]):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 6 << 20 < size / 5


def test_files_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"a cat\na dog\n"))
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    rows = read_prompt_files([str(path)])
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
