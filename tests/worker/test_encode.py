"""Image files say which job they are, and never get mixed up."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from promptmill.producer.families.samplers import SAMPLERS, SIGMA_SCHEDULES
from promptmill.producer.job import Job
from promptmill.producer.marks import AI_MADE
from promptmill.worker.encode import (
    A1111_SCHEDULES,
    a1111_parameters,
    encode_png,
    job_id_inside,
    job_record,
)

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"

JOB = Job(prompt="ein Äpfel 🍎\nzweite Zeile", negative_prompt="blurry", seed=2**63, width=64, height=32)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 64, 3), np.uint8)


def test_pixels_come_back_and_the_whole_job_with_them():
    data = encode_png(noise(1), JOB)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), noise(1))
        record = json.loads(image.info["promptmill"])
        parameters = image.info["parameters"]
    assert record.pop("id") == JOB.id == job_id_inside(data)
    assert Job.from_fields(record) == JOB
    assert parameters == a1111_parameters(JOB)


def test_notes_lie_beside_the_job_and_not_in_it():
    notes = {"safety": {"flagged": True, "shown": "black"}, "prompt_cut": {"prompt": "äpfel"}}
    data = encode_png(noise(1), JOB, notes)
    with Image.open(io.BytesIO(data)) as image:
        record = json.loads(image.info["promptmill"])
    assert record.pop("notes") == notes
    assert record.pop("id") == JOB.id == job_id_inside(data)
    assert Job.from_fields(record) == JOB
    assert job_record(JOB, {}) == job_record(JOB)


def test_each_image_says_that_a_model_made_it_unless_that_is_turned_off():
    with Image.open(io.BytesIO(encode_png(noise(1), JOB))) as image:
        (description,) = ElementTree.fromstring(image.info["xmp"]).iter(f"{RDF}Description")
        assert image.info["parameters"] == a1111_parameters(JOB)
    assert description.findtext(f"{IPTC}DigitalSourceType") == AI_MADE
    assert encode_png(noise(1), JOB) == encode_png(noise(1), JOB)
    plain = encode_png(noise(1), JOB, xmp=False)
    assert b"xmp" not in plain and job_id_inside(plain) == JOB.id


def test_every_sampler_has_its_name_in_a1111():
    assert set(A1111_SCHEDULES) - {"trailing"} == set(SIGMA_SCHEDULES) - {"uniform"}
    for sampler, name in ((name, row.a1111) for name, row in SAMPLERS.items()):
        assert f"Sampler: {name}, CFG scale" in a1111_parameters(Job(prompt="a", sampler=sampler))


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (
            {"sampler": "dpm++_2m", "sigma_schedule": "karras"},
            "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5,",
        ),
        ({"sigma_schedule": "uniform", "timestep_spacing": "trailing"}, "Euler, Schedule type: SGM Uniform, CFG"),
        ({"timestep_spacing": "leading"}, "Sampler: Euler, CFG scale"),
        ({"clip_skip": 1}, ", Clip skip: 3, "),
        ({"sampler": "ddim", "eta": 0.5}, ", Eta: 0.5, "),
        ({"refiner": "org/fine", "denoising_end": 0.8}, ", Refiner: fine, Refiner switch at: 0.8, RNG: CPU, Version: "),
    ],
)
def test_settings_stand_under_a1111s_names(fields, shown):
    assert shown in a1111_parameters(Job(prompt="a", **fields))


def test_parameters_read_as_a1111_writes_them():
    lines = a1111_parameters(JOB).split("\n")
    assert lines[:3] == ["ein Äpfel 🍎", "zweite Zeile", "Negative prompt: blurry"]
    assert lines[3].startswith(f"Steps: 50, Sampler: Euler, CFG scale: 5, Seed: {2**63}, Size: 64x32, Model: ")


def test_an_unguided_job_shows_no_negative_prompt():
    assert "Negative" not in a1111_parameters(Job(prompt="a", negative_prompt="b", guidance_scale=1))


def test_a_models_name_does_not_end_its_field():
    assert 'Model: "my, model: v2", RNG' in a1111_parameters(Job(prompt="a", model="/models/my, model: v2"))
    assert "Model: name, RNG" in a1111_parameters(Job(prompt="a", model="org/name@refs/pr/1"))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.95])
def test_a_torn_file_is_no_image_of_ours(share):
    data = encode_png(noise(1), JOB)
    assert job_id_inside(data[: int(share * len(data))]) is None


def test_a_image_of_somebody_elses_is_not_ours():
    file = io.BytesIO()
    Image.fromarray(noise(1)).save(file, "PNG")
    assert job_id_inside(file.getvalue()) is None
    assert job_id_inside(b"") is None


def test_many_threads_encode_without_mixing_jobs():
    jobs = [Job(prompt=f"p{n}", seed=n) for n in range(60)]
    with ThreadPoolExecutor(8) as threads:
        files = list(threads.map(lambda job: encode_png(noise(job.seed), job), jobs))
    for job, data in zip(jobs, files, strict=True):
        assert job_id_inside(data) == job.id
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), noise(job.seed))
