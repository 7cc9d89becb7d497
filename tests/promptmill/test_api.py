"""The queue from Python, with a real Redis; who renders is played here, as `promptmill.worker.render` does it."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import promptmill
from promptmill import RunHandle
from promptmill.producer.errors import JobError, LedgerError, PlanError, PromptmillError
from promptmill.producer.job import Job
from promptmill.producer.layout import image_name
from promptmill.producer.plan import AnyJob
from promptmill.producer.plan_builder import JOBS_PER_FILE
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.queue.queue import JobQueue
from tests.images import image_of

TINY: dict[str, Any] = {"model": "tiny-random", "steps": 2}
EVERY = Expansion(combinatorial=True)


@pytest.fixture
def out(tmp_path: Path, redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PROMPTMILL_BROKER", redis_url)
    return str(tmp_path / "out")


def render(client: redis.Redis, count: int, fail: bool = False) -> int:
    """Settles up to `count` jobs, as a worker does; how many there were."""
    queue = JobQueue(client, "test")
    claims = [claim for ready in queue.claimable() for claim in queue.claim(ready.shape, count)][:count]
    for claim in claims:
        if fail:
            queue.failed(claim, "the dog ate it")
            continue
        path = Path(claim.output) / claim.run / image_name(claim.job.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_of(claim.job))
        queue.done(claim)
    return len(claims)


def test_jobs_may_be_text_mappings_and_jobs(client, out):
    job = Job(prompt="a dog", model="tiny-random", width=64, height=64, seed=9)
    jobs: list[AnyJob] = ["a cat", {"prompt": "a cow", "seed": 7, "steps": 3}, job]
    handle = promptmill.submit(jobs, output=out, **TINY)
    assert (handle.status().jobs, handle.status().state) == (3, "running")
    render(client, 10)
    images = list(handle)
    assert [image.index for image in images] == [0, 1, 2]
    assert [image.job.prompt for image in images] == ["a cat", "a cow", "a dog"]
    assert [image.job.seed for image in images] == [0, 7, 9]
    assert [image.job.num_inference_steps for image in images] == [2, 3, job.num_inference_steps]
    assert images[2].job == job
    for image in images:
        assert image.id == image.job.id
        assert image.path is not None and image.path.exists()
        assert image.url == str(image.path) == f"{handle.output}/{image_name(image.id)}"


@pytest.mark.parametrize("one", ["a cat", {"prompt": "a cat"}, Job(prompt="a cat")], ids=["text", "mapping", "Job"])
def test_one_job_needs_no_list(out, one):
    assert promptmill.submit(one, output=out, **TINY).status().jobs == 1


def test_the_same_jobs_are_the_same_run(client, out):
    one = promptmill.submit((f"cat {n}" for n in range(3)), output=out, **TINY)
    other = promptmill.submit([f"cat {n}" for n in range(3)], output=out, **TINY)
    assert one.run == other.run
    assert render(client, 100) == 3, "nothing is entered twice"


def test_braces_are_text_unless_somebody_says_otherwise(client, out):
    promptmill.submit("a {red|blue} cat, __hair__", output=out, run="plain", **TINY)
    plain = RunHandle("plain")
    both = promptmill.submit("a {red|blue} cat", output=out, run="both", expansion=EVERY, **TINY)
    render(client, 100)
    assert [image.job.prompt for image in plain] == ["a {red|blue} cat, __hair__"]
    assert sorted(image.job.prompt for image in both) == ["a blue cat", "a red cat"]


def test_labels_of_a_prompt_file_come_back(client, out, tmp_path, monkeypatch):
    (tmp_path / "cats.csv").write_text("prompt,note\na cat,x\n")
    command = [sys.executable, "-m", "promptmill", "submit", str(tmp_path / "cats.csv"), "--run", "r", "--output", out]
    subprocess.run([*command, "--model", "tiny-random"], check=True, capture_output=True)
    render(client, 1)
    assert [dict(image.labels) for image in RunHandle("r")] == [{"note": "x"}]


def test_each_image_is_told_once_as_it_lands(client, out):
    handle = promptmill.submit([f"cat {n}" for n in range(30)], output=out, **TINY)
    told, seen_after = [], []

    async def listen() -> None:
        async for image in handle:
            told.append(image.index)
            if len(told) % 10 == 0:
                seen_after.append(len(told))
                render(client, 10)

    render(client, 10)
    asyncio.run(asyncio.wait_for(listen(), 60))
    assert sorted(told) == list(range(30))
    assert seen_after == [10, 20, 30]


def test_two_listeners_and_a_late_one_hear_all(client, out):
    handle = promptmill.submit([f"cat {n}" for n in range(20)], output=out, **TINY)

    async def listen(to: RunHandle) -> list[int]:
        return [image.index async for image in to]

    async def all_of_it() -> list[list[int]]:
        rendering = asyncio.to_thread(lambda: [render(client, 5) for _ in range(4)])
        one, two, _ = await asyncio.gather(listen(handle), listen(RunHandle(handle.run)), rendering)
        return [one, two, await listen(handle)]

    for told in asyncio.run(asyncio.wait_for(all_of_it(), 60)):
        assert sorted(told) == list(range(20))


def test_the_event_loop_is_free_while_one_listens(client, out):
    handle = promptmill.submit(["a cat"], output=out, **TINY)

    async def tick() -> int:
        ticks = 0
        listener = asyncio.create_task(_first(handle))
        while not listener.done():
            ticks += 1
            if ticks == 20:
                await asyncio.to_thread(render, client, 1)
            await asyncio.sleep(0.01)
        return ticks

    assert asyncio.run(asyncio.wait_for(tick(), 60)) > 20


async def _first(handle: RunHandle) -> int:
    async for image in handle:
        return image.index
    raise AssertionError("no image")


def test_rows_that_mean_one_job_are_told_once(client, out):
    cats, dog = [{"prompt": "a cat", "seed": 1}] * 3, {"prompt": "a dog", "seed": 1}
    handle = promptmill.submit([*cats, dog], output=out, **TINY)
    assert (handle.status().jobs, handle.status().images) == (4, 2)
    assert render(client, 100) == 2
    assert [image.index for image in handle] == [0, 3]


def test_iteration_ends_with_failures_and_tells_of_them(client, out):
    handle = promptmill.submit(["a", "b", "c"], output=out, **TINY)
    render(client, 2)
    render(client, 1, fail=True)
    assert len(list(handle)) == 2
    status = handle.wait(timeout=5)
    assert (status.done, status.failed) == (2, 1)
    (failure,) = handle.failures()
    assert (failure.index, failure.reason) == (2, "the dog ate it")


def test_iteration_and_wait_end_when_the_run_is_cancelled(client, out):
    handle = promptmill.submit(["a", "b", "c"], output=out, **TINY)
    render(client, 1)
    threading.Timer(0.7, handle.cancel).start()
    assert [image.index for image in handle] == [0]
    assert handle.wait(timeout=5).state == "cancelled"


def test_wait_is_over_after_its_timeout(out):
    handle = promptmill.submit(["a", "b"], output=out, run="r", **TINY)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"run 'r': 2 of 2 images left after 0\.3 s"):
        handle.wait(timeout=0.3, poll=0.05)
    assert time.monotonic() - began < 5


def test_cancel_says_how_many_are_not_rendered(client, out):
    handle = promptmill.submit(["a", "b", "c"], output=out, **TINY)
    render(client, 1)
    assert handle.cancel() == 2
    assert render(client, 10) == 0


def test_places_beyond_one_file_of_the_plan(client, out):
    count = JOBS_PER_FILE + 2
    handle = promptmill.submit((f"cat {n}" for n in range(count)), output=out, **TINY)
    for index in (3, JOBS_PER_FILE - 1, JOBS_PER_FILE, JOBS_PER_FILE + 1):
        client.setbit(f"promptmill:run:{handle.run}:done", index, 1)
    handle.cancel()
    assert {image.index: image.job.prompt for image in handle} == {
        place: f"cat {place}" for place in (3, JOBS_PER_FILE - 1, JOBS_PER_FILE, JOBS_PER_FILE + 1)
    }


@pytest.mark.parametrize(
    ("jobs", "more", "told"),
    [
        (["a", {"prompt": "b", "width": 1030}], {}, "width: must be a multiple of 8, got 1030"),
        ([{"prompt": ""}], {}, "prompt: is empty"),
        (["a"], {"widht": 64}, "did you mean 'width'"),
        (["a"], {"run": "a/b"}, "run name 'a/b'"),
        (["a"], {"priority": "high"}, "high"),
        ([], {}, "no "),
        ([7], {}, "must be a prompt, a mapping of fields, or a Job, got int"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_before_anything_is_entered(client, out, jobs, more, told):
    with pytest.raises(PromptmillError) as error:
        promptmill.submit(jobs, output=out, **{**TINY, **more})
    assert told in str(error.value)
    assert client.keys("promptmill:run*") == []


def test_a_name_that_stands_for_other_jobs_is_told(out):
    promptmill.submit("a cat", output=out, run="r", **TINY)
    with pytest.raises((PlanError, LedgerError), match="'r'"):
        promptmill.submit("a dog", output=out, run="r", **TINY)


def test_a_handle_of_an_unknown_run_is_told(out):
    promptmill.submit("a cat", output=out, run="cats", **TINY)
    with pytest.raises(LedgerError, match="no run 'cat' in this Redis; did you mean 'cats'"):
        RunHandle("cat")


def test_a_generator_that_fails_enters_nothing(client, out):
    def jobs() -> Iterator[str]:
        yield "a cat"
        raise JobError("prompt", "from a broken database")

    with pytest.raises(JobError):
        promptmill.submit(jobs(), output=out, **TINY)
    assert client.keys("promptmill:run*") == []


def test_the_api_is_there_after_the_command_line_was_loaded():
    """`promptmill.submit` is a function, whatever else of the package was imported before."""
    code = (
        "import promptmill.cli as c, promptmill; [c._command(verb) for verb in c.VERBS]; "
        "assert callable(promptmill.submit) and promptmill.RunHandle and promptmill.FinishedImage; "
        "import sys; print('jax' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (ran.returncode, ran.stdout) == (0, "False\n"), ran.stderr


def test_a_data_frame_and_a_path_are_read_as_prompt_files(client, out, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"prompt": ["a cat", "a dog"], "seed": [3, 4], "class": ["cat", "dog"]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.iloc[:1].to_json(tmp_path / "more.jsonl", orient="records", lines=True)
    of_frame = promptmill.submit(frame, output=out, run="frame", **TINY)
    of_path = promptmill.submit(tmp_path / "rows.csv", output=out, run="path", **TINY)
    of_paths = promptmill.submit([tmp_path / "rows.csv", tmp_path / "more.jsonl"], output=out, run="paths", **TINY)
    assert [handle.status().jobs for handle in (of_frame, of_path, of_paths)] == [2, 2, 3]
    while render(client, 100):
        pass
    told = [[(image.job, image.labels) for image in handle] for handle in (of_frame, of_path, of_paths)]
    assert told[0] == told[1] == told[2], "the third row means the first one's job"
    assert [labels for _, labels in told[0]] == [{"class": "cat"}, {"class": "dog"}]


def test_a_named_run_grows_and_a_listener_sees_what_came(client, out):
    handle = promptmill.submit(["a cat", "a cow"], output=out, run="zoo", **TINY)
    images = iter(handle)
    render(client, 1)
    first = next(images)
    promptmill.submit(["a cat", "a cow", "a dog"], output=out, run="zoo", **TINY)
    with pytest.raises(PlanError, match="1 job is new, 2 gone, 1 kept"):
        promptmill.submit(["a cat", "a fox"], output=out, run="zoo", **TINY)
    promptmill.submit(["a cat", "a fox"], output=out, run="zoo", append=True, **TINY)
    while render(client, 10):
        pass
    found = {image.index: image.job.prompt for image in (first, *images)}
    assert found == {0: "a cat", 1: "a cow", 2: "a dog", 3: "a fox"}
    promptmill.submit(["a fox"], output=out, run="zoo", replace_plan=True, **TINY)
    assert RunHandle("zoo").status().jobs == 1
