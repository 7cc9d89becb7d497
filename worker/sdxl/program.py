"""A checkpoint on this host's devices, and one compiled program per shape.

    model = Model.load(find_model("tiny-random"))
    program = model.compile(width=64, height=64, guided=True)

What a program is to the worker: worker/program.py. How it is spread over devices: worker/devices.py. The program holds
no collective.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmill.worker.checkpoint.weights import check_weights, load_weights
from promptmill.worker.devices import Devices
from promptmill.worker.errors import RequestError
from promptmill.worker.nn.layers import with_prepared_kernels
from promptmill.worker.nn.vae import IN_FLOAT32
from promptmill.worker.program import AnyProgram, ImageRequest, Prepared, Result
from promptmill.worker.quantization import UNQUANTIZED
from promptmill.worker.sdxl.config import ModelConfig
from promptmill.worker.sdxl.generate import TEXT_TO_IMAGE, Inputs, Stage, generate
from promptmill.worker.sdxl.parts import builders
from promptmill.worker.sdxl.requests import Kind, PlainRequest, check_request, prepare_inputs
from promptmill.worker.text.prompts import Tokenizers


@dataclass(frozen=True)
class Model:
    """A loaded checkpoint: its weights lie whole on every device."""

    config: ModelConfig
    tokenizers: Tokenizers
    graphs: dict[str, nnx.GraphDef]
    weights: dict[str, nnx.State]
    devices: Devices
    quantize: str = UNQUANTIZED
    """What the UNet's large kernels are kept in: a format of worker/quantization.py."""

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        devices: Sequence[jax.Device] | None = None,
        dtype: Any | None = None,
        vae_dtype: Any | None = None,
        quantize: str = UNQUANTIZED,
    ) -> "Model":
        """Read a diffusers folder onto `devices` (default: all of this host's).

        `dtype` is what is computed in: bfloat16 on TPU and GPU, float32 on CPU, unless given. `vae_dtype` is the
        VAE's: unless given, float32 where its configuration says `force_upcast`, else `dtype`. With `quantize` the
        UNet's large kernels are kept in a format of worker/quantization.py; what is computed is in `dtype` all the
        same. Raises ConfigError, WeightsError.
        """
        own = Devices.of(devices)
        dtype = dtype or (jnp.float32 if own.platform == "cpu" else jnp.bfloat16)
        config = ModelConfig.from_folder(folder)
        names = ("tokenizer", "tokenizer_2") if config.text_encoder else ("tokenizer_2",)
        tokenizers = Tokenizers(folder, names)
        vae_dtype = vae_dtype or (jnp.float32 if config.vae.force_upcast else dtype)
        graphs, weights = {}, {}
        for name, build in builders(config, quantize).items():
            loaded = load_weights(
                folder / name,
                build,
                dtype=vae_dtype if name == "vae" else dtype,
                sharding=own.whole,
                in_float32=IN_FLOAT32 if name == "vae" else (),
            )
            graphs[name], weights[name] = with_prepared_kernels(*loaded, own.put_whole)
        return cls(config, tokenizers, graphs, weights, own, quantize)

    @staticmethod
    def check(folder: Path) -> None:
        """Find out whether `load` would take the folder, without reading weights. Raises ConfigError, WeightsError."""
        config = ModelConfig.from_folder(folder)
        for name, build in builders(config).items():
            check_weights(folder / name, build)

    @property
    def device_count(self) -> int:
        return self.devices.count

    @property
    def default_size(self) -> int:
        """Side in pixels of the square image that the model was trained for."""
        return self.config.default_size

    def compile(
        self,
        *,
        width: int,
        height: int,
        guided: bool,
        stochastic: bool = False,
        interval: bool = False,
        cached: bool = False,
        prompt_windows: int = 1,
        per_device_batch: int = 1,
        stage: Stage = TEXT_TO_IMAGE,
    ) -> "Program":
        """Compile for one shape; sizes in pixels. Raises RequestError where the model has no such shape.

        Only `stochastic` programs draw noise at each step; deterministic samplers run in either, faster in the other.
        Only `interval` programs have steps without guidance among those with it.
        Only `cached` programs keep the UNet's deep part between evaluations (DeepCache).
        `prompt_windows` is how many windows of tokens a prompt may take. A model with its guidance scale as an input
        (`time_cond_proj_dim`) renders in one pass, `guided` or not.
        """
        side = self.config.vae.scale_factor
        for name, value in (("width", width), ("height", height)):
            if value < side or value % side:
                raise RequestError(f"{name} must be a positive multiple of {side}, got {value}")
        for name, value in (("per_device_batch", per_device_batch), ("prompt_windows", prompt_windows)):
            if value < 1:
                raise RequestError(f"{name} must be at least 1, got {value}")
        if stage.start == "noise" and self.config.text_encoder is None:
            raise RequestError("this model is a refiner: it goes on from another model's latents, not from noise")
        guided = guided and self.config.unet.time_cond_proj_dim is None
        kind = Kind(width, height, guided, stochastic, prompt_windows, stage, guided and interval, cached)
        return Program(self, kind, self.device_count * per_device_batch)


