"""Two processes that are one worker: `jax.distributed` on the CPU, one program whose weights neither has whole."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from promptmill.worker.checkpoints import find_model
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest
from tests.fake_gcs import free_port


@pytest.mark.slow
def test_two_hosts_render_one_program_with_the_leaders_prompts(tmp_path: Path) -> None:
    # Given two processes with two devices each, of which the first has the prompts
    coordinator = f"127.0.0.1:{free_port()}"
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    outs = [tmp_path / f"{rank}.npz" for rank in range(2)]
    command = [sys.executable, "-m", "tests.worker.host_of_a_slice", coordinator]
    logs = [(tmp_path / f"{rank}.log").open("wb") for rank in range(2)]
    hosts = [
        subprocess.Popen([*command, str(rank), str(out)], env=environ, stderr=log)
        for rank, (out, log) in enumerate(zip(outs, logs, strict=True))
    ]
    try:
        ended = [host.wait(timeout=300) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert ended == [0, 0], [Path(log.name).read_text()[-2000:] for log in logs]
    found = [np.load(out) for out in outs]
    # Then each host has half of the weights, or little more, and the program has collectives
    for one in found:
        assert one["bytes_here"] < 0.6 * one["bytes_of_all"] and one["collectives"] > 0
    # And both have the images, which are those that one host alone renders, but for rounding
    model = Model.load(find_model("tiny-random"), devices=jax.local_devices()[:1])
    program = model.compile(width=64, height=64, guided=True, per_device_batch=4)
    alone = jax.tree.leaves(
        program.run(program.prepare([PlainRequest(f"prompt {n}", 64, 64, num_inference_steps=2) for n in range(4)]))
    )
    for number, expected in enumerate(alone):
        images = [one[f"arr_{number}"] for one in found]
        assert np.array_equal(images[0], images[1])
        assert images[0].shape == expected.shape
        assert np.abs(images[0].astype(float) - np.asarray(expected).astype(float)).max() <= 2
