"""`promptmill bench`: a row per combination, and what it measured is what a dry run estimates from."""

import json
from pathlib import Path

import jax
import pytest

from promptmill.verbs.bench import COLUMNS, MLPERF_FIELDS, _cells, _jobs
from promptmill.worker import bench
from promptmill.worker.ceilings import PEAKS, ceiling_of


@pytest.mark.slow
def test_a_row_per_combination_with_what_was_measured(promptmill, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    words = ["--model", "tiny-random", "--steps", "1,3", "--per-device-batch", "1", "--repeats", "2", "--price", "2"]
    words += ["--quantize", "int8", "--vae-dtype", "bfloat16"]
    ran = promptmill("bench", *words, "--profile", "trace", "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert (said["device"], said["devices"], said["dtype"]) == ("cpu", 8, "float32")
    assert (said["quantize"], said["vae_dtype"]) == ("int8", "bfloat16")
    assert said["ceiling"]["source"].startswith("measured here: a float32 product")
    one, three = said["rows"]
    assert [row["steps"] for row in (one, three)] == [1, 3]
    for row in (one, three):
        assert row["first_image_s"] > row["compile_s"] > 0
        assert row["latency_s"] > 0 and row["share"] > 0 and row["host_ms"] > 0
        assert row["images_per_s_per_device"] * 8 == pytest.approx(row["images_per_s"])
        assert row["images_per_money"] == pytest.approx(row["images_per_s_per_device"] * 1800)
    assert 1.2 < three["tera_per_image"] / one["tera_per_image"] < 3  # the decoder does not grow with the steps
    assert list((here / "trace").rglob("*.xplane.pb"))

    planned = promptmill("submit", "cats.txt", "--model", "tiny-random", "--output", "out", "--dry-run", "--json")
    (estimate,) = json.loads(planned.out)["estimates"]
    assert estimate["device"] == "cpu" and estimate["basis"].startswith("promptmill bench of ")
    assert "float32, VAE in bfloat16, UNet in int8" in estimate["basis"]


def test_mlperfs_setting_is_a_preset() -> None:
    given = {"model": None, "num_inference_steps": None, "guidance_scale": None, "sampler": None}
    (job,) = _jobs(given, None, "mlperf")
    assert {name: getattr(job, name) for name in MLPERF_FIELDS} == MLPERF_FIELDS
    assert (job.width, job.num_inference_steps, job.guidance_scale, job.guided) == (1024, 20, 8.0, True)
    (short,) = _jobs({**given, "num_inference_steps": (4,)}, [(512, 768)], "mlperf")
    assert (short.width, short.height, short.num_inference_steps, short.guidance_scale) == (512, 768, 4, 8.0)


def test_a_size_that_cannot_be_is_told_before_anything_is_measured(promptmill) -> None:
    for words, reason in ((["--size", "64x"], "is not a size"), (["--size", "63"], "multiple of 8")):
        ran = promptmill("bench", *words)
        assert ran.code == 2 and reason in ran.err


def test_a_setting_without_memory_is_a_row_of_its_own(promptmill, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr(bench, "compile_program", refuse)
    ran = promptmill("bench", "--model", "tiny-random")
    assert ran.code == 0 and "out of memory" in ran.out.splitlines()[1]
    assert len(_cells({"width": 8, "height": 8, "reason": "out of memory"}, list(COLUMNS))) == len(COLUMNS)


@pytest.mark.parametrize("kind", [*PEAKS, "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"])
def test_a_known_kind_of_device_has_its_makers_peak(kind: str) -> None:
    class Device:
        device_kind = kind

    ceiling = ceiling_of(Device())
    name = max((known for known in PEAKS if kind.startswith(known)), key=len)
    assert ceiling.tera_per_s == PEAKS[name] and name in ceiling.source
