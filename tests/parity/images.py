"""Whole images that are compared with PyTorch's as it is installed: everything that a request can say."""

from dataclasses import replace
from typing import Any

from promptmill.worker.sdxl.requests import PlainRequest

# Deep enough that clip_skip has something to skip.
CHANGES: dict[str, dict[str, Any]] = {
    "text_encoder/config.json": {"num_hidden_layers": 4},
    "text_encoder_2/config.json": {"num_hidden_layers": 5},
}

_PLAIN = PlainRequest("a red fox in the snow", 64, 64, seed=21, num_inference_steps=6, guidance_scale=5.0)
_NEGATIVE = replace(_PLAIN, negative_prompt="blurry, low quality", guidance_scale=7.5)
_MICRO = replace(
    _PLAIN,
    prompt="a wizard",
    original_size=(512, 768),
    crops_coords_top_left=(8, 16),
    target_size=(1024, 1000),
    negative_original_size=(100, 200),
    negative_crops_coords_top_left=(5, 6),
    negative_target_size=(300, 400),
)

# By name. Few shapes, because each is compiled; all else is an input.
IMAGES: dict[str, PlainRequest] = {
    "plain": _PLAIN,
    "negative prompt": _NEGATIVE,
    "empty negative prompt": replace(_PLAIN, negative_prompt=""),
    "second prompts": replace(_NEGATIVE, prompt_2="watercolor of a river", negative_prompt_2="fog"),
    "no guidance": replace(_PLAIN, guidance_scale=1.0),
    "guidance rescale": replace(_NEGATIVE, guidance_rescale=0.7, guidance_scale=12.0),
    "clip skip 1": replace(_NEGATIVE, clip_skip=1),
    "clip skip 2": replace(_PLAIN, clip_skip=2),
    "micro-conditioning": _MICRO,
    "one negative size": replace(_PLAIN, negative_original_size=(100, 200)),
    "wide": replace(_NEGATIVE, width=96),
    "seed of 33 bits": replace(_PLAIN, seed=2**32 + 5),
    "timesteps": replace(_PLAIN, timesteps=(999, 800, 555, 300, 100, 7)),
    "sigmas": replace(_PLAIN, sigmas=(14.6, 6.3, 3.1, 1.0, 0.3, 0.0)),
    "denoising end": replace(_PLAIN, denoising_end=0.6, num_inference_steps=10),
    "trailing": replace(_PLAIN, timestep_spacing="trailing"),
    "Karras sigmas": replace(_PLAIN, sigma_schedule="karras"),
    "euler_a": replace(_PLAIN, sampler="euler_a"),
    "euler_a, negative": replace(_NEGATIVE, sampler="euler_a", timestep_spacing="trailing"),
    "ddim": replace(_PLAIN, sampler="ddim"),
    "ddim, eta 0.5": replace(_PLAIN, sampler="ddim", eta=0.5),
    "dpm++_2m": replace(_PLAIN, sampler="dpm++_2m"),
    "dpm++_2m, Karras": replace(_PLAIN, sampler="dpm++_2m", sigma_schedule="karras"),
    "dpm++_2m_sde": replace(_PLAIN, sampler="dpm++_2m_sde"),
    "unipc": replace(_PLAIN, sampler="unipc", num_inference_steps=8),
    "lcm": replace(_PLAIN, sampler="lcm", num_inference_steps=4, guidance_scale=1.5),
    "tcd": replace(_PLAIN, sampler="tcd", num_inference_steps=4, eta=0.3),
    "heun": replace(_PLAIN, sampler="heun"),
    "dpm2": replace(_PLAIN, sampler="dpm2"),
    "dpm2_a": replace(_PLAIN, sampler="dpm2_a"),
    "dpm++_2s": replace(_PLAIN, sampler="dpm++_2s"),
    "deis": replace(_PLAIN, sampler="deis"),
    "pndm": replace(_PLAIN, sampler="pndm"),
    "lms": replace(_PLAIN, sampler="lms"),
    "ddpm": replace(_PLAIN, sampler="ddpm"),
    "everything at once": replace(
        _MICRO,
        prompt_2="watercolor of a river",
        negative_prompt="fog",
        negative_prompt_2="snow",
        guidance_rescale=0.5,
        clip_skip=1,
        sampler="dpm++_2m",
        sigma_schedule="karras",
        num_inference_steps=9,
    ),
}

# With the refiner after the base model.
REFINED: dict[str, PlainRequest] = {
    "ensemble of experts": replace(_NEGATIVE, denoising_end=0.6, num_inference_steps=10),
    "ensemble, micro-conditioning": replace(_MICRO, denoising_end=0.5, num_inference_steps=6),
    "ensemble, dpm++_2m": replace(_PLAIN, sampler="dpm++_2m", denoising_end=0.8, num_inference_steps=10),
    "ensemble, heun": replace(_PLAIN, sampler="heun", denoising_end=0.5, num_inference_steps=8),
    "image to image": replace(_NEGATIVE, num_inference_steps=10),
    "image to image, scores": replace(
        _PLAIN, refiner_strength=0.6, aesthetic_score=7.5, negative_aesthetic_score=1.0, num_inference_steps=8
    ),
    "image to image, unipc": replace(_PLAIN, sampler="unipc", refiner_strength=0.5, num_inference_steps=10),
    "image to image, clip skip": replace(_PLAIN, clip_skip=1, guidance_rescale=0.5, num_inference_steps=10),
}

# A model that takes its guidance scale as an input. 7.3 has no exact binary fraction.
GUIDANCE_AS_INPUT: dict[str, dict[str, Any]] = {"unet/config.json": {"time_cond_proj_dim": 256}}
GUIDED_BY_INPUT = replace(_PLAIN, sampler="lcm", num_inference_steps=4, guidance_scale=7.3)
