"""A run that changes: rows that were appended, another file's, an edited file, an output that was moved."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import redis

from promptmill.producer import plan as plan_module
from promptmill.producer.errors import LedgerError, PlanError
from promptmill.producer.growth import Change, start_of
from promptmill.producer.layout import MANIFEST, image_name
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.plan import Plan, PlanOptions, plan_jobs, plan_run
from promptmill.producer.plan_files import load_plan, read_run
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.prompts.seeds import ROOM
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import Claim, JobQueue
from promptmill.producer.run_names import find_name
from promptmill.producer.submit import Submission, resume, submit
from tests.images import image_of

TINY = {"model": "tiny-random", "steps": 2, "width": 64, "height": 64}
ABC = ["a", "b", "c"]

Submit = Callable[..., Submission]


@pytest.fixture(autouse=True)
def small_plan_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few jobs per plan file, so that the last file is seldom full."""
    monkeypatch.setattr(plan_module, "JOBS_PER_FILE", 4)


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


def plan_of(prompts: Iterable[Any], start: int = 0) -> Plan:
    return plan_jobs(prompts, PlanOptions(TINY, start=start))


@pytest.fixture
def enter(client: redis.Redis, output: Folder) -> Submit:
    def enter(
        prompts: Iterable[Any], source: str = "a.txt", change: Change = Change.NONE, run: str = "r"
    ) -> Submission:
        start = start_of(read_run(output.child(run)), [source], change)
        with plan_of(prompts, start) as plan:
            return submit(plan, output=output, run=run, client=client, sources=[source], change=change)

    return enter


@pytest.fixture
def render(client: redis.Redis, output: Folder) -> Callable[..., list[Claim]]:
    """Renders what waits, as a worker does; the claims."""

    def render(count: int = 100) -> list[Claim]:
        queue = JobQueue(client, "w")
        claims = [claim for ready in queue.claimable() for claim in queue.claim(ready.shape, count)]
        for claim in claims:
            Folder(Path(claim.output)).child(claim.run).put_once(image_name(claim.job.id), image_of(claim.job))
            queue.done(claim)
        return claims

    return render


def prompts(claims: Iterable[Claim]) -> list[tuple[int, str, int]]:
    return sorted((claim.index, claim.job.prompt, claim.job.seed) for claim in claims)


def stored(output: Folder, run: str = "r") -> list[str]:
    with load_plan(output.child(run)) as plan:
        return [plan.whole(job).prompt for job in plan]


def test_rows_that_were_appended_are_rendered_and_no_others(enter, render, output, client):
    enter(ABC)
    assert len(render()) == 3
    assert Ledger(client).status("r").state == "finished"
    grown = enter([*ABC, "d", "e", "f"])
    assert (grown.jobs, grown.images, grown.present, grown.enqueued) == (6, 6, 3, 3)
    assert Ledger(client).status("r").state == "running"
    assert prompts(render()) == [(3, "d", 3), (4, "e", 4), (5, "f", 5)]
    assert Ledger(client).status("r").state == "finished"
    assert stored(output) == [*ABC, "d", "e", "f"]
    assert enter([*ABC, "d", "e", "f"]).enqueued == 0


def test_a_run_grows_while_it_is_rendered(enter, render, client):
    enter(ABC)
    (held,) = JobQueue(client, "slow").claim(next(iter(JobQueue(client).claimable())).shape, 1)
    render(1)
    enter([*ABC, "d"])
    assert JobQueue(client, "slow").done(held)
    assert prompts(render()) == [(2, "c", 2), (3, "d", 3)]
    assert Ledger(client).status("r").state == "finished"


def test_appended_rows_may_have_other_settings_than_the_run_shared(enter, render):
    rows = [{"prompt": "a", "negative_prompt": "fog"}, {"prompt": "b", "negative_prompt": "fog"}]
    enter(rows)
    enter([*rows, {"prompt": "c", "guidance": 3.0}, {"prompt": "d", "negative_prompt": "rain"}])
    found = {claim.job.prompt: (claim.job.negative_prompt, claim.job.guidance_scale) for claim in render()}
    usual = found["a"][1]
    assert found == {"a": ("fog", usual), "b": ("fog", usual), "c": (None, 3.0), "d": ("rain", usual)}


