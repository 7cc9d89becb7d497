"""What every output promises, shown on a folder and on a bucket in a real server."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from promptmill.producer.outputs.folder import Folder
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import (
    RESERVED,
    Existing,
    ObjectNotFound,
    Output,
    OutputConflict,
    OutputError,
    OutputUrlError,
    Put,
    check_name,
)
from tests.producer.outputs.race import WRITERS, race

# --- put_once --------------------------------------------------------------------------------------------


def test_what_was_put_can_be_read(output: Output) -> None:
    assert output.put_once("images/3f/3fa9.png", b"pixels", content_type="image/png") is Put.CREATED
    assert output.get("images/3f/3fa9.png") == b"pixels"
    assert output.exists("images/3f/3fa9.png")


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_the_same_bytes_again_are_adopted(output: Output, size: int) -> None:
    data = os.urandom(size)
    assert output.put_once("a", data) is Put.CREATED
    assert output.put_once("a", data) is Put.ADOPTED
    assert output.get("a") == data


@pytest.mark.parametrize("other", [b"pixelz", b"pixels, more of them"])
def test_other_bytes_conflict_and_are_left_alone(output: Output, other: bytes) -> None:
    output.put_once("a", b"pixels")
    with pytest.raises(OutputConflict, match=r"/a is taken by something else \(6 bytes there"):
        output.put_once("a", other)
    assert output.get("a") == b"pixels"


def test_other_bytes_of_the_same_job_are_adopted(output: Output) -> None:
    # Given an image that another kind of device rendered: the same job, a few other bits
    output.put_once("a", b"job=1 pixels", metadata={"job": "1"})
    seen: list[Existing] = []

    def same_job(there: Existing) -> bool:
        seen.append(there)
        return there.read().startswith(b"job=1 ")

    assert output.put_once("a", b"job=1 pixelz!", ours=same_job) is Put.ADOPTED
    assert output.get("a") == b"job=1 pixels"
    assert [there.size for there in seen] == [12]
    assert seen[0].metadata.get("job") == ("1" if output.url.startswith("gs://") else None)
    with pytest.raises(OutputConflict):
        output.put_once("a", b"job=2 pixels", ours=lambda there: b"job=2" in there.read())


def test_of_many_writers_one_creates(output: Output) -> None:
    for name in ("a", "b", "c/d/e"):
        told = race(lambda _, name=name: output.put_once(name, b"pixels" * 1000))  # type: ignore[misc]
        assert told == {Put.CREATED: 1, Put.ADOPTED: WRITERS - 1}


def test_of_many_writers_of_different_bytes_one_wins_and_is_whole(output: Output) -> None:
    def write(writer: int) -> Put:
        try:
            return output.put_once("a", b"%02d" % writer * 50_000)
        except OutputConflict:
            return Put.ADOPTED

    assert race(write) == {Put.CREATED: 1, Put.ADOPTED: WRITERS - 1}
    data = output.get("a")
    assert data == data[:2] * 50_000


def test_there_is_nothing_where_nothing_was_put(output: Output) -> None:
    output.put_once("a/b", b"1")
    for name in ("c", "a", "a/b/c"):
        assert not output.exists(name)
        with pytest.raises(ObjectNotFound, match=f"there is no .*{name}"):
            output.get(name)


def test_a_part_is_read(output: Output) -> None:
    output.put_once("a", b"0123456789")
    output.put_once("empty", b"")
    parts = [(0, 3), (8, 2), (8, 100), (10, 1), (99, 1), (4, 0)]
    assert [output.read("a", start, length) for start, length in parts] == [b"012", b"89", b"89", b"", b"", b""]
    assert output.read("empty", 0, 5) == b""
    with pytest.raises(ObjectNotFound, match=r"there is no .*b"):
        output.read("b", 0, 1)


# --- put_file, read --------------------------------------------------------------------------------------

LARGE = 20 << 20  # bytes: more than a bucket's client sends in one request


def file_of(tmp_path: Path, size: int, seed: int = 0) -> Path:
    path = tmp_path / f"{size}-{seed}"
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


@pytest.mark.parametrize("size", [0, 5, LARGE])
def test_a_file_is_written_once_and_read_in_parts(output: Output, tmp_path: Path, size: int) -> None:
    path = file_of(tmp_path, size)
    assert output.put_file("data/00000.tar", path, content_type="application/x-tar") is Put.CREATED
    assert output.get("data/00000.tar") == path.read_bytes()
    assert output.read("data/00000.tar", size // 2, 100) == path.read_bytes()[size // 2 :][:100]
    assert output.put_file("data/00000.tar", path) is Put.ADOPTED
    assert output.put_once("data/00000.tar", path.read_bytes()) is Put.ADOPTED


@pytest.mark.parametrize("size", [5, LARGE])
def test_a_file_takes_nobodys_name(output: Output, tmp_path: Path, size: int) -> None:
    there, other = file_of(tmp_path, size), file_of(tmp_path, size, seed=1)
    output.put_file("a", there)
    with pytest.raises(OutputConflict, match="taken by something else"):
        output.put_file("a", other)
    assert output.get("a") == there.read_bytes()
    assert output.put_file("a", other, ours=lambda existing: existing.size == size) is Put.ADOPTED


def test_of_many_writers_of_different_files_one_wins_and_is_whole(output: Output, tmp_path: Path) -> None:
    files = [file_of(tmp_path, 100_000, seed) for seed in range(WRITERS)]

    def write(writer: int) -> Put:
        try:
            return output.put_file("a", files[writer])
        except OutputConflict:
            return Put.ADOPTED

    assert race(write) == {Put.CREATED: 1, Put.ADOPTED: WRITERS - 1}
    assert output.get("a") in [file.read_bytes() for file in files]


def test_a_file_that_is_not_there_is_named(output: Output, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot read .*/nothing: No such file"):
        output.put_file("a", tmp_path / "nothing")
    assert not output.exists("a")


# --- what is broken --------------------------------------------------------------------------------------


def test_a_broken_object_is_replaced_and_a_good_one_is_not(output: Output) -> None:
    def cut(there: Existing) -> bool:
        return not there.read().endswith(b"end")

    output.put_once("a", b"begin")
    assert output.put_once("a", b"begin, end", broken=cut) is Put.REPLACED
    assert output.get("a") == b"begin, end"
    with pytest.raises(OutputConflict):
        output.put_once("a", b"another end", broken=cut)
    assert output.get("a") == b"begin, end"


def test_of_many_writers_who_find_it_broken_none_breaks_it_again(output: Output) -> None:
    output.put_once("a", b"cut")

    def write(_: int) -> Put:
        return output.put_once("a", b"whole" * 10_000, broken=lambda there: there.read() == b"cut")

    told = race(write)
    assert told[Put.REPLACED] >= 1
    assert told[Put.REPLACED] + told[Put.ADOPTED] == WRITERS
    assert output.get("a") == b"whole" * 10_000


# --- names -----------------------------------------------------------------------------------------------

BAD_NAMES = ["", "/a", "a/", "a//b", "../a", "a/../../b", "a/.", "a\\b", "a\0b", "a\nb", f"a/{RESERVED}x"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_cannot_leave_the_output(output: Output, name: str) -> None:
    for use in (output.get, output.exists, output.child, lambda name: output.put_once(name, b"")):
        with pytest.raises(OutputUrlError, match="object name"):
            use(name)


def test_a_name_may_be_in_any_script(output: Output) -> None:
    assert check_name("赤い りんご (1)%20?#.png")
    output.put_once("赤い りんご (1)%20?#.png", b"1")
    assert output.get("赤い りんご (1)%20?#.png") == b"1"
    assert list(output.list()) == ["赤い りんご (1)%20?#.png"]


# --- list, child, check ----------------------------------------------------------------------------------


def test_listing_by_prefix(output: Output) -> None:
    assert list(output.list()) == []
    for name in ("run.json", "plan/0", "plan/1", "images/3f/3f0", "images/3f/3f1", "images/40/400"):
        output.put_once(name, b"")
    assert sorted(output.list("plan/")) == ["plan/0", "plan/1"]
    assert sorted(output.list("images/3f/3f")) == ["images/3f/3f0", "images/3f/3f1"]
    assert sorted(output.list("images/4")) == ["images/40/400"]
    assert sorted(output.list("r")) == ["run.json"]
    assert len(list(output.list())) == 6
    assert list(output.list("nowhere/")) == list(output.list("../")) == []


def test_a_scan_tells_sizes_and_a_buckets_metadata(output: Output) -> None:
    output.put_once("images/a", b"12345", metadata={"job_id": "3fa9", "promptmill": "the whole job"})
    output.put_once("plan/0", b"")
    (listed,) = output.scan("images/")
    assert (listed.name, listed.size) == ("images/a", 5)
    if output.url.startswith("gs://"):
        assert (listed.metadata["job_id"], listed.intact) == ("3fa9", True)


def test_a_child_is_a_folder_inside(output: Output) -> None:
    run = output.child("run-1")
    assert run.url == f"{output.url}/run-1"
    run.put_once("run.json", b"{}")
    assert output.get("run-1/run.json") == b"{}"
    assert list(run.list()) == ["run.json"]
    assert list(output.child("run").list()) == []
    assert open_output(run.url).get("run.json") == b"{}"


def test_the_children_that_hold_something_are_found_by_prefix(output: Output) -> None:
    assert list(output.children()) == []
    for name in ("cats-1/run.json", "cats-1/plan/0", "cats-2/run.json", "dogs/run.json", "cats.txt"):
        output.put_once(name, b"")
    assert sorted(output.children("cats")) == ["cats-1", "cats-2"]
    assert sorted(output.children()) == ["cats-1", "cats-2", "dogs"]
    assert list(output.child("cats-1").children()) == ["plan"]


def test_a_usable_place_passes_the_check_and_stays_empty(output: Output) -> None:
    output.check()
    output.check()
    assert list(output.list()) == []


# --- move, metadata, checksums ---------------------------------------------------------------------------


def test_a_moved_object_has_its_bytes_and_its_new_name_alone(output: Output) -> None:
    output.put_once("a/b.txt", b"text", metadata={"job_id": "7"})
    output.move("a/b.txt", "set-aside/0001/a/b.txt")
    assert list(output.list()) == ["set-aside/0001/a/b.txt"]
    assert output.get("set-aside/0001/a/b.txt") == b"text"
    (listed,) = output.scan()
    assert listed.metadata.get("job_id") == (None if isinstance(output, Folder) else "7")
    assert output.put_once("a/b.txt", b"other") is Put.CREATED


def test_nothing_is_moved_onto_what_is_there(output: Output) -> None:
    for name in ("one", "two"):
        output.put_once(name, name.encode())
    with pytest.raises(OutputConflict, match="two is taken; both are left as they are"):
        output.move("one", "two")
    assert (output.get("one"), output.get("two")) == (b"one", b"two")
    with pytest.raises(ObjectNotFound):
        output.move("three", "four")
    assert not output.exists("four")


def test_a_move_that_was_killed_between_its_two_steps_goes_on(output: Output) -> None:
    output.put_once("one", b"text", metadata={"job_id": "7"})
    if isinstance(output, Folder):
        os.link(output.root / "one", output.root / "two")
    else:
        output.put_once("two", b"text", metadata={"job_id": "7"})
    output.move("one", "two")
    assert list(output.list()) == ["two"]
    assert output.get("two") == b"text"


def test_an_object_is_not_moved_onto_itself(output: Output) -> None:
    output.put_once("one", b"text")
    with pytest.raises(OutputConflict, match="one is taken; both are left as they are"):
        output.move("one", "one")
    assert output.get("one") == b"text"


def test_of_many_who_move_an_object_one_does(output: Output) -> None:
    output.put_once("one", b"text")

    def move(number: int) -> bool:
        try:
            output.move("one", f"aside/{number}")
        except ObjectNotFound:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as threads:
        moved = list(threads.map(move, range(WRITERS)))
    assert any(moved)
    assert not output.exists("one")
    assert all(output.get(name) == b"text" for name in output.list())


def test_short_metadata_are_kept_and_come_along(output: Output) -> None:
    told = {"worker": "promptmill-1@here", "render_s": "1.250"}
    output.put_once("one", b"text", metadata={**told, "long": "x" * 1000})
    output.move("one", "two")
    found = dict(output.metadata("two"))
    if isinstance(output, Folder) and not found:
        pytest.skip("a file system without extended attributes")
    assert {name: found.get(name) for name in told} == told
    assert ("long" in found) is not isinstance(output, Folder)
    assert output.get("two") == b"text"
    with pytest.raises(ObjectNotFound):
        output.metadata("one")


def test_a_scan_tells_a_buckets_own_checksum(output: Output) -> None:
    output.put_once("one", b"123456789")
    (listed,) = output.scan()
    assert listed.crc32c == (None if isinstance(output, Folder) else "4waSgw==")  # 0xe3069283, the sum's check value