class Program:
    """One shape, compiled ahead of time for all devices of a model.

    Seeds, prompts, samplers, step counts, guidance scales and micro-conditioning are inputs: none compiles anew. A
    job's pixels are the same bits whatever its place in the batch and whoever shares it.
    """

    def __init__(self, model: Model, kind: Kind, batch: int) -> None:
        self.model, self.kind, self.batch = model, kind, batch
        self._compiled = self._compile()

    def prepare(self, requests: Sequence[ImageRequest]) -> Prepared[Inputs]:
        """Tokens, noise and tables of 1 to `batch` requests, on the host; a short batch repeats its last.

        Raises RequestError naming the index of a request that is not of this program's shape.
        """
        if not 1 <= len(requests) <= self.batch:
            raise RequestError(f"a batch of this program is 1 to {self.batch} requests, got {len(requests)}")
        for index, request in enumerate(requests):
            try:
                check_request(self.model.config, request, self.kind)
            except RequestError as error:
                raise RequestError(f"request {index} of the batch: {error}") from error
        prepared = prepare_inputs(self.model.config, self.model.tokenizers, requests, self.kind)
        return replace(prepared, inputs=jax.tree.map(self._filled, prepared.inputs))

    def run(self, prepared: Prepared[Inputs]) -> Result:
        """Start rendering and return at once; the arrays that come back are not there yet.

        A program whose stage ends in latents returns those: Float32 "B h w C", on the devices.
        """
        # Nothing is donated: no input has an output's shape, and inputs can be run again.
        result: Result = self._compiled(self.model.weights, self.model.devices.put(prepared.inputs))
        return result

    def traced(self, prepared: Prepared[Inputs]) -> list[tuple[Any, int]]:
        """The program before XLA, and the steps that the batch takes."""
        jaxpr = self._jitted().trace(self.model.weights, self._shapes()).jaxpr
        return [(jaxpr, int(prepared.inputs.evaluations.max()))]

    def lowered(self) -> Any:
        """The program as XLA gets it, for tests and for reading."""
        return self._jitted().lower(self.model.weights, self._shapes())

    def compiled_text(self) -> str:
        """The optimised HLO, for tests and for reading."""
        text: str = self._compiled.as_text()
        return text

    def _jitted(self) -> Any:
        return self.model.devices.jit(partial(generate, self.model.config, self.model.graphs, self.kind.stage))

    def _compile(self) -> Any:
        body = partial(generate, self.model.config, self.model.graphs, self.kind.stage)
        name = repr((self.model.config, self.kind, self.model.quantize))
        sparing = self.model.quantize != UNQUANTIZED
        return self.model.devices.compile(body, self.model.weights, self._shapes(), name=name, sparing=sparing)

    def _shapes(self) -> Inputs:
        plain = PlainRequest("", self.kind.width, self.kind.height)
        sample = prepare_inputs(self.model.config, self.model.tokenizers, [plain], self.kind)
        return jax.tree.map(self._shape, sample.inputs)

    def _filled(self, part: np.ndarray) -> np.ndarray:
        return np.concatenate([part, part[-1:].repeat(self.batch - len(part), axis=0)])

    def _shape(self, part: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.batch, *part.shape[1:]), part.dtype, sharding=self.model.devices.split)


class RefinedProgram:
    """A base model's program and its refiner's, one after the other; used as a `Program` is.

    The refiner goes on from the base's latents: at `denoising_end` of a request as an ensemble of experts, without
    it as image-to-image of `refiner_strength`, its noise drawn anew from the request's seed. Latents stay on the
    devices.
    """

    def __init__(self, base: Model, refiner: Model, **shape: Any) -> None:
        self.base = base.compile(**shape, stage=Stage(end="latents"))
        self.refiner = refiner.compile(**shape, stage=Stage(start="latents"))
        self.batch: int = self.base.batch

    def prepare(self, requests: Sequence[ImageRequest]) -> Prepared[tuple[Prepared[Inputs], Prepared[Inputs]]]:
        """Inputs of both, as `Program.prepare`; what was cut is what the base model cut."""
        base = self.base.prepare(requests)
        return Prepared((base, self.refiner.prepare(requests)), base.cuts)

    def run(self, prepared: Prepared[tuple[Prepared[Inputs], Prepared[Inputs]]]) -> Result:
        """Start both and return at once."""
        base, refiner = prepared.inputs
        latents: Any = self.base.run(base)
        return self.refiner.run(replace(refiner, inputs=refiner.inputs._replace(latents=latents)))

    def traced(self, prepared: Prepared[tuple[Prepared[Inputs], Prepared[Inputs]]]) -> list[tuple[Any, int]]:
        """Both programs before XLA, each with its steps."""
        base, refiner = prepared.inputs
        return [*self.base.traced(base), *self.refiner.traced(refiner)]


def compile_shape(models: Sequence[Model], **shape: Any) -> AnyProgram:
    """One program of a model, or of a base model and its refiner. `shape` is what `Model.compile` takes."""
    return models[0].compile(**shape) if len(models) == 1 else RefinedProgram(models[0], models[1], **shape)
