"""Real workers and a real Redis, killed for a minute with the slow tests, for an hour with `pytest -m soak`.

PROMPTMILL_SOAK_MINUTES says for how long.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MINUTES = float(os.environ.get("PROMPTMILL_SOAK_MINUTES", "60"))


def soak(minutes: float, jobs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.chaos.soak", "--minutes", str(minutes), "--jobs", str(jobs)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    print(told.stdout)
    return dict(json.loads(told.stdout))


@pytest.mark.soak
@pytest.mark.timeout(48 * 3600)
def test_nothing_is_lost_or_doubled_in_a_long_soak():
    report = soak(MINUTES, jobs=200)
    assert (report["lost"], report["doubled"], report["broken"]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_is_lost_or_doubled_in_a_short_soak():
    report = soak(0.5, jobs=20)
    assert (report["lost"], report["doubled"], report["broken"]) == (0, 0, 0)
    assert report["runs"] > 0 and report["faults"]
