"""Stage one: the autoencoder, by L1 on pixels and on their differences (edges), and a little Kullback-Leibler."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jaxtyping import Array, Float

from tools.pocket.images import Sprites, compose, fetch_emoji, load_sprites, sheet
from tools.pocket.nets import Weights, bind, fast_norms, first_weights, network_builders, write_configs
from tools.pocket.scenes import random_scene
from tools.pocket.training import Clock, adam, load, rate_at, save

BATCH = 16
RATE = 2.5e-3
KL_WEIGHT = 3e-6
PARTS = ("vae", "vae_encoder")


def main() -> None:
    """Train for the budget of seconds, or what an earlier run left of it."""
    options = _options()
    train(options.work, options.emoji or options.work, options.seconds)


def train(work: Path, emoji: Path, seconds: float) -> dict[str, Weights]:
    """The autoencoder's weights, also saved as `vae.pickle` under `work`."""
    work.mkdir(parents=True, exist_ok=True)
    config = write_configs(work / "configs", vocab_size=600)
    builders = {part: network_builders(config)[part] for part in PARTS}
    sprites = load_sprites(fetch_emoji(emoji))
    optimiser = adam()
    state = load(work / "vae.pickle") or _first_state(builders, optimiser)
    clock = Clock(seconds, spent=state["spent"])
    step = jax.jit(partial(train_step, builders, optimiser))
    average = 0.0
    while clock.progress() < 1:
        images = batch(sprites, BATCH, seed=state["step"])
        rate = RATE * rate_at(clock.progress(), state["step"])
        key = jax.random.key(state["step"])
        state["weights"], state["moments"], loss = step(state["weights"], state["moments"], images, rate, key)
        state["step"] += 1
        average += 0.02 * (float(loss) - average)
        if state["step"] % 250 == 0 or clock.progress() >= 1:
            state["spent"] = clock.elapsed()
            save(work / "vae.pickle", state)
            _report(work, builders, state, sprites, average)
    return state["weights"]


def train_step(
    builders: dict[str, Any],
    optimiser: optax.GradientTransformation,
    weights: Any,
    moments: Any,
    images: Any,
    rate: Any,
    key: Any,
) -> tuple[Any, Any, Float[Array, ""]]:
    with fast_norms():
        loss, gradient = jax.value_and_grad(partial(_loss, builders))(weights, images, key)
    updates, moments = optimiser.update(gradient, moments, weights)
    return jax.tree.map(lambda w, u: w + rate * u, weights, updates), moments, loss


def _loss(builders: dict[str, Any], weights: Any, images: Float[Array, "B H W 3"], key: Any) -> Float[Array, ""]:
    mean, log_variance = bind(builders["vae_encoder"], weights["vae_encoder"])(images)
    latents = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    decoded = bind(builders["vae"], weights["vae"])(latents)
    kl = 0.5 * jnp.mean(jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance, axis=(1, 2, 3)))
    edges = sum(jnp.mean(jnp.abs(jnp.diff(decoded - images, axis=axis))) for axis in (1, 2))
    return jnp.mean(jnp.abs(decoded - images)) + edges + KL_WEIGHT * kl


def batch(sprites: Sprites, size: int, seed: int) -> Float[np.ndarray, "B H W 3"]:
    """Random scenes in [-1, 1], the same for the same seed."""
    draw = np.random.default_rng([17, seed])
    images = np.stack([compose(random_scene(draw), sprites, draw) for _ in range(size)])
    return images.astype(np.float32) / 127.5 - 1


def to_bytes(images: Any) -> np.ndarray:
    return np.round(np.clip(np.asarray(images) / 2 + 0.5, 0, 1) * 255).astype(np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Of bytes, over all images together."""
    return float(10 * np.log10(255**2 / np.mean(np.square(first.astype(np.float64) - second))))


@partial(jax.jit, static_argnums=0)
def _round_trip(builders: tuple[Any, ...], weights: Any, images: Any) -> Any:
    decoder, encoder = builders
    mean, _ = bind(encoder, weights["vae_encoder"])(images)
    return bind(decoder, weights["vae"])(mean)


def _report(work: Path, builders: dict[str, Any], state: dict[str, Any], sprites: Sprites, average: float) -> None:
    seen = batch(sprites, 32, seed=10**9)
    decoded = to_bytes(_round_trip((builders["vae"], builders["vae_encoder"]), state["weights"], seen))
    quality = psnr(decoded, to_bytes(seen))
    print(f"vae step {state['step']}, {state['spent']:.0f} s, loss {average:.4f}, {quality:.2f} dB", flush=True)
    sheet(np.concatenate([to_bytes(seen), decoded]), 16).save(work / "vae.png")


def _first_state(builders: dict[str, Any], optimiser: optax.GradientTransformation) -> dict[str, Any]:
    weights = {part: first_weights(build, seed) for seed, (part, build) in enumerate(builders.items())}
    return {"weights": weights, "moments": optimiser.init(weights), "step": 0, "spent": 0.0}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and sample sheets")
    parser.add_argument("--emoji", type=Path, help="folder of the npm archive (default: --work)")
    parser.add_argument("--seconds", type=float, default=900)
    return parser.parse_args()


if __name__ == "__main__":
    main()
