"""`promptmill worker --log-format json`: every line an object, and each job's life in it."""

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from promptmill.worker.json_log import JsonFormatter
from tests.farm import farm_of, wait_until


@pytest.mark.slow
def test_a_worker_logs_json_and_tells_each_jobs_life(client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    with farm_of(redis_url, tmp_path) as farm:
        farm.environ["PROMPTMILL_LOG_FORMAT"] = "json"
        (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c", "clip_skip": 11}\n')
        answer = farm.call("submit", str(tmp_path / "p.jsonl"), "--output", str(tmp_path), "--run", "r", "--steps", "2")
        assert answer.returncode == 0, answer.stderr
        farm.start_worker()
        farm.wait_until_finished("r")
        farm.stop()
    lines: list[dict[str, Any]] = [json.loads(line) for line in farm.log(0).splitlines()]
    assert "worker: Warm shutdown (MainProcess)" in {line["message"] for line in lines}
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    events = [line for line in lines if "event" in line]
    assert Counter(line["event"] for line in events) == {"received": 3, "started": 3, "succeeded": 2, "failed": 1}
    (failed,) = [line for line in events if line["event"] == "failed"]
    assert (failed["run"], failed["index"]) == ("r", 2) and "clip_skip" in failed["reason"]
    for line in events:
        if line["event"] == "succeeded":
            assert Path(line["url"]).is_file() and line["job"] in line["url"] and line["seconds"] > 0


@pytest.mark.slow
def test_what_libraries_log_by_themselves_is_json_too(redis_url: str, tmp_path: Path) -> None:
    with farm_of(redis_url, tmp_path) as farm:
        farm.environ |= {"PROMPTMILL_LOG_FORMAT": "json", "PROMPTMILL_MODEL": "nobody/nothing"}
        farm.environ |= {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        farm.start_worker()
        wait_until(lambda: "Retrying in " in farm.log(0), "the hub is asked again")
        said = [line for line in farm.log(0).splitlines()[:-1] if line]
    assert [line for line in said if not line.startswith("{")] == []
    assert "huggingface_hub.utils._http" in {json.loads(line)["logger"] for line in said}


NO_REDIS = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("settings", "words", "problem"),
    [
        ({}, ["worker", "--log-format", "json", "--broker", NO_REDIS], "no Redis at"),
        ({"LOG_FORMAT": "json", "BROKER": NO_REDIS, "NOSUCH": "1"}, ["worker"], "PROMPTMILL_NOSUCH is not a setting"),
        ({"LEASE_S": "abc"}, ["worker", "--log-format=json"], "'abc' is not a valid float range. That value is from"),
        ({}, ["worker", "--log-format", "json", "--no-such-flag"], "No such option"),
    ],
)
def test_a_worker_that_cannot_start_says_so_in_json(
    tmp_path: Path, settings: dict[str, str], words: list[str], problem: str
) -> None:
    environ = os.environ | {f"PROMPTMILL_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "promptmill", *words]
    told = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    lines = [json.loads(line) for line in told.stderr.splitlines()]
    assert told.returncode == 2 and any(problem in line["message"] for line in lines)


def test_a_line_stays_a_line_whatever_is_logged() -> None:
    try:
        raise ValueError("first line\nsecond line")
    except ValueError as error:
        caught = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("l", logging.ERROR, __file__, 1, "an %s\nto tell", ("error",), caught)
    text = JsonFormatter().format(record)
    told = json.loads(text)
    assert "\n" not in text and told["message"] == "an error\nto tell"
    assert told["level"] == "ERROR" and told["time"].endswith("+00:00")
    assert "second line" in told["exception"] and "Traceback" in told["exception"]
