"""A user's folder with files named as our rooms, the standard library's modules and our dependencies are named."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

OURS = ["worker", "producer", "dataset", "redis", "celery", "jax", "click", "numpy"]
NAMES = {*OURS, *sys.stdlib_module_names}
SPOILED = """
import pathlib
pathlib.Path("executed").write_text(__file__)
raise SystemExit("a file of the user was executed")
"""

AS_A_SCRIPT = (str(Path(sys.executable).with_name("promptmill")),)
AS_A_MODULE = (sys.executable, "-m", "promptmill")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(SPOILED)
    (tmp_path / "cats.txt").write_text("a cat\nanother cat\n")
    return tmp_path


def run(folder: Path, *command: str) -> str:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert not (folder / "executed").exists()
    return ran.stdout


def test_the_files_would_be_executed_by_a_plain_import(folder: Path):
    """So that the tests below can fail."""
    subprocess.run([sys.executable, "-m", "worker"], cwd=folder, capture_output=True)
    assert (folder / "executed").exists()


@pytest.mark.parametrize("command", [AS_A_SCRIPT, AS_A_MODULE], ids=["promptmill", "python -m promptmill"])
def test_a_verb_executes_no_file_of_the_users_folder(folder: Path, command: Sequence[str]):
    assert "cats" in run(folder, *command, "submit", "cats.txt", "--output", "out", "--dry-run")


@pytest.mark.slow
@pytest.mark.parametrize("command", [AS_A_SCRIPT, AS_A_MODULE], ids=["promptmill", "python -m promptmill"])
def test_render_and_its_worker_execute_no_file_of_the_users_folder(folder: Path, command: Sequence[str]):
    run(folder, *command, "render", "cats.txt", "--output", "out", "--model", "tiny-random", "--steps", "1")
    assert len(list((folder / "out").rglob("images/*/*.png"))) == 2
