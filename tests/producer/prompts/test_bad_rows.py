"""Three hundred rows with seven kinds of wrong ones: exactly those seven kinds of message, each at its line."""

import json
from pathlib import Path

import pytest

from promptmill.producer.errors import PromptFileErrors
from promptmill.producer.plan import PlanOptions, plan_run

ROWS = 300

KINDS = {  # what is said, and a row of which it is said
    "is not valid JSON: Expecting value at character 1": "nonsense",
    "widht: is not a field of a job; did you mean 'width'? (--column width=widht, or a label: --label widht)": (
        '{"prompt": "x", "widht": 64}'
    ),
    "width: must be a multiple of 8, got 1030": '{"prompt": "x", "width": 1030}',
    "guidance: must be a number, got 'high'": '{"prompt": "x", "guidance": "high"}',
    "prompt: is empty": '{"prompt": " "}',
    "prompt: has a control character (U+0000) at character 1": r'{"prompt": "\u0000"}',
    "is not UTF-8 at byte 13 of the line: save the file as UTF-8": '{"prompt": "\udcff"}',
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


def test_a_run_stops_and_lists_each_kind_of_fault_with_file_lines_and_field(path: Path) -> None:
    with pytest.raises(PromptFileErrors) as caught:
        plan_run([str(path)], PlanOptions())
    lines_of: dict[str, list[int]] = {}
    for line, kind in wrong_rows().items():
        lines_of.setdefault(kind, []).append(line)
    told = [
        f"{path}:{first}: {kind} (also lines {', '.join(map(str, others))})"
        for kind, (first, *others) in lines_of.items()
    ]
    assert str(caught.value).splitlines() == told
    assert (len(told), caught.value.count) == (7, 28)


def test_a_run_that_skips_them_has_all_others_and_a_file_of_these(path: Path, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    wrong = wrong_rows()
    with plan_run([str(path)], PlanOptions(on_error="skip", rejects=rejects)) as plan:
        assert (plan.jobs, plan.rejected) == (ROWS - len(wrong), len(wrong))
        planned = [plan.whole(job).prompt for job in plan]
    assert planned == [f"image {n}" for n in range(ROWS) if n + 1 not in wrong]
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    why = [row.pop("_rejected") for row in told]
    assert {one["line"]: (f"{one['field']}: " if one["field"] else "") + one["problem"] for one in why} == wrong
    assert len({(one["field"], one["problem"]) for one in why}) == 7
    for row, one in zip(told, why, strict=True):
        written = KINDS[wrong[one["line"]]]
        if one["field"]:
            assert row == json.loads(written), "a row to be mended"
        else:
            assert (row, one["text"]) == ({}, written.replace("\udcff", "\ufffd"))


def test_the_file_of_rejects_mended_can_be_submitted_as_it_is(path: Path, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    with plan_run([str(path)], PlanOptions(on_error="skip", rejects=rejects)):
        pass
    with pytest.raises(PromptFileErrors) as caught:
        plan_run([str(rejects)], PlanOptions(rejects=rejects))  # nothing was mended: nothing passes
    assert caught.value.count == PER_KIND * len(KINDS)
    rows = [json.loads(line) for line in rejects.read_text().splitlines()]
    for row in rows:
        row.pop("widht", None)
        row |= {"prompt": "mended", "width": 64, "guidance": 5}
    rejects.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with plan_run([str(rejects)]) as plan:
        assert (plan.jobs, plan.rejected) == (PER_KIND * len(KINDS), 0)
        assert not any(job.labels for job in plan)


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("a.csv", "prompt,seed,id\na pear,x,17\n", {"prompt": "a pear", "seed": "x", "id": "17"}),
        ("a.csv", "prompt,seed,id\na pear,7\n", {}),
        ("a.csv", "prompt,seed\na pear,7,8\n", {}),
        ("a.jsonl", '{"prompt": "", "id": 17}', {"prompt": "", "id": 17}),
        ("a.jsonl", '{"prompt": "x", "seed": 1, "seed": 2}', {}),
        ("a.txt", "a pe\x07ar\n", {"prompt": "a pe\x07ar"}),
    ],
)
def test_rejected_rows_keep_fields_and_labels(tmp_path: Path, name: str, content: str, row: dict[str, object]) -> None:
    path, rejects = tmp_path / name, tmp_path / "rejects.jsonl"
    path.write_text(content)
    with plan_run([str(path)], PlanOptions(on_error="skip", rejects=rejects), needed=False):
        pass
    (told,) = [json.loads(line) for line in rejects.read_text().splitlines()]
    del told["_rejected"]
    assert told == row
    with plan_run([str(rejects)], PlanOptions(on_error="skip"), needed=False) as plan:
        assert (plan.jobs, plan.rejected) == (0, 1), "nothing passes that was not mended"
