"""Fuzzed entries, plans, run.json, checkpoints and configurations: refused with a sentence or read, and nothing else.

Ten thousand of each with the slow tests, some hundreds otherwise. Nothing may raise another error than its own, hang,
grow without bound, or write anywhere.
"""

import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from safetensors.numpy import save

from promptmill.importing.errors import CheckpointError
from promptmill.importing.files import find_file, read_header
from promptmill.producer.errors import PromptmillError
from promptmill.producer.job import Job
from promptmill.producer.outputs.folder import open_folder
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import load_plan, write_plan
from promptmill.producer.queue.keys import done_key, failed_key, queue_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.malformed import KEPT, Malformed
from promptmill.producer.queue.queue import JobQueue
from promptmill.worker.checkpoint.tensor_files import find_tensors
from promptmill.worker.errors import ModelError
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sdxl.config import UNetConfig
from promptmill.worker.text.config import CLIPConfig
from tests.chaos.fuzz import mutate_bytes, mutate_json
from tests.entries import as_entries
from tests.plans import plan_of_jobs

MODEL = Path(__file__).parents[2] / "worker" / "models" / "pocket"
TIMES = [pytest.param(300, id="some"), pytest.param(10_000, id="ten thousand", marks=pytest.mark.slow)]
JOBS = [Job(prompt=f"image {n}", seed=n, width=64, height=64) for n in range(20)]


def many(times: int, act: Callable[[random.Random], None]) -> None:
    """Each with a chance of its own: a failure names its number."""
    for number in range(times):
        try:
            act(random.Random(number))
        except Exception as error:
            raise AssertionError(f"fuzz {number}: {type(error).__name__}: {str(error)[:300]}") from error


@pytest.mark.parametrize("times", TIMES)
def test_stream_entries(client: redis.Redis, times: int):
    raw: Any = client
    Ledger(client).open("r", output="/out", digest="d", jobs=len(JOBS), images=len(JOBS), common={})
    queue = JobQueue(client, "w")
    queue.enqueue("r", 0, 20, as_entries(enumerate(JOBS)))
    entries = as_entries(enumerate(JOBS))
    name = queue_key("r", JOBS[0].shape)

    def add(chance: random.Random) -> None:
        index, _, own = chance.choice(entries)
        fields: dict[Any, Any] = {"i": index, "job": mutate_json(json.loads(own), chance)}
        if chance.random() < 0.3:
            fields["i"] = chance.choice([b"", b"-1", b"1e9", b"999999999", b"\xff", b"20", b"1" * 5000, b"0x10", b" 1"])
        if chance.random() < 0.1:
            fields = {mutate_bytes(b"job", chance): mutate_bytes(b"{}", chance)}
        raw.xadd(name, fields)

    many(times, add)
    good: set[int] = set()
    while claims := [claim for ready in queue.claimable() for claim in queue.claim(ready.shape, 100)]:
        for claim in claims:
            assert isinstance(claim.job, Job) and claim.job.shape.key
            good.add(claim.index)
            queue.done(claim)
    assert raw.xlen(name) == 0
    assert good >= set(range(20))
    assert Malformed(client).count() > 0
    assert raw.llen("promptmill:malformed") <= KEPT
    assert raw.strlen(done_key("r")) <= 3 and raw.strlen(failed_key("r")) <= 3, "an index past the run's end has no bit"
    status = Ledger(client).status("r")
    assert (status.done, status.left) == (20 - status.failed, 0)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return open_folder(str(tmp_path / "out"), 1)


def loads(output: Output) -> None:
    try:
        plan = load_plan(output)
    except PromptmillError as error:
        assert len(str(error)) < 2000, "what is told of it has an end"
        return
    with plan:
        assert isinstance(plan, Plan)


@pytest.mark.parametrize("times", TIMES)
def test_run_json(output: Output, tmp_path: Path, times: int):
    with plan_of_jobs(JOBS) as plan:
        run = write_plan(output, "r", plan)
    run = json.loads(output.get("run.json"))
    file = tmp_path / "out" / "run.json"
    before = set(tmp_path.rglob("*"))

    def load(chance: random.Random) -> None:
        file.write_bytes(mutate_json(run, chance))
        loads(output)

    many(times, load)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("times", TIMES)
def test_plan_files(output: Output, tmp_path: Path, times: int):
    import zstandard

    with plan_of_jobs(JOBS) as plan:
        write_plan(output, "r", plan)
    (file,) = (tmp_path / "out" / "plan").iterdir()
    lines = zstandard.ZstdDecompressor().decompress(file.read_bytes()).splitlines()

    def load(chance: random.Random) -> None:
        at = chance.randrange(len(lines))
        changed = mutate_json(json.loads(lines[at]), chance).replace(b"\n", b" ")
        text = b"\n".join([*lines[:at], changed, *lines[at + 1 :]]) + b"\n"
        data = zstandard.ZstdCompressor(level=1).compress(text)
        file.write_bytes(mutate_bytes(data, chance) if chance.random() < 0.2 else data)
        loads(output)

    many(times, load)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize(
    ("config", "path"),
    [
        (UNetConfig, "unet/config.json"),
        (VAEConfig, "vae/config.json"),
        (CLIPConfig, "text_encoder/config.json"),
        (SchedulerConfig, "scheduler/scheduler_config.json"),
    ],
)
def test_model_configurations(config: Any, path: str, tmp_path: Path, times: int):
    values = json.loads((MODEL / path).read_text())
    file = tmp_path / "config.json"

    def read(chance: random.Random) -> None:
        file.write_bytes(mutate_json(values, chance))
        try:
            config.from_file(file)
        except ModelError:
            return

    many(times // 4, read)


@pytest.mark.parametrize("times", TIMES)
def test_checkpoints_and_lora_files(tmp_path: Path, times: int):
    """As a worker reads them, and as `import-model` reads a LoRA's header."""
    data = save({f"layer.{n}.lora_A.weight": np.zeros((4, 2), np.float32) for n in range(3)}, {"format": "pt"})
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    file = tmp_path / "diffusion_pytorch_model.safetensors"

    def read(chance: random.Random) -> None:
        head = mutate_json(header, chance)
        size = len(head) if chance.random() < 0.9 else chance.choice([0, 1, 2**31, 2**63, 2**64 - 1])
        whole = struct.pack("<Q", size) + head + rest
        file.write_bytes(mutate_bytes(whole, chance) if chance.random() < 0.2 else whole)
        for reads, its_own in ((find_tensors, ModelError), (read_header, CheckpointError)):
            try:
                reads(tmp_path if reads is find_tensors else file)
            except its_own:
                continue

    many(times, read)


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_checkpoint_is_unpickled_whatever_it_is_called(tmp_path: Path, suffix: str, protocol: int):
    """Not by a worker, and not by `import-model`."""
    touched, file = tmp_path / "touched", tmp_path / "unet" / f"diffusion_pytorch_model{suffix}"
    file.parent.mkdir()
    pickle.loads(pickle.dumps(Bomb(touched), protocol))
    assert touched.exists(), "such a file would do it"
    touched.unlink()
    bare, zipped = pickle.dumps(Bomb(touched), protocol), tmp_path / "zipped"
    with zipfile.ZipFile(zipped, "w") as archive:  # as torch has saved since 1.6
        archive.writestr("archive/data.pkl", bare)
        archive.writestr("archive/version", "3")
    for data in (bare, zipped.read_bytes()):
        file.write_bytes(data)
        with pytest.raises(ModelError):
            find_tensors(file.parent)
        with pytest.raises(CheckpointError):
            read_header(find_file(str(file)))
        assert not touched.exists()
