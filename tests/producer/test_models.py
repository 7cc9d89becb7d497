"""Which models there are to name, and the sizes they bring."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptmill.producer.errors import ModelNameError
from promptmill.producer.families.mismatches import mismatches
from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.job import Job
from promptmill.producer.models import POCKET, SDXL_DEFAULTS, TINY_RANDOM, model_defaults, resolve_model

MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """A folder in diffusers' layout, as far as the producer looks into it."""

    def make(sample_size: Any = 64, blocks: Any = (16, 32)) -> Path:
        folder = tmp_path / "model"
        for name, content in {
            "model_index.json": {},
            "unet/config.json": {"sample_size": sample_size},
            "vae/config.json": {"block_out_channels": blocks},
        }.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content))
        return folder

    return make


def test_a_folder_becomes_absolute_for_workers_elsewhere_on_this_host(make_model, monkeypatch):
    folder = make_model()
    monkeypatch.chdir(folder.parent)
    assert resolve_model("model") == resolve_model("./model") == str(folder)


def test_a_folder_may_be_in_the_home(make_model, monkeypatch):
    folder = make_model()
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve_model("~/model") == str(folder)


@pytest.mark.parametrize("name", [POCKET, TINY_RANDOM, "org/name", "org/na.me-1@refs/pr/3"])
def test_a_built_in_or_a_hub_id_keeps_its_name(name: str):
    assert resolve_model(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nonsense",
        "./missing",
        "/missing/model",
        "~/missing",
        "~no-such-user/x",
        "a/b/c",
        "a b/c",
        "a\0/b",
        "x" * 5000,
    ],
)
def test_what_is_no_model_is_refused(name: str):
    with pytest.raises(
        ModelNameError, match=r"no model .*expected pocket, tiny-random, a folder in diffusers' layout, or a hub id"
    ):
        resolve_model(name)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path):
    with pytest.raises(ModelNameError, match=r"it has no model_index\.json"):
        resolve_model(str(tmp_path))


def test_the_empty_name_is_not_the_current_folder(make_model, monkeypatch):
    monkeypatch.chdir(make_model())
    with pytest.raises(ModelNameError, match="no model ''"):
        resolve_model("")


def test_a_folders_own_size_is_the_default(make_model):
    folder = make_model(sample_size=128, blocks=[1, 2, 3, 4])
    assert (model_defaults(str(folder)).width, model_defaults(str(folder)).height) == (1024, 1024)
    folder = make_model(sample_size=32, blocks=[1, 2])
    assert model_defaults(str(folder)).width == 64


def test_a_hub_id_gets_sdxls_own(tmp_path: Path):
    assert model_defaults("org/name") == SDXL_DEFAULTS


def test_a_folders_size_may_be_two_sides_or_left_open(make_model):
    """As diffusers saves it: a list of height and width, null, or no such field (which is SDXL's 128)."""
    sides = {size: model_defaults(str(make_model(size, [1, 2, 3, 4]))).width for size in (64, None)}
    assert sides == {64: 512, None: 1024}
    assert model_defaults(str(make_model([16, 24], [1, 2]))).width == 48
    folder = make_model(blocks=[1, 2])
    (folder / "unet" / "config.json").write_text("{}")
    assert model_defaults(str(folder)).width == 256


@pytest.mark.parametrize(
    ("sample_size", "blocks"),
    [("x", [1]), ([64, 64, 3], [1]), ([], [1]), (0, [1]), (True, [1]), (64, None), (64, 4)],
    ids=str,
)
def test_a_config_without_a_size_is_refused(make_model, sample_size: Any, blocks: Any):
    folder = make_model(sample_size, blocks)
    with pytest.raises(ModelNameError, match="is not an SDXL model folder"):
        model_defaults(str(folder))


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff"])
def test_a_broken_config_is_refused(make_model, content: str):
    folder = make_model()
    (folder / "unet" / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelNameError, match="is not an SDXL model folder"):
        model_defaults(str(folder))


def test_a_folder_with_nothing_but_an_index_is_refused(make_model):
    folder = make_model()
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(ModelNameError, match="is not an SDXL model folder"):
        model_defaults(str(folder))


def test_a_file_is_told_from_a_folder(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelNameError, match=r"is a file, but a model is a folder.*promptmill import-model"):
        resolve_model(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [
        ({}, "euler"),
        ({"_class_name": "EulerDiscreteScheduler"}, "euler"),
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, "euler_a"),
        ({"_class_name": "DDIMScheduler"}, "ddim"),
        ({"_class_name": "DPMSolverMultistepScheduler"}, "dpm++_2m"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}, "dpm++_2m_sde"),
        ({"_class_name": "DPMSolverSinglestepScheduler"}, "dpm++_2s"),
        ({"_class_name": "DEISMultistepScheduler", "algorithm_type": "deis"}, "deis"),
        ({"_class_name": "UniPCMultistepScheduler"}, "unipc"),
        ({"_class_name": "LCMScheduler"}, "lcm"),
        ({"_class_name": "TCDScheduler"}, "tcd"),
        ({"_class_name": "HeunDiscreteScheduler"}, "heun"),
        ({"_class_name": "KDPM2DiscreteScheduler"}, "dpm2"),
        ({"_class_name": "KDPM2AncestralDiscreteScheduler"}, "dpm2_a"),
        ({"_class_name": "PNDMScheduler"}, "pndm"),
    ],
)
def test_the_scheduler_of_a_folder_is_its_sampler(make_model, scheduler: dict[str, str], sampler: str):
    folder = make_model()
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    assert (model_defaults(str(folder)).sampler, model_defaults(str(folder)).note) == (sampler, None)
    assert sampler in SAMPLERS


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [
        ({"_class_name": "DPMSolverSDEScheduler"}, "DPMSolverSDEScheduler"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
            "DPMSolverMultistepScheduler with dpmsolver",
        ),
    ],
)
def test_euler_stands_in_for_a_scheduler_that_is_not_here_and_that_is_said(make_model, scheduler, name: str):
    folder = make_model()
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    defaults = model_defaults(str(folder))
    assert (defaults.sampler, defaults.note) == (
        "euler",
        f"its scheduler is {name}, which is not here: euler stands in",
    )
    (warning,) = mismatches([Job(prompt="x", model=str(folder), **defaults.job_fields())])
    assert warning == f"{folder}: {defaults.note} (--sampler chooses)"
