"""A harness that cannot fail proves nothing: each planted mistake must show."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from promptmill.worker.sdxl.tiny import write_tiny_random
from tests.parity import images, measure
from tests.parity.image_mistakes import IMAGE_MISTAKES
from tests.parity.mistakes import PART_MISTAKES

# diffusers' schedulers convert arrays in a way that NumPy 2 warns of.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")]


@pytest.fixture
def _no_traces_from_elsewhere() -> Iterator[None]:
    """What was traced before a mistake was planted does not have it, and the other way round."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("_no_traces_from_elsewhere")
@pytest.mark.parametrize("name", PART_MISTAKES)
def test_a_mistake_in_a_network_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mistake = PART_MISTAKES[name]
    mistake.plant(monkeypatch)
    row = measure.part_row(mistake.part, tmp_path / "part")
    print(f"{name}: {row.worst:.1e}")
    assert row.worst > measure.LIMIT, row


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> measure.Sides:
    folder = tmp_path_factory.mktemp("planted") / "base"
    return measure.Sides.of(write_tiny_random(folder, seed=3, changes=images.CHANGES))


@pytest.mark.parametrize("name", IMAGE_MISTAKES)
def test_a_mistake_in_what_a_program_is_given_is_seen(
    sides: measure.Sides, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mistake = IMAGE_MISTAKES[name]
    request = images.IMAGES[mistake.image]
    assert sides.row("right", request).psnr >= measure.PSNR_LIMIT
    mistake.plant(monkeypatch)
    row = sides.row(name, request)
    print(f"{name}: {row.psnr:.1f} dB")
    assert row.psnr < measure.PSNR_LIMIT, row
