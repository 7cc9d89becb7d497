"""What distilled checkpoints need to be rendered with, and how to tell them by their names. Names and numbers only.

Every number is from the page that the preset names; docs/checkpoints.md shows them as a table. A preset gives defaults:
what a flag or a row says stands above it (`over`), and mismatches.py warns where that cannot go well.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from promptmill.producer.errors import PromptmillError
from promptmill.producer.families.samplers import TAKEN_BY

NO_GUIDANCE = (0.0, 1.0)
ANY_GUIDANCE = (0.0, float("inf"))
ANY_STEPS = range(1, 1001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """How one kind of checkpoint is meant to be sampled.

    `guidance` is the range of scales and `steps` the step counts that the checkpoint was made for, `size` the side in
    pixels where it is not SDXL's 1024. `prediction_type` stands where the checkpoint predicts otherwise than its base:
    a model folder says that itself (`promptmill import-model` writes it), so it is no field of a job.
    """

    name: str
    family: str
    source: str
    sampler: str
    num_inference_steps: int
    guidance_scale: float
    timestep_spacing: str | None = None
    timesteps: tuple[int, ...] | None = None
    eta: float | None = None
    guidance: tuple[float, float] = NO_GUIDANCE
    steps: range = ANY_STEPS
    size: int | None = None
    prediction_type: str | None = None

    def job_fields(self) -> dict[str, Any]:
        """The defaults of a job's fields, without those on which the preset is silent."""
        fields = {name: getattr(self, name) for name in _JOB_FIELDS}
        size = {"width": self.size, "height": self.size}
        return {name: value for name, value in {**fields, **size}.items() if value is not None}


_JOB_FIELDS = ("sampler", "num_inference_steps", "guidance_scale", "timestep_spacing", "timesteps", "eta")


def _exactly(steps: int) -> range:
    return range(steps, steps + 1)


def _lightning(steps: int, prediction_type: str | None = None) -> Preset:
    return Preset(
        name=f"lightning-{steps}",
        family="lightning",
        source="https://huggingface.co/ByteDance/SDXL-Lightning",
        sampler="euler",
        timestep_spacing="trailing",
        num_inference_steps=steps,
        steps=_exactly(steps),
        guidance_scale=0.0,
        prediction_type=prediction_type,
    )


_HYPER = "https://huggingface.co/ByteDance/Hyper-SD"


def _hyper(steps: int) -> Preset:
    return Preset(
        name=f"hyper-{steps}",
        family="hyper",
        source=_HYPER,
        sampler="ddim",
        timestep_spacing="trailing",
        num_inference_steps=steps,
        steps=_exactly(steps),
        guidance_scale=0.0,
    )


def _hyper_cfg(steps: int) -> Preset:
    return Preset(
        name=f"hyper-cfg-{steps}",
        family="hyper",
        source=_HYPER,
        sampler="ddim",
        timestep_spacing="trailing",
        num_inference_steps=steps,
        steps=_exactly(steps),
        guidance_scale=5.0,
        guidance=(1.0, 8.0),
    )


def _dmd2(timesteps: tuple[int, ...]) -> Preset:
    return Preset(
        name=f"dmd2-{len(timesteps)}",
        family="dmd2",
        source="https://huggingface.co/tianweiy/DMD2",
        sampler="lcm",
        timesteps=timesteps,
        num_inference_steps=len(timesteps),
        steps=_exactly(len(timesteps)),
        guidance_scale=0.0,
    )


