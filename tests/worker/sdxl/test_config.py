"""A configuration is understood whole, or refused with file, field, value and what would be understood."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptmill.producer.models import latent_side
from promptmill.worker.errors import ConfigError
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.samplers import make_table
from promptmill.worker.sampling.solvers.plan import Sampling
from promptmill.worker.sdxl.config import ModelConfig, UNetConfig
from promptmill.worker.sdxl.tiny import CONFIGS, write_tiny_random
from promptmill.worker.text.config import CLIPConfig

UNET = CONFIGS["unet/config.json"]
VAE = CONFIGS["vae/config.json"]


def written(folder: Path, values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    return path


def test_the_published_sdxl_base_configurations_are_understood(tmp_path: Path) -> None:
    published = {
        **UNET,
        "act_fn": "silu",
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
        "transformer_layers_per_block": [1, 2, 10],
        "_diffusers_version": "0.19.0.dev0",
        "class_embed_type": None,
        "time_cond_proj_dim": None,
        "upcast_attention": None,
    }
    assert UNetConfig.from_file(written(tmp_path, published)) == UNetConfig.sdxl_base()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("act_fn", "gelu"),
        ("class_embed_type", "timestep"),
        ("dual_cross_attention", True),
        ("resnet_time_scale_shift", "scale_shift"),
        ("mid_block_scale_factor", 2),
        ("num_attention_heads", 4),
        ("addition_embed_type", "text"),
        ("encoder_hid_dim", 5),
    ],
)
def test_a_value_that_is_not_implemented_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    path = written(tmp_path, {**UNET, field: value})
    with pytest.raises(ConfigError, match=rf"{path}: {field} is {value!r}, but only .* is implemented"):
        UNetConfig.from_file(path)


def test_a_field_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {**UNET, "sharpen": 2})
    with pytest.raises(ConfigError, match=rf"{path}: sharpen is 2, but this field is not implemented"):
        UNetConfig.from_file(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_num_groups": 5}, "norm_num_groups is 5, which does not divide 16 channels"),
        ({"attention_head_dim": 3}, "attention_head_dim is 3 heads, which do not divide 16 channels"),
        ({"attention_head_dim": [2, 4]}, "attention_heads has 2 levels, expected 3"),
        (
            {"down_block_types": ["DownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"]},
            "'ResnetDownsampleBlock2D'",
        ),
        ({"addition_time_embed_dim": None}, "must be set for text_time"),
    ],
)
def test_fields_that_contradict_one_another_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = written(tmp_path, {**UNET, **changes})
    with pytest.raises(ConfigError, match=f"{path}: .*{message}"):
        UNetConfig.from_file(path)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (CLIPConfig, {"hidden_act": "relu"}, "hidden_act is 'relu', but only 'quick_gelu' or 'gelu'"),
        (VAEConfig, {**VAE, "shift_factor": 0.1}, "shift_factor is 0.1, but only None or 0.0"),
        (VAEConfig, {**VAE, "latents_mean": [1, 2]}, "latents_mean has 2 values, expected 4"),
        (VAEConfig, {**VAE, "up_block_types": ["AttnUpDecoderBlock2D"] * 4}, "only UpDecoderBlock2D"),
        (SchedulerConfig, {"timestep_spacing": "random"}, "timestep_spacing is 'random'"),
    ],
)
def test_the_other_files_refuse_what_would_change_the_image(
    tmp_path: Path, kind: Any, values: dict[str, Any], message: str
) -> None:
    path = written(tmp_path, values)
    with pytest.raises(ConfigError, match=f"{path}: .*{message}"):
        kind.from_file(path)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_file_that_is_not_a_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path}: .*JSON"):
        UNetConfig.from_file(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_index.json": {"_class_name": "StableDiffusionPipeline"}},
            "_class_name is 'StableDiffusionPipeline'",
        ),
        ({"model_index.json": {"add_watermarker": True}}, "add_watermarker is True"),
        ({"model_index.json": {"text_encoder": 5}}, "text_encoder is 5"),
        ({"model_index.json": {"requires_aesthetics_score": "no"}}, "requires_aesthetics_score is 'no'"),
        ({"unet/config.json": {"cross_attention_dim": 32}}, "cross_attention_dim is 32, but .* is 48"),
        ({"unet/config.json": {"projection_class_embeddings_input_dim": 9}}, "input_dim is 9, but .* is 80"),
        ({"unet/config.json": {"in_channels": 9}}, "unet in_channels is 9, but vae latent_channels is 4"),
    ],
)
def test_a_folder_whose_parts_do_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}.*{message}"):
        write_tiny_random(tmp_path / "model", changes=changes)


def test_the_default_size_is_the_unets_in_pixels(tiny_folder: Path) -> None:
    assert ModelConfig.from_folder(tiny_folder).default_size == 64


def test_what_another_sampler_left_in_the_scheduler_config_is_passed_over(tmp_path: Path) -> None:
    """As diffusers does in `EulerDiscreteScheduler.from_config`: many a checkpoint was saved with DPM++."""
    file = tmp_path / "scheduler_config.json"
    left = {"time_shift_type": "exponential", "use_dynamic_shifting": False, "algorithm_type": "dpmsolver++"}
    file.write_text(json.dumps({"_class_name": "DPMSolverMultistepScheduler", **left}))
    tables = [make_table(config, Sampling(steps=5)) for config in (SchedulerConfig.from_file(file), SchedulerConfig())]
    for got, expected in zip(*tables, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_what_diffusers_wrote_down_without_being_told_is_left_open(tmp_path: Path) -> None:
    """As its `from_config` leaves it to the class that reads."""
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps({"beta_end": 0.5, "steps_offset": 1, "_use_default_values": ["beta_end"]}))
    assert SchedulerConfig.from_file(file) == SchedulerConfig(steps_offset=1)


@pytest.mark.parametrize(
    ("kind", "field", "value", "expected"),
    [
        (SchedulerConfig, "num_train_timesteps", "1000", "a whole number or null"),
        (SchedulerConfig, "trained_betas", [0.1, "0.2"], r"a list \(a number\) or null"),
        (CLIPConfig, "eos_token_id", [49407], "a whole number"),
        (CLIPConfig, "hidden_size", 768.5, "a whole number"),
        (CLIPConfig, "hidden_size", True, "a whole number"),
        (CLIPConfig, "hidden_act", 3, "a text"),
        (CLIPConfig, "layer_norm_eps", "1e-5", "a number"),
        (UNetConfig, "block_out_channels", 320, r"a list \(a whole number\)"),
        (UNetConfig, "transformer_layers_per_block", [[1, 2], 2, 10], r"a whole number or a list \(a whole number\)"),
        (UNetConfig, "use_linear_projection", "true", "true or false"),
        (UNetConfig, "sample_size", [128, 128, 3], r"a whole number or a list \(2 times a whole number\) or null"),
        (VAEConfig, "scaling_factor", None, "a number"),
        (VAEConfig, "scaling_factor", float("nan"), "a number"),
        (VAEConfig, "latents_mean", 0.1, r"a list \(a number\) or null"),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, kind: Any, field: str, value: Any, expected: str) -> None:
    path = written(tmp_path, {**{UNetConfig: UNET, VAEConfig: VAE}.get(kind, {}), field: value})
    with pytest.raises(ConfigError, match=rf"^{path}: {field} is {re.escape(repr(value))}, expected {expected}$"):
        kind.from_file(path)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (CLIPConfig, "num_attention_heads", 0),
        (UNetConfig, "norm_num_groups", 0),
        (UNetConfig, "attention_head_dim", [2, 0, 8]),
        (UNetConfig, "block_out_channels", []),
        (VAEConfig, "scaling_factor", 0.0),
        (VAEConfig, "block_out_channels", [-8]),
    ],
)
def test_a_size_must_be_more_than_nothing(tmp_path: Path, kind: Any, field: str, value: Any) -> None:
    path = written(tmp_path, {**{UNetConfig: UNET, VAEConfig: VAE}.get(kind, {}), field: value})
    with pytest.raises(ConfigError, match=rf"^{path}: {field} is .*, expected more than 0$"):
        kind.from_file(path)


def test_a_whole_number_will_do_for_any_number(tmp_path: Path) -> None:
    assert VAEConfig.from_file(written(tmp_path, {**VAE, "scaling_factor": 1})).scaling_factor == 1


@pytest.mark.parametrize(("sample_size", "side"), [(8, 8), ([8, 8], 8), ([8, 12], 12), (None, 128)])
def test_the_unets_size_may_be_height_and_width(tmp_path: Path, sample_size: Any, side: int) -> None:
    config = UNetConfig.from_file(written(tmp_path, {**UNET, "sample_size": sample_size}))
    assert latent_side(config.sample_size) == side


def test_what_averaging_leaves_in_the_unets_configuration_is_passed_over(tmp_path: Path) -> None:
    """The fields that diffusers' `EMAModel.save_pretrained` writes."""
    left = {
        "decay": 0.9999,
        "inv_gamma": 1.0,
        "min_decay": 0.0,
        "optimization_step": 37000,
        "power": 0.75,
        "update_after_step": 0,
        "use_ema_warmup": False,
    }
    plain = UNetConfig.from_file(written(tmp_path, UNET))
    assert UNetConfig.from_file(written(tmp_path, {**UNET, **left})) == plain


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path / 'config.json'}: is not there, but the model needs it$"):
        UNetConfig.from_file(tmp_path / "config.json")
