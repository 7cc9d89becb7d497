"""What diffusers and transformers write with their own defaults is read: every scheduler, UNet, VAE, text encoder."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.models import sampler_of
from promptmill.worker.errors import ConfigError
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.samplers import make_table
from promptmill.worker.sampling.schedulers import DEFAULTS
from promptmill.worker.sampling.solvers.plan import Sampling
from promptmill.worker.sdxl.config import UNetConfig
from promptmill.worker.text.config import CLIPConfig

pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

# Saving a scheduler of some classes warns of what diffusers will do otherwise one day.
pytestmark = pytest.mark.filterwarnings("ignore")

SCHEDULERS = sorted(name for name in dir(diffusers.schedulers) if name.endswith("Scheduler"))
SDXL_BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
OTHER_PREDICTIONS = ("HeliosDMDScheduler", "HeliosScheduler", "SCMScheduler")
"""Of models that predict neither noise nor image nor v: no sampler of ours could stand in."""


def saved(name: str, folder: Path, settings: dict[str, Any]) -> Path:
    """The file that diffusers' class `name` writes of itself; skips where it cannot be made by defaults."""
    kind = getattr(diffusers.schedulers, name)
    known = inspect.signature(kind.__init__).parameters
    try:
        scheduler = kind(**{field: value for field, value in settings.items() if field in known})
    except (ImportError, TypeError, ValueError) as error:  # needs torchsde, or has fields without defaults
        pytest.skip(f"{name}: {error}")
    scheduler.save_config(folder)
    return folder / "scheduler_config.json"


@pytest.mark.parametrize("settings", [{}, SDXL_BETAS], ids=["defaults", "sdxl"])
@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name not in OTHER_PREDICTIONS])
def test_a_saved_scheduler_is_read_and_sampled_with(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    path = saved(name, tmp_path, settings)
    sampler, note = sampler_of(json.loads(path.read_text()))
    assert (note is None) == (name in DEFAULTS)
    config = SchedulerConfig.from_file(path)
    assert len(make_table(config, Sampling(sampler=sampler, steps=8)).timesteps) == SAMPLERS[sampler].evaluations_in(8)
    assert len(make_table(config, Sampling(sampler="dpm++_2m", steps=8)).timesteps) == 8


@pytest.mark.parametrize("name", OTHER_PREDICTIONS)
def test_a_model_that_predicts_something_else_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prediction_type is '(flow_prediction|trigflow)'"):
        SchedulerConfig.from_file(saved(name, tmp_path, {}))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_scheduler_that_is_not_here_is_stood_in_for_by_every_sampler(sampler: str, tmp_path: Path) -> None:
    """DPMSolverSDEScheduler needs torchsde to be made, so this is what it was found to have saved."""
    path = tmp_path / "scheduler_config.json"
    path.write_text(
        json.dumps(
            {
                "_class_name": "DPMSolverSDEScheduler",
                **SDXL_BETAS,
                "interpolation_type": "linear",
                "num_train_timesteps": 1000,
                "prediction_type": "v_prediction",
                "rescale_betas_zero_snr": True,
                "timestep_spacing": "trailing",
                "use_karras_sigmas": False,
                "noise_sampler_seed": None,
            }
        )
    )
    assert sampler_of(json.loads(path.read_text()))[0] == "euler"
    config = SchedulerConfig.from_file(path)
    assert (config.given["prediction_type"], config.given["rescale_betas_zero_snr"]) == ("v_prediction", True)
    assert len(make_table(config, Sampling(sampler=sampler, steps=8)).timesteps) >= 8


def test_a_field_that_a_scheduler_of_ours_does_not_know_is_refused_still(tmp_path: Path) -> None:
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "EulerDiscreteScheduler", "noise_sampler_seed": 5}))
    with pytest.raises(ConfigError, match="noise_sampler_seed is 5, but this field is not implemented"):
        SchedulerConfig.from_file(path)


def test_a_saved_unet_with_sdxls_conditioning_is_read(tmp_path: Path) -> None:
    diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=48,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    ).save_config(tmp_path)
    config = UNetConfig.from_file(tmp_path / "config.json")
    assert (config.sample_size, config.block_out_channels) == (None, (32, 64))


def test_a_saved_autoencoder_is_read(tmp_path: Path) -> None:
    diffusers.AutoencoderKL().save_config(tmp_path)
    assert VAEConfig.from_file(tmp_path / "config.json") == VAEConfig()


@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPTextModelWithProjection"])
def test_a_saved_text_encoder_is_read(kind: str, tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    getattr(transformers, kind)(transformers.CLIPTextConfig(**small)).save_pretrained(tmp_path)
    assert CLIPConfig.from_file(tmp_path / "config.json") == CLIPConfig(**small)


def test_the_defaults_of_a_text_encoder_are_transformers_own(tmp_path: Path) -> None:
    transformers.CLIPTextConfig().save_pretrained(tmp_path)
    assert CLIPConfig.from_file(tmp_path / "config.json") == CLIPConfig()
