"""How a worker ends, as a real process: with an exit code that says why, and a last sentence for who started it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.farm import Farm, farm_of, wait_until

pytestmark = pytest.mark.slow

OURS = ["promptmill", "worker"]
CELERYS = ["celery", "-A", "promptmill.worker.app", "worker", "-P", "threads"]


@pytest.fixture
def farm(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        yield farm


def end_of(farm: Farm, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", *command]
    return subprocess.run(words, env={**farm.environ, **environ}, capture_output=True, text=True, timeout=180)


@pytest.mark.parametrize(
    ("command", "environ", "told"),
    [
        (OURS, {"JAX_PLATFORMS": "nosuch"}, "this worker cannot start: JAX finds no device: "),
        (CELERYS, {"JAX_PLATFORMS": "nosuch"}, "this worker cannot start: JAX finds no device: "),
        (
            [*OURS, "--image-check", "nosuch:fn"],
            {},
            "this worker cannot start: --image-check nosuch:fn: No module named 'nosuch'",
        ),
        (CELERYS, {"PROMPTMILL_LEASE": "long"}, "PROMPTMILL_LEASE: must be a number, got 'long'"),
        (CELERYS, {"PROMPTMILL_ON_UNSAFE": "hide"}, "PROMPTMILL_ON_UNSAFE: must be black or blur or keep or fail"),
    ],
)
def test_a_worker_that_cannot_start_leaves_with_2_and_a_sentence(
    farm: Farm, command: list[str], environ: dict[str, str], told: str
) -> None:
    ended = end_of(farm, *command, **environ)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(f"promptmill: {told}")
    assert "Traceback" not in ended.stderr


def test_a_wrong_flag_of_the_worker_is_a_sentence(farm: Farm) -> None:
    ended = end_of(farm, *OURS, "--loglevel", "foo")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("Error: Invalid value for '--loglevel' / '-l': 'foo'")


def test_render_says_why_its_worker_cannot_start(farm: Farm) -> None:
    (farm.folder / "cats.txt").write_text("a cat\n")
    words = ["promptmill", "render", str(farm.folder / "cats.txt"), "--output", str(farm.folder / "new")]
    ended = end_of(farm, *words, JAX_PLATFORMS="nosuch")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("promptmill: this worker cannot start: JAX finds no device: ")
    assert not (farm.folder / "new").exists(), "a run that was never rendered leaves nothing"


def test_a_name_that_has_another_plan_is_told_before_a_worker_is_started(farm: Farm) -> None:
    output = farm.folder / "out"
    farm.submit(["a cat"], str(output), "r")
    (farm.folder / "dogs.txt").write_text("a dog\n")
    words = ["promptmill", "render", str(farm.folder / "dogs.txt"), "--output", str(output), "--run", "r"]
    ended = end_of(farm, *words, JAX_PLATFORMS="nosuch")  # with which no worker starts
    assert ended.returncode == 2
    assert "--append" in ended.stderr and "JAX finds no device" not in ended.stderr


@pytest.mark.parametrize("command", [OURS, CELERYS])
def test_ctrl_c_is_130_and_a_home_that_cannot_be_written_a_warning(farm: Farm, command: list[str]) -> None:
    farm.environ |= {"HOME": "/dev/null/x", "XDG_CACHE_HOME": "/dev/null/x"}
    farm.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    worker = farm.start_worker(sys.executable, "-m", *command, "-l", "INFO")
    farm.wait_until_ready(0)
    assert "no folder to keep compiled programs in: " in farm.log(0)
    worker.send_signal(signal.SIGINT)
    assert wait_until(lambda: worker.poll() is not None, "the worker stops") and worker.returncode == 130, farm.log(0)


def test_a_worker_that_is_told_to_stop_ends_with_0(farm: Farm) -> None:
    worker = farm.start_worker()
    farm.wait_until_ready(0)
    worker.terminate()
    assert worker.wait(timeout=120) == 0


@pytest.mark.parametrize("command", [OURS, CELERYS])
def test_a_worker_listens_to_no_other_however_it_is_started(
    farm: Farm, client: redis.Redis, command: list[str]
) -> None:
    farm.start_worker(sys.executable, "-m", *command, "-l", "INFO")
    farm.wait_until_ready(0)
    wait_until(lambda: client.keys("_kombu.binding.celery.pidbox"), "its consumer is there")
    assert client.keys("_kombu.binding.celeryev*") == []
