"""The fields of a job, one row each. All else that knows of a field is made from its row.

A row makes the check and the default of `Job` (job.py); the flag of `submit` and `render` with its spellings, type and
help; the names in the environment and in promptmill.toml; how a table's cell is read; what the worker is asked for
(worker/sdxl/requests.py); the table in docs/prompt-files.md (`python -m tools.tables` writes it, a test compares).
Fields are named as in the call of diffusers' StableDiffusionXLPipeline.

A new field is a row here, a value for it in tests/producer/test_job.py, and what the worker does with it.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from promptmill.producer import values
from promptmill.producer.families.samplers import SAMPLERS, SIGMA_SCHEDULES, TAKEN_BY, TIMESTEP_SPACINGS
from promptmill.producer.values import MAX_ITEMS, Value

SIZE_MULTIPLE = 8  # pixels per latent, in every SDXL VAE
MAX_SIDE = 4096  # pixels; beyond it SDXL draws nothing of use and a mistyped size would fill the device
MAX_STEPS = MAX_ITEMS  # the number of training timesteps
MAX_GUIDANCE = 100.0
MAX_SEED = 2**64 - 1  # what torch.Generator.manual_seed takes
MAX_CONDITIONING = 65_536  # pixels, for the size and crop conditioning
MAX_CLIP_SKIP = 31  # layers; the second encoder has 32
MAX_PROMPT_WINDOWS = 8  # windows of 77 tokens, each of which every step attends to
MAX_SIGMA = 1e5  # a zero terminal SNR begins at 4096
MAX_AESTHETIC_SCORE = 10.0  # the scale that the refiner was trained with


@dataclass(frozen=True, slots=True)
class FieldRow:
    """What is to be known of a field, beside its name, its type and its default.

    `help` says what it is, `unset` what holds where it is not given; both are read in --help and in the docs. `also`:
    other names. `off`: a value that means the same as none. `compiles`: which of its values make another shape,
    which workers compile for; '' where none does. `expands`: alternatives and wildcards are looked for in it.
    """

    value: Value
    help: str
    unset: str
    also: tuple[str, ...] = ()
    off: Any = None
    compiles: str = ""
    expands: bool = False


def _row(default: Any, value: Value, help: str, unset: str, **more: Any) -> Any:
    return field(default=default, metadata={"row": FieldRow(value, help, unset, **more)})


def _of(name: str) -> str:
    return f"for {', '.join(TAKEN_BY[name])}"


_SIDE = values.whole(SIZE_MULTIPLE, MAX_SIDE, SIZE_MULTIPLE)
_SIZE = values.pair(1, MAX_CONDITIONING)
_CROP = values.pair(0, MAX_CONDITIONING)
_SCORE = values.number(0, MAX_AESTHETIC_SCORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFields:
    """What is asked for of one image, not checked yet: promptmill.producer.job.Job is.

    `None` is off, or diffusers' default, and leaves the job id alone. The pairs of conditioning are `(height, width)`
    or `(top, left)` in pixels, as in diffusers.
    """

    prompt: str = field(
        metadata={"row": FieldRow(values.prompt(), "What the image shows.", "must be given", expands=True)},
    )
    prompt_2: str | None = _row(None, values.text(), "Prompt of the second text encoder.", "the prompt", expands=True)
    negative_prompt: str | None = _row(
        None,
        values.text(),
        "What the image should not show.",
        "zero embeddings, if the model says so (SDXL does), else the empty text",
        expands=True,
    )
    negative_prompt_2: str | None = _row(
        None, values.text(), "The same for the second text encoder.", "the negative prompt", expands=True
    )
    seed: int = _row(
        0,
        values.whole(0, MAX_SEED),
        "Seed of the noise.",
        "the job's index: 0, 1, ...; each further file begins at a multiple of 2^20",
    )
    width: int = _row(1024, _SIDE, "Width in pixels.", "the model's own, or 1024", compiles="each")
    height: int = _row(1024, _SIDE, "Height in pixels.", "the model's own, or 1024", compiles="each")
    num_inference_steps: int = _row(
        50, values.whole(1, MAX_STEPS), "Denoising steps.", "the model's own, or 50", also=("steps",)
    )
    guidance_scale: float = _row(
        5.0,
        values.number(0, MAX_GUIDANCE),
        "Classifier-free guidance; off at 1 or less.",
        "the model's own, or 5",
        also=("guidance",),
        compiles="1 or less, above 1",
    )
    sampler: str = _row(
        "euler",
        values.one_of(tuple(SAMPLERS)),
        "The sampler (diffusers: scheduler).",
        "the model's own, or euler",
        also=("scheduler",),
        compiles="stochastic or not",
    )
    model: str = _row(
        "stabilityai/stable-diffusion-xl-base-1.0",
        values.model_name("text, `@revision` behind a hub id if wanted"),
        "pocket, tiny-random, a folder in diffusers' layout, or a hub id (org/name).",
        "pocket",
        compiles="each",
    )
    original_size: tuple[int, int] | None = _row(
        None, _SIZE, "Micro-conditioning: size before scaling (height,width).", "the image's own"
    )
    target_size: tuple[int, int] | None = _row(
        None, _SIZE, "Micro-conditioning: size after scaling (height,width).", "the image's own"
    )
    crops_coords_top_left: tuple[int, int] | None = _row(
        None, _CROP, "Micro-conditioning: where the crop begins (top,left).", "0,0"
    )
    negative_original_size: tuple[int, int] | None = _row(
        None, _SIZE, "original_size of the negative prompt.", "original_size"
    )
    negative_target_size: tuple[int, int] | None = _row(
        None, _SIZE, "target_size of the negative prompt.", "target_size"
    )
    negative_crops_coords_top_left: tuple[int, int] | None = _row(
        None, _CROP, "crops_coords_top_left of the negative prompt.", "0,0"
    )
    timestep_spacing: str | None = _row(
        None, values.one_of(TIMESTEP_SPACINGS), "Spacing of the timesteps.", "the model's own"
    )
    sigma_schedule: str | None = _row(
        None, values.one_of(SIGMA_SCHEDULES), "Spacing of the sigmas (noise levels).", "the model's own"
    )
    timesteps: tuple[int, ...] | None = _row(
        None,
        values.wholes(0, MAX_STEPS - 1),
        "Custom training timesteps, highest first.",
        "none",
    )
    sigmas: tuple[float, ...] | None = _row(
        None,
        values.numbers(0, MAX_SIGMA),
        "Custom sigmas (noise levels), highest first.",
        "none",
    )
    eta: float | None = _row(
        None, values.number(0, 1), f"Noise at each step, {_of('eta')}.", "0", off=0, compiles="0, above 0"
    )
    guidance_rescale: float | None = _row(
        None, values.number(0, 1), "Rescale guidance against over-exposure.", "0", off=0
    )
    guidance_start: float | None = _row(
        None,
        values.number(0, 1, below=True),
        "Fraction of the steps before guidance begins.",
        "0",
        off=0,
        compiles="in part or not",
    )
    guidance_end: float | None = _row(
        None,
        values.fraction(may_be_1=True),
        "Fraction of the steps after which guidance ends; steps without it take half the time.",
        "1",
        off=1,
        compiles="in part or not",
    )
    cache_interval: int | None = _row(
        None,
        values.whole(1, MAX_STEPS),
        "Run the whole UNet at every Nth of its evaluations only, its outermost layers at the others (DeepCache).",
        "1",
        off=1,
        compiles="1, above 1",
    )
    clip_skip: int | None = _row(
        None, values.whole(0, MAX_CLIP_SKIP), "Last layers of the text encoders to skip, as in diffusers.", "0", off=0
    )
    prompt_windows: int | None = _row(
        None,
        values.whole(1, MAX_PROMPT_WINDOWS),
        "Windows of 77 tokens for long prompts; tokens beyond are truncated.",
        "1",
        off=1,
        compiles="each",
    )
    prompt_weighting: bool | None = _row(None, values.truth(), "Apply weights such as (word:1.3).", "false", off=False)
    denoising_end: float | None = _row(
        None,
        values.fraction(may_be_1=False),
        "Fraction of the noise schedule at which the refiner takes over.",
        "after all steps",
    )
    refiner: str | None = _row(
        None,
        values.model_name("text"),
        "A second model that finishes the image: a folder, or a hub id.",
        "none",
        compiles="each",
    )
    refiner_strength: float | None = _row(
        None,
        values.fraction(may_be_1=True),
        "Strength of the refiner's image-to-image pass after all steps.",
        "0.3 with a refiner",
    )
    aesthetic_score: float | None = _row(None, _SCORE, "Aesthetic score that the refiner is conditioned on.", "6")
    negative_aesthetic_score: float | None = _row(None, _SCORE, "The same for the refiner's negative prompt.", "2.5")


ROWS: dict[str, FieldRow] = {one.name: one.metadata["row"] for one in dataclasses.fields(JobFields)}

FIELD_NAMES = tuple(ROWS)

ALIASES = {other: name for name, row in ROWS.items() for other in row.also}
"""Short and other names under which a field may come in a prompt file."""
