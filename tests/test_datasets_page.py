"""README.md and docs/datasets.md: the way from a CSV to a dataset is gone as it stands there, command by command.

What differs from machine to machine is compared as a number that is there: seconds, rates, bytes. `...` on the page
stands for any lines.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WAY = re.compile(r"^```console\n(\$ promptmill submit examples/captions\.csv .*?)^```$", re.MULTILINE | re.DOTALL)
VOLATILE = re.compile(r"\d[\d,.]*(?= (?:s|images/s|bytes|kB)\b)")


def way_on(page: str) -> str:
    (block,) = WAY.findall((ROOT / page).read_text())
    return str(block)


def steps(block: str) -> list[tuple[str, list[str]]]:
    """Commands, and the lines under each."""
    parts = [part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, lines.splitlines()) for command, _, lines in parts]


def said_by(command: str, folder: Path) -> list[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PROMPTMILL_")}
    environ |= {"PATH": f"{Path(sys.executable).parent}:{environ['PATH']}", "HF_HOME": str(folder / "hf")}
    words = subprocess.STDOUT if command.startswith("promptmill ") else subprocess.PIPE  # a progress bar is no answer
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environ, check=False, stdout=subprocess.PIPE, stderr=words, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.replace(str(folder), "/home/you").splitlines()


def as_pattern(shown: list[str]) -> str:
    """What the page shows, as a pattern of what may be said; a run of under a second has no rate."""
    lines = [".*" if line == "..." else re.escape(VOLATILE.sub("N", line)) for line in shown]
    rate = re.escape(" (N images/s between them)")
    return "\n".join(lines).replace("\\\n", "\n").replace(rate, f"({rate})?")


def test_both_pages_show_the_same_way_in_six_commands():
    way = way_on("docs/datasets.md")
    assert way_on("README.md") == way
    commands = [command for command, _ in steps(way)]
    assert [command.split()[1] for command in commands[:5]] == ["submit", "render", "pack", "verify", "push"]
    assert len(commands) == 6 and "load_dataset" in commands[5]


@pytest.mark.slow
def test_the_way_from_a_csv_to_a_dataset_is_gone_as_it_stands(tmp_path: Path):
    pytest.importorskip("datasets")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for command, shown in steps(way_on("docs/datasets.md")):
        said = "\n".join(VOLATILE.sub("N", line) for line in said_by(command, tmp_path))
        assert re.fullmatch(as_pattern(shown), said, re.DOTALL), f"$ {command}\n{said}"
