"""What distilled checkpoints need, how they are told by their names, and what is said of settings that do not suit."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from promptmill.producer.families.mismatches import mismatches
from promptmill.producer.families.presets import HUB_PARTS, PRESETS, PresetError, family_of, get_preset, over, recognise
from promptmill.producer.job import Job
from promptmill.producer.models import model_defaults
from tests.plans import read_jobs

TURBO = "stabilityai/sdxl-turbo"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_job_that_suits_itself(name: str):
    preset = get_preset(name)
    job = Job(prompt="x", model="org/model", **preset.job_fields())
    assert (job.sampler, job.num_inference_steps) == (preset.sampler, preset.num_inference_steps)
    assert list(mismatches([job], name)) == []
    assert preset.source and preset.family


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("turbo", {"sampler": "euler_a", "timestep_spacing": "trailing", "guidance_scale": 0.0, "width": 512}),
        ("lightning-4", {"sampler": "euler", "timestep_spacing": "trailing", "num_inference_steps": 4}),
        ("lightning-8", {"num_inference_steps": 8, "guidance_scale": 0.0}),
        ("hyper-1", {"sampler": "lcm", "timesteps": (800,), "num_inference_steps": 1}),
        ("hyper-2", {"sampler": "ddim", "timestep_spacing": "trailing", "num_inference_steps": 2}),
        ("hyper-unified", {"sampler": "tcd", "eta": 1.0, "guidance_scale": 0.0}),
        ("hyper-cfg-8", {"sampler": "ddim", "guidance_scale": 5.0}),
        ("lcm", {"sampler": "lcm", "guidance_scale": 8.0, "num_inference_steps": 4}),
        ("lcm-lora", {"sampler": "lcm", "guidance_scale": 1.0}),
        ("dmd2-4", {"sampler": "lcm", "timesteps": (999, 749, 499, 249), "guidance_scale": 0.0}),
        ("dmd2-1", {"sampler": "lcm", "timesteps": (399,), "num_inference_steps": 1}),
    ],
)
def test_the_numbers_are_those_of_the_model_cards(name: str, fields: dict[str, Any]):
    assert get_preset(name).job_fields() | fields == get_preset(name).job_fields()


def test_an_unknown_preset_is_answered_with_those_there_are():
    with pytest.raises(PresetError, match=r"no preset 'lightning'; there are base, turbo, lightning-1"):
        get_preset("lightning")


@pytest.mark.parametrize(
    ("model", "family"),
    [
        (TURBO, "turbo"),
        ("StabilityAI/SDXL-Turbo@main", "turbo"),
        ("ByteDance/SDXL-Lightning", "lightning"),
        ("ByteDance/Hyper-SD", "hyper"),
        ("tianweiy/DMD2", "dmd2"),
        ("latent-consistency/lcm-sdxl", "lcm"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "base"),
        ("somebody/turbo-dreams", None),
    ],
)
def test_families_are_known_by_hub_id(model: str, family: str | None):
    assert family_of(model) == family


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("sdxl_lightning_4step_unet.safetensors", "lightning-4"),
        ("ByteDance/SDXL-Lightning/sdxl_lightning_1step_unet_x0.safetensors", "lightning-1"),
        ("my-merge_sdxl_lightning_8step.safetensors", "lightning-8"),
        ("Hyper-SDXL-8steps-lora.safetensors", "hyper-8"),
        ("Hyper-SDXL-8steps-CFG-lora.safetensors", "hyper-cfg-8"),
        ("Hyper-SDXL-12steps-CFG-lora.safetensors", "hyper-cfg-12"),
        ("Hyper-SDXL-1step-lora.safetensors", "hyper-unified"),
        ("Hyper-SDXL-1step-Unet.safetensors", "hyper-1"),
        ("dmd2_sdxl_4step_lora_fp16.safetensors", "dmd2-4"),
        ("latent-consistency/lcm-lora-sdxl/pytorch_lora_weights.safetensors", "lcm-lora"),
        ("lcm-sdxl", "lcm"),
        ("h1t/TCD-SDXL-LoRA/pytorch_lora_weights.safetensors", "tcd-lora"),
        ("sd_xl_turbo_1.0_fp16.safetensors", "turbo"),
        ("dreamshaperXL_v2TurboDpmppSDE.safetensors", None),
        ("lightning.safetensors", None),
    ],
)
def test_published_files_are_known_by_name_and_merges_are_not(name: str, preset: str | None):
    found = recognise([name])
    assert (found.name if found else None) == preset


def test_a_default_goes_where_what_was_said_leaves_it_without_meaning():
    dmd2, unified = get_preset("dmd2-4").job_fields(), get_preset("hyper-unified").job_fields()
    assert "timesteps" not in over(dmd2, {"num_inference_steps": 8})
    assert over(dmd2, {"num_inference_steps": 4})["timesteps"] == (999, 749, 499, 249)
    assert "timesteps" not in over(dmd2, {"sigmas": (3.0, 1.0)})
    assert over(dmd2, {"timesteps": (5,)})["timesteps"] == (5,)
    assert "eta" not in over(unified, {"sampler": "euler"})
    assert over(unified, {"sampler": "tcd"})["eta"] == 1.0


@pytest.fixture
def plan_of(tmp_path: Path):
    """The jobs of one row."""

    def make(row: dict[str, Any], defaults: dict[str, Any], preset: str | None = None) -> list[Job]:
        (tmp_path / "x.jsonl").write_text(json.dumps({"prompt": "x", **row}) + "\n")
        return read_jobs([tmp_path / "x.jsonl"], defaults, preset)

    return make


def test_row_over_flag_over_preset_over_the_models_own(plan_of):
    (job,) = plan_of({"guidance_scale": 2}, {"model": TURBO, "num_inference_steps": 2}, "lightning-4")
    assert (job.guidance_scale, job.num_inference_steps, job.sampler) == (2.0, 2, "euler")
    (job,) = plan_of({}, {"model": TURBO})
    assert (job.sampler, job.guidance_scale, job.width) == ("euler_a", 0.0, 512)


def test_a_preset_may_be_overridden_in_what_hangs_together(plan_of):
    (job,) = plan_of({"sampler": "euler"}, {"model": "org/model"}, "hyper-unified")
    assert (job.sampler, job.eta) == ("euler", None)
    (job,) = plan_of({"num_inference_steps": 8}, {"model": "org/model"}, "dmd2-4")
    assert (job.num_inference_steps, job.timesteps) == (8, None)


def make_folder(folder: Path, scheduler: dict[str, Any], unet: dict[str, Any], record: dict[str, Any]) -> str:
    for name, content in {
        "model_index.json": {"_promptmill": record},
        "unet/config.json": {"sample_size": 128, **unet},
        "vae/config.json": {"block_out_channels": [1, 2, 3, 4]},
        "scheduler/scheduler_config.json": scheduler,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return str(folder)


EULER = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "prediction_type": "epsilon"}


def turbo_job(**fields: Any) -> Job:
    return Job(**{"prompt": "x", "model": TURBO, **model_defaults(TURBO).job_fields(), **fields})


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        (
            {"guidance_scale": 7},
            f"guidance_scale is 7, but {TURBO} was distilled without guidance: use 0 (--preset turbo)",
        ),
        ({"num_inference_steps": 30}, f"num_inference_steps is 30, but {TURBO} was made for 1 to 4 steps"),
        ({"timestep_spacing": "leading"}, f"timestep_spacing is leading, but {TURBO} needs trailing"),
        ({"sampler": "unipc"}, f"sampler is unipc, but {TURBO} was made for euler_a (--preset turbo)"),
        ({"width": 1024, "height": 1024}, "1024x1024 is asked for, but"),
        ({"negative_prompt": "blurry"}, f"negative prompts change nothing with {TURBO}"),
    ],
)
def test_a_mismatch_is_one_sentence(fields: dict[str, Any], warning: str):
    found = mismatches([turbo_job(**fields)])
    assert len(found) == 1
    assert found[0].startswith(warning)


def test_a_model_as_it_should_be_is_passed_over_in_silence():
    assert mismatches([turbo_job(seed=seed) for seed in range(3)]) == []
    assert mismatches([Job(prompt="x", guidance_scale=12.0, num_inference_steps=3)]) == []


def test_each_mismatch_is_said_once_for_all_jobs():
    assert len(mismatches([turbo_job(guidance_scale=7, seed=seed) for seed in range(5)])) == 1


def test_lightning_wants_exactly_its_steps_and_dmd2_its_timesteps():
    job = Job(prompt="x", model="org/m", **get_preset("lightning-4").job_fields() | {"num_inference_steps": 6})
    assert mismatches([job], "lightning-4") == [
        "num_inference_steps is 6, but org/m was made for exactly 4 steps (--preset lightning-4)"
    ]
    job = Job(prompt="x", model="org/m", **get_preset("dmd2-4").job_fields() | {"timesteps": None})
    assert mismatches([job], "dmd2-4") == [
        "timesteps are the sampler's own, but org/m was trained at 999,749,499,249 (--preset dmd2-4)"
    ]


@pytest.mark.parametrize("model", ["ByteDance/SDXL-Lightning", "latent-consistency/lcm-sdxl"])
def test_parts_of_models_are_not_taken_for_models(model: str):
    found = mismatches([Job(prompt="x", model=model, **model_defaults(model).job_fields())])
    assert found[0].startswith(f"{model} holds parts of a model and not a whole one; make a folder of it first")
    assert HUB_PARTS[model.lower()][1] in found[0]


def test_a_folder_tells_what_it_is(tmp_path: Path):
    plain = make_folder(tmp_path / "plain", EULER, {}, {})
    assert mismatches([Job(prompt="x", model=plain)]) == []
    distilled = make_folder(tmp_path / "four", EULER, {}, {"preset": "lightning-4"})
    defaults = model_defaults(distilled)
    assert (defaults.preset, defaults.num_inference_steps, defaults.width) == ("lightning-4", 4, 1024)
    fields = defaults.job_fields() | {"timestep_spacing": None}
    assert mismatches([Job(prompt="x", model=distilled, **fields)]) == [
        f"timestep_spacing is leading, but {distilled} needs trailing (--preset lightning-4)"
    ]
    (found,) = mismatches([Job(prompt="x", model=distilled, **get_preset("turbo").job_fields())], "turbo")
    assert found == f"--preset turbo is for another kind of checkpoint: {distilled} is lightning-4"


def test_a_one_step_lightning_that_says_epsilon_is_told_how_to_be_imported(tmp_path: Path):
    folder = make_folder(tmp_path / "one", EULER, {}, {})
    job = Job(prompt="x", model=folder, **get_preset("lightning-1").job_fields())
    (found,) = mismatches([job], "lightning-1")
    assert found.endswith("import it again with --prediction-type sample")


def test_a_consistency_model_takes_guidance_as_an_input(tmp_path: Path):
    folder = make_folder(tmp_path / "lcm", EULER, {"time_cond_proj_dim": 256}, {})
    defaults = model_defaults(folder)
    assert (defaults.guidance_as_input, defaults.sampler, defaults.guidance_scale) == (True, "lcm", 8.0)
    good = Job(prompt="x", model=folder, **defaults.job_fields())
    assert mismatches([good, dataclasses.replace(good, guidance_scale=3.0)]) == []
    bad = dataclasses.replace(good, sampler="euler", negative_prompt="fog")
    assert mismatches([bad]) == [
        f"sampler is euler, but {folder} was made for lcm (--preset lcm)",
        f"negative prompts change nothing with {folder}: it is rendered without guidance",
    ]


def test_the_documentation_has_every_preset_with_its_numbers():
    text = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text()
    rows = {cells[0].strip("` "): cells for line in text.splitlines() if (cells := line.strip("| ").split(" | "))}
    for name, preset in PRESETS.items():
        cells = [cell.strip("` ") for cell in rows[name]]
        assert cells[1] == preset.sampler
        assert cells[3] == str(preset.num_inference_steps)
        assert float(re.match(r"[\d.]+", cells[4])[0]) == preset.guidance_scale  # type: ignore[index]
