"""One of the two processes of tests/worker/test_slices.py: COORDINATOR RANK OUT."""

import sys
from pathlib import Path

import jax
import numpy as np

from promptmill.worker.checkpoints import find_model
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest
from promptmill.worker.slices import Slice


def main(coordinator: str, rank: int, out: str) -> None:
    jax.distributed.initialize(coordinator, num_processes=2, process_id=rank)
    devices = Slice.of(jax.devices())
    assert (jax.process_count(), devices.count, jax.local_device_count()) == (2, 4, 2)
    whole = Model.load(find_model("tiny-random"), devices=jax.local_devices()[:1])
    model = devices.spread(whole)
    program = model.compile(width=64, height=64, guided=True)
    # The leader has the jobs; the other host something of the same shapes.
    prompts = [f"prompt {number}" if devices.leads else "" for number in range(program.batch)]
    result = program.run(program.prepare([PlainRequest(prompt, 64, 64, num_inference_steps=2) for prompt in prompts]))
    there = [part for weight in jax.tree.leaves(model.weights) for part in weight.addressable_shards]
    np.savez(
        out,
        *[np.asarray(part.addressable_data(0)) for part in jax.tree.leaves(result)],
        bytes_here=sum(part.data.nbytes for part in there),
        bytes_of_all=sum(weight.nbytes for weight in jax.tree.leaves(whole.weights)),
        collectives=program.compiled_text().count("all-reduce(") + program.compiled_text().count("all-gather("),
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), str(Path(sys.argv[3])))
