"""What only a folder does: file systems of all kinds, killed writers, what stands in the way."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import (
    OutputConflict,
    OutputError,
    OutputRefused,
    OutputUnavailable,
    Put,
)
from tests.producer.outputs.race import WRITERS, entries, race


def test_without_hard_links_one_of_many_writers_creates(no_hard_links: None, tmp_path: Path) -> None:
    output = open_output(str(tmp_path))
    for name in "abcdef":
        told = race(lambda _, name=name: output.put_once(name, b"pixels" * 1000))  # type: ignore[misc]
        assert told == {Put.CREATED: 1, Put.ADOPTED: WRITERS - 1}
    with pytest.raises(OutputConflict):
        output.put_once("a", b"others")
    assert sorted(output.list()) == list("abcdef")


WRITE_MANY = """
import os, sys, time
from pathlib import Path
from promptmill.producer.outputs.output import Put
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.outputs.open import open_output
if sys.argv[2] == "rename":
    def refuse(source, target, **kwargs): raise PermissionError(1, "no hard links", str(source))
    os.link = refuse
if sys.argv[2] == "link" and hasattr(os, "O_TMPFILE"):
    del os.O_TMPFILE
output = open_output(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(sum(output.put_once(f"{i:03}", b"pixels" * i) is Put.CREATED for i in range(100)))
"""


@pytest.mark.parametrize("way", ["nameless", "link", "rename"])
def test_of_many_processes_one_creates_each_file(tmp_path: Path, way: str) -> None:
    command = [sys.executable, "-c", WRITE_MANY, str(tmp_path), way]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    created = [int(writer.communicate(timeout=300)[0]) for writer in writers]
    assert sum(created) == 100
    assert sorted(open_output(str(tmp_path)).list()) == [f"{i:03}" for i in range(100)]
    assert not [name for name in entries(tmp_path) if name.endswith(".tmp")]


DIE_BEFORE_LINK = """
import os, signal, sys
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.outputs.open import open_output
os.link = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "link" and hasattr(os, "O_TMPFILE"):
    del os.O_TMPFILE
open_output(sys.argv[1]).put_once("images/a.png", b"pixels")
"""


@pytest.mark.parametrize(("way", "left"), [("nameless", 0), ("link", 1)])
def test_a_writer_killed_before_the_name_is_given_leaves_nothing_visible(tmp_path: Path, way: str, left: int) -> None:
    if way == "nameless" and not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no nameless files")
    # Given a writer that died with its file written, but not yet named
    ended = subprocess.run([sys.executable, "-c", DIE_BEFORE_LINK, str(tmp_path), way], timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(entries(tmp_path)) == left
    # Then nobody sees it, and the next writer creates the image
    output = open_output(str(tmp_path))
    assert list(output.list()) == []
    assert not output.exists("images/a.png")
    assert output.put_once("images/a.png", b"pixels") is Put.CREATED
    assert list(output.list()) == ["images/a.png"]


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = open_output(str(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*/a: No space left on device"):
        output.put_once("a", b"pixels")
    assert entries(tmp_path) == set()


def test_files_are_readable_as_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        open_output(str(tmp_path)).put_once("a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for index in ("file", "file/run"):
        with pytest.raises(OutputRefused, match=r"cannot write into .*: .*/file is not a folder"):
            open_output(str(tmp_path / index)).check()
    with pytest.raises(OutputError, match=r"/file is not a folder") as refusal:
        open_output(str(tmp_path)).put_once("file/a", b"")
    assert not isinstance(refusal.value, OutputRefused), "other names in this output are not in its way"
    with pytest.raises(OutputRefused, match=r"/file is not a folder"):
        open_output(str(tmp_path / "file" / "run")).put_once("images/a", b"")
    with pytest.raises(OutputRefused, match=r"/file is not a folder"):
        list(open_output(str(tmp_path / "file")).list())


@pytest.mark.parametrize("in_its_place", ["a file", None])
def test_an_output_moved_away_in_the_middle_of_a_write_is_the_outputs_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_its_place: str | None
) -> None:
    """Seen: the file is written, the folder goes, and what link() then names is the number of a descriptor."""
    out = tmp_path / "out"
    link = os.link

    def late(source: str, target: Path, src_dir_fd: int) -> None:
        out.rename(tmp_path / "aside")
        if in_its_place:
            out.write_text(in_its_place)
        link(source, target, src_dir_fd=src_dir_fd)

    monkeypatch.setattr(os, "link", late)
    kind, word = (OutputRefused, f"{out} is not a folder") if in_its_place else (OutputUnavailable, "No such file")
    with pytest.raises(kind, match=word):
        open_output(str(out)).put_once("images/a.png", b"pixels")


def test_a_folder_that_cannot_be_written_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, so the refusal is the system call's.
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputRefused, match=r"cannot write into .*: Permission denied"):
        open_output(str(tmp_path)).check()


def test_a_file_system_that_turned_read_only_refuses_everything(tmp_path: Path) -> None:
    # A real one, mounted over the folder in a mount namespace of its own.
    (tmp_path / "out").mkdir()
    program = tmp_path / "put.py"
    program.write_text(
        "from promptmill.producer.outputs.open import open_output\n"
        "from promptmill.producer.outputs.output import OutputRefused\n"
        f"output = open_output({str(tmp_path / 'out')!r})\n"
        "try:\n    output.put_once('a/b', b'')\nexcept OutputRefused as error:\n    print(error)\n"
    )
    command = f"mount -t tmpfs -o ro none {tmp_path / 'out'} || exit 77; {sys.executable} -P {program}"
    answer = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False)
    if answer.returncode in (1, 77) and not answer.stdout and "Traceback" not in answer.stderr:
        pytest.skip(f"no mount namespace here: {answer.stderr}")
    assert "Read-only file system" in answer.stdout, answer.stderr


def test_something_unreadable_under_the_name_is_that_objects_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, mode: str = "r") -> object:
        if self.name == "a":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return io.FileIO(self, mode.replace("b", ""))

    (tmp_path / "a").write_bytes(b"theirs")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputConflict, match="cannot be read"):
        open_output(str(tmp_path)).put_once("a", b"oursss")


def test_without_hard_links_an_object_is_moved_too(no_hard_links: None, tmp_path: Path) -> None:
    output = open_output(str(tmp_path))
    output.put_once("one", b"text")
    output.move("one", "aside/one")
    assert list(output.list()) == ["aside/one"]
