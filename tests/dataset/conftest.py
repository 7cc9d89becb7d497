"""A finished run in a folder: ten rows, two of them the same job, one failed, images as workers write them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptmill.producer.image_formats import PNG, Encoding
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan, PlanOptions, plan_jobs
from promptmill.producer.plan_files import write_plan
from promptmill.worker.encode import encode

FAILED = 4
REPEATED = 7  # the same job as index 2


@dataclass
class Run:
    """What a run left in its output, and the pixels of each index."""

    output: Output
    folder: Path
    plan: Plan
    pixels: dict[int, np.ndarray]


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def encoding() -> Encoding:
    """How the run's images are written; a module may have it otherwise."""
    return PNG


@pytest.fixture
def run(tmp_path: Path, encoding: Encoding) -> Iterator[Run]:
    rows = [{"prompt": f"cat {index}", "seed": index, "width": 64, "height": 64} for index in range(10)]
    rows[REPEATED] = rows[2]
    output = open_output(str(tmp_path / "out")).child("cats")
    with plan_jobs(rows, PlanOptions(defaults={"model": "tiny-random"}, encoding=encoding)) as plan:
        write_plan(output, "cats", plan)
        shown: dict[int, np.ndarray] = {}
        for planned in plan:
            if planned.index != FAILED:
                shown[planned.index] = pixels(plan.whole(planned).seed)
                data = encode(shown[planned.index], plan.whole(planned), encoding=encoding)
                output.put_once(plan.image_name(planned.id), data, content_type=encoding.row.content_type)
        yield Run(output, tmp_path / "out" / "cats", plan, shown)


@pytest.fixture(scope="module")
def chromium_() -> Iterator[Any]:
    from tests.dataset.galleries import browser

    with browser() as started:
        yield started


@pytest.fixture
def seen(chromium_: Any) -> Iterator[Any]:
    """A page that is watched: what goes wrong in it fails the test."""
    from tests.dataset.galleries import Watched

    watched = Watched(chromium_)
    yield watched
    watched.context.close()
    assert watched.wrong == []