def test_an_edited_or_shortened_file_says_what_changed_and_asks(enter, output, client):
    enter([*ABC, "d"])
    before = read_run(output.child("r"))
    with pytest.raises(PlanError, match=r"2 jobs are new, 3 gone, 1 kept; --append .*--replace-plan .*--run"):
        enter(["a", "x", "y"])
    with pytest.raises(PlanError, match="0 jobs are new, 2 gone, 2 kept"):
        enter(["a", "b"])
    assert read_run(output.child("r")) == before
    assert Ledger(client).status("r").jobs == 4


def test_append_renders_what_is_new_of_an_edited_file(enter, render, output):
    enter([*ABC, "d"])
    render()
    edited = enter(["a", "x", "c"], change=Change.APPEND)
    assert (edited.jobs, edited.enqueued) == (5, 1)
    assert prompts(render()) == [(4, "x", ROOM)], "b is still there, with seed 1"
    assert stored(output) == [*ABC, "d", "x"]
    # The same again, with or without the flag, is known.
    assert enter(["a", "x", "c"]).enqueued == enter(["a", "x", "c"], change=Change.APPEND).enqueued == 0
    # And it grows from there.
    assert enter(["a", "x", "c", "y"]).enqueued == 1
    assert prompts(render()) == [(5, "y", 2 * ROOM)], "d is still there, with seed 3"
    assert enter(["a", "x", "c", "y", "z"]).enqueued == 1
    assert prompts(render()) == [(6, "z", 4)]


def test_rows_put_into_the_middle_are_new_with_seeds_of_their_own_and_those_behind_are_not(enter, render, output):
    enter([*ABC, "c"])
    render()
    put_in = ["x", "a", "y", "b", "c", "c"]
    assert enter(put_in, change=Change.APPEND).enqueued == 2
    assert prompts(render()) == [(4, "x", ROOM), (5, "y", ROOM + 1)]
    assert enter(put_in).enqueued == enter(put_in, change=Change.APPEND).enqueued == 0, "the same again is known"
    assert enter([*put_in, "z"]).enqueued == 1
    assert enter(["w", *put_in, "z"], change=Change.APPEND).enqueued == 1
    assert enter(["v"], "b.txt", Change.APPEND).enqueued == 1
    assert stored(output) == ["a", "b", "c", "c", "x", "y", "z", "w", "v"]
    assert len(set(seeds_in(output))) == 9, "no two rows share one"


def test_seeds_that_rows_name_stay_theirs(enter, render, output):
    enter([{"prompt": "a", "seed": 1}, {"prompt": "b"}])
    render()
    rows = [{"prompt": "x", "seed": 1}, {"prompt": "a", "seed": 1}, {"prompt": "b"}]
    assert enter(rows, change=Change.APPEND).enqueued == 1
    assert prompts(render()) == [(2, "x", 1)]


def test_a_new_cell_of_a_matrix_keeps_the_seed_of_its_row(client, output):
    def enter(*steps: int) -> Submission:
        defaults = {name: value for name, value in TINY.items() if name != "steps"}
        options = PlanOptions(defaults, expansion=Expansion(matrix={"num_inference_steps": steps}))
        with plan_jobs(["a", "b"], options) as plan:
            return submit(plan, output=output, run="r", client=client, sources=["a.txt"], change=Change.APPEND)

    enter(2, 3)
    assert enter(2, 3, 4).enqueued == 2
    assert seeds_in(output) == [0, 0, 2, 2, 0, 3]


def test_append_of_another_file_puts_its_rows_behind_with_seeds_of_their_own(enter, render, output):
    enter(ABC)
    render()
    for _ in range(2):  # the same again appends nothing
        enter(["x", "a"], "b.txt", Change.APPEND)
    assert prompts(render()) == [(3, "x", ROOM), (4, "a", ROOM + 1)]
    assert stored(output) == [*ABC, "x", "a"]
    assert (read_run(output.child("r")) or {})["sources"] == ["a.txt", "b.txt"]
    # Each file may grow.
    assert enter([*ABC, "d"]).enqueued == 1
    assert enter(["x", "a", "y"], "b.txt").enqueued == 1
    assert stored(output) == [*ABC, "x", "a", "d", "y"]


def seeds_in(output: Folder, run: str = "r") -> list[int]:
    with load_plan(output.child(run)) as plan:
        return [plan.whole(job).seed for job in plan]


