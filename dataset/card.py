"""The dataset's card: `README.md`, which the Hugging Face hub and `datasets` read, and people."""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from promptmill.dataset.formats import FORMATS
from promptmill.dataset.options import ONLY_SPLIT
from promptmill.dataset.summary import Summary
from promptmill.dataset.tables import WITH_IMAGES, yaml_features
from promptmill.dataset.yaml_text import yaml_of
from promptmill.producer.layout import CONTACT_SHEET
from promptmill.producer.words import count

CARD = "README.md"

SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
"""The hub's size_categories by the number of samples under which each is."""

SAMPLES = {
    "webdataset": "A sample is `INDEX.EXT`, the image; `INDEX.txt`, its prompt; `INDEX.json`, the job and its labels.",
    "parquet": "A row is an image, its prompt, every parameter, and the labels that its row had (JSON).",
    "imagefolder": "Each folder's `metadata.parquet` has a row per image: prompt, parameters, labels (JSON).",
}

MOST_TOLD = 10
"""Values of a kind in the text."""

TOLD = {
    "model": "Model",
    "refiner": "Refiner",
    "sampler": "Sampler",
    "num_inference_steps": "Steps",
    "guidance_scale": "Guidance scale",
    "width": "Width",
    "height": "Height",
}


def card_text(summary: Summary, licence: str, sheet: bool) -> str:
    """The whole card. `licence` is one of the hub's identifiers; `sheet`: there is a contact sheet to show."""
    parts = [f"---\n{yaml_of(_head(summary, licence))}---\n", f"# {_text(summary.name)}\n", _what(summary)]
    if sheet:
        parts.append(f"![Some of the images, each with its prompt]({CONTACT_SHEET})\n")
    parts += ["## Load it\n", _loading(summary), "## What is in it\n", _contents(summary)]
    parts += ["## How it was made\n", _making(summary), _failures(summary)]
    return "\n".join(part for part in parts if part)


def licence_in(card: str) -> str | None:
    """The licence that a card names, where its user may have written another; None where it names none."""
    found = re.search(r"\A---\n.*?^license: *(\S.*?)\s*$.*?^---$", card, re.MULTILINE | re.DOTALL)
    if found is None:
        return None
    try:
        return str(json.loads(found[1]))
    except ValueError:
        return found[1].strip("'")


def patterns(summary: Summary) -> dict[str, str]:
    """The files of each split."""
    kind = FORMATS[summary.options.format]
    return {split: kind.pattern(split if summary.options.splits else "") for split in summary.splits}


def data_files(summary: Summary) -> dict[str, str | list[str]]:
    """The files of each split that has images: a pattern, or the names where a shard has none.

    `datasets` reads no dataset of which one file has no sample.
    """
    kind, found = FORMATS[summary.options.format], dict[str, str | list[str]]()
    for split, pattern in patterns(summary).items():
        shards = [shard for shard in summary.index["shards"] if shard["split"] == split]
        full = [kind.of_shard(shard["name"]) for shard in shards if shard["samples"]]
        if full:
            found[split] = pattern if len(full) == len(shards) else full
    return found


def _head(summary: Summary, licence: str) -> dict[str, Any]:
    """The fields that the hub knows: huggingface.co/docs/hub/datasets-cards."""
    size = next((name for limit, name in SIZES if summary.samples < limit), "n>10M")
    files = data_files(summary)
    splits = [
        {"name": name, "num_bytes": split["bytes"], "num_examples": split["samples"]}
        for name, split in summary.splits.items()
        if split["samples"]
    ]
    info = {"splits": splits, "download_size": summary.bytes, "dataset_size": summary.bytes}
    if summary.options.format != "webdataset":  # of tars, `datasets` finds out by itself
        info = {"features": yaml_features(WITH_IMAGES), **info}
    return {
        "license": licence,
        "pretty_name": summary.name,
        "task_categories": ["text-to-image"],
        "size_categories": [size],
        "tags": ["synthetic", "image", "text", summary.options.format, "promptmill"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": split, "path": path} for split, path in files.items()]}
        ],
        "dataset_info": info,
    }


def _what(summary: Summary) -> str:
    models = " and ".join(_code(model) for model, _ in summary.values("model")[:MOST_TOLD])
    images = count(summary.samples, "image", commas=True)
    return f"{images}, each rendered from a text prompt with {models or 'no model'}.\n"


def _loading(summary: Summary) -> str:
    split = next(iter(data_files(summary)), ONLY_SPLIT)
    return f"""```python
from datasets import load_dataset

dataset = load_dataset("PATH_OR_NAME", split="{split}")
```
"""


def _contents(summary: Summary) -> str:
    rows = [
        [name, f"{split['samples']:,}", f"{split['bytes']:,}", f"{split['shards']:,}", f"{split['holes']:,}"]
        for name, split in summary.splits.items()
    ]
    options = summary.options
    said = {"Image format": options.image_format, "Quality": options.quality, "Resized to": options.resize}
    size = "".join(f" {name}: {value}." for name, value in said.items() if value is not None)
    table = _table(["split", "images", "bytes", "shards", "without an image"], rows)
    return (
        f"{table}\n{SAMPLES[options.format]}{size} A job has the same index everywhere:\n"
        "`manifest.parquet` has a row for each, also for those without an image, and `data/shards.json` the digest of\n"
        "each shard. All images of one prompt are in the same split. Each image holds its job inside.\n"
    )


def _making(summary: Summary) -> str:
    run = summary.run
    rows = [[label, _told(summary, name)] for name, label in TOLD.items() if summary.values(name)]
    known = {name for name in TOLD if summary.values(name)}
    settings: Mapping[str, Any] = run.get("settings", {})
    rows += [[_code(name), _code(value)] for name, value in settings.items() if name not in known]
    seeds = f"{summary.seeds[0]} to {summary.seeds[1]}" if summary.seeds else "none"
    rows += [
        ["Seeds", f"{seeds}, one per image"],
        ["Prompts from", ", ".join(map(_code, run.get("sources", ()))) or "a program"],
        ["Jobs", f"{run.get('jobs', 0):,}, of which {run.get('images', 0):,} mean different images"],
        ["Rows refused", f"{run.get('rejected', 0):,}"],
        ["Submitted", str(run.get("created", "unknown"))],
        ["Rendered and packed by", _code(f"promptmill {version('promptmill')}")],
    ]
    return _table(["", ""], rows)


def _told(summary: Summary, name: str) -> str:
    values = summary.values(name)
    told = ", ".join(_code(value) for value, _ in values[:MOST_TOLD])
    return told if len(values) <= MOST_TOLD else f"{told} and others"


def _failures(summary: Summary) -> str:
    states = {str(state): count for state, count in summary.counts["state"].items() if state != "done"}
    if not states:
        return "Every job has its image.\n"
    counts = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
    reasons = [[_text(reason), f"{count:,}"] for reason, count in summary.values("reason")[:MOST_TOLD]]
    table = f"\n{_table(['reason', 'jobs'], reasons)}" if reasons else ""
    return f"Jobs without an image: {counts}. They are holes in their shards.\n{table}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"{line}\n" for line in _table_lines(head, rows))


def _table_lines(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _code(value: Any) -> str:
    """A value as code, which no character of it ends."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    return f"`{text}`" if "`" not in text else f"`` {text} ``"


def _text(value: Any) -> str:
    """A user's or a program's words, of which no character means anything to Markdown or HTML."""
    words = " ".join(str(value).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|!&" else char for char in words)
