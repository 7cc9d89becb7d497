"""What is compared with PyTorch: the same cases for the stored references and for the live comparison."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from promptmill.worker.sdxl.requests import PlainRequest
from tests.parity.matrix import UNET, VAE, Part

REFERENCES = Path(__file__).parent / "references"

SHORT: dict[str, Any] = {"num_inference_steps": 5, "guidance_scale": 5.0}
# By name: requests of few shapes, because each shape is compiled.
IMAGES: dict[str, PlainRequest] = {
    "zeros-for-no-negative": PlainRequest("a cat in the rain, oil painting", 64, 64, seed=1, **SHORT),
    "negative": PlainRequest(
        "a red dog", 64, 64, seed=2**32 + 2, negative_prompt="blurry, low quality", num_inference_steps=8
    ),
    "empty-negative": PlainRequest("a horse", 64, 64, seed=3, negative_prompt="", **SHORT),
    "second-prompts": PlainRequest(
        "a castle at night",
        64,
        64,
        prompt_2="watercolor of a river",
        negative_prompt="fog",
        negative_prompt_2="snow",
        seed=4,
        num_inference_steps=3,
        guidance_scale=12.5,
    ),
    "micro-conditioning": PlainRequest(
        "a wizard",
        64,
        64,
        original_size=(512, 768),
        crops_coords_top_left=(8, 16),
        target_size=(1024, 1000),
        negative_original_size=(100, 200),
        negative_crops_coords_top_left=(5, 6),
        negative_target_size=(300, 400),
        seed=5,
        **SHORT,
    ),
    "half-a-negative-size": PlainRequest("a king", 64, 64, negative_original_size=(100, 200), seed=6, **SHORT),
    # 9 x 13 latents: odd at both levels where the UNet halves them.
    "odd-latents": PlainRequest("a rocket over a city", 104, 72, seed=7, **SHORT),
    "unguided": PlainRequest("a robot" + " walking" * 90, 88, 64, seed=8, num_inference_steps=4, guidance_scale=1.0),
}

_SDXL = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
SCHEDULER_CONFIGS: dict[str, dict[str, Any]] = {
    "sdxl": _SDXL,
    "defaults": {},
    "trailing": {**_SDXL, "timestep_spacing": "trailing"},
    "linspace": {**_SDXL, "timestep_spacing": "linspace"},
    "karras": {**_SDXL, "use_karras_sigmas": True},
    "karras-bounded": {**_SDXL, "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 80.0},
    "exponential": {**_SDXL, "use_exponential_sigmas": True, "timestep_spacing": "trailing"},
    "v-zero-snr": {
        **_SDXL,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    "cosine": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"},
    "log-linear": {**_SDXL, "interpolation_type": "log_linear", "timestep_spacing": "linspace"},
    "sigma-min": {**_SDXL, "final_sigmas_type": "sigma_min"},
}
STEP_COUNTS = (1, 2, 7, 25, 30, 999, 1000)
# A model that is a sum, so that trajectories compare the sampler alone.
TRAJECTORY_STEPS = 7

NOISE = {"small": (0, 5, 7), "image": (2**33 + 11, 16, 24), "fraction": (123, 3, 3)}


# What a request says that is no argument of diffusers' pipeline: its scheduler's, its refiner's, or ours alone.
_NOT_OF_THE_CALL = frozenset(
    [
        "model",
        "refiner",
        "seed",
        "sampler",
        "timestep_spacing",
        "sigma_schedule",
        "prompt_windows",
        "guidance_start",
        "guidance_end",
        "cache_interval",
        "prompt_weighting",
        "refiner_strength",
        "aesthetic_score",
        "negative_aesthetic_score",
    ]
)


def settings_of(request: PlainRequest) -> dict[str, Any]:
    """The keyword arguments of diffusers' pipeline for a request, but for its seed."""
    given = {name: value for name, value in asdict(request).items() if value is not None}
    lists = {name: list(given[name]) for name in ("timesteps", "sigmas") if name in given}
    return {name: value for name, value in (given | lists).items() if name not in _NOT_OF_THE_CALL}


# What writes into a stream that a norm reads.
_INTO_NORMS = (
    "conv_in",
    "conv2",
    "conv_shortcut",
    "proj_in",
    "proj_out",
    "to_out",
    "ff.net.2",
    "embeddings",
    "fc2",
    "out_proj",
)


def feeds_a_norm(key: str) -> bool:
    """Whether a norm reads what the parameter writes."""
    return any(f"{name}." in key for name in _INTO_NORMS)


def write_quiet(folder: Path, source: Path) -> Path:
    """A copy of a model whose signals are so small that each norm's eps shows in its output."""
    shutil.copytree(source, folder)
    for path in folder.glob("*/*.safetensors"):
        tensors = load_file(path)
        for key, values in tensors.items():
            if feeds_a_norm(key):
                tensors[key] = values * np.float32(0.01)
        save_file(tensors, path, metadata={"format": "pt"})
    return folder


def token_ids(vocab_size: int) -> np.ndarray:
    """Two texts: one that ends early, and one that fills its line."""
    ids = np.random.default_rng(0).integers(0, vocab_size - 2, (2, 77))
    ids[:, 0] = vocab_size - 2
    ids[0, 20:] = vocab_size - 1
    ids[1, -1] = vocab_size - 1
    return ids


def inputs_of(part: Part) -> dict[str, np.ndarray]:
    """What the part is run on; names differ from kind to kind."""
    config = part.config
    if part.kind == UNET:
        inputs = unet_inputs(
            config.get("in_channels", 4),
            config["cross_attention_dim"],
            config["projection_class_embeddings_input_dim"] - part.time_ids * config["addition_time_embed_dim"],
            *part.latent_size,
        )
        return {**inputs, "time_ids": inputs["time_ids"][:, : part.time_ids]}
    if part.kind == VAE:
        return {"latents": vae_latents(config["latent_channels"])}
    ids = token_ids(config["vocab_size"])
    if config["eos_token_id"] != 2:
        ids[0, [9, 40]] = ids[1, 60] = config["eos_token_id"]
    return {"ids": ids}


def unet_inputs(channels: int, context: int, pooled: int, height: int = 9, width: int = 13) -> dict[str, np.ndarray]:
    """Inputs of one UNet call, channels last."""
    draw = np.random.default_rng(1)
    return {
        "latents": draw.standard_normal((2, height, width, channels)).astype(np.float32),
        "timestep": np.array([951.0, 0.25], np.float32),
        "context": draw.standard_normal((2, 77, context)).astype(np.float32),
        "pooled": draw.standard_normal((2, pooled)).astype(np.float32),
        "time_ids": np.array([[64, 64, 0, 0, 64, 64], [1024, 1, 8, 0, 999, 64]], np.float32),
        "guidance": np.array([3.5, 8.0], np.float32),
    }


def vae_latents(channels: int) -> np.ndarray:
    """Latents of one image as a sampler leaves them, channels last."""
    return np.random.default_rng(2).standard_normal((1, 5, 6, channels)).astype(np.float32) * 0.13


def trajectory_start() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((1, 2, 3, 4)).astype(np.float32)


def relative_error(got: Any, expected: np.ndarray) -> float:
    difference = np.asarray(got, np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))


def psnr(got: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal to noise of 8-bit images, in dB; 99 where they are the same."""
    error = np.square(got.astype(np.float64) - expected).mean()
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))
