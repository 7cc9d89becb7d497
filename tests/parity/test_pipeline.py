"""From the prompt and the seed to the pixels, against diffusers' pipelines. `pytest -s` prints the table."""

import itertools
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from promptmill.worker.sdxl.tiny import write_tiny_random
from tests.parity import cases, images, measure
from tests.parity.refiner import write_refiner

# diffusers' schedulers convert arrays in a way that NumPy 2 warns of.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_random(tmp_path_factory.mktemp("pipeline") / "base", seed=3, changes=images.CHANGES)


@pytest.fixture(scope="module")
def sides(folder: Path) -> measure.Sides:
    return measure.Sides.of(folder)


@pytest.fixture(scope="module")
def refined_sides(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> measure.Sides:
    return measure.Sides.of(folder, write_refiner(tmp_path_factory.mktemp("pipeline") / "refiner", folder))


@pytest.mark.parametrize("name", images.IMAGES)
def test_whole_images_agree(sides: measure.Sides, name: str) -> None:
    _check(sides.row(name, images.IMAGES[name]))


def test_every_setting_makes_another_image(sides: measure.Sides) -> None:
    """Or the comparison above would show nothing of it. One negative size alone is ignored by diffusers."""
    settings = {name: request for name, request in images.IMAGES.items() if name != "one negative size"}
    rendered = {name: sides.render(request) for name, request in settings.items() if request.width == 64}
    for (name, image), (other, another) in itertools.combinations(rendered.items(), 2):
        assert cases.psnr(image, another) < measure.PSNR_LIMIT, (name, other)


@pytest.mark.parametrize("name", images.REFINED)
def test_refined_images_agree(refined_sides: measure.Sides, name: str) -> None:
    _check(refined_sides.row(name, images.REFINED[name]))


def test_a_guidance_scale_that_is_an_input_agrees(tmp_path: Path) -> None:
    folder = write_tiny_random(tmp_path / "model", seed=3, changes=images.GUIDANCE_AS_INPUT)
    _check(measure.Sides.of(folder).row("guidance as input", images.GUIDED_BY_INPUT))


def _check(row: measure.ImageRow) -> None:
    print(f"| {' | '.join(row.cells())} |")
    assert row.psnr >= measure.PSNR_LIMIT, row
    assert row.largest <= 1, row
