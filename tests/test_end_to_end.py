"""Prompts in, images out: real Redis, real Celery workers, real storage clients, the compiled program."""

import io
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptmill.producer.broker import connect
from promptmill.producer.image_formats import IMAGE_FORMATS
from promptmill.producer.job import Job
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.presence import images_present
from promptmill.worker.app import make_app
from promptmill.worker.encode import job_id_inside
from promptmill.worker.sdxl.tiny import write_tiny_random
from promptmill.worker.settings import WorkerSettings
from tests.fake_gcs import FakeGcs, free_port
from tests.farm import Farm, farm_of, living_with, wait_until
from tests.plans import read_jobs

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {"model": "tiny-random"}  # quick, and here only the way of an image matters
EIGHT_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


@pytest.fixture
def farm(client: object, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        yield farm


def render(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`promptmill render ARGS`, with a Redis and a worker of its own."""
    return subprocess.run(
        [sys.executable, "-m", "promptmill", "render", *args],
        env={**os.environ, "XLA_FLAGS": "", "PROMPTMILL_MODEL": TINY["model"], **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("asked", [("webp",), ("jpeg", "--quality", "90"), ("jxl",)], ids=lambda asked: asked[0])
def test_images_are_rendered_as_the_run_asks(tmp_path: Path, asked: tuple[str, ...]):
    """By one render; another of the same run asks for nothing and finds all; pack and verify take them as they are."""
    words = (str(EXAMPLES / "prompts.jsonl"), "--output", str(tmp_path), "--run", "r", "--steps", "2")
    first = render(*words, "--image-format", *asked)
    assert first.returncode == 0, first.stderr
    row = IMAGE_FORMATS[asked[0]]
    files = [path.name for path in (tmp_path / "r").glob("images/*/*")]
    assert files and all(name.endswith(f".{row.extension}") for name in files)
    again = render(*words)
    assert "nothing to render: all" in again.stderr and again.returncode == 0
    refused = render(*words, "--image-format", "png")
    told = f"has images as {':'.join((asked[0], *asked[2:]))}, not png: leave out --image-format"
    assert refused.returncode == 2 and told in refused.stderr
    for verb in ("pack", "verify"):
        ran = subprocess.run([sys.executable, "-m", "promptmill", verb, str(tmp_path / "r")], check=False)
        assert ran.returncode == 0


def check_images(folder: Path, jobs: list[Job]) -> None:
    """Each job's image is there once, whole, of its size, with the job inside; and nothing else is."""
    files = {path.stem: path for path in folder.glob("images/*/*")}
    assert set(files) == {job.id for job in jobs}
    for job in jobs:
        data = files[job.id].read_bytes()
        assert job_id_inside(data) == job.id
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (job.width, job.height)


def test_render_with_nothing_configured_and_then_again(tmp_path):
    out = tmp_path / "out"
    first = render(str(EXAMPLES / "prompts.txt"), "--output", str(out), PROMPTMILL_MODEL="")
    assert first.returncode == 0, first.stderr
    assert "pocket: promptmill's own tiny SDXL" in first.stderr
    assert "first image after" in first.stderr
    images = Path(first.stdout.strip())
    check_images(images.parent, read_jobs([EXAMPLES / "prompts.txt"], {}))
    assert (images.parent / "run.json").exists()
    with Image.open(images.parent / "contact-sheet.png") as sheet:
        assert sheet.width > 8 * 64 and sheet.height > 8 * 64
    assert list((images.parent / "plan").glob("*.jsonl.zst"))

    written = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = render(str(EXAMPLES / "prompts.txt"), "--output", str(out), PROMPTMILL_MODEL="")
    assert again.returncode == 0, again.stderr
    assert "nothing to render" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == written


def test_render_of_a_mixed_file_draws_every_row_as_it_says(tmp_path):
    answer = render(
        str(EXAMPLES / "prompts.jsonl"), "--output", str(tmp_path), "--run", "mixed", "--steps", "2", "--json"
    )
    assert answer.returncode == 0, answer.stderr
    jobs = read_jobs([EXAMPLES / "prompts.jsonl"], {**TINY, "steps": 2})
    assert len({job.shape for job in jobs}) > 2
    check_images(tmp_path / "mixed", jobs)
    report = json.loads(answer.stdout)
    assert (report["rendered"], report["failed"]) == (len(jobs), 0)


def test_render_with_a_refiner_and_with_other_samplers(tmp_path):
    pytest.importorskip("torch", reason="PyTorch writes the small refiner")
    from tests.parity.refiner import write_refiner

    base = write_tiny_random(tmp_path / "base")
    refiner = write_refiner(tmp_path / "refiner", base)
    rows: list[dict[str, object]] = [
        {"prompt": "x"},
        {"prompt": "x", "refiner": str(refiner)},
        {"prompt": "x", "refiner": str(refiner), "denoising_end": 0.7},
        {"prompt": "x", "refiner": str(refiner), "sampler": "dpm++_2m"},
        {"prompt": "x", "sampler": "unipc"},
        {"prompt": "x", "sampler": "euler_a"},
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"seed": 1, **row}) for row in rows))
    answer = render(
        str(tmp_path / "p.jsonl"), "--output", str(tmp_path), "--run", "r", "--steps", "5", "--model", str(base)
    )
    assert answer.returncode == 0, answer.stderr
    jobs = read_jobs([tmp_path / "p.jsonl"], {"steps": 5, "model": str(base)})
    assert len({job.shape for job in jobs}) == 3
    check_images(tmp_path / "r", jobs)
    images = [np.asarray(Image.open(tmp_path / "r" / image_name(job.id))) for job in jobs]
    assert len({image.tobytes() for image in images}) == len(rows)


