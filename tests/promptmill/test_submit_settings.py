"""Every flag of `promptmill submit` that makes sense in Python is a keyword of `promptmill.submit`."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import redis

import promptmill
from promptmill.producer.errors import PlanError
from promptmill.producer.fields import FIELD_NAMES
from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan_files import load_plan
from promptmill.producer.prompts.expand import Expansion
from promptmill.submit_settings import ALSO, OF_ROWS, flags
from promptmill.verbs.submit import command

OF_THE_COMMAND = {"files", "as_json", "quiet", "dry_run", "device", "devices", "images_per_s", "cost_per_device_hour"}
"""What is about the command line itself."""


def test_every_flag_is_a_keyword():
    named = {*inspect.signature(promptmill.submit).parameters, *flags(), *OF_ROWS, *FIELD_NAMES}
    missing = {param.name for param in command.params} - named - OF_THE_COMMAND
    assert missing == set()
    assert set(ALSO.values()) <= flags().keys()


@pytest.fixture
def planned(client: redis.Redis, redis_url: str, tmp_path: Path) -> Any:
    def planned(jobs: Any, **settings: Any) -> list[tuple[str, int, int]]:
        handle = promptmill.submit(
            jobs, output=str(tmp_path / "out"), broker=redis_url, model="tiny-random", **settings
        )
        with load_plan(open_output(handle.output)) as plan:
            whole = [plan.whole(job) for job in plan]
        return [(job.prompt, job.seed, job.num_inference_steps) for job in whole]

    return planned


def test_images_per_prompt_matrix_and_seeds(planned):
    assert planned("a", num_images_per_prompt=2, steps=1) == [("a", 0, 1), ("a", 1, 1)]
    assert planned("b", steps=[1, 2], seed=7) == [("b", 7, 1), ("b", 7, 2)]
    assert planned("c", run_seed=5, steps=1)[0][1] > 1000


def test_braces_are_text_unless_asked(planned):
    assert planned("a {red|blue} cat", steps=1)[0][0] == "a {red|blue} cat"
    assert len(planned("a {red|blue} cat", steps=1, combinatorial=True)) == 2
    assert planned("a {red|red} cat", steps=1, expand=True)[0][0] == "a red cat"


def test_files_are_read_as_the_flags_say(planned, tmp_path: Path):
    (tmp_path / "a.data").write_text("words,width\na cat,8 m\n,9 m\n")
    found = planned(
        tmp_path / "a.data", format="csv", columns={"prompt": "words"}, labels=["width"], on_error="skip", steps=1
    )
    assert found == [("a cat", 0, 1)]


def test_contradictions_are_a_sentence(planned):
    with pytest.raises(PlanError, match="expansion="):
        planned("a", expansion=Expansion(), combinatorial=True)


def test_a_redis_that_evicts_is_warned_of(client: redis.Redis, planned):
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.warns(UserWarning, match="allkeys-lru"):
            planned("a", steps=1)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "0")
