"""Against PyTorch as it is installed, for configurations that no published SDXL has but a derivative may."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from promptmill.worker.sampling.noise import randn
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest, is_guided
from promptmill.worker.sdxl.tiny import write_tiny_random
from tests.parity import cases, measure, ours, theirs

# diffusers' schedulers convert arrays in a way that NumPy 2 warns of.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")]

# What the tiny tokenizer's vocabulary ends with; a test below holds it.
EOS_TOKEN_ID = 965

ODD_MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "other-numbers": {
        "text_encoder/config.json": {
            "hidden_act": "gelu",
            "eos_token_id": EOS_TOKEN_ID,
            "layer_norm_eps": 1e-2,
        },
        "text_encoder_2/config.json": {
            "hidden_act": "quick_gelu",
            "eos_token_id": EOS_TOKEN_ID,
            "num_attention_heads": 8,
            "num_hidden_layers": 3,
        },
        "unet/config.json": {
            "attention_head_dim": 4,
            "norm_num_groups": 4,
            "norm_eps": 1e-2,
            "transformer_layers_per_block": 1,
            "use_linear_projection": False,
        },
        "vae/config.json": {
            "latents_mean": [0.1, -0.2, 0.3, 0.0],
            "latents_std": [0.9, 1.1, 0.5, 2.0],
            "norm_num_groups": 8,
        },
        "scheduler/scheduler_config.json": {
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        },
        "model_index.json": {"force_zeros_for_empty_prompt": False},
    },
    "other-blocks": {
        "unet/config.json": {
            "block_out_channels": [16, 32, 32, 64],
            "attention_head_dim": [2, 4, 4, 8],
            "down_block_types": [
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
            ],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": [1, 2, 1, 1],
            "transformer_layers_per_block": [1, 1, 2, 1],
            "flip_sin_to_cos": False,
            "freq_shift": 1,
        },
        "vae/config.json": {
            "mid_block_add_attention": False,
            "use_post_quant_conv": False,
            "use_quant_conv": False,
            "layers_per_block": 2,
        },
        "scheduler/scheduler_config.json": {"use_karras_sigmas": True, "timestep_spacing": "linspace"},
    },
    "guidance-as-input": {"unet/config.json": {"time_cond_proj_dim": 15}},
}


@pytest.mark.parametrize("name", ODD_MODELS)
def test_odd_models_agree_part_by_part_and_as_a_whole(tmp_path: Path, name: str) -> None:
    folder = write_tiny_random(tmp_path / "model", seed=5, changes=ODD_MODELS[name])
    pipeline, model = theirs.load(folder), Model.load(folder, devices=jax.local_devices()[:1])
    expected, got = theirs.parts(pipeline), ours.parts(model)
    errors = {part: cases.relative_error(got[part], expected[part]) for part in expected}
    assert all(error < measure.LIMIT for error in errors.values()), errors
    request = PlainRequest("a fox in the snow", 72, 88, seed=11, num_inference_steps=4, guidance_scale=6.0)
    guided = is_guided(model.config, request.guidance_scale)
    assert guided == (name != "guidance-as-input")
    program = model.compile(width=72, height=88, guided=guided)
    assert cases.psnr(ours.image(program, request), theirs.image(pipeline, request)) >= 60


def test_the_eos_rule_is_tried_with_the_real_eos(tiny_folder: Path) -> None:
    tokenizer = theirs.load(tiny_folder).tokenizer
    assert tokenizer.eos_token_id == EOS_TOKEN_ID == len(tokenizer) - 1


@pytest.mark.parametrize("name", cases.SCHEDULER_CONFIGS)
def test_schedules_of_every_length_agree(name: str) -> None:
    settings = cases.SCHEDULER_CONFIGS[name]
    for steps in (*cases.STEP_COUNTS, *range(3, 200, 7)):
        got, expected = ours.schedule(settings, steps), theirs.schedule(settings, steps)
        for what, values in expected.items():
            np.testing.assert_allclose(got[what], values, rtol=2e-5, atol=1e-6, err_msg=f"{what} of {steps} steps")


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32, 33, 1000, 4 * 9 * 13, 4 * 128 * 128])
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**32, 2**64 - 1])
def test_noise_agrees(seed: int, count: int) -> None:
    torch = pytest.importorskip("torch")
    expected = torch.randn(count, generator=theirs.generator(seed)).numpy()
    np.testing.assert_allclose(randn(seed, count), expected, rtol=0, atol=2e-6)


def test_the_stored_references_are_what_torch_computes_today(tiny_folder: Path) -> None:
    pipeline = theirs.load(tiny_folder)
    for name, values in theirs.parts(pipeline).items():
        assert cases.relative_error(values, np.load(cases.REFERENCES / "parts.npz")[name]) < 1e-5
