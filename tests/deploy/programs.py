"""Programs of others that check what we deploy, and the names of our metrics."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
PAGE = ROOT / "docs" / "monitoring.md"

PACKAGE = "Debian's package prometheus"

HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


def program(name: str, source: str, *, packaged: bool = True) -> str:
    """Its path; without it skipped on a laptop, and an error in CI if it comes in a package that CI can install."""
    found = shutil.which(name)
    if found is None:
        if packaged and os.environ.get("CI") == "true":
            pytest.fail(f"CI has no {name} ({source})")
        pytest.skip(f"no {name} here ({source})")
    return found


def succeeds(*command: str, cwd: Path = ROOT) -> str:
    """What the command says. Fails the test where its exit code is not 0."""
    ran = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def metrics_of_the_page() -> set[str]:
    """Every series that docs/monitoring.md names: two tests hold the page to what exporter and worker really tell."""
    named = set(re.findall(r"`(promptmill_\w+)`", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 20
    return named | {name + part for name in named if name.endswith("_seconds") for part in HISTOGRAM_PARTS}


def metrics_in(query: str) -> set[str]:
    """Our metrics that a query names."""
    return set(re.findall(r"\bpromptmill_\w+", query))
