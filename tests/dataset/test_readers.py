"""What the libraries read that people train with: as many images as were rendered, each pixel of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptmill.dataset.finish import finish
from promptmill.dataset.options import PackOptions, split_of
from tests.dataset.conftest import FAILED, Run

HALVES = {"train": 0.5, "val": 0.5}


def packed(run: Run, **options: Any) -> None:
    finish(run.output, run.plan, {FAILED: "the dog ate it"}, options=PackOptions(**{"shard_size": 4, **options}))


def indexes_of(run: Run, split: str, splits: Mapping[str, float]) -> list[int]:
    """Those of a split that have an image."""
    prompts = [run.plan.whole(planned).prompt for planned in run.plan]
    return [index for index in sorted(run.pixels) if split_of(prompts[index], splits) == split]


def agree(run: Run, found: Iterable[tuple[int, Any]], expected: list[int]) -> None:
    """Each index once, with the pixels that were rendered."""
    images = dict(found)
    assert sorted(images) == expected
    for index, image in images.items():
        np.testing.assert_array_equal(np.asarray(image), run.pixels[index])


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    found = pytest.importorskip("datasets")
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return found


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_reads_tars(run: Run, datasets: Any, streaming: bool):
    packed(run)
    files = {"train": str(run.folder / "data" / "*.tar")}
    found = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=streaming)
    samples = list(found)
    agree(run, ((sample["json"]["index"], sample["png"]) for sample in samples), sorted(run.pixels))
    assert all(sample["txt"] == sample["json"]["prompt"] for sample in samples)


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_reads_the_splits_of_tars(run: Run, datasets: Any, streaming: bool):
    packed(run, splits=HALVES, shard_size=2)
    files = {name: str(run.folder / "data" / f"{name}-*.tar") for name in HALVES}
    found = datasets.load_dataset("webdataset", data_files=files, streaming=streaming)
    for name in HALVES:
        samples = ((sample["json"]["index"], sample["png"]) for sample in found[name])
        agree(run, samples, indexes_of(run, name, HALVES))


@pytest.mark.parametrize("format", ["webdataset", "parquet", "imagefolder"])
@pytest.mark.parametrize("missing", ["a shard", "the first shard", "a split"])
def test_hugging_face_reads_the_others_where_shards_have_no_image(run: Run, datasets: Any, format: str, missing: str):
    val = set(indexes_of(run, "val", HALVES))
    without = {"a shard": {2, 7}, "the first shard": {0}, "a split": val}[missing]  # 7 is the same job as 2
    for index in without:
        (run.folder / run.plan.image_name(next(iter(run.plan.at([index]))).id)).unlink(missing_ok=True)
    options = PackOptions(format=format, shard_size=1, splits=HALVES if missing == "a split" else {})
    finish(run.output, run.plan, dict.fromkeys([*without, FAILED], "the dog ate it"), options=options)
    found = datasets.load_dataset(str(run.folder))
    assert {name: len(split) for name, split in found.items()} == {"train": len(run.pixels.keys() - without)}


def test_webdataset_reads_tars(run: Run):
    webdataset = pytest.importorskip("webdataset")
    packed(run)
    urls = [str(path) for path in sorted((run.folder / "data").glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    agree(run, ((sample["json"]["index"], sample["png"]) for sample in samples), sorted(run.pixels))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_of_pytorch_gives_batches_of_tars(run: Run, workers: int):
    webdataset, torch = pytest.importorskip("webdataset"), pytest.importorskip("torch")
    packed(run)
    urls = [str(path) for path in sorted((run.folder / "data").glob("*.tar"))]
    samples = webdataset.WebDataset(urls, shardshuffle=False).decode("torchrgb8").to_tuple("png", "json")
    loader = torch.utils.data.DataLoader(
        samples, batch_size=2, num_workers=workers, collate_fn=lambda batch: list(zip(*batch, strict=True))
    )
    found = [
        (record["index"], image.permute(1, 2, 0).numpy())
        for images, records in loader
        for image, record in zip(images, records, strict=True)
    ]
    assert len(found) == len(run.pixels)
    agree(run, found, sorted(run.pixels))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("splits", [{}, HALVES], ids=["one split", "two splits"])
def test_hugging_face_reads_parquet_with_images(run: Run, datasets: Any, splits: dict[str, float], streaming: bool):
    packed(run, format="parquet", splits=splits, shard_size=2)
    patterns = {name: f"{name}-*.parquet" for name in splits} or {"train": "*.parquet"}
    files = {name: str(run.folder / "data" / pattern) for name, pattern in patterns.items()}
    found = datasets.load_dataset("parquet", data_files=files, streaming=streaming)
    for name in patterns:
        features = found[name].features
        assert features["image"] == datasets.Image() and features["seed"] == datasets.Value("uint64")
        agree(run, ((sample["index"], sample["image"]) for sample in found[name]), indexes_of(run, name, splits))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("splits", [{}, HALVES], ids=["one split", "two splits"])
def test_hugging_face_reads_folders_of_images(run: Run, datasets: Any, splits: dict[str, float], streaming: bool):
    packed(run, format="imagefolder", splits=splits, shard_size=3)
    found = datasets.load_dataset("imagefolder", data_dir=str(run.folder / "data"), streaming=streaming)
    for ours, theirs in {"train": "train", "val": "validation"}.items() if splits else {"train": "train"}.items():
        samples = list(found[theirs])
        agree(run, ((sample["index"], sample["image"]) for sample in samples), indexes_of(run, ours, splits))
        prompts = {planned.index: run.plan.whole(planned).prompt for planned in run.plan}
        assert all(sample["prompt"] == prompts[sample["index"]] for sample in samples)


def test_a_data_loader_of_pytorch_gives_batches_of_parquet(run: Run, datasets: Any):
    torch = pytest.importorskip("torch")
    packed(run, format="parquet")
    found = datasets.load_dataset("parquet", data_files=str(run.folder / "data" / "*.parquet"), split="train")
    loader = torch.utils.data.DataLoader(found.select_columns(["image", "index"]).with_format("torch"), batch_size=2)
    batches = list(loader)
    assert [len(batch["index"]) for batch in batches] == [2, 2, 2, 2, 1]
    pairs = [pair for batch in batches for pair in zip(batch["index"].tolist(), batch["image"], strict=True)]
    agree(run, ((index, image.permute(1, 2, 0).numpy()) for index, image in pairs), sorted(run.pixels))
