"""What describes a dataset: the card that the hub and `datasets` read, and the Croissant file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from promptmill.dataset.card import card_text, licence_in
from promptmill.dataset.finish import finish
from promptmill.dataset.formats import FORMATS
from promptmill.dataset.manifest import MANIFEST
from promptmill.dataset.options import PackOptions
from promptmill.dataset.rows import Rows
from promptmill.dataset.summary import Summary, summarize
from promptmill.dataset.verify import verify
from promptmill.dataset.yaml_text import yaml_of
from tests.dataset.conftest import FAILED, Run
from tests.dataset.test_readers import HALVES, agree, indexes_of

FAILURE = "the <b>dog</b> | ate *it*"


def packed(run: Run, licence: str = "cc0-1.0", **options: Any) -> str:
    """The card."""
    chosen = PackOptions(**{"shard_size": 3, **options})
    finish(run.output, run.plan, {FAILED: FAILURE}, options=chosen, licence=licence)
    return (run.folder / "README.md").read_text()


def summary_of(run: Run) -> Summary:
    with Rows(run.folder / MANIFEST) as rows:
        index = json.loads((run.folder / "data" / "shards.json").read_text())
        return summarize(rows, json.loads((run.folder / "run.json").read_text()), index)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("splits", [{}, HALVES], ids=["one split", "two splits"])
@pytest.mark.parametrize("name", FORMATS)
def test_datasets_reads_the_runs_folder_by_its_card(
    run: Run, tmp_path: Path, name: str, splits: dict[str, float], streaming: bool
):
    datasets = pytest.importorskip("datasets")
    packed(run, format=name, splits=splits)
    found = datasets.load_dataset(str(run.folder), streaming=streaming, cache_dir=str(tmp_path / "hf"))
    assert list(found) == list(splits or ["train"])
    for split in found:
        samples = list(found[split])
        images = [
            (sample["json"]["index"], sample["png"]) if name == "webdataset" else (sample["index"], sample["image"])
            for sample in samples
        ]
        assert len(images) == len(samples)
        agree(run, images, indexes_of(run, split, splits))


def test_the_hub_understands_the_head(run: Run):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    card = huggingface_hub.DatasetCard(packed(run, format="parquet", splits=HALVES))
    assert card.data.license == "cc0-1.0" and card.data.size_categories == ["n<1K"]
    assert card.data.task_categories == ["text-to-image"] and "synthetic" in card.data.tags
    info = card.data.to_dict()["dataset_info"]
    assert sum(split["num_examples"] for split in info["splits"]) == len(run.pixels)
    datasets = pytest.importorskip("datasets")
    features = datasets.info.DatasetInfo.from_dict(datasets.info.DatasetInfo._from_yaml_dict(info).__dict__).features
    assert features["image"] == datasets.Image() and features["seed"] == datasets.Value("uint64")


def test_the_card_says_how_it_was_made(run: Run):
    text = packed(run)
    for said in ("| Model | `tiny-random` |", "| Seeds | 0 to 9, ", "| Jobs | 10, of which 9 mean different images |"):
        assert said in text
    assert "Jobs without an image: 1 failed." in text
    assert r"| the \<b\>dog\</b\> \| ate \*it\* | 1 |" in text, "words of others are words"


def test_a_card_that_its_user_wrote_on_stays_and_is_no_finding(run: Run):
    packed(run)
    (run.folder / "README.md").write_text("mine")
    assert packed(run) == "mine"
    assert list(verify(run.output)) == []


@pytest.mark.parametrize(
    ("written", "found"),
    [('"cc0-1.0"', "cc0-1.0"), ("mit", "mit"), ("'mit' ", "mit"), ("", None), (json.dumps('a "b"'), 'a "b"')],
)
def test_the_licence_is_that_of_the_card(run: Run, written: str, found: str | None):
    assert licence_in(f"---\npretty_name: x\nlicense: {written}\ntags: []\n---\nlicense: text\n") == found
    assert licence_in("license: text\n") is None
    packed(run)
    assert json.loads((run.folder / "croissant.json").read_text())["license"] == "cc0-1.0"


def test_a_contact_sheet_is_shown_where_there_is_one(run: Run):
    packed(run)
    summary = summary_of(run)
    assert "](contact-sheet.png)" in card_text(summary, "mit", sheet=True)
    assert "contact-sheet" not in card_text(summary, "mit", sheet=False)


def test_values_without_end_are_counted_up_to_a_number(run: Run, monkeypatch: pytest.MonkeyPatch):
    packed(run)
    monkeypatch.setattr("promptmill.dataset.summary.MOST_VALUES", 1)
    assert len(summary_of(run).counts["state"]) == 1


@pytest.mark.parametrize(
    "value",
    [
        {"a": 'no: "yes"', "b": [], "c": {}, "d": [{"x": 1, "y": [1, 2]}, "z"], "e": None, "f": {"g": True}},
        {"a": "café 猫\n- x", "b": [[1], {"c": "# no"}], "1>2": 1.5},
    ],
)
def test_yaml_reads_what_is_written(value: dict[str, Any]):
    assert yaml.safe_load(yaml_of(value)) == value


@pytest.mark.parametrize("name", FORMATS)
def test_mlcroissant_reads_the_manifest(run: Run, name: str):
    mlcroissant = pytest.importorskip("mlcroissant")
    packed(run, format=name, splits=HALVES)
    found = mlcroissant.Dataset(jsonld=str(run.folder / "croissant.json"))
    rows = list(found.records("manifest"))
    assert [row["manifest/index"] for row in rows] == list(range(10))
    assert [row["manifest/state"] == b"failed" for row in rows] == [index == FAILED for index in range(10)]
    shards = json.loads((run.folder / "data" / "shards.json").read_text())["shards"]
    files = {file.name: file.sha256 for file in found.metadata.file_objects}
    assert files.items() >= {(shard["name"], shard["sha256"]) for shard in shards}


@pytest.mark.parametrize("image_format", ["png", "webp"])
@pytest.mark.parametrize("name", ["parquet", "imagefolder"])
def test_mlcroissant_reads_images(run: Run, name: str, image_format: str):
    mlcroissant = pytest.importorskip("mlcroissant")
    packed(run, format=name, splits=HALVES, image_format=image_format)
    found = mlcroissant.Dataset(jsonld=str(run.folder / "croissant.json"))
    if (name, image_format) == ("imagefolder", "webp"):  # which mlcroissant does not read
        assert [one.name for one in found.metadata.record_sets] == ["manifest"]
        return
    rows = list(found.records("samples"))
    images = ((int(row["samples/index"]), np.asarray(row["samples/image"].convert("RGB"))) for row in rows)
    assert len(rows) == len(run.pixels)
    agree(run, images, sorted(run.pixels))


def test_foreign_words_are_no_markdown_in_its_head(run: Run):
    text = packed(run, licence='x"\n---\n# not mine')
    assert yaml.safe_load(text.split("\n---\n")[0])["license"] == 'x"\n---\n# not mine'