_ALL = (
    Preset(
        name="base",
        family="base",
        source="diffusers: StableDiffusionXLPipeline.__call__",
        sampler="euler",
        num_inference_steps=50,
        guidance_scale=5.0,
        guidance=ANY_GUIDANCE,
    ),
    Preset(
        name="turbo",
        family="turbo",
        source="https://huggingface.co/docs/diffusers/using-diffusers/sdxl_turbo",
        sampler="euler_a",
        timestep_spacing="trailing",
        num_inference_steps=4,
        steps=range(1, 5),
        guidance_scale=0.0,
        size=512,
    ),
    _lightning(1, prediction_type="sample"),
    *map(_lightning, (2, 4, 8)),
    Preset(
        name="hyper-1",
        family="hyper",
        source=_HYPER,
        sampler="lcm",
        timesteps=(800,),
        num_inference_steps=1,
        steps=_exactly(1),
        guidance_scale=0.0,
    ),
    *map(_hyper, (2, 4, 8)),
    *map(_hyper_cfg, (8, 12)),
    Preset(
        name="hyper-unified",
        family="hyper",
        source=_HYPER,
        sampler="tcd",
        eta=1.0,
        num_inference_steps=1,
        steps=range(1, 9),
        guidance_scale=0.0,
    ),
    Preset(
        name="lcm",
        family="lcm",
        source="https://huggingface.co/docs/diffusers/using-diffusers/inference_with_lcm",
        sampler="lcm",
        num_inference_steps=4,
        steps=range(1, 9),
        guidance_scale=8.0,
        guidance=ANY_GUIDANCE,
    ),
    Preset(
        name="lcm-lora",
        family="lcm",
        source="https://huggingface.co/latent-consistency/lcm-lora-sdxl",
        sampler="lcm",
        num_inference_steps=4,
        steps=range(2, 9),
        guidance_scale=1.0,
        guidance=(0.0, 2.0),
    ),
    Preset(
        name="tcd-lora",
        family="tcd",
        source="https://huggingface.co/docs/diffusers/using-diffusers/inference_with_tcd_lora",
        sampler="tcd",
        eta=0.3,
        num_inference_steps=4,
        guidance_scale=0.0,
    ),
    _dmd2((999, 749, 499, 249)),
    _dmd2((399,)),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


class PresetError(PromptmillError):
    """No such preset."""


def get_preset(name: str) -> Preset:
    """The preset of this name. Raises PresetError."""
    if name not in PRESETS:
        raise PresetError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


HUB_MODELS = {
    "stabilityai/stable-diffusion-xl-base-1.0": "base",
    "stabilityai/sdxl-turbo": "turbo",
}
"""Whole models on the hub that say nothing in a folder that we could read at submission."""

HUB_PARTS = {
    "bytedance/sdxl-lightning": (
        "lightning-4",
        "--unet ByteDance/SDXL-Lightning/sdxl_lightning_4step_unet.safetensors",
    ),
    "bytedance/hyper-sd": ("hyper-4", "--lora ByteDance/Hyper-SD/Hyper-SDXL-4steps-lora.safetensors"),
    "tianweiy/dmd2": ("dmd2-4", "--lora tianweiy/DMD2/dmd2_sdxl_4step_lora_fp16.safetensors"),
    "latent-consistency/lcm-sdxl": ("lcm", "--unet latent-consistency/lcm-sdxl"),
    "latent-consistency/lcm-lora-sdxl": (
        "lcm-lora",
        "--lora latent-consistency/lcm-lora-sdxl/pytorch_lora_weights.safetensors",
    ),
    "h1t/tcd-sdxl-lora": ("tcd-lora", "--lora h1t/TCD-SDXL-LoRA/pytorch_lora_weights.safetensors"),
}
"""Repositories (in small letters) that hold UNets or LoRAs and no whole model: preset, and how to import one."""


def preset_of_hub_id(model: str) -> Preset | None:
    """The preset of a well-known hub id, with or without `@revision`."""
    repository = model.partition("@")[0].lower()
    name = HUB_MODELS.get(repository) or HUB_PARTS.get(repository, (None,))[0]
    return PRESETS[name] if name else None


def family_of(model: str) -> str | None:
    """The family of a well-known hub id: turbo, lightning, hyper, lcm, tcd, dmd2 or base."""
    preset = preset_of_hub_id(model)
    return preset.family if preset else None


_START = r"(?:^|[^a-z0-9])"
_FILE_NAMES = (
    (_START + r"sd[-_]?xl[-_]turbo", "turbo"),
    (_START + r"sdxl[-_]lightning[-_]([1248])[-_]?steps?", "lightning-{}"),
    (_START + r"hyper[-_]sdxl[-_](8|12)[-_]?steps?[-_]cfg", "hyper-cfg-{}"),
    (_START + r"hyper[-_]sdxl[-_]1[-_]?steps?[-_]lora", "hyper-unified"),
    (_START + r"hyper[-_]sdxl[-_]([1248])[-_]?steps?", "hyper-{}"),
    (_START + r"lcm[-_](?:lora[-_]sd[-_]?xl|sd[-_]?xl[-_]lora)", "lcm-lora"),
    (_START + r"lcm[-_]sd[-_]?xl", "lcm"),
    (_START + r"tcd[-_]sd[-_]?xl[-_]lora", "tcd-lora"),
    (_START + r"dmd2[-_]sd[-_]?xl[-_]([14])[-_]?steps?", "dmd2-{}"),
)
"""The names under which the authors publish. A merge that somebody calls `turbo` has needs of its own."""


def recognise(names: Iterable[str]) -> Preset | None:
    """The preset of the first name that is a published checkpoint's: a file, a hub id, a title in its metadata."""
    for name in names:
        if preset := preset_of_hub_id(name):
            return preset
        for pattern, preset_name in _FILE_NAMES:
            if found := re.search(pattern, name.lower()):
                return PRESETS[preset_name.format(*found.groups())]
    return None


def over(defaults: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What was said over the defaults. A default goes where what was said leaves it without a meaning.

    Another number of steps, or a schedule of its own, sets aside the preset's timesteps; another sampler what that
    does not take.
    """
    sampler = said.get("sampler", defaults.get("sampler", "euler"))
    kept = {name: value for name, value in defaults.items() if sampler in TAKEN_BY.get(name, (sampler,))}
    if "sigmas" in said or said.get("num_inference_steps", kept.get("num_inference_steps")) != kept.get(
        "num_inference_steps"
    ):
        kept.pop("timesteps", None)
    return {**kept, **said}
