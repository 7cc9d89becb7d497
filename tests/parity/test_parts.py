"""Each network against PyTorch, in every configuration of the matrix. `pytest -s` prints the table."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tests.parity import measure
from tests.parity.matrix import PARTS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", PARTS)
def test_each_network_agrees_in_each_configuration(tmp_path: Path, name: str) -> None:
    row = measure.part_row(name, tmp_path / "part")
    print(f"| {' | '.join(row.cells())} |")
    assert row.worst < measure.LIMIT, row
