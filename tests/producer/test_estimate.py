"""Estimates: the work of a run by a count of operations, and the time by a measurement that is named."""

import math

import pytest

from promptmill.producer.estimate import (
    DEVICES,
    Measured,
    Work,
    estimates,
    given_rate,
    image_bytes,
    live_rate,
    work_of,
    work_to_do,
)
from promptmill.producer.image_formats import Encoding
from promptmill.producer.job import Job, Shape
from promptmill.producer.layout import Look
from promptmill.producer.plan import plan_jobs
from promptmill.producer.presence import present_of
from promptmill.producer.queue.workers import WorkerReport

FULL = Job(prompt="x", num_inference_steps=20)
"""What published rates are of: 1024x1024, 20 guided steps."""

COST = (1.2, 3.0)


def estimate(works: dict[Work, int], **given):
    asked = {"measured": None, "device": None, "devices": None, "cost_per_hour": COST}
    return estimates(works, **{**asked, **given})


@pytest.mark.parametrize(
    ("job", "tera"),
    [
        (FULL, 281),
        (Job(prompt="x", num_inference_steps=30), 416),
        (Job(prompt="x", num_inference_steps=4, guidance_scale=0), 37.7),
    ],
)
def test_the_work_is_that_of_the_networks(job: Job, tera: float):
    assert work_of(job).tera == pytest.approx(tera, rel=0.003)


def test_a_call_of_the_unet_at_512_is_not_a_quarter_of_one_at_1024():
    big, small = (
        Work(Shape("m", side, side, True), 1).tera - Work(Shape("m", side, side, True), 0).tera for side in (1024, 512)
    )
    assert big == pytest.approx(6.75, abs=0.02)
    assert small == pytest.approx(1.59, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({"num_inference_steps": 20}, 40),
        ({"num_inference_steps": 20, "guidance_scale": 1}, 20),
        *(({"num_inference_steps": 20, "sampler": sampler}, 78) for sampler in ("heun", "dpm2")),
        ({"num_inference_steps": 20, "sampler": "pndm"}, 58),
        ({"num_inference_steps": 50, "timesteps": (999, 499)}, 4),
        ({"num_inference_steps": 20, "cache_interval": 3}, 2 * (7 + 13 * 0.015)),
        ({"num_inference_steps": 20, "refiner": "org/refiner"}, 52),
        ({"num_inference_steps": 20, "refiner": "org/refiner", "refiner_strength": 0.5}, 60),
        ({"num_inference_steps": 20, "refiner": "org/refiner", "denoising_end": 0.8}, 40),
    ],
)
def test_calls_of_the_unet_follow_from_the_settings(settings, calls: float):
    assert work_of(Job(prompt="x", **settings)).calls == pytest.approx(calls)


@pytest.mark.parametrize(("device", "images_per_s"), [("v5e", 0.438), ("v6e", 1.36), ("h100", 2.04), ("h200", 2.18)])
def test_at_published_settings_the_estimate_is_the_published_rate(device: str, images_per_s: float):
    (found,) = estimate({work_of(FULL): 1000}, device=device, devices=4)
    assert found.images_per_s == pytest.approx(4 * images_per_s)
    assert found.seconds == pytest.approx(1000 / (4 * images_per_s))
    assert found.device_hours == pytest.approx(1000 / images_per_s / 3600)
    assert found.cost == (pytest.approx(1.2 * found.device_hours), pytest.approx(3 * found.device_hours))
    assert f"{images_per_s:g} images/s" in found.basis


def test_without_a_device_there_is_an_estimate_for_each_kind():
    assert [found.device for found in estimate({work_of(FULL): 1})] == list(DEVICES)


def test_a_measurement_is_taken_as_it_is():
    measured = given_rate(0.5, 8)
    (found,) = estimate({work_of(FULL): 1000}, measured=measured)
    assert (found.images_per_s, found.devices, found.seconds) == (4.0, 8, 250.0)
    assert found.device_hours == pytest.approx(250 * 8 / 3600)
    assert found.basis == "--images-per-s 0.5, of one device"


def test_live_workers_that_render_are_a_measurement():
    reports = [
        WorkerReport("a", "rendering", "tpu", devices=8, images_per_s=3.0),
        WorkerReport("b", "rendering", "tpu", devices=4, images_per_s=1.5),
        WorkerReport("c", "compiling", "gpu", devices=1),
    ]
    assert live_rate(reports) == Measured("tpu", 12, 4.5, "2 workers at this moment: 4.5 images/s on 12 devices")
    assert live_rate(reports[2:]) is None


def test_of_a_model_that_nobody_measured_nothing_is_estimated():
    pocket = work_of(Job(prompt="x", model="pocket", width=64, height=64, num_inference_steps=10))
    noise = work_of(Job(prompt="x", model="tiny-random", width=64, height=64))
    (found,) = estimate({pocket: 93})
    assert (found.device, found.seconds) == ("cpu", pytest.approx(10))
    assert "pocket" in found.basis and "UNet" not in found.basis
    assert estimate({noise: 1}) == estimate({pocket: 1, noise: 1}) == []
    assert estimate({noise: 1}, measured=given_rate(1, None))[0].seconds == 1


def test_what_is_in_the_output_and_what_comes_twice_is_no_work():
    jobs = [Job(prompt="x", num_inference_steps=steps, width=512) for steps in (5, 5, 6, 7)]
    with plan_jobs(jobs) as plan:
        works = work_to_do(plan, present_of(plan, [(jobs[2].id, Look.OURS)]))
    assert works == {work_of(jobs[0]): 1, work_of(jobs[3]): 1}
    assert image_bytes(works) == math.ceil(2 * 512 * 1024 * 1.8)
    assert image_bytes(works, Encoding("webp")) == round(2 * 512 * 1024 * 1.8 * 0.78)
