"""Stage two: text encoders and UNet together, to predict v (Salimans and Ho 2022, arXiv 2202.00512) of latents."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jaxtyping import Array, Float

from promptmill.worker.sampling.schedule import training_alphas_cumprod_above_zero
from promptmill.worker.sampling.schedulers import resolve
from promptmill.worker.sdxl.config import ModelConfig
from tools.pocket import train_vae
from tools.pocket.captions import caption
from tools.pocket.images import fetch_emoji, load_sprites, sheet
from tools.pocket.latents import Cache, normalised
from tools.pocket.nets import bind, fast_norms, first_weights, network_builders, write_configs
from tools.pocket.sample import images
from tools.pocket.text import Texts, encode_text
from tools.pocket.tokenizer import write_tokenizers
from tools.pocket.training import Clock, adam, load, rate_at, save

BATCH = 32
RATE = 2e-3
EMA = 0.998
PARTS = ("text_encoder", "text_encoder_2", "unet")
# Of all captions, those that are dropped for zeros, and those that are dropped for an empty text.
ZEROED, EMPTIED = 0.1, 0.03
FIRST_SCENES, MORE_SCENES, MOST_SCENES = 6_000, 1_500, 48_000
_REPORT_STEPS, _SHEET_STEPS = 100, 400
_SHEET_GUIDANCE = 3.5
_TRAINED = ("weights", "ema", "moments")
_SHEET_PROMPTS = (
    "a red apple on a blue background", "a cat on a yellow background", "a panda on a green background",
    "a red heart on a white background", "a rocket on a black background", "a small key on a black background",
    "a large elephant on a pink background", "a red balloon in the top left of a blue background",
    "two cats on a yellow background", "three red apples on a white background", "four cherries on a green background",
    "a cat and a dog on a green background", "a bicycle on a yellow background", "a guitar on a green background",
    "a house on a green background", "a smiley face on a purple background", "a green apple on a gray background",
    "a robot on an orange background", "a soccer ball on a red background", "a unicorn on a pink background",
    "a rose on a black background", "a green book on a white background", "a steam train on a blue background",
    "a bee in the top right of a white background",
)  # fmt: skip


def main() -> None:
    options = _options()
    emoji = options.emoji or options.work
    train_vae.train(options.work, emoji, options.vae_seconds)
    train(options.work, emoji, options.seconds)


def train(work: Path, emoji: Path, seconds: float) -> None:
    """Train for the budget of seconds, or what an earlier run left of it; the weights go to `model.pickle`."""
    config = write_configs(work / "configs", write_tokenizers(work / "configs"))
    builders = network_builders(config)
    sprites = load_sprites(fetch_emoji(emoji))
    vae = load(work / "vae-normalised.pickle")
    if vae is None:
        vae = normalised(builders, load(work / "vae.pickle")["weights"], sprites)
        save(work / "vae-normalised.pickle", vae)
    optimiser = adam()
    state = load(work / "model.pickle") or _first_state(builders, optimiser)
    texts = Texts(work / "configs")
    cache = Cache(builders["vae_encoder"], vae["vae_encoder"], sprites)
    clock = Clock(seconds, spent=state["spent"])
    step = jax.jit(partial(train_step, builders, optimiser, alphas(config)), donate_argnums=0)
    average = Average()
    while clock.progress() < 1:
        if state["step"] % _REPORT_STEPS == 0 or not len(cache):
            cache.grow_to(min(MOST_SCENES, FIRST_SCENES + MORE_SCENES * (state["step"] // _REPORT_STEPS)))
        values = batch(cache, texts, state["step"])
        rate = RATE * rate_at(clock.progress(), state["step"])
        trained, loss = step({name: state[name] for name in _TRAINED}, *values, rate, state["step"])
        state = {**trained, "step": state["step"] + 1, "spent": clock.elapsed()}
        average.add(float(loss))
        if state["step"] % _REPORT_STEPS == 0 or clock.progress() >= 1:
            save(work / "model.pickle", state)
            print(f"step {state['step']}, {state['spent']:.0f} s, {len(cache)} scenes, {average}", flush=True)
        if state["step"] % _SHEET_STEPS == 0 or clock.progress() >= 1:
            weights = {**state["ema"], "vae": vae["vae"]}
            samples = images(builders, alphas(config), weights, texts, _SHEET_PROMPTS, _SHEET_GUIDANCE)
            sheet(samples, 8).save(work / f"samples-{state['step']:06d}.png")


class Average:
    """The mean loss since it was last told."""

    def __init__(self) -> None:
        self._losses: list[float] = []

    def add(self, loss: float) -> None:
        self._losses.append(loss)

    def __str__(self) -> str:
        mean, self._losses = float(np.mean(self._losses)), []
        return f"loss {mean:.4f}"


def batch(cache: Cache, encode: Texts, seed: int) -> tuple[np.ndarray, ...]:
    """Latents, ids of either encoder, and which captions are replaced by zeros."""
    draw = np.random.default_rng([31, seed])
    scenes, latents = cache.sample(BATCH, draw)
    emptied = draw.random(BATCH) < EMPTIED
    texts = ["" if empty else caption(scene, draw) for scene, empty in zip(scenes, emptied, strict=True)]
    ids, ids_2 = encode(texts)
    return latents, ids, ids_2, draw.random(BATCH) < ZEROED


def alphas(config: ModelConfig) -> Float[np.ndarray, " T"]:
    """How much of the image each training timestep keeps; the rest, in squares, is noise."""
    return np.sqrt(training_alphas_cumprod_above_zero(resolve(config.scheduler, "EulerDiscreteScheduler", {})))


def train_step(
    builders: dict[str, Any],
    optimiser: optax.GradientTransformation,
    kept: Float[np.ndarray, " T"],
    state: Any,
    latents: Any,
    ids: Any,
    ids_2: Any,
    zeroed: Any,
    rate: Any,
    step: Any,
) -> tuple[Any, Float[Array, ""]]:
    key = jax.random.key(step)
    with fast_norms():
        loss, gradient = jax.value_and_grad(partial(_loss, builders, jnp.asarray(kept)))(
            state["weights"], latents, ids, ids_2, zeroed, key
        )
    updates, moments = optimiser.update(gradient, state["moments"], state["weights"])
    weights = jax.tree.map(lambda w, u: w + rate * u, state["weights"], updates)
    decay = jnp.minimum(EMA, (1 + step) / (10 + step))
    ema = jax.tree.map(lambda e, w: decay * e + (1 - decay) * w, state["ema"], weights)
    return {"weights": weights, "ema": ema, "moments": moments}, loss


def _loss(
    builders: dict[str, Any], kept: Any, weights: Any, latents: Any, ids: Any, ids_2: Any, zeroed: Any, key: Any
) -> Float[Array, ""]:
    context, pooled = encode_text(builders, weights, ids, ids_2)
    context, pooled = jnp.where(zeroed[:, None, None], 0, context), jnp.where(zeroed[:, None], 0, pooled)
    time_key, noise_key = jax.random.split(key)
    # One timestep of each of as many equal stretches: the loss varies less than with independent ones.
    count = len(latents)
    # The exponent draws more of the noisy ones, where it is decided what is drawn; ten steps never visit the last 99.
    steps = jnp.power((jnp.arange(count) + jax.random.uniform(time_key, (count,))) / count, 0.75)
    timestep = jnp.clip((steps * len(kept)).astype(jnp.int32), 0, len(kept) - 1)
    alpha = kept[timestep][:, None, None, None]
    sigma = jnp.sqrt(1 - jnp.square(alpha))
    noise = jax.random.normal(noise_key, latents.shape)
    side = 4.0 * latents.shape[1]
    time_ids = jnp.tile(jnp.array([side, side, 0.0, 0.0, side, side]), (count, 1))
    unet = bind(builders["unet"], weights["unet"])
    predicted = unet(alpha * latents + sigma * noise, timestep.astype(jnp.float32), context, pooled, time_ids)
    return jnp.mean(jnp.square(predicted - (alpha * noise - sigma * latents)))


def _first_state(builders: dict[str, Any], optimiser: optax.GradientTransformation) -> dict[str, Any]:
    weights = {part: first_weights(builders[part], seed) for seed, part in enumerate(PARTS)}
    ema = jax.tree.map(jnp.copy, weights)
    return {"weights": weights, "ema": ema, "moments": optimiser.init(weights), "step": 0, "spent": 0.0}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and sample sheets")
    parser.add_argument("--emoji", type=Path, help="folder of the npm archive (default: --work)")
    parser.add_argument("--vae-seconds", type=float, default=900)
    parser.add_argument("--seconds", type=float, default=4200)
    return parser.parse_args()


if __name__ == "__main__":
    main()
