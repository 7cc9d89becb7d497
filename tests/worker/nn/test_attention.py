"""Attention in chunks is the same attention, and a table says which kernel computes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmill.worker.nn import attention as module
from promptmill.worker.nn.attention import Call, attention, choose, pallas_flash


def heads(seed: int, length: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((2, length, 3, 8)), jnp.float32)


def compiled(*parts: jax.Array, causal: bool = False) -> jax.Array:
    # A new function each time, so that nothing is remembered across changes of MAX_SCORES.
    return jax.jit(lambda *arrays: attention(*arrays, causal=causal))(*parts)


@pytest.mark.parametrize("queries", [16, 17, 31])
def test_chunks_of_queries_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, queries: int) -> None:
    query, key, value = heads(0, queries), heads(1, 20), heads(2, 20)
    whole = compiled(query, key, value)
    monkeypatch.setitem(module.MAX_SCORES, "cpu", 5 * 2 * 3 * 20)  # five queries at a time
    np.testing.assert_allclose(compiled(query, key, value), whole, atol=1e-6)


def test_chunks_keep_to_the_lengths_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value, lengths = heads(0, 17), heads(1, 20), heads(2, 20), jnp.array([7, 20], jnp.int32)
    whole = jax.jit(attention)(query, key, value, lengths)
    cut = compiled(query[:1], key[:1, :7], value[:1, :7])
    np.testing.assert_allclose(whole[:1], cut, atol=1e-6)
    monkeypatch.setitem(module.MAX_SCORES, "cpu", 5 * 2 * 3 * 20)
    chunked = jax.jit(lambda *parts: attention(*parts))(query, key, value, lengths)
    np.testing.assert_allclose(chunked, whole, atol=1e-6)


def test_scores_of_a_large_image_are_never_held_at_once() -> None:
    tokens = jax.ShapeDtypeStruct((1, 128 * 128, 1, 512), jnp.float32)
    jaxpr = str(jax.make_jaxpr(attention)(tokens, tokens, tokens))
    assert "16384,16384" not in jaxpr and f"1,{module.MAX_SCORES['cpu'] // 16384},16384" in jaxpr


def test_nothing_as_large_as_the_scores_is_transposed() -> None:
    parts = [jax.ShapeDtypeStruct((2, length, 4, 8), jnp.float32) for length in (96, 160, 160)]
    text = jax.jit(attention).lower(*parts).compile().as_text() or ""
    moved = [line for line in text.splitlines() if " transpose(" in line or " copy(" in line]
    assert not [line for line in moved if "96,160]" in line.replace("160,96]", "96,160]")]


HALF, FULL = jnp.dtype("bfloat16"), jnp.dtype("float32")


@pytest.mark.parametrize(
    ("backend", "call", "kernel"),
    [
        ("gpu", Call(HALF, 64, 4096, 4096, True), "_cudnn"),
        ("gpu", Call(HALF, 64, 4096, 77, True), "_cudnn"),
        ("gpu", Call(jnp.dtype("float16"), 64, 1024, 154, False), "_cudnn"),
        ("gpu", Call(FULL, 64, 4096, 4096, True), None),
        ("gpu", Call(HALF, 512, 16384, 16384, True), None),  # the VAE's
        ("gpu", Call(HALF, 20, 1024, 1024, True), None),
        ("tpu", Call(HALF, 64, 4096, 4096, True), "pallas_flash"),
        ("tpu", Call(HALF, 64, 1024, 1024, True), "pallas_flash"),
        ("tpu", Call(HALF, 64, 1008, 1008, True), None),
        ("tpu", Call(HALF, 64, 576, 576, True), None),
        ("tpu", Call(HALF, 64, 4096, 77, True), None),
        ("tpu", Call(HALF, 64, 4096, 4096, False), None),
        ("tpu", Call(FULL, 64, 4096, 4096, True), None),
        ("tpu", Call(HALF, 512, 16384, 16384, True), None),
        ("tpu", Call(HALF, 64, 4100, 4100, True), "pallas_flash"),
        ("cpu", Call(HALF, 64, 4096, 4096, True), None),
        ("cpu", Call(FULL, 64, 4096, 4096, True), None),
    ],
)
def test_the_table_says_which_kernel(backend: str, call: Call, kernel: str | None) -> None:
    row = choose(call, backend)
    assert (row.kernel.__name__ if row else None) == kernel


@pytest.mark.parametrize("tokens", [512, 1008, 1152])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_tpu_kernel_agrees_where_no_tpu_is(tokens: int, dtype: str) -> None:
    """As Pallas interprets it: what is padded to whole blocks adds nothing, and no score is lost beside it."""
    tpu = pytest.importorskip("jax.experimental.pallas.tpu")
    parts = [jnp.asarray(np.random.default_rng(seed).standard_normal((1, tokens, 2, 64)), dtype) for seed in range(3)]
    parts[1] = parts[1] - 20  # all scores far from 0, which a padded key would have
    with tpu.force_tpu_interpret_mode():
        got = jax.jit(pallas_flash)(*parts)
    expected = compiled(*(part.astype(jnp.float32) for part in parts))
    np.testing.assert_allclose(got.astype(jnp.float32), expected, atol=2e-4 if dtype == "float32" else 0.03)


@pytest.mark.parametrize(
    ("tokens", "block"), [(4096, 1024), (4032, 1024), (1024, 1024), (1008, 1024), (2304, 768), (6400, 640), (1600, 896)]
)
def test_blocks_leave_little_to_pad(tokens: int, block: int) -> None:
    assert module._block(tokens) == block


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
