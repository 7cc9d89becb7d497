"""Four hundred faults, one after the other: each is found, mended to the same bytes, and none is imagined."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill.dataset.finish import finish
from promptmill.dataset.options import PackOptions
from promptmill.dataset.repair import repair
from promptmill.dataset.verify import verify
from promptmill.producer import plan as plan_module
from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan import PlanOptions, plan_jobs
from promptmill.producer.plan_files import write_plan
from promptmill.producer.prompts.files import Row
from tests.dataset.conftest import Run
from tests.dataset.faults import FAULTS
from tests.dataset.test_repair import Renderer, contents

ROUNDS = 400
FAILED_ONES = {4: "the dog ate it", 17: "no such model"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A packed run of 30 rows: three files of the plan, eight shards of two splits, labels, failures, a repetition."""
    monkeypatch.setattr(plan_module, "JOBS_PER_FILE", 10)
    same = {"width": 64, "height": 64, "guidance_scale": 7.5, "original_size": [64, 64]}
    fields = [{"prompt": f"cat {{red|blue}} {index}", "seed": index, **same} for index in range(30)]
    fields[20] = fields[3]
    rows = [Row(index, one, {"kind": f"k{index}"} if index % 3 else {}) for index, one in enumerate(fields)]
    output = open_output(str(tmp_path / "out")).child("cats")
    with plan_jobs(rows, PlanOptions(defaults={"model": "tiny-random"})) as plan:
        write_plan(output, "cats", plan)
        Renderer(output)(plan, [job.index for job in plan if job.first and job.index not in FAILED_ONES])
        finish(output, plan, FAILED_ONES, options=PackOptions(shard_size=5, splits={"train": 0.7, "val": 0.3}))
        yield Run(output, tmp_path / "out" / "cats", plan, {})


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_four_hundred_faults_are_found_and_mended_and_none_is_imagined(run: Run):
    whole, found, false_alarms = contents(run.folder), Counter[str](), 0
    planted, mended = Counter[str](), Counter[str]()
    for number in range(ROUNDS):
        kind = list(FAULTS)[number % len(FAULTS)]
        name = FAULTS[kind](run.folder, random.Random(number))
        assert contents(run.folder) != whole, f"fault {number} ({kind}) changes nothing"
        planted[kind] += 1
        found[kind] += name in {finding.name for finding in verify(run.output)}
        steps = list(repair(run.output, Renderer(run.output)))
        mended[kind] += contents(run.folder) == whole and not any(step.action == "left" for step in steps)
        false_alarms += len(list(verify(run.output)))
    table = [(kind, planted[kind], found[kind], mended[kind]) for kind in FAULTS]
    print(
        "", *(f"{kind:32} {one:4} planted {two:4} found {three:4} mended" for kind, one, two, three in table), sep="\n"
    )
    print(f"{ROUNDS} faults: {found.total()} found, {mended.total()} mended, {false_alarms} false alarms")
    assert [row for row in table if not row[1] == row[2] == row[3]] == []
    assert false_alarms == 0
