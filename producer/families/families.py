"""The kinds of models: `FAMILIES`, one row for each, by the name of its folder in `worker/`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One row of `FAMILIES`."""

    pipelines: tuple[str, ...]
    """diffusers' classes that it renders: `_class_name` in a folder's model_index.json."""


FAMILIES: dict[str, Family] = {
    "sdxl": Family(pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")),
}


PIPELINES = tuple(name for family in FAMILIES.values() for name in family.pipelines)


def family_of_pipeline(pipeline: Any) -> str | None:
    """The family of one of diffusers' pipeline classes, or None."""
    return next((name for name, family in FAMILIES.items() if pipeline in family.pipelines), None)