@pytest.fixture
def enter_files(client: redis.Redis, output: Folder, tmp_path: Path) -> Callable[..., Submission]:
    """Submits two files, a.txt and b.txt, with these prompts."""

    def enter(a: list[str], b: list[str], change: Change = Change.NONE) -> Submission:
        names = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
        for name, prompts in zip(names, (a, b), strict=True):
            Path(name).write_text("\n".join(prompts))
        with plan_run(names, PlanOptions(TINY)) as plan:
            sources = ["a.txt", "b.txt"]
            return submit(plan, output=output, run="r", client=client, sources=sources, change=change)

    return enter


def test_rows_appended_to_the_first_of_two_files_move_none_of_the_second(enter_files, output, render):
    enter_files(ABC, ["x", "y"])
    render()
    assert enter_files([*ABC, "d"], ["x", "y"], Change.APPEND).enqueued == 1
    assert prompts(render()) == [(5, "d", 3)]
    assert seeds_in(output) == [0, 1, 2, ROOM, ROOM + 1, 3], "no two share one"
    assert enter_files([*ABC, "d"], ["x", "y"]).enqueued == 0, "the same again"
    assert enter_files([*ABC, "d"], ["x", "y", "z"]).enqueued == 1
    assert prompts(render()) == [(6, "z", ROOM + 2)]


def test_rows_that_would_share_seeds_with_another_file_are_refused(enter, output, client):
    """A run of an earlier version: its second file's seeds begin right behind the first's."""
    enter(ABC)
    with plan_of(["x"], start=3) as plan:
        submit(plan, output=output, run="r", client=client, sources=["b.txt"], change=Change.APPEND)
    before = read_run(output.child("r"))
    with pytest.raises(PlanError, match=r"a.txt has grown into the seeds of b.txt.*a file of their own \(--append\)"):
        enter([*ABC, "d"])
    assert read_run(output.child("r")) == before
    assert enter(["d"], "c.txt", Change.APPEND).enqueued == 1
    assert seeds_in(output) == [0, 1, 2, 3, ROOM]


def test_replace_plan_keeps_the_images_that_both_plans_mean(enter, render, output, client):
    enter([*ABC, "d"])
    late = JobQueue(client, "late").claim(next(iter(JobQueue(client).claimable())).shape, 1)
    render()
    changed = enter(["x", "b"], change=Change.REPLACE)
    assert (changed.jobs, changed.images, changed.present, changed.enqueued) == (2, 2, 1, 1)
    assert not JobQueue(client, "late").done(late[0])  # its index is another job's by now
    assert prompts(render()) == [(0, "x", 0)]
    assert Ledger(client).status("r").state == "finished"
    assert stored(output) == ["x", "b"]
    assert enter(["x", "b"], change=Change.REPLACE).enqueued == 0


def test_a_grown_run_is_resumed_from_its_output_alone(enter, output, client, render):
    enter(ABC)
    enter([*ABC, "d", "e"])
    render(1)
    client.flushall()
    assert resume(output, "r", client).enqueued == 4
    assert [index for index, _, _ in prompts(render())] == [1, 2, 3, 4]


def test_a_ledger_that_missed_changes_follows(enter, output, client, render):
    """A submission that was killed after `run.json`, and others that went to another Redis."""
    enter(ABC)
    render(1)
    known = client.hgetall("promptmill:run:r")
    enter([*ABC, "d"])
    enter([*ABC, "d", "e"])
    client.hset("promptmill:run:r", mapping={**known, "enqueued": 3})
    assert enter([*ABC, "d", "e"]).jobs == 5
    assert Ledger(client).status("r").images == 5


class Killed(BaseException):
    pass


@pytest.mark.parametrize("change", [Change.NONE, Change.REPLACE])
@pytest.mark.parametrize("writes", range(4))
def test_a_change_that_is_killed_has_happened_or_not(enter, render, output, monkeypatch, change, writes, client):
    """At every write: the run is whole, and the same command ends in the same."""
    enter([*ABC, "d", "e"])
    render(2)
    rows = [*ABC, "d", "e", "f", "g", "h", "i"] if change is Change.NONE else ["x", "b", "y", "z", "a", "q"]
    put, left = Folder.put_once, iter(range(writes))

    def put_some(self: Folder, name: str, *args: Any, **given: Any) -> Any:
        if "images" not in name and next(left, None) is None:
            raise Killed
        return put(self, name, *args, **given)

    monkeypatch.setattr(Folder, "put_once", put_some)
    try:
        enter(rows, change=change)
    except Killed:
        monkeypatch.undo()
        monkeypatch.setattr(plan_module, "JOBS_PER_FILE", 4)
        assert stored(output) == [*ABC, "d", "e"]
    monkeypatch.undo()
    monkeypatch.setattr(plan_module, "JOBS_PER_FILE", 4)
    enter(rows, change=change)
    assert stored(output) == rows
    render()
    status = Ledger(client).status("r")
    assert (status.images, status.done, status.state) == (len(rows), len(rows), "finished")


