"""What is compared, computed by our modules."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmill.worker.checkpoint.weights import load_weights
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.nn.vae import VAE as VAEDecoder
from promptmill.worker.program import AnyProgram, fetch
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.samplers import make_table
from promptmill.worker.sampling.schedulers import resolve
from promptmill.worker.sampling.solvers.euler import plan_euler, timesteps_and_sigmas
from promptmill.worker.sampling.solvers.plan import Sampling
from promptmill.worker.sdxl.config import UNetConfig
from promptmill.worker.sdxl.program import Model, RefinedProgram
from promptmill.worker.sdxl.requests import PlainRequest, is_cached, is_guided, is_stochastic
from promptmill.worker.sdxl.unet import UNet
from promptmill.worker.text.clip import CLIPText
from promptmill.worker.text.config import CLIPConfig
from tests.parity import cases
from tests.parity.linear import visited
from tests.parity.matrix import PROJECTING_ENCODER, UNET, VAE, Part


def parts(model: Model) -> dict[str, Any]:
    """Each network's outputs for the cases' inputs."""
    config = model.config
    assert config.text_encoder is not None
    ids = cases.token_ids(config.text_encoder.vocab_size)
    unet = cases.unet_inputs(
        config.unet.in_channels, config.unet.cross_attention_dim, config.text_encoder_2.projection_dim
    )
    names = ("latents", "timestep", "context", "pooled", "time_ids", "guidance")
    context, _ = run(model, "text_encoder", ids)
    context_2, pooled = run(model, "text_encoder_2", ids)
    return {
        "context": context,
        "context_2": context_2,
        "pooled": pooled,
        "unet": run(model, "unet", *(unet[name] for name in names)),
        "vae": run(model, "vae", cases.vae_latents(config.vae.latent_channels)),
    }


def part_outputs(part: Part, folder: Path, dtype: Any = jnp.float32) -> dict[str, Any]:
    """What our network with the weights of `folder` makes of the part's inputs."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    graph, weights = load_weights(folder, _builder(part.kind, folder), dtype=dtype, sharding=device)
    given = cases.inputs_of(part)
    for name in given.keys() & {"latents", "context", "pooled"}:
        given[name] = given[name].astype(dtype)
    out = jax.device_get(_apply(graph, weights, *given.values()))
    if part.kind in (UNET, VAE):
        return {"prediction" if part.kind == UNET else "image": out}
    return dict(zip(("context", "pooled"), out, strict=True))


def _builder(kind: str, folder: Path) -> Callable[[], nnx.Module]:
    path = folder / "config.json"
    if kind == UNET:
        return partial(UNet, UNetConfig.from_file(path))
    if kind == VAE:
        return partial(VAEDecoder, VAEConfig.from_file(path))
    return partial(CLIPText, CLIPConfig.from_file(path), projection=kind == PROJECTING_ENCODER)


def run(model: Model, name: str, *arrays: np.ndarray) -> Any:
    return jax.device_get(_apply(model.graphs[name], model.weights[name], *arrays))


@partial(jax.jit, static_argnums=0)
def _apply(graph: nnx.GraphDef, weights: nnx.State, *arrays: jax.Array) -> Any:
    return nnx.merge(graph, weights)(*arrays)


def schedule(settings: dict[str, Any], steps: int) -> dict[str, np.ndarray]:
    """Euler's tables, as diffusers names them."""
    resolved = resolve(SchedulerConfig(**settings), "EulerDiscreteScheduler", {})
    timesteps, sigmas = timesteps_and_sigmas(resolved, Sampling(steps=steps))
    planned = plan_euler(resolved, Sampling(steps=steps))
    return {
        "timesteps": planned.timesteps,
        "sigmas": sigmas[: len(timesteps) + 1],
        "initial_scale": np.asarray(planned.initial_scale, np.float32),
    }


def trajectory(settings: dict[str, Any]) -> np.ndarray:
    """Euler's latents from start to end, for a model that returns its input and a little of its timestep."""
    table = make_table(SchedulerConfig(**settings), Sampling(steps=cases.TRAJECTORY_STEPS))
    return visited(table, cases.trajectory_start())


def programs(model: Model, refiner: Model | None = None) -> Callable[[PlainRequest], AnyProgram]:
    """What gives the program of a request's shape, compiled once."""

    @cache
    def compiled(**shape: Any) -> AnyProgram:
        return model.compile(**shape) if refiner is None else RefinedProgram(model, refiner, **shape)

    return lambda request: compiled(
        width=request.width,
        height=request.height,
        guided=is_guided(model.config, request.guidance_scale),
        stochastic=is_stochastic(request),
        cached=is_cached(request),
    )


def image(program: AnyProgram, request: PlainRequest) -> np.ndarray:
    result = fetch(program.run(program.prepare([request])), 1)
    assert result.finite.all()
    return result.pixels[0]
