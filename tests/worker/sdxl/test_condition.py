"""Long and weighted prompts on the device: no part for what is not used, and weights do what they say."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmill.worker.nn import attention as module
from promptmill.worker.nn.attention import attention
from promptmill.worker.program import fetch
from promptmill.worker.sdxl.condition import encode_windows, used_keys, weight_context
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest


def values(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_keys_beyond_a_rows_length_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = values(0, 2, 17, 3, 8), values(1, 2, 20, 3, 8), values(2, 2, 20, 3, 8)
    lengths = jnp.array([7, 20], jnp.int32)
    for scores in (module.MAX_SCORES["cpu"], 5 * 2 * 3 * 20):  # at once, and five queries at a time
        monkeypatch.setitem(module.MAX_SCORES, "cpu", scores)
        got = jax.jit(lambda *arrays: attention(*arrays))(query, key, value, lengths)
        for row, length in enumerate((7, 20)):
            one = slice(row, row + 1)
            expected = attention(query[one], key[one, :length], value[one, :length])
            np.testing.assert_allclose(got[one], expected, atol=1e-6)


def test_without_lengths_attention_masks_nothing() -> None:
    shapes = [jax.ShapeDtypeStruct((1, 4, 2, 8), jnp.float32)] * 3
    assert "select" not in str(jax.make_jaxpr(attention)(*shapes))
    assert "select" in str(jax.make_jaxpr(attention)(*shapes, jax.ShapeDtypeStruct((1,), jnp.int32)))


def test_a_weight_is_how_far_a_token_stands_from_the_empty_text() -> None:
    context, empty = values(0, 2, 1, 2, 3, 4), values(1, 2, 1, 1, 3, 4)
    for weight in (0.0, 0.5, 1.3):
        got = weight_context(context, jnp.full((2, 1, 2, 3), weight), empty)
        np.testing.assert_allclose(got, (1 - weight) * empty + weight * context, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_weights_of_one_leave_every_bit(dtype: Any) -> None:
    context, empty = values(0, 2, 1, 2, 3, 4).astype(dtype), 1000 * values(1, 2, 1, 1, 3, 4).astype(dtype)
    weights = jnp.ones((2, 1, 2, 3)).at[1, 0, 1, 2].set(1.5)
    got = weight_context(context, weights, empty)
    assert got.dtype == dtype
    changed = np.argwhere(np.asarray(got != context).any(axis=-1))
    np.testing.assert_array_equal(changed, [[1, 0, 1, 2]])


def test_both_passes_of_a_job_take_the_windows_of_the_longer() -> None:
    np.testing.assert_array_equal(used_keys(jnp.array([[1, 3], [2, 1], [1, 1]]), 77), [[231] * 2, [154] * 2, [77] * 2])


def encoder(ids: jax.Array, skipped: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A stand-in whose outputs tell what went in, which row it was, and its clip_skip."""
    hidden = jnp.stack([ids * 1.0, jnp.broadcast_to(skipped[:, None] * 1.0, ids.shape)], axis=-1)
    return hidden, ids.sum(axis=1, keepdims=True) * 1.0


def test_windows_lie_behind_one_another_and_the_first_is_pooled() -> None:
    ids = jnp.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)
    skipped = jnp.array([[0, 1], [0, 2]])
    plain = encode_windows(encoder, ids, skipped)
    ones = encode_windows(encoder, ids, skipped, jnp.ones(ids.shape), jnp.zeros((2, 2, 4), int))
    for context, pooled in (plain, ones):
        np.testing.assert_array_equal(context[..., 0], ids.reshape(2, 2, 12))
        np.testing.assert_array_equal(context[..., 1], np.broadcast_to(skipped[:, :, None], (2, 2, 12)))
        np.testing.assert_array_equal(pooled[..., 0], ids[:, :, 0].sum(axis=-1))


def test_every_window_is_weighted_from_the_empty_text() -> None:
    ids, empty = jnp.arange(24).reshape(2, 2, 2, 3), 100 + jnp.arange(12).reshape(2, 2, 3)
    context, _ = encode_windows(encoder, ids, jnp.zeros((2, 2), int), jnp.full(ids.shape, 0.5), empty)
    expected = (ids + empty[:, :, None]) / 2
    np.testing.assert_allclose(context[..., 0], expected.reshape(2, 2, 6))


def test_transformer_blocks_attend_to_the_text_by_its_length_and_to_the_pixels_whole(model: Model) -> None:
    unet = nnx.merge(model.graphs["unet"], jax.device_put(model.weights["unet"], jax.devices()[0]))
    block = unet.mid_block.attentions[0].transformer_blocks[0]
    x, context = values(0, 2, 5, 64), values(1, 2, 6, 48)
    keys_values = block.attn2.keys_values
    got = block(x, keys_values(context, jnp.array([3, 6], jnp.int32)))
    np.testing.assert_allclose(got[0], block(x, keys_values(context[:, :3]))[0], atol=1e-5)
    np.testing.assert_allclose(got[1], block(x, keys_values(context))[1], atol=1e-5)


@pytest.mark.slow
def test_the_unet_sees_nothing_beyond_a_rows_length(model: Model) -> None:
    unet = partial(_unet, model.graphs["unet"], model.weights["unet"])
    context = values(1, 2, 231, 48)
    got = unet(context, jnp.array([77, 231], jnp.int32))
    np.testing.assert_allclose(got[1], unet(context)[1], atol=1e-5)
    np.testing.assert_allclose(got[0], unet(context[:, :77])[0], atol=1e-5)
    assert np.abs(got[0] - unet(context)[0]).max() > 1e-3


@partial(jax.jit, static_argnums=0)
def _unet(graph: Any, weights: Any, context: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    inputs = values(0, 2, 8, 8, 4), jnp.array([500.0, 20.0]), context, values(2, 2, 32), values(3, 2, 6)
    output: jax.Array = nnx.merge(graph, weights)(*inputs, context_lengths=lengths)
    return output


LONG = "a red cat in the rain, oil painting, " * 12  # 120 tokens
request_of = partial(PlainRequest, width=64, height=64, num_inference_steps=4, seed=3)


@pytest.fixture(scope="module")
def one_device(tiny_folder: Path) -> Model:
    return Model.load(tiny_folder, devices=jax.local_devices()[:1])


@pytest.mark.slow
def test_a_image_does_not_depend_on_the_room_for_its_prompt(one_device: Model) -> None:
    one, two, three = (image_by(one_device, chunks) for chunks in (1, 2, 3))
    for negative in (None, "", "blurry"):
        short = request_of("a cat", negative_prompt=negative)
        assert np.abs(three(short) - one(short)).max() <= 1
        long = request_of(LONG, negative_prompt=negative)
        assert np.abs(three(long) - two(long)).max() <= 1
        assert np.abs(two(long) - one(long)).max() > 1  # its end has a say


@pytest.mark.slow
def test_a_weight_changes_the_image_and_a_weight_of_one_no_bit(one_device: Model) -> None:
    image = image_by(one_device, 1)
    plain = image(request_of("a cat in rain"))
    assert (image(request_of("a (cat:1) in rain", prompt_weighting=True)) == plain).all()
    assert (image(request_of("a (cat:1.5) in rain", prompt_weighting=True)) != plain).any()


def image_by(model: Model, chunks: int) -> Callable[[PlainRequest], np.ndarray]:
    program = model.compile(width=64, height=64, guided=True, prompt_windows=chunks)
    return lambda request: fetch(program.run(program.prepare([request])), 1).pixels[0].astype(int)
