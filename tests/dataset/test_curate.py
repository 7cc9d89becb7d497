"""What `curate` measures, finds and lists; and that it changes nothing."""

import io
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

from promptmill.dataset.curate import CurateError, Filters, Score, curate
from promptmill.dataset.duplicates import alike
from promptmill.dataset.manifest_text import rows_of_run
from promptmill.dataset.measures import dhash, measure
from promptmill.producer.layout import image_name
from promptmill.worker.encode import encode_png
from tests.dataset.conftest import FAILED, REPEATED, Run
from tests.dataset.faults import every_file
from tests.worker.images import smooth_image


def shown(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels)


def put(run: Run, index: int, pixels: np.ndarray) -> None:
    planned = next(run.plan.since(index))
    (run.folder / image_name(planned.id)).write_bytes(encode_png(pixels, run.plan.whole(planned)))


@pytest.fixture
def mixed(run: Run) -> Run:
    """Smooth images that differ, but: 3 has the pixels of 0, 5 is 0 as a JPEG, 6 shows nothing, 8 is cut, 9 blurred."""
    images = {index: smooth_image(64, 64, seed=index) for index in run.pixels if index != REPEATED}
    jpeg = io.BytesIO()
    shown(images[0]).save(jpeg, "JPEG", quality=85)
    images[3], images[5] = images[0], np.asarray(Image.open(jpeg))
    images[6] = np.full((64, 64, 3), 90, np.uint8)
    images[9] = np.asarray(shown(images[9]).filter(ImageFilter.GaussianBlur(4)))
    for index, pixels in images.items():
        put(run, index, pixels)
    name = image_name(next(run.plan.since(8)).id)
    (run.folder / name).write_bytes((run.folder / name).read_bytes()[:-30])
    return run


def curated(
    run: Run, to: Path, filters: Filters | None = None, scores: dict[str, Score] | None = None
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    counts = curate(run.output, rows_of_run(run.output, lambda: {FAILED: "x"}), to, filters or Filters(), scores or {})
    return counts, pq.read_table(to / "curation.parquet").to_pylist()


def test_each_index_is_kept_or_has_its_reasons(mixed: Run, tmp_path: Path):
    before = {name: (mixed.folder / name).read_bytes() for name in every_file(mixed.folder)}
    counts, rows = curated(mixed, tmp_path / "c")
    assert {row["index"]: row["reasons"] for row in rows if row["reasons"]} == {
        3: ["same pixels"],
        FAILED: ["no image"],
        5: ["looks alike"],
        6: ["plain"],
        REPEATED: ["same pixels"],
        8: ["broken"],
    }
    assert (rows[3]["same_as"], rows[5]["like"], rows[REPEATED]["same_as"]) == (0, 0, 2)
    assert counts == {"kept": 4, "same pixels": 2, "no image": 1, "looks alike": 1, "plain": 1, "broken": 1}
    assert (tmp_path / "c" / "keep.txt").read_text() == "0\n1\n2\n9\n"
    dropped = [json.loads(line) for line in (tmp_path / "c" / "drop.jsonl").read_text().splitlines()]
    assert [one["index"] for one in dropped] == [3, 4, 5, 6, 7, 8]
    assert (tmp_path / "c" / "prompts.txt").read_text() == "cat 4\ncat 8\n"
    assert {name: (mixed.folder / name).read_bytes() for name in every_file(mixed.folder)} == before


def test_bounds_keep_what_is_within(mixed: Run, tmp_path: Path):
    _, rows = curated(mixed, tmp_path / "c")
    blurred, sharp = rows[9]["sharpness"], rows[0]["sharpness"]
    assert blurred < sharp / 5
    filters = Filters(least={"sharpness": 2 * blurred}, most={"bytes": 10**6}, near=None, duplicates=True)
    _, rows = curated(mixed, tmp_path / "c", filters)
    assert rows[9]["reasons"] == [f"sharpness below {2 * blurred:g}"]
    assert [row["index"] for row in rows if not row["reasons"]] == [0, 1, 2, 3, 5, 7]
    with pytest.raises(CurateError, match="no column 'beauty' to filter by: expected one of bytes, brightness"):
        curated(mixed, tmp_path / "c", Filters(least={"beauty": 1}))


def test_scores_of_the_users_own_are_columns_and_can_be_filtered_by(mixed: Run, tmp_path: Path):
    def mine(images: Sequence[Image.Image], rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
        whole = zip(images, rows, strict=True)
        return [{"beauty": row["seed"], "red": float(np.asarray(image)[0, 0, 0])} for image, row in whole]

    _, rows = curated(mixed, tmp_path / "c", Filters(least={"beauty": 2}), {"my:mine": mine})
    assert [row["beauty"] for row in rows] == [0, 1, 2, 3, None, 5, 6, 2, None, 9]
    assert [row["index"] for row in rows if not row["reasons"]] == [2, 9]
    _, rows = curated(mixed, tmp_path / "d", scores={"my:one": lambda images, rows: [0.5] * len(images)})
    assert rows[0]["one"] == 0.5
    with pytest.raises(CurateError, match="--score my:none: gave 0 scores for 8 images"):
        curated(mixed, tmp_path / "e", scores={"my:none": lambda images, rows: []})


def test_measures_are_those_of_numpy():
    pixels = smooth_image(48, 64, seed=3)
    grey = np.asarray(shown(pixels).convert("L")).astype(float)
    found = measure(shown(pixels))
    assert found.brightness == pytest.approx(grey.mean())
    assert found.contrast == pytest.approx(grey.std())
    inner = grey[1:-1, 1:-1]
    laplace = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    assert found.sharpness == pytest.approx(np.clip(laplace, -128, 127).var(), rel=1e-6)
    small = np.asarray(shown(pixels).convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    bits = "".join("01"[int(bit)] for bit in (small[:, 1:] > small[:, :-1]).flatten())
    assert dhash(shown(pixels).convert("L")) == int(bits, 2)


@pytest.mark.parametrize("distance", [0, 1, 3, 7])
def test_groups_are_those_of_comparing_all_with_all(distance: int):
    draw = Random(distance)
    hashes = [draw.getrandbits(64) for _ in range(60)]
    for _ in range(60):
        one = draw.choice(hashes)
        for bit in draw.sample(range(64), draw.randrange(2 * distance + 2)):
            one ^= 1 << bit
        hashes.append(one)
    groups = alike(enumerate(hashes), distance)
    near = [
        (one, other)
        for one, other in combinations(range(len(hashes)), 2)
        if (hashes[one] ^ hashes[other]).bit_count() <= distance
    ]
    parts: dict[int, set[int]] = {index: {index} for index in range(len(hashes))}
    for one, other in near:
        whole = parts[one] | parts[other]
        parts.update(dict.fromkeys(whole, whole))
    assert near
    assert [groups.first(index) for index in range(len(hashes))] == [min(parts[index]) for index in range(len(hashes))]
