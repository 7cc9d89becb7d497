"""A checkpoint on this host's devices, and one compiled program a shape.

    model = Model.load(find_model("tiny-random"))
    program = model.compile(width=64, height=64, guided=True)
    result = program.run(program.prepare(requests))     # returns at once
    pixels, finite = fetch(result, len(requests))        # waits

This is what `jax.pmap` did: the same program on each device, weights on all of them, the batch split.
`shard_map` is its successor. The program holds no collective, so no device ever waits for another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Bool, UInt8

from worker.sdxl.config import ModelConfig
from worker.sdxl.errors import RequestError
from worker.sdxl.generate import Inputs, Result, generate, shard_over_devices
from worker.sdxl.parts import builders
from worker.sdxl.requests import ImageRequest, PlainRequest, Tokenizers, check_request, prepare_inputs
from worker.sdxl.samplers import SAMPLERS
from worker.sdxl.weights import load_weights

__all__ = ["ImageRequest", "Inputs", "Model", "PlainRequest", "Program", "Result", "fetch"]


@dataclass(frozen=True)
class Model:
    """A loaded checkpoint: its weights lie whole on every device of a mesh with the one axis `device`."""

    config: ModelConfig
    tokenizers: Tokenizers
    graphs: dict[str, nnx.GraphDef]
    weights: dict[str, nnx.State]
    mesh: Mesh

    @classmethod
    def load(cls, folder: Path, *, devices: Sequence[jax.Device] | None = None, dtype: Any | None = None) -> "Model":
        """Read a diffusers folder onto `devices` (default: all of this host's).

        `dtype` is what is computed in: bfloat16 on TPU and GPU, float32 on CPU, unless given. The VAE stays
        in float32 where its configuration says `force_upcast`. Raises ConfigError, WeightsError.
        """
        devices = list(devices or jax.local_devices())
        dtype = dtype or (jnp.float32 if devices[0].platform == "cpu" else jnp.bfloat16)
        mesh = Mesh(np.array(devices), ("device",))
        config = ModelConfig.from_folder(folder)
        tokenizers = Tokenizers(folder)
        graphs, weights = {}, {}
        for name, build in builders(config).items():
            upcast = name == "vae" and config.vae.force_upcast
            graphs[name], weights[name] = load_weights(
                folder / name,
                build,
                dtype=jnp.float32 if upcast else dtype,
                sharding=NamedSharding(mesh, jax.P()),
            )
        return cls(config, tokenizers, graphs, weights, mesh)

    @property
    def device_count(self) -> int:
        return self.mesh.size

    @property
    def default_size(self) -> int:
        """Side in pixels of the square image that the model was trained for."""
        return self.config.default_size

    def compile(
        self, *, width: int, height: int, sampler: str = "euler", guided: bool, per_device_batch: int = 1
    ) -> "Program":
        """Compile for one shape; sizes in pixels. Raises RequestError where the model has no such shape."""
        side = self.config.vae.scale_factor
        for name, value in (("width", width), ("height", height)):
            if value < side or value % side:
                raise RequestError(f"{name} must be a positive multiple of {side}, got {value}")
        if sampler not in SAMPLERS:
            raise RequestError(f"sampler must be {' or '.join(SAMPLERS)}, got {sampler!r}")
        if guided and self.config.unet.time_cond_proj_dim is not None:
            raise RequestError("this model takes its guidance scale as an input, so it renders without guidance")
        if per_device_batch < 1:
            raise RequestError(f"per_device_batch must be at least 1, got {per_device_batch}")
        return Program(self, width, height, sampler, guided, self.device_count * per_device_batch)


class Program:
    """One shape, compiled ahead of time for all devices of a model.

    Seeds, prompts, step counts, guidance scales and micro-conditioning are inputs: none compiles anew. A
    job's pixels are the same bits whatever its place in the batch and whoever shares it.
    """

    def __init__(self, model: Model, width: int, height: int, sampler: str, guided: bool, batch: int) -> None:
        self.model, self.width, self.height = model, width, height
        self.sampler, self.guided, self.batch = sampler, guided, batch
        self._split = NamedSharding(model.mesh, jax.P("device"))
        self._compiled = self._compile()

    def prepare(self, requests: Sequence[ImageRequest]) -> Inputs:
        """Tokens, noise and tables of 1 to `batch` requests, on the host; a short batch repeats its last.

        Raises RequestError naming the place of a request that is not of this program's shape.
        """
        if not 1 <= len(requests) <= self.batch:
            raise RequestError(f"a batch of this program is 1 to {self.batch} requests, got {len(requests)}")
        for place, request in enumerate(requests):
            try:
                check_request(self.model.config, request, width=self.width, height=self.height, guided=self.guided)
            except RequestError as error:
                raise RequestError(f"request {place} of the batch: {error}") from error
        inputs = prepare_inputs(
            self.model.config, self.model.tokenizers, requests, sampler=self.sampler, guided=self.guided
        )
        missing = self.batch - len(requests)
        return Inputs(*(np.concatenate([part, part[-1:].repeat(missing, axis=0)]) for part in inputs))

    def run(self, inputs: Inputs) -> Result:
        """Start rendering and return at once; the arrays that come back are not there yet."""
        # Nothing is donated: no input has an output's shape, and inputs can be run again.
        return self._compiled(self.model.weights, jax.device_put(inputs, self._split))

    def compiled_text(self) -> str:
        """The optimised HLO, for tests and for reading."""
        return self._compiled.as_text()

    def _compile(self) -> Any:
        body = partial(generate, self.model.config, self.model.graphs, self.sampler)
        return jax.jit(shard_over_devices(body, self.model.mesh)).lower(self.model.weights, self._shapes()).compile()

    def _shapes(self) -> Inputs:
        sample = prepare_inputs(
            self.model.config,
            self.model.tokenizers,
            [PlainRequest("", self.width, self.height, num_inference_steps=1)],
            sampler=self.sampler,
            guided=self.guided,
        )
        return Inputs(
            *(jax.ShapeDtypeStruct((self.batch, *part.shape[1:]), part.dtype, sharding=self._split) for part in sample)
        )


def fetch(result: Result, count: int) -> tuple[UInt8[np.ndarray, "N H W 3"], Bool[np.ndarray, "N"]]:
    """Wait for a batch, and copy its first `count` images here; which of them are finite."""
    pixels, finite = jax.device_get((result.pixels, result.finite))
    return pixels[:count], finite[:count]
