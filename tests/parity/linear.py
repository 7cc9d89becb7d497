"""Our samplers with a model that is a sum, so that a trajectory shows the sampler alone."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from promptmill.producer.families.samplers import SAMPLERS
from promptmill.worker.sampling.samplers import Table, initial_state, pad_table, row_at, scale_input, step
from promptmill.worker.sampling.solvers.plan import Sampling

SLOPE, PER_TIMESTEP = 0.7, 1e-4

SHAPE = (1, 4, 2, 3)
"""Of one job's latents; axes in diffusers' order, which no sampler looks at."""
NOISE = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)

_SDXL: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
_ZERO_SNR = {
    **_SDXL,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
# By name: a sampler's trajectory with SDXL's own schedule, and with a zero terminal SNR.
STORED: dict[str, tuple[Sampling, dict[str, Any]]] = {
    f"{sampler}/{name}": (Sampling(sampler=sampler, steps=6, eta=0.3 if "eta" in row.takes else 0.0), settings)
    for sampler, row in SAMPLERS.items()
    for name, settings in {"sdxl": _SDXL, "zero-snr": _ZERO_SNR}.items()
}


def visited(table: Table, noise: np.ndarray, draws: Iterator[np.ndarray] | None = None) -> np.ndarray:
    """Every latents of one job, from its noise on; `draws` are those of a sampler that draws at each step."""
    return visited_from(table, jnp.asarray(noise) * table.start[1], draws)


def visited_from(table: Table, latents: jax.Array, draws: Iterator[np.ndarray] | None = None) -> np.ndarray:
    """Every latents of one job, from its first latents on."""
    tables = Table(*(jnp.asarray(part)[None] for part in pad_table(table)))
    state = initial_state(jnp.asarray(latents))
    seen = [state[:, 0]]
    for index, drawn in enumerate(table.draws):
        noise = None if draws is None else next(draws) if drawn else jnp.zeros_like(latents)
        state = _step(tables, index, state, noise)
        seen.append(state[:, 0])
    return np.stack(seen)


@jax.jit
def _step(tables: Table, index: jax.Array, state: jax.Array, noise: jax.Array | None) -> jax.Array:
    row = row_at(tables, index)
    prediction = SLOPE * scale_input(row, state) + PER_TIMESTEP * row.timestep[:, None, None, None]
    return step(row, state, prediction, noise)
