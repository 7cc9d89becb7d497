"""Temporary folders of processes that are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from promptmill.producer.scratch import scratch_folder, sweep

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no flock")

HOLD = """
import sys
from pathlib import Path
from promptmill.producer.scratch import scratch_folder
with scratch_folder("test", Path(sys.argv[1])) as scratch:
    (scratch.folder / "log").write_text("words")
    {more}
    print(scratch.folder, flush=True)
    sys.stdin.read()
"""
CHILD = """
    import subprocess
    subprocess.Popen(['sleep', '600'], pass_fds=[scratch.lock], stdin=-3, stdout=-3, stderr=-3)  # DEVNULL
"""


def hold(parent: Path, more: str = "") -> tuple[subprocess.Popen[str], Path]:
    """A process that has a scratch folder, and the folder."""
    command = [sys.executable, "-c", HOLD.format(more=more.strip()), str(parent)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    process.communicate()


def test_a_folder_goes_with_its_block(tmp_path: Path):
    with scratch_folder("test", tmp_path) as scratch:
        assert scratch.folder.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_and_a_living_ones_stays(tmp_path: Path):
    (dead, its), (living, other) = hold(tmp_path), hold(tmp_path)
    os.utime(other, (0, 0))  # as old as can be
    end(dead, signal.SIGKILL)
    assert its.exists()
    with scratch_folder("test", tmp_path):
        assert not its.exists()
        assert (other / "log").read_text() == "words"
    end(living, signal.SIGKILL)


def test_a_child_that_inherited_the_lock_keeps_the_folder(tmp_path: Path):
    process, folder = hold(tmp_path, CHILD)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("Linux tells who a process's children are")
    (child,) = map(int, children.read_text().split())
    end(process, signal.SIGKILL)
    sweep(tmp_path)
    assert folder.exists()
    os.kill(child, signal.SIGKILL)
    while folder.exists():  # until the kernel has closed its files
        sweep(tmp_path)


def test_what_somebody_was_told_of_stays(tmp_path: Path):
    with scratch_folder("test", tmp_path) as scratch:
        (scratch.folder / "log").write_text("why it failed")
        scratch.keep()
    sweep(tmp_path)
    assert (scratch.folder / "log").read_text() == "why it failed"


def test_folders_of_others_and_links_are_left_alone(tmp_path: Path):
    there = tmp_path / "elsewhere"
    there.mkdir()
    for name in ("lock", "precious"):
        (there / name).touch()
    (tmp_path / "promptmill-link").symlink_to(there)
    (tmp_path / "promptmill-redis-1").mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "promptmill-link", "promptmill-redis-1"]
    assert (there / "precious").exists()