def test_two_who_change_a_run_at_once_do_not_mix(enter, output, monkeypatch):
    enter(ABC)
    put = Folder.put_once

    def put_after_another(self: Folder, name: str, *args: Any, **given: Any) -> Any:
        if name == "run.json":
            monkeypatch.setattr(Folder, "put_once", put)
            enter([*ABC, "theirs"])
        return put(self, name, *args, **given)

    monkeypatch.setattr(Folder, "put_once", put_after_another)
    with pytest.raises(PlanError, match="another submission changed its plan"):
        enter([*ABC, "ours"])
    assert stored(output) == [*ABC, "theirs"]


def test_a_packed_run_stays_as_it_is(enter, output):
    enter(ABC)
    output.child("r").put_once(MANIFEST, b"rows")
    with pytest.raises(PlanError, match="is packed"):
        enter([*ABC, "d"])


def test_an_output_that_was_moved_is_known_again(enter, render, output, client, tmp_path):
    enter(ABC)
    render(1)
    moved = Folder(tmp_path / "elsewhere")
    shutil.move(output.root, moved.root)
    with plan_of([*ABC, "d"]) as plan:
        name = find_name(moved, "r", plan, ["a.txt"])
        assert name != "r"  # it had been named by hand
        done = submit(plan, output=moved, run="r", client=client, sources=["a.txt"])
    assert (done.present, done.enqueued) == (1, 3)
    assert {claim.output for claim in render()} == {moved.url}


def test_a_copy_of_a_run_that_is_rendered_is_refused(enter, output, client, tmp_path):
    enter(ABC)
    shutil.copytree(output.root, tmp_path / "copy")
    with plan_of(ABC) as plan, pytest.raises(LedgerError, match="is known to this Redis at"):
        submit(plan, output=Folder(tmp_path / "copy"), run="r", client=client)


# --- which run is meant -----------------------------------------------------------------------------------


@pytest.fixture
def named(enter, output) -> str:
    """A run whose name was made of its file's."""
    with plan_of(ABC) as plan:
        name = plan.default_name("a", output.url)
    enter(ABC, run=name)
    return name


@pytest.mark.parametrize(("rows", "same"), [(ABC, True), ([*ABC, "d"], True), (["a", "x"], True), (["x", "y"], False)])
def test_a_changed_file_means_its_run_and_a_file_that_shares_nothing_a_new_one(output, named, rows, same):
    with plan_of(rows) as plan:
        assert (find_name(output, "a", plan, ["a.txt"]) == named) is same
        assert find_name(output, "b", plan, ["b.txt"]).startswith("b-")


def test_a_moved_output_is_found_by_its_runs(named, output, tmp_path):
    shutil.move(output.root, tmp_path / "elsewhere")
    with plan_of([*ABC, "d"]) as plan:
        assert find_name(Folder(tmp_path / "elsewhere"), "a", plan, ["a.txt"]) == named


def test_append_wants_a_run_that_the_file_was_submitted_to(output, named):
    with plan_of(["x"]) as plan:
        assert find_name(output, "a", plan, ["a.txt"], Change.APPEND) == named
        with pytest.raises(PlanError, match=r"has no run of b\.txt: name the run to append to with --run NAME"):
            find_name(output, "b", plan, ["b.txt"], Change.APPEND)


def test_what_is_no_run_is_passed_over(output, named):
    for name, text in (("a-000000", "not JSON"), ("a-000001", json.dumps({"run": "an old one's"}))):
        output.child(name).put_once("run.json", text.encode())
    (output.root / "a-000002").mkdir()
    with plan_of([*ABC, "d"]) as plan:
        assert find_name(output, "a", plan, ["a.txt"]) == named
