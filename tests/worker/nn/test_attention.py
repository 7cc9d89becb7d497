"""Attention in chunks is the same attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmill.worker.nn import attention as module
from promptmill.worker.nn.attention import attention


def heads(seed: int, length: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((2, length, 3, 8)), jnp.float32)


def compiled(*parts: jax.Array, causal: bool = False) -> jax.Array:
    # A new function each time, so that nothing is remembered across changes of MAX_SCORES.
    return jax.jit(lambda *arrays: attention(*arrays, causal=causal))(*parts)


@pytest.mark.parametrize("queries", [16, 17, 31])
def test_chunks_of_queries_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, queries: int) -> None:
    query, key, value = heads(0, queries), heads(1, 20), heads(2, 20)
    whole = compiled(query, key, value)
    monkeypatch.setattr(module, "MAX_SCORES", 5 * 2 * 3 * 20)  # five queries at a time
    np.testing.assert_allclose(compiled(query, key, value), whole, atol=1e-6)


def test_scores_of_a_large_image_are_never_held_at_once() -> None:
    tokens = jax.ShapeDtypeStruct((1, 128 * 128, 1, 512), jnp.float32)
    jaxpr = str(jax.make_jaxpr(attention)(tokens, tokens, tokens))
    assert "16384,16384" not in jaxpr and "4096,16384" in jaxpr


def test_causal_attention_sees_no_later_key() -> None:
    query, key, value = heads(0, 9), heads(1, 9), heads(2, 9)
    first = compiled(query, key, value, causal=True)[:, :4]
    cut = compiled(query[:, :4], key[:, :4], value[:, :4], causal=True)
    np.testing.assert_allclose(first, cut, atol=1e-6)


def test_half_precision_keeps_its_softmax_in_float32() -> None:
    query, key, value = heads(0, 9), heads(1, 300), heads(2, 300)
    half = compiled(*(part.astype(jnp.bfloat16) for part in (query, key, value)))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), compiled(query, key, value), atol=0.03)
