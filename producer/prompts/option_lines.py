"""Prompt lines with options, as kohya's scripts and A1111's web UI read them. What does not parse is an error.

kohya (sd-scripts, library/train_util.py, line_to_prompt_dict):

    a red apple --n blurry, text --w 512 --h 768 --d 7 --l 5 --s 12

A1111 (scripts/prompts_from_file.py):

    --prompt "a red apple" --negative_prompt "blurry" --steps 12 --cfg_scale 5 --sampler_name "DPM++ 2M Karras"
"""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from promptmill.producer.errors import JobError
from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.prompts.columns import IMAGES, Said, cell_converter, shown_name

_KOHYA_OPTION = re.compile(r"\s--(?=\S)")
_KOHYA = {
    "n": "negative_prompt",
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "num_inference_steps",
    "l": "guidance_scale",
    "g": "guidance_scale",
    "ss": "sampler",
}
"""`--g` is the guidance that Flux takes as an input; SDXL has the one."""

KOHYA_SAMPLERS = {known: name for name, row in SAMPLERS.items() for known in row.kohya}


def kohya(line: str) -> Said:
    """The fields of a line. Raises JobError."""
    prompt, *options = _KOHYA_OPTION.split(f" {line}")
    fields: dict[str, Any] = {"prompt": prompt.strip()}
    for option in options:
        name, _, text = option.partition(" ")
        if name.lower() not in _KOHYA:
            raise JobError(
                shown_name(f"--{name}"), f"is not an option of kohya's lines here (known: {_listed(_KOHYA)})"
            )
        field = _KOHYA[name.lower()]
        if field in fields:
            raise JobError(field, f"is given twice, the second time as --{name}")
        fields[field] = (
            _sampler(text.strip(), KOHYA_SAMPLERS, name) if field == "sampler" else _value(field, text, name)
        )
    return Said(fields)


_A1111 = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "width": "width",
    "height": "height",
    "seed": "seed",
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "sampler_name": "sampler",
}
_A1111_IMAGES = ("batch_size", "n_iter")
_A1111_UNUSED = (
    "sd_model", "outpath_samples", "outpath_grids", "prompt_for_display", "styles", "subseed_strength", "subseed",
    "seed_resize_from_h", "seed_resize_from_w", "restore_faces", "tiling", "do_not_save_samples", "do_not_save_grid",
)  # fmt: skip
_A1111_WORDS = ("prompt", "negative_prompt")  # whose values run to the next option, quoted or not

A1111_SAMPLERS = {row.a1111.lower(): name for name, row in SAMPLERS.items()}
_SCHEDULES = {"karras": "karras", "exponential": "exponential", "beta": "beta"}
"""A sampler's name may end in its schedule of sigmas."""


def a1111(line: str) -> Said:
    """The fields of a line, which is a prompt where it has no options. Raises JobError."""
    if "--" not in line:
        return Said({"prompt": line})
    options = _a1111_options(line)
    fields: dict[str, Any] = {}
    images = 1
    for name in _A1111_IMAGES:
        images *= _count(name, options.pop(name, "1"))
    unused = tuple(name for name in _A1111_UNUSED if options.pop(name, None) not in (None, "", "false", "False", "0"))
    for name, text in options.items():
        if name == "sampler_name":
            fields |= _a1111_sampler(text)
        elif not (name == "seed" and text.strip() == "-1"):  # any seed
            fields[_A1111[name]] = _value(_A1111[name], text, name)
    if images > 1:
        fields[IMAGES] = images
    return Said(fields, {}, unused)


def _a1111_options(line: str) -> dict[str, str]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise JobError("--", f"is not a line of A1111's options: {str(error).lower()}") from error
    options: dict[str, str] = {}
    at = 0
    while at < len(words):
        name = words[at].removeprefix("--")
        if not words[at].startswith("--") or name not in (*_A1111, *_A1111_IMAGES, *_A1111_UNUSED):
            known = _listed([*_A1111, *_A1111_IMAGES])
            raise JobError(repr(words[at][:40]), f"is not an option of A1111's lines (known: {known})")
        if name in options:
            raise JobError(f"--{name}", "is given twice")
        values: list[str] = []
        for word in words[at + 1 :]:
            if word.startswith("--") or (values and name not in _A1111_WORDS):
                break
            values.append(word)
        if not values:
            raise JobError(f"--{name}", "has no value")
        options[name] = " ".join(values)
        at += 1 + len(values)
    return options


def _a1111_sampler(text: str) -> dict[str, str]:
    name, _, schedule = text.strip().rpartition(" ")
    if schedule.lower() in _SCHEDULES:
        return {
            "sampler": _sampler(name, A1111_SAMPLERS, "sampler_name"),
            "sigma_schedule": _SCHEDULES[schedule.lower()],
        }
    return {"sampler": _sampler(text.strip(), A1111_SAMPLERS, "sampler_name")}


def _sampler(name: str, known: Mapping[str, str], option: str) -> str:
    if name.lower() not in known:
        raise JobError("sampler", f"has no counterpart for --{option} {name[:40]!r} (known: {_listed(known)})")
    return known[name.lower()]


def _value(field: str, text: str, option: str) -> Any:
    value = cell_converter(field)(text.strip())
    if value is None and field not in ("prompt", "negative_prompt"):
        raise JobError(field, f"has no value after --{option}")
    return "" if value is None else value


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 1_000_000):
        raise JobError(f"--{name}", f"must be a whole number from 1 to 1000000, got {text[:20]!r}")
    return int(text)


def _listed(names: Mapping[str, str] | list[str]) -> str:
    return ", ".join(names)
