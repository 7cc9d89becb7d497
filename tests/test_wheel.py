"""What is in the wheel: `promptmill/` and nothing else at its top, with the rooms that stand beside it here."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_holds_promptmill_alone_with_all_of_its_rooms(tmp_path: Path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"promptmill"}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    modules = [
        name
        for name in listed
        if name.startswith(("producer/", "worker/", "dataset/")) and not name.endswith("README.md")
    ]
    assert len(modules) > 100
    assert {f"promptmill/{name}" for name in modules} <= names
