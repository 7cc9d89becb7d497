"""`promptmill.Pipeline`: images in a few lines, without a queue."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

import promptmill
from promptmill.producer.errors import JobError, PromptmillError
from promptmill.producer.job import Job
from promptmill.worker.encode import job_id_inside
from promptmill.worker.program import fetch

pytestmark = pytest.mark.slow

TINY = "tiny-random"
COMMON: dict[str, Any] = {"model": TINY, "width": 64, "height": 64, "num_inference_steps": 3}


@pytest.fixture(scope="module")
def pipeline():
    return promptmill.Pipeline(TINY, steps=3)


def test_a_prompt_gives_an_image_that_knows_its_job(pipeline):
    image = pipeline("a red apple", seed=7)
    assert (image.size, image.mode) == ((64, 64), "RGB")
    job = Job(prompt="a red apple", seed=7, model=TINY, width=64, height=64, num_inference_steps=3)
    assert json.loads(image.info["promptmill"])["id"] == job.id


def test_saved_images_keep_their_record_and_their_pixels(pipeline, tmp_path):
    images = pipeline(["a cat", "a dog"], seed=3, sampler="ddim", clip_skip=1)
    paths = pipeline.save_all(images, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["00000.png", "00001.png"]
    for path, image in zip(paths, images, strict=True):
        with Image.open(path) as saved:
            assert json.loads(saved.info["promptmill"]) == json.loads(image.info["promptmill"])
            assert saved.info["parameters"].startswith("a ")
            assert np.array_equal(np.asarray(saved), np.asarray(image))


@pytest.mark.parametrize(("name", "ending"), [("webp", "webp"), ("jpeg", "jpg"), ("jxl", "jxl")])
def test_images_are_saved_in_other_formats_too(pipeline, tmp_path, name, ending):
    (path,) = pipeline.save_all(pipeline(["a cat"], seed=3), tmp_path, image_format=name)
    assert path.name == f"00000.{ending}"
    assert job_id_inside(path.read_bytes()) == Job(prompt="a cat", seed=3, **COMMON).id
    with pytest.raises(PromptmillError, match="no image format 'gif'"):
        pipeline.save_all([], tmp_path, image_format="gif")


def test_an_image_without_its_record_is_not_saved_as_if_it_had_one(pipeline, tmp_path):
    with pytest.raises(ValueError, match="no record of its job"):
        pipeline.save_all([Image.new("RGB", (64, 64))], tmp_path)


def test_the_image_is_what_the_compiled_program_gives(pipeline):
    job = Job(prompt="a cat", seed=3, model=TINY, width=64, height=64, num_inference_steps=3)
    program = pipeline._programs.get(job.shape)
    expected = fetch(program.run(program.prepare([job])), 1).pixels[0]
    assert np.array_equal(np.asarray(pipeline("a cat", seed=3)), expected)


def test_a_list_gives_a_list_with_a_seed_each(pipeline):
    prompts = [f"p{n}" for n in range(11)]  # more than one batch of eight devices
    images = pipeline(prompts, seed=5)
    assert [json.loads(image.info["promptmill"])["seed"] for image in images] == list(range(5, 16))
    assert np.array_equal(np.asarray(images[9]), np.asarray(pipeline("p9", seed=14)))
    assert pipeline([]) == []


def test_seeds_may_be_given_one_by_one(pipeline):
    first, second = pipeline(["x", "x"], seed=[4, 4])
    assert np.array_equal(np.asarray(first), np.asarray(second))
    with pytest.raises(ValueError, match=r"shorter|longer"):
        pipeline(["x", "x"], seed=[4])


def test_a_call_may_say_what_a_row_of_a_prompt_file_may(pipeline):
    plain = np.asarray(pipeline("x"))
    for said in ({"guidance": 9}, {"sampler": "heun"}, {"steps": 4}, {"negative_prompt": "y"}, {"clip_skip": 1}):
        assert not np.array_equal(np.asarray(pipeline("x", **said)), plain), said


def test_a_quantised_unet_changes_the_image_a_little(pipeline):
    whole, quantised = (
        np.asarray(each("a cat", seed=3), int)
        for each in (pipeline, promptmill.Pipeline(TINY, steps=3, quantize="int8"))
    )
    assert 0 < np.abs(whole - quantised).mean() < 10


def test_what_is_wrong_is_said_at_once():
    with pytest.raises(PromptmillError, match="must be none or int8 or float8, got 'int4'"):
        promptmill.Pipeline(TINY, quantize="int4")
    with pytest.raises(JobError, match="width: must be a multiple of 8, got 65"):
        promptmill.Pipeline(TINY, width=65)
    with pytest.raises(JobError, match="did you mean 'steps'"):
        promptmill.Pipeline(TINY, stpes=5)
    with pytest.raises(PromptmillError, match="no model 'nonsense'"):
        promptmill.Pipeline("nonsense")


def test_a_prompt_that_is_cut_is_told(pipeline):
    with pytest.warns(UserWarning, match="prompt is too long, its end was truncated: ' ?cat"):
        pipeline("cat " * 100)
