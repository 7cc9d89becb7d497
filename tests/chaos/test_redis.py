"""Redis is killed under a working farm, and comes back with what it had written down."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from promptmill.producer.broker import connect
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from promptmill.producer.presence import images_present
from tests.farm import WAIT_S, Farm, farm_of, living_with, wait_until
from tests.mortal_redis import MortalRedis

pytestmark = pytest.mark.slow


@pytest.fixture
def farm(mortal_redis: MortalRedis, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(mortal_redis.url, tmp_path) as farm:
        yield farm


def test_a_redis_that_crashes_twice_loses_no_job_and_doubles_none(farm: Farm, mortal_redis: MortalRedis, tmp_path):
    out = open_output(str(tmp_path)).child("r")
    workers = [farm.start_worker(), farm.start_worker()]
    farm.submit([f"prompt {n}" for n in range(250)], str(tmp_path), "r", "--steps", "12")
    for some in (20, 120):
        wait_until(partial(_more_than, some, out), f"{some} images are there")
        mortal_redis.kill()
        mortal_redis.start()
    run = farm.wait_until_finished("r")
    assert (run["done"], run["failed"]) == (250, 0)
    assert len(list(tmp_path.glob("r/images/*/*.png"))) == 250
    assert [worker.poll() for worker in workers] == [None, None], "the workers lived through it"


def test_a_redis_that_was_wiped_is_filled_again_with_what_is_missing(farm: Farm, mortal_redis: MortalRedis, tmp_path):
    prompts = [f"prompt {n}" for n in range(120)]
    out = open_output(str(tmp_path)).child("r")
    farm.start_worker()
    farm.submit(prompts, str(tmp_path), "r", "--steps", "12")
    wait_until(lambda: len(images_present(out)) > 10, "some images are there")
    connect(mortal_redis.url).flushall()
    farm.submit(prompts, str(tmp_path), "r", "--steps", "12")
    run = farm.wait_until_finished("r")
    assert run["done"] == 120
    assert 10 < run["present"] < 120
    assert len(list(tmp_path.glob("r/images/*/*.png"))) == 120


def test_a_redis_that_takes_no_writes_for_a_while_is_waited_for(farm: Farm, mortal_redis: MortalRedis, tmp_path):
    out = open_output(str(tmp_path)).child("r")
    worker = farm.start_worker()
    farm.submit([f"prompt {n}" for n in range(80)], str(tmp_path), "r", "--steps", "12")
    wait_until(lambda: len(images_present(out)) > 10, "some images are there")
    client = connect(mortal_redis.url)
    client.config_set("min-replicas-to-write", 1)
    wait_until(lambda: "NOREPLICAS" in farm.log(0) or "replicas" in farm.log(0), "the worker has noticed")
    client.config_set("min-replicas-to-write", 0)
    run = farm.wait_until_finished("r")
    assert (run["done"], run["failed"]) == (80, 0)
    assert worker.poll() is None, "it lived through it"


def _more_than(some: int, out: Output) -> bool:
    return len(images_present(out)) > some


@pytest.mark.parametrize("also_the_worker", [False, True])
def test_render_killed_outright_leaves_nothing_behind(tmp_path: Path, also_the_worker: bool) -> None:
    """SIGKILL cannot be caught: a worker that is left notices it, and Redis goes with the last of them."""
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {n}" for n in range(500)))
    (tmp_path / "tmp").mkdir()
    mark = {"PROMPTMILL_MARK": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-m", "promptmill", "render", str(tmp_path / "p.txt"), "--output", str(tmp_path)]
    environ = {**os.environ, "XLA_FLAGS": "", "PROMPTMILL_MODEL": "tiny-random", **mark}
    process = subprocess.Popen([*command, "--run", "r", "--steps", "30"], env=environ, stderr=subprocess.DEVNULL)
    wait_until(lambda: images_present(open_output(str(tmp_path)).child("r")), "the first image is there")
    process.kill()
    process.wait()
    if also_the_worker:
        (worker,) = [pid for pid in living_with(f"PROMPTMILL_MARK={tmp_path}") if b"\0worker" in _command_line(pid)]
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not living_with(f"PROMPTMILL_MARK={tmp_path}"), "worker and Redis are gone", 60)
    left = [path.name for path in (tmp_path / "tmp").iterdir()]
    assert [name.startswith("promptmill-render-") for name in left] == [True], "the log of a worker, and no Redis"
    (tmp_path / "one.txt").write_text("prompt")
    again = [*command[:4], str(tmp_path / "one.txt"), *command[5:], "--run", "again", "--steps", "2"]
    subprocess.run(again, env=environ, stderr=subprocess.DEVNULL, check=True, timeout=WAIT_S)
    assert list((tmp_path / "tmp").iterdir()) == []


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
