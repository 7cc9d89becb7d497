"""A quick look while training: Euler steps in one compiled function, without the worker's batches and tables."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tools.pocket.nets import bind, fast_norms
from tools.pocket.text import Texts, encode_text

_STEPS = 10


def images(
    builders: Any, kept: Float[np.ndarray, " T"], weights: Any, texts: Texts, prompts: Sequence[str], guidance: float
) -> np.ndarray:
    """Bytes, one image a prompt; `kept` is how much of the image each training timestep keeps."""
    timesteps = np.arange(len(kept), 0, -len(kept) / _STEPS).round().astype(int) - 1
    images = _render(tuple(builders.items()), weights, *texts(list(prompts)), timesteps, kept[timesteps], guidance)
    return np.asarray(images)


@partial(jax.jit, static_argnums=0)
def _render(
    builders: Any, weights: Any, ids: Any, ids_2: Any, timesteps: Any, kept: Any, guidance: Any
) -> Float[Array, "B H W 3"]:
    nets = dict(builders)
    with fast_norms():
        context, pooled = (_with_zeros(part) for part in encode_text(nets, weights, ids, ids_2))
        unet = bind(nets["unet"], weights["unet"])
        start = jax.random.normal(jax.random.key(0), (len(ids), 16, 16, 4))

        def step(x: Any, row: Any) -> tuple[Any, None]:
            timestep, alpha, after = row
            v = unet(*_twice(x, timestep), context, pooled, _time_ids(2 * len(ids), 64.0))
            v = v[: len(ids)] + guidance * (v[len(ids) :] - v[: len(ids)])
            image, noise = alpha * x - _noise(alpha) * v, _noise(alpha) * x + alpha * v
            return after * image + _noise(after) * noise, None

        x, _ = jax.lax.scan(step, start, (timesteps, kept, jnp.append(kept[1:], 1.0)))
        decoded = bind(nets["vae"], weights["vae"])(x)
    return jnp.round(jnp.clip(decoded / 2 + 0.5, 0, 1) * 255).astype(jnp.uint8)


def _with_zeros(part: Any) -> Any:
    return jnp.concatenate([jnp.zeros_like(part), part])


def _twice(x: Any, timestep: Any) -> tuple[Any, Any]:
    return jnp.concatenate([x, x]), jnp.full((2 * len(x),), timestep, jnp.float32)


def _noise(kept: Any) -> Any:
    return jnp.sqrt(1 - jnp.square(kept))


def _time_ids(count: int, side: float) -> Float[Array, "B 6"]:
    return jnp.tile(jnp.array([side, side, 0.0, 0.0, side, side]), (count, 1))
