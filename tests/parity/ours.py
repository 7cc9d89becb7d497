"""What is compared, computed by our modules."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.parity import cases
from worker.sdxl.config import SchedulerConfig
from worker.sdxl.program import Model, PlainRequest, Program, fetch
from worker.sdxl.samplers import SAMPLERS, Row, denoise, scale_input


def parts(model: Model) -> dict[str, Any]:
    """Each network's outputs for the cases' inputs."""
    config = model.config
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


def run(model: Model, name: str, *arrays: np.ndarray) -> Any:
    return jax.device_get(_apply(model.graphs[name], model.weights[name], *arrays))


@partial(jax.jit, static_argnums=0)
def _apply(graph: nnx.GraphDef, weights: nnx.State, *arrays: jax.Array) -> Any:
    return nnx.merge(graph, weights)(*arrays)


def trajectory(settings: dict[str, Any]) -> np.ndarray:
    """Latents from start to end, for a model that returns its input and a little of its timestep."""
    config = SchedulerConfig(**settings)
    sampler = SAMPLERS["euler"]
    schedule = sampler.schedule(config, cases.TRAJECTORY_STEPS)
    latents = jnp.asarray(cases.trajectory_start()) * schedule.initial_scale
    step = jax.jit(partial(_step, config.prediction_type, sampler.step))
    visited = [np.asarray(latents)]
    for index in range(schedule.steps):
        visit = schedule.timesteps[index], schedule.sigmas[index], schedule.sigmas[index + 1]
        row = Row(*(jnp.asarray(value)[None] for value in visit))
        latents = step(row, latents)
        visited.append(np.asarray(latents))
    return np.stack(visited)


def _step(prediction_type: str, step: Any, row: Row, latents: jax.Array) -> jax.Array:
    prediction = 0.7 * scale_input(row, latents) + 1e-4 * row.timestep[:, None, None, None]
    return step(row, latents, denoise(prediction_type, row, latents, prediction))


def image(program: Program, request: PlainRequest) -> np.ndarray:
    pixels, finite = fetch(program.run(program.prepare([request])), 1)
    assert finite.all()
    return pixels[0]
