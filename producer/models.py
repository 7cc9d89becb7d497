"""Which models there are to name, and what a job gets where the user said nothing. Looks at JSON only: no JAX.

A model is `pocket` or `tiny-random` (the worker has them), a folder in diffusers' layout, or a hub id, with `@revision`
if one is wanted. What a folder says of itself counts; a hub id is known by its name (families/presets.py), if at all.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmill.producer.errors import ModelNameError
from promptmill.producer.families.families import PIPELINES, family_of_pipeline
from promptmill.producer.families.presets import PRESETS, Preset, get_preset, preset_of_hub_id
from promptmill.producer.families.samplers import SCHEDULERS, sampler_of_scheduler

POCKET = "pocket"
"""A small SDXL that ships with the worker and draws some eighty emoji on plain backgrounds."""

TINY_RANDOM = "tiny-random"
"""A smaller one with random weights: its images are noise. For trying the machinery."""

DEFAULT_MODEL = POCKET

POCKET_FOLDER = Path(__file__).parents[1] / "worker" / "models" / POCKET
"""Where this installation has it."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")

RECORD = "_promptmill"
"""Where `promptmill import-model` writes in a model_index.json what went in; diffusers skips keys with `_`."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What decides a job's pixels where neither its row nor a flag does, and what is known of the model besides.

    `guidance_as_input`: the UNet takes the guidance scale as an input (LCM), so no job of the model is guided.
    `own_spacing` and `own_prediction_type` are what the folder's scheduler says; None where it is not read.
    """

    width: int
    height: int
    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    sampler: str = "euler"
    timestep_spacing: str | None = None
    timesteps: tuple[int, ...] | None = None
    eta: float | None = None
    guidance_as_input: bool = False
    preset: str | None = None
    own_spacing: str | None = None
    own_prediction_type: str | None = None
    note: str | None = None

    def job_fields(self) -> dict[str, Any]:
        """The defaults as a job's fields, without those on which nothing is said."""
        values = {name: getattr(self, name) for name in _JOB_FIELDS}
        return {name: value for name, value in values.items() if value is not None}


_JOB_FIELDS = (
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "sampler",
    "timestep_spacing",
    "timesteps",
    "eta",
)

BUILT_IN = {
    POCKET: Defaults(width=64, height=64, num_inference_steps=10, guidance_scale=3.5),
    TINY_RANDOM: Defaults(width=64, height=64, num_inference_steps=8),
}

SDXL_DEFAULTS = Defaults(width=1024, height=1024)
"""diffusers' own defaults for StableDiffusionXLPipeline.__call__."""


def resolve_model(name: str) -> str:
    """The name under which workers find the model: folders become absolute. Raises ModelNameError."""
    if name in BUILT_IN:
        return name
    folder = _folder(name)
    if folder is not None:
        if not (folder / "model_index.json").is_file():
            raise ModelNameError(f"{folder} is not a model folder: it has no model_index.json (diffusers' layout)")
        return str(folder.resolve())
    if _is_file(name):
        raise ModelNameError(
            f"{name} is a file, but a model is a folder in diffusers' layout: promptmill import-model makes one of it"
        )
    if not is_hub_id(name):
        raise ModelNameError(
            f"no model {name!r}: expected {', '.join(BUILT_IN)}, a folder in diffusers' layout, or a hub id (org/name)"
        )
    return name


def is_hub_id(name: str) -> bool:
    """Whether this is written as `org/name` or `org/name@revision`; what lies here under that name comes first."""
    return not name.startswith((".", "/", "~")) and bool(_HUB_ID.fullmatch(name))


def _folder(name: str) -> Path | None:
    if not name:
        return None  # for Path it would be the current folder
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long for a file, no such user's home, a zero byte
        return None


def _is_file(name: str) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def model_defaults(model: str, preset: str | None = None) -> Defaults:
    """The defaults of a resolved model: from its folder's JSON or its name, and over those a preset's.

    Without `preset`, the model's own counts: the one that a folder was imported with, or that of a well-known hub id.
    Raises ModelNameError for a folder that is no SDXL model, PresetError for an unknown preset.
    """
    if model in BUILT_IN:
        found, own = BUILT_IN[model], None
    elif Path(model).is_dir():
        found, own = _of_folder(Path(model))
    else:
        found, own = SDXL_DEFAULTS, preset_of_hub_id(model)
    chosen = get_preset(preset) if preset else own
    return _with_preset(found, chosen) if chosen else found


def _with_preset(defaults: Defaults, preset: Preset) -> Defaults:
    """The preset over the defaults. A size that a folder states is the model's own and stays."""
    fields = preset.job_fields()
    if defaults is not SDXL_DEFAULTS:
        fields = {name: value for name, value in fields.items() if name not in ("width", "height")}
    known = preset.name if preset.name != "base" else None
    return dataclasses.replace(defaults, preset=known, note=None, **fields)


def _of_folder(folder: Path) -> tuple[Defaults, Preset | None]:
    """What the JSON of a model folder says, and the preset that it was imported with."""
    try:
        unet = _read_json(folder / "unet" / "config.json")
        vae = _read_json(folder / "vae" / "config.json")
        side = latent_side(unet.get("sample_size")) * 2 ** (len(vae["block_out_channels"]) - 1)
        index = _read_json(folder / "model_index.json")
        scheduler = _read_json(folder / "scheduler" / "scheduler_config.json", missing={})
        _check_pipeline(index.get("_class_name"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNameError(f"{folder} is not an SDXL model folder: {error}") from error
    sampler, note = sampler_of(scheduler)
    defaults = Defaults(
        width=side,
        height=side,
        sampler=sampler,
        guidance_as_input=unet.get("time_cond_proj_dim") is not None,
        own_spacing=scheduler.get("timestep_spacing"),
        own_prediction_type=scheduler.get("prediction_type"),
        note=note,
    )
    record = index.get(RECORD)
    preset = PRESETS.get(str(record.get("preset"))) if isinstance(record, dict) else None
    return defaults, preset or (PRESETS["lcm"] if defaults.guidance_as_input else None)


def _check_pipeline(name: Any) -> None:
    if name is not None and family_of_pipeline(name) is None:
        raise ValueError(f"model_index.json says _class_name {name!r}, expected {' or '.join(PIPELINES)}")


def latent_side(sample_size: Any) -> int:
    """Latents along one side of the image that a UNet was trained for, from `sample_size` in its configuration.

    A number; or height and width, of which the longer counts; or null or absent, which is SDXL's 128, as in diffusers'
    pipeline. ValueError for anything else. Workers read it here too.
    """
    sides = sample_size if isinstance(sample_size, list | tuple) else [128 if sample_size is None else sample_size]
    if len(sides) not in (1, 2) or any(type(side) is not int or side < 1 for side in sides):
        raise ValueError(f"unet sample_size is {sample_size!r}, expected a number, height and width, or null")
    return int(max(sides))


def sampler_of(scheduler: Mapping[str, Any]) -> tuple[str, str | None]:
    """The sampler that a scheduler_config.json asks for; where we have none such, Euler and a note that says so."""
    name = scheduler.get("_class_name", "EulerDiscreteScheduler")
    algorithm = scheduler.get("algorithm_type", "dpmsolver++")
    sampler = sampler_of_scheduler(name, algorithm)
    if sampler:
        return sampler, None
    shown = f"{name} with {algorithm}" if name in SCHEDULERS else name
    return "euler", f"its scheduler is {shown}, which is not here: euler stands in"


def _read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    if missing is not None and not path.exists():
        return missing
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise TypeError(f"{path.name} does not hold a JSON object")
    return values
