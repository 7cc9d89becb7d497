"""Seeds of the simulated farm: all hold, each is the same story every time, and planted bugs are found.

pytest -m simulation                          ten thousand seeds
python -m tests.simulation --seeds 1000000    overnight
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from promptmill.embedded import find_server

SEEDS = int(os.environ.get("PROMPTMILL_SIMULATION_SEEDS", "10000"))
FIRST = int(os.environ.get("PROMPTMILL_SIMULATION_FIRST", "0"))
FEW = 60
FOUND_WITHIN = 1000
"""Seeds within which each planted bug is found."""


@pytest.fixture(autouse=True)
def _parts() -> None:
    if not (find_server() and shutil.which("cc")) and os.environ.get("CI") != "true":
        pytest.skip("no redis-server, or no C compiler, on the PATH")


def simulate(*arguments: str, timeout_s: float = 580) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    here = Path(__file__).parents[2]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.slow
def test_a_few_seeds_hold():
    told = simulate("--seeds", str(FEW))
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"{FEW} seeds" in told.stdout


@pytest.mark.slow
def test_a_seed_tells_the_same_story_every_time_whatever_was_played_before_it():
    first, second = simulate("--again", "7"), simulate("--again", "7")
    assert first.returncode == second.returncode == 0, first.stdout + first.stderr
    digests = re.findall(r"seed (\d+): ([0-9a-f]{64})", first.stdout)
    assert len(digests) == 14
    assert len(set(digests)) == 7
    assert first.stdout == second.stdout


@pytest.mark.slow
def test_each_planted_bug_is_found():
    told = simulate("--planted", "--seeds", str(FOUND_WITHIN))
    print(told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.simulation
@pytest.mark.timeout(8 * 3600)
def test_many_seeds_hold():
    told = simulate("--seeds", str(SEEDS), "--first", str(FIRST), timeout_s=8 * 3600)
    print(told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr
