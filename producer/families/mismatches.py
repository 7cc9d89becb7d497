"""Settings that do not suit the model, said before anything is rendered: a million images cost more than a warning."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from promptmill.producer.families.presets import HUB_PARTS, PRESETS, Preset
from promptmill.producer.job import Job
from promptmill.producer.models import Defaults, model_defaults

MOST_SETTINGS = 1000  # of one model that are looked at: nobody reads more warnings

BASE = "stabilityai/stable-diffusion-xl-base-1.0"


class Settings(NamedTuple):
    """What of a job can suit its model or not."""

    width: int
    height: int
    sampler: str
    timestep_spacing: str | None
    timesteps: tuple[int, ...] | None
    num_inference_steps: int
    guidance_scale: float
    sigmas: bool
    negative: bool

    @classmethod
    def of(cls, job: Job) -> "Settings":
        return cls(
            job.width,
            job.height,
            job.sampler,
            job.timestep_spacing,
            job.timesteps,
            job.num_inference_steps,
            job.guidance_scale,
            job.sigmas is not None,
            bool(job.negative_prompt or job.negative_prompt_2),
        )


class Suspicions:
    """What of a run's jobs may not suit their models, gathered in little memory."""

    def __init__(self) -> None:
        self._settings: dict[str, dict[Settings, None]] = {}

    def see(self, job: Job) -> None:
        """Takes note of a job's settings."""
        found = self._settings.setdefault(job.model, {})
        if len(found) < MOST_SETTINGS:
            found[Settings.of(job)] = None

    def sentences(self, preset: str | None = None) -> list[str]:
        """A sentence for each thing that does not suit a model, each once. `preset` is what --preset said."""
        found = self._settings.items()
        sentences = [text for model, settings in found for text in warnings_for(model, list(settings), preset)]
        return list(dict.fromkeys(sentences))


def mismatches(jobs: Iterable[Job], preset: str | None = None) -> list[str]:
    """The sentences about these jobs."""
    suspicions = Suspicions()
    for job in jobs:
        suspicions.see(job)
    return suspicions.sentences(preset)


def warnings_for(model: str, settings: Sequence[Settings], preset: str | None = None) -> Iterator[str]:
    """What does not suit `model` in the distinct settings of its jobs."""
    own = model_defaults(model)
    yield from _of_model(model, own, preset)
    known = PRESETS.get(preset or own.preset or "base")
    assert known is not None  # model_defaults refuses a preset that is none
    for one in settings:
        yield from _of_settings(model, own, known, one)


def _of_model(model: str, own: Defaults, preset: str | None) -> Iterator[str]:
    part = HUB_PARTS.get(model.partition("@")[0].lower())
    if part:
        yield (
            f"{model} holds parts of a model and not a whole one; make a folder of it first: "
            f"promptmill import-model {BASE} FOLDER {part[1]}"
        )
    if own.note:
        yield f"{model}: {own.note} (--sampler chooses)"
    if preset and own.preset and PRESETS[preset].family != PRESETS[own.preset].family:
        yield f"--preset {preset} is for another kind of checkpoint: {model} is {own.preset}"
    wanted = PRESETS[preset].prediction_type if preset else None
    if wanted and own.own_prediction_type not in (None, wanted):
        yield (
            f"--preset {preset} needs a model that predicts {wanted!r}, but {model} says {own.own_prediction_type!r}: "
            f"import it again with --prediction-type {wanted}"
        )


def _of_settings(model: str, own: Defaults, preset: Preset, got: Settings) -> Iterator[str]:
    if preset.family != "base":
        hint = f"(--preset {preset.name})"
        yield from _guidance(model, own, preset, got, hint)
        yield from _schedule(model, own, preset, got, hint)
    if preset.size and own.width == preset.size and max(got.width, got.height) > preset.size:
        yield f"{got.width}x{got.height} is asked for, but {model} was trained at {preset.size}x{preset.size}"
    if own.guidance_as_input and preset.family == "base" and got.sampler not in ("lcm", "tcd"):
        yield f"sampler is {got.sampler}, but {model} is a consistency model: use lcm"
    if got.negative and (own.guidance_as_input or (preset.family != "base" and got.guidance_scale <= 1)):
        yield f"negative prompts change nothing with {model}: it is rendered without guidance"


def _guidance(model: str, own: Defaults, preset: Preset, got: Settings, hint: str) -> Iterator[str]:
    low, high = preset.guidance
    if own.guidance_as_input or low <= got.guidance_scale <= high:
        return
    made = "was distilled without guidance" if high <= 1 else f"was made for scales from {low:g} to {high:g}"
    yield f"guidance_scale is {got.guidance_scale:g}, but {model} {made}: use {preset.guidance_scale:g} {hint}"


def _schedule(model: str, own: Defaults, preset: Preset, got: Settings, hint: str) -> Iterator[str]:
    steps = len(got.timesteps) if got.timesteps else got.num_inference_steps
    if steps not in preset.steps:
        yield f"num_inference_steps is {steps}, but {model} was made for {_count(preset.steps)} {hint}"
    if got.sampler not in (preset.sampler, *_AS_WELL.get(preset.name, ())):
        yield f"sampler is {got.sampler}, but {model} was made for {preset.sampler} {hint}"
    if got.sigmas or steps not in preset.steps:
        return
    if preset.timesteps and got.timesteps != preset.timesteps:
        wanted = ",".join(map(str, preset.timesteps))
        yield f"timesteps are {_own(got.timesteps)}, but {model} was trained at {wanted} {hint}"
    spacing = got.timestep_spacing or own.own_spacing
    if preset.timestep_spacing and not got.timesteps and spacing not in (None, preset.timestep_spacing):
        yield f"timestep_spacing is {spacing}, but {model} needs {preset.timestep_spacing} {hint}"


_AS_WELL = {"turbo": ("euler",)}  # without noise between the steps; for one step they are the same


def _count(steps: range) -> str:
    if len(steps) == 1:
        return f"exactly {steps[0]} step{'s' * (steps[0] > 1)}"
    return f"{steps[0]} to {steps[-1]} steps"


def _own(timesteps: tuple[int, ...] | None) -> str:
    return ",".join(map(str, timesteps)) if timesteps else "the sampler's own"