def test_render_on_eight_devices_into_a_bucket(fake_gcs: FakeGcs, tmp_path, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    url = fake_gcs.create_bucket("eight")
    args = (str(EXAMPLES / "prompts.txt"), "--output", f"{url}/some/prefix", "--run", "r", "--steps", "2")
    answer = render(*args, **EIGHT_DEVICES)
    assert answer.returncode == 0, answer.stderr
    jobs = read_jobs([EXAMPLES / "prompts.txt"], {**TINY, "steps": 2})
    names = list(open_output(url).list("some/prefix/r/images/"))
    assert sorted(names) == sorted(f"some/prefix/r/{image_name(job.id)}" for job in jobs)
    assert job_id_inside(open_output(url).get(names[0])) == Path(names[0]).stem


def test_the_same_job_gives_the_same_image_on_one_device_and_on_eight(tmp_path):
    """Bits are promised within one compiled program; these are two, so a last bit of float32 may round otherwise."""
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {n}" for n in range(5)))
    for name, flags in (("one", {}), ("eight", EIGHT_DEVICES)):
        assert render(str(tmp_path / "p.txt"), "--output", str(tmp_path), "--run", name, **flags).returncode == 0
    for path in (tmp_path / "one").glob("images/*/*"):
        there = tmp_path / "eight" / "images" / path.parent.name / path.name
        one, eight = (np.asarray(Image.open(file)).astype(int) for file in (path, there))
        assert abs(one - eight).max() <= 2


def test_ctrl_c_stops_everything_and_the_same_command_does_the_rest(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {n}" for n in range(400)))
    out = open_output(str(tmp_path)).child("r")
    args = [str(tmp_path / "p.txt"), "--output", str(tmp_path), "--run", "r", "--steps", "20"]
    process = subprocess.Popen(
        [sys.executable, "-m", "promptmill", "render", *args],
        env={**os.environ, "XLA_FLAGS": "", "PROMPTMILL_MARK": str(tmp_path), "PROMPTMILL_MODEL": TINY["model"]},
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job inherits "ignore Ctrl-C", and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: images_present(out), "the first image is there")
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130, words
    assert "the same command again" in words
    assert not living_with(f"PROMPTMILL_MARK={tmp_path}")
    there = images_present(out)
    assert 0 < len(there) < 400, "nothing was left to interrupt"

    (tmp_path / "p.txt").write_text("\n".join(f"prompt {n}" for n in range(400)))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("r/images/*/*")}
    answer = render(*args, "--json")
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert (report["present"], report["rendered"]) == (len(there), 400 - len(there))
    assert all(path.stat().st_mtime_ns == before[path] for path in before)


def test_render_says_which_rows_failed_and_how_many_prompts_were_cut(tmp_path):
    (tmp_path / "p.csv").write_text(f"prompt,prompt_weighting\na cat,false\n(a dog,true\n{'cat ' * 100},false\n")
    answer = render(str(tmp_path / "p.csv"), "--output", str(tmp_path), "--run", "r")
    assert answer.returncode == 1, answer.stderr
    assert "failed: index 1, p.csv:3: (a dog: prompt weights: " in answer.stderr
    assert "2 images rendered, 1 failed" in answer.stderr
    assert "1 image has a prompt longer than its windows of 77 tokens: the end was truncated" in answer.stderr


def test_a_model_that_is_not_there_ends_render_with_a_sentence(tmp_path):
    (tmp_path / "p.txt").write_text("a cat")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    answer = render(str(tmp_path / "p.txt"), "--output", str(tmp_path), "--model", str(tmp_path / "model"))
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert str(tmp_path / "model") in answer.stderr


def test_a_model_that_cannot_be_loaded_stops_render_after_the_others_are_done(tmp_path):
    for folder, config in (("unet", {"sample_size": 8}), ("vae", {"block_out_channels": [8] * 4})):
        (tmp_path / "broken" / folder).mkdir(parents=True)
        (tmp_path / "broken" / folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "broken" / "model_index.json").write_text("{}")
    rows = [{"prompt": "a", "model": str(tmp_path / "broken")}, {"prompt": "b"}, {"prompt": "c"}]
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    answer = render(str(tmp_path / "p.jsonl"), "--output", str(tmp_path), "--run", "r", "--steps", "2")
    assert answer.returncode == 2
    assert f"cannot render with {tmp_path / 'broken'}" in answer.stderr
    assert "2 of 3 images are there" in answer.stderr
    assert len(list(tmp_path.glob("r/images/*/*"))) == 2


def test_two_workers_flower_and_the_death_of_one(farm: Farm, tmp_path):
    flower_port = free_port()
    flower = farm.start_worker(
        *(sys.executable, "-m", "celery", "-A", "promptmill.worker.app", "flower"),
        *("--address=127.0.0.1", f"--port={flower_port}"),
    )
    url = f"http://127.0.0.1:{flower_port}"
    wait_until(lambda: _get(f"{url}/healthcheck"), "Flower answers")
    victim, survivor = farm.start_worker(), farm.start_worker()
    farm.wait_until_ready(1)
    farm.wait_until_ready(2)
    prompts = [f"prompt {n}" for n in range(160)]
    farm.submit(prompts, str(tmp_path), "r")
    wait_until(lambda: farm.run("r")["done"] > 20, "some images are there")
    victim.kill()
    run = farm.wait_until_finished("r")
    assert (run["done"], run["failed"]) == (160, 0)
    (tmp_path / "again.txt").write_text("\n".join(prompts))
    jobs = read_jobs([tmp_path / "again.txt"], TINY)
    check_images(tmp_path / "r", jobs)

    tasks = wait_until(lambda: _all_succeeded(f"{url}/api/tasks?limit=1000", len(jobs)), "Flower has heard of all")
    assert set(tasks) == {job.id for job in jobs}
    assert {task["name"] for task in tasks.values()} == {"promptmill.render"}
    workers = Counter(task["worker"] for task in tasks.values())
    assert len(workers) == 2, "both rendered"
    assert all("prompt " in task["args"] for task in tasks.values())

    survivor.terminate()
    assert survivor.wait(timeout=40) == 0
    flower.terminate()


def _get(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            data: bytes = answer.read()
            return data
    except (urllib.error.URLError, ConnectionError):
        return None


def _all_succeeded(url: str, count: int) -> dict[str, Any] | None:
    tasks = json.loads(_get(url) or "{}")
    return tasks if len(tasks) == count and {task["state"] for task in tasks.values()} == {"SUCCESS"} else None


def test_a_revoked_prompt_is_not_rendered(farm: Farm, redis_url: str, tmp_path):
    farm.start_worker()
    farm.wait_until_ready(0)
    app = make_app(WorkerSettings(broker=redis_url))
    wait_until(lambda: app.control.ping(timeout=0.5), "the worker hears remote control")
    (tmp_path / "r.txt").write_text("keep\ndrop\nkeep too")
    keep, drop, keep_too = read_jobs([tmp_path / "r.txt"], TINY)
    app.control.revoke(drop.id)
    wait_until(lambda: drop.id in str(app.control.inspect(timeout=0.5).revoked()), "the worker knows")
    farm.submit(["keep", "drop", "keep too"], str(tmp_path), "r")
    run = farm.wait_until_finished("r")
    assert (run["done"], run["failed"]) == (2, 1)
    assert [failure["reason"] for failure in run["failures"]] == ["revoked"]
    check_images(tmp_path / "r", [keep, keep_too])
    assert farm.call("status", "r").returncode == 1


def test_sigterm_gives_back_what_is_not_begun_and_loses_nothing(farm: Farm, redis_url: str, tmp_path):
    farm.start_worker()
    farm.submit([f"prompt {n}" for n in range(60)], str(tmp_path), "r", "--steps", "40")
    wait_until(lambda: farm.run("r")["done"] > 2, "some images are there")
    (worker,) = farm._workers
    worker.terminate()
    assert worker.wait(timeout=40) == 0
    status = farm.status("r")
    assert status["runs"][0]["left"] > 0, "nothing was left to give back"
    assert [queue["held"] for queue in status["queue"]] in ([0], [3]), "released jobs stay listed, held by nobody"
    assert status["workers"] == []
    farm.start_worker()
    assert farm.wait_until_finished("r")["done"] == 60


def test_a_shape_that_the_model_does_not_have_fails_and_the_others_land(farm: Farm, tmp_path):
    """A broken model among good jobs: told by the worker, and no reason to stop for the others."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text("{}")
    rows = [
        {"prompt": "good"},
        {"prompt": "bad", "model": str(broken), "width": 64, "height": 64},
        {"prompt": "good 2"},
    ]
    for sub, config in (("unet", {"sample_size": 8}), ("vae", {"block_out_channels": [8] * 4})):
        (broken / sub).mkdir()
        (broken / sub / "config.json").write_text(json.dumps(config))
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert farm.call("submit", str(tmp_path / "r.jsonl"), "--output", str(tmp_path), "--run", "r").returncode == 0
    farm.start_worker()
    wait_until(lambda: farm.run("r")["done"] == 2, "the good ones are there")
    wait_until(lambda: [w for w in farm.status("r")["workers"] if str(broken) in w["problems"]], "the worker tells")
    assert "broken" in farm.call("status").stdout


def test_an_output_that_stops_working_fails_no_job_and_other_runs_go_on(farm: Farm, tmp_path):
    out, aside = tmp_path / "out", tmp_path / "aside"
    farm.start_worker()
    farm.submit([f"prompt {n}" for n in range(120)], str(out), "r", "--steps", "4")
    wait_until(lambda: farm.run("r")["done"] > 5, "some images are there")
    out.rename(aside)
    out.write_text("a file where the output was")
    wait_until(lambda: str(out) in farm.status("r")["workers"][0]["problems"], "the worker tells")
    assert f"{out} is not a folder" in farm.call("status").stdout
    farm.submit(["another", "and another"], str(tmp_path / "other"), "other", "--steps", "2")
    assert farm.wait_until_finished("other")["done"] == 2
    assert farm.run("r")["failed"] == 0
    out.unlink()
    aside.rename(out)
    run = farm.wait_until_finished("r")
    assert (run["done"], run["failed"]) == (120, 0)
    assert len(list(out.glob("r/images/*/*"))) == 120
    wait_until(lambda: farm.status("r")["workers"][0]["problems"] == {}, "the trouble is over")


def test_jobs_whose_model_no_worker_can_load_are_failed_after_a_while(farm: Farm, tmp_path):
    broken = write_tiny_random(tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    farm.environ |= {"PROMPTMILL_UNLOADABLE_AFTER": "3"}
    farm.start_worker()
    farm.submit(["one", "two"], str(tmp_path), "bad", "--model", str(broken))
    wait_until(lambda: str(broken) in str([w["problems"] for w in farm.status("bad")["workers"]]), "the worker tells")
    assert farm.run("bad")["failed"] == 0, "they wait first"
    farm.submit(["three"], str(tmp_path), "good", "--steps", "2")
    assert farm.wait_until_finished("good")["done"] == 1
    assert "loaded tiny-random" not in farm.log(0).partition("ready to claim")[2], "it was not evicted"
    run = farm.wait_until_finished("bad")
    assert (run["done"], run["failed"]) == (0, 2)
    assert "no worker could make a program for it" in farm.status("bad")["runs"][0]["failures"][0]["reason"]


@pytest.mark.parametrize("pool", [["--pool", "prefork"], ["-P", "solo"], []])
def test_any_pool_but_threads_is_refused_with_the_reason(farm: Farm, pool):
    command = [sys.executable, "-m", "celery", "-A", "promptmill.worker.app", "worker", *pool]
    answer = subprocess.run(command, env=farm.environ, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode != 0
    assert "forked JAX is broken" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "command", [["promptmill", "worker"], ["celery", "-A", "promptmill.worker.app", "worker", "-P", "threads"]]
)
def test_a_worker_that_cannot_start_ends_with_2_and_a_sentence(farm: Farm, command):
    environ = {**farm.environ, "PROMPTMILL_SAFETY_CHECKER": "/no/such/checker"}
    answer = subprocess.run(
        [sys.executable, "-m", *command], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 2, answer.stderr
    assert "this worker cannot start: /no/such/checker" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_redis_in_use_is_left_clean(farm: Farm, redis_url: str, tmp_path):
    worker = farm.start_worker()
    farm.submit(["a cat"], str(tmp_path), "r")
    farm.wait_until_finished("r")
    worker.terminate()
    worker.wait(timeout=40)
    client = connect(redis_url)
    assert client.keys("promptmill:queue:*") == []
    assert client.hgetall("promptmill:workers") == {}
