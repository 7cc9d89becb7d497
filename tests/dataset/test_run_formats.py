"""Runs whose images are WebP, JPEG or JPEG XL: everything that is done with a run is done with these."""

import io
import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptmill.contact_sheet import make_sheet
from promptmill.dataset.curate import Filters, curate
from promptmill.dataset.finish import finish
from promptmill.dataset.gallery.sprites import SIDE
from promptmill.dataset.gallery.writer import write_gallery
from promptmill.dataset.images import look_at
from promptmill.dataset.manifest_text import rows_of_run
from promptmill.dataset.options import PackOptions
from promptmill.dataset.repair import repair
from promptmill.dataset.verify import verify
from promptmill.export import Settings, export
from promptmill.jobs_of import Wanted, jobs_of
from promptmill.producer.errors import PlanError
from promptmill.producer.growth import place_plan
from promptmill.producer.image_formats import Encoding, open_image
from promptmill.producer.plan import PlanOptions, plan_jobs
from promptmill.producer.plan_files import load_plan, read_run
from promptmill.producer.presence import find_present
from promptmill.worker.encode import job_id_inside
from tests.dataset.conftest import FAILED, Run
from tests.dataset.faults import FAULTS, Fault
from tests.dataset.test_gallery import values_in
from tests.dataset.test_repair import Renderer, contents

REASONS = {FAILED: "the dog ate it"}


@pytest.fixture(params=["webp", "jpeg:90", "jxl"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return Encoding.parse(request.param)


def images(run: Run) -> list[Path]:
    return sorted(path for path in run.folder.glob("images/*/*"))


def test_the_run_keeps_how_its_images_are_written(run: Run, encoding: Encoding):
    assert Encoding.of_run(read_run(run.output) or {}) == encoding
    with load_plan(run.output) as plan:
        assert plan.encoding == encoding
        assert find_present(plan, run.output).images == len(images(run)) == 8
    assert [path.suffix for path in images(run)] == [f".{encoding.extension}"] * 8


def test_another_format_is_refused_and_none_is_the_runs_own(run: Run, encoding: Encoding):
    rows = [{"prompt": run.plan.whole(job).prompt, "seed": run.plan.whole(job).seed} for job in run.plan]
    defaults = {"model": "tiny-random", "width": 64, "height": 64}
    with plan_jobs(rows, PlanOptions(defaults=defaults)) as plan:
        assert find_present(plan, run.output).images == 8
        assert place_plan(run.output, "cats", plan).encoding == encoding
    with (
        plan_jobs(rows, PlanOptions(defaults=defaults, encoding=Encoding("png"))) as plan,
        pytest.raises(
            PlanError, match=f"has images as {encoding}, not png: leave out --image-format, or begin another"
        ),
    ):
        place_plan(run.output, "cats", plan)


def test_a_packed_run_has_its_images_as_rendered_and_all_is_well(run: Run, encoding: Encoding):
    assert finish(run.output, run.plan, REASONS) == {"done": 9, "failed": 1}
    with tarfile.open(run.folder / "data/00000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    for job in run.plan:
        if job.index != FAILED:
            data = (run.folder / run.plan.image_name(job.id)).read_bytes()
            assert members[f"{job.index:09d}.{encoding.extension}"] == data
            assert job_id_inside(data) == job.id and look_at(data, decode=True).marks == ("xmp",)
    assert list(verify(run.output)) == [] == list(verify(run.output, fast=True))


def test_a_packed_run_may_have_another_format(run: Run, encoding: Encoding):
    finish(run.output, run.plan, REASONS, options=PackOptions(image_format="png"))
    with tarfile.open(run.folder / "data/00000.tar") as tar:
        data = tar.extractfile("000000000.png").read()  # type: ignore[union-attr]
    with Image.open(io.BytesIO(data)) as image:
        rendered = (run.folder / run.plan.image_name(next(iter(run.plan)).id)).read_bytes()
        own = open_image(rendered, Image.open)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(own))
        assert json.loads(image.info["promptmill"])["id"] == next(iter(run.plan)).id
        assert image.info["parameters"].startswith("cat 0\nSteps: ")
    assert look_at(data).marks == ("xmp",)
    assert list(verify(run.output)) == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_each_fault_is_found_and_mended_to_the_same_bytes(run: Run, fault: Fault):
    finish(run.output, run.plan, REASONS, shard_size=4)
    before = contents(run.folder)
    name = fault(run.folder, random.Random(0))
    assert name in {finding.name for finding in verify(run.output)}
    assert [step for step in repair(run.output, Renderer(run.output)) if step.action == "left"] == []
    assert contents(run.folder) == before
    assert list(verify(run.output)) == []


def test_an_image_in_another_format_is_foreign(run: Run):
    strange = run.folder / "images/00/00000000000000000000000000000000.png"
    strange.parent.mkdir(exist_ok=True)
    strange.write_bytes(images(run)[0].read_bytes())
    assert [finding.name for finding in verify(run.output) if finding.kind == "foreign"] == [
        str(strange.relative_to(run.folder))
    ]


def test_it_is_looked_at_in_a_gallery_and_on_a_sheet(run: Run, encoding: Encoding):
    assert write_gallery(run.output, run.plan, REASONS, name="cats") == {"written": 1, "kept": 0}
    chunk = values_in((run.folder / "gallery/data/00000.js").read_text())[1]
    assert (chunk["states"], chunk["extension"]) == ("ddddfddddd", encoding.extension)  # type: ignore[index]
    with Image.open(run.folder / "gallery/sprites/00000.webp") as sprite:
        assert np.asarray(sprite.convert("L"))[:SIDE, :SIDE].std() > 20
    sheet = make_sheet(run.output, run.plan, [0, 1])
    with Image.open(io.BytesIO(sheet.png)) as image:
        assert np.asarray(image.convert("L"))[10:120, 10:120].std() > 20


def test_it_is_exported_listed_and_curated(run: Run, encoding: Encoding, tmp_path: Path):
    settings = Settings(tmp_path / "named", captions=True)
    for kept in (0, 9):
        done = export(run.output, run.plan, settings, takes=lambda job: True, progress=lambda count: None)
        assert (done.images, done.kept, done.missing) == (9, kept, 1)
    assert (tmp_path / "named" / f"000003-cat-3.{encoding.extension}").is_file()
    assert (tmp_path / "named/000003-cat-3.txt").read_text() == "cat 3"
    found = list(jobs_of(run.output, Wanted(), REASONS))
    assert [job.state for job in found] == ["done"] * 4 + ["failed"] + ["done"] * 5
    assert all(Path(job.url).is_file() for job in found if job.state == "done")
    counts = curate(run.output, rows_of_run(run.output, lambda: REASONS), tmp_path / "cur", Filters(), {})
    assert counts == {"kept": 8, "no image": 1, "same pixels": 1}
