"""Three hundred rows with seven kinds of wrong ones: exactly those seven kinds of message, each at its line."""

import json
import re
from pathlib import Path

import pytest

from promptmill.producer.errors import PromptFileErrors
from promptmill.producer.plan import PlanOptions, plan_run

ROWS = 300

KINDS = {  # what is said, and a row of which it is said
    "is not JSON: Expecting value at character 1": "nonsense",
    "widht: is not a field of a job; did you mean 'width'? (--column width=widht, or a label: --label widht)": (
        '{"prompt": "x", "widht": 64}'
    ),
    "width: must be a multiple of 8, got 1030": '{"prompt": "x", "width": 1030}',
    "guidance: must be a number, got 'high'": '{"prompt": "x", "guidance": "high"}',
    "prompt: is empty": '{"prompt": " "}',
    "prompt: has a control character (U+0000) at character 1": r'{"prompt": "\u0000"}',
    "is not UTF-8 at byte 13 of the line": '{"prompt": "\udcff"}',
}
PER_KIND = 4  # 28 wrong rows, more than are listed


def wrong_rows() -> dict[int, str]:
    """Line -> the kind of what is wrong there, the kinds mixed."""
    kinds = list(KINDS)
    return {10 * n + 4: kinds[n % len(kinds)] for n in range(PER_KIND * len(kinds))}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    lines = [json.dumps({"prompt": f"image {n}", "author": "ann"}) for n in range(ROWS)]
    for line, kind in wrong_rows().items():
        lines[line - 1] = KINDS[kind]
    path = tmp_path / "prompts.jsonl"
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    return path


def test_a_run_stops_and_lists_twenty_of_them_by_file_line_and_field(path: Path) -> None:
    with pytest.raises(PromptFileErrors) as caught:
        plan_run([str(path)], PlanOptions())
    told = [f"{path}:{line}: {kind}" for line, kind in wrong_rows().items()]
    assert str(caught.value).splitlines() == [*told[:20], "... and 8 more"]
    assert len({re.sub(rf"^{path}:\d+: ", "", line) for line in told}) == 7


def test_a_run_that_skips_them_has_all_others_and_a_file_of_these(path: Path, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    wrong = wrong_rows()
    with plan_run([str(path)], PlanOptions(on_error="skip", rejects=rejects)) as plan:
        assert (plan.jobs, plan.rejected) == (ROWS - len(wrong), len(wrong))
        planned = [plan.whole(job).prompt for job in plan]
    assert planned == [f"image {n}" for n in range(ROWS) if n + 1 not in wrong]
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert {row["line"]: (f"{row['field']}: " if row["field"] else "") + row["problem"] for row in told} == wrong
    assert len({(row["field"], row["problem"]) for row in told}) == 7
    for row in told:
        assert row["text"] == KINDS[wrong[row["line"]]].replace("\udcff", "\ufffd") or row["field"] is not None
