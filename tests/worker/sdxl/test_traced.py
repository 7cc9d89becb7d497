"""Speed without a clock: what the program is made of, in the tiny model as it is traced and as XLA compiled it."""

import re
from collections import Counter
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Jaxpr, JaxprEqn

from promptmill.worker.checkpoints import find_model
from promptmill.worker.nn import convolution
from promptmill.worker.sdxl.generate import generate
from promptmill.worker.sdxl.program import Model, Program
from tests.worker.sdxl.jaxprs import loops, operations, shared_by_all_turns
from tests.worker.sdxl.test_program import CAT, DOG

# What may be done anew at each step: XLA makes views of them, or part of what comes next.
FREE = {
    "reshape",
    "broadcast_in_dim",
    "convert_element_type",
    "squeeze",
    "slice",
    "transpose",
    "split",
    "concatenate",
    "pad",
    "iota",
    "stop_gradient",
    "copy",
    "copy_p",
}
PRODUCTS = {"dot_general", "conv_general_dilated"}
BLOCKS = 11
"""Blocks of the tiny UNet's transformers: each attends to the pixels, then to the text."""


@pytest.fixture(scope="module")
def half(model: Model) -> Jaxpr:
    """The guided program in bfloat16, but for the VAE, traced for one device."""
    return traced(model, guided=True)


def traced(model: Model, *, guided: bool, dtype: Any = jnp.bfloat16, **more: Any) -> Jaxpr:
    weights = {
        name: jax.tree.map(lambda leaf, t=jnp.float32 if name == "vae" else dtype: shape(leaf.shape, t), state)
        for name, state in model.weights.items()
    }
    program = Program.__new__(Program)
    program.model, program.kind, program.batch = model, kind(guided, **more), 1
    inputs = jax.tree.map(lambda leaf: shape(leaf.shape, leaf.dtype), program._shapes())
    body = partial(generate, model.config, model.graphs, program.kind.stage)
    return jax.make_jaxpr(body)(weights, inputs).jaxpr


def kind(guided: bool, **more: Any) -> Any:
    from promptmill.worker.sdxl.requests import Kind

    return Kind(64, 64, guided, **more)


shape = jax.ShapeDtypeStruct


def aval(value: Any) -> Any:
    """The shape and dtype of a traced value."""
    return value.aval


def steps_of(jaxpr: Jaxpr) -> JaxprEqn:
    (loop,) = loops(jaxpr)
    return loop


def test_no_step_computes_what_all_steps_share(half: Jaxpr) -> None:
    assert not computed_anew(steps_of(half))


def test_no_image_decodes_with_what_all_images_share(half: Jaxpr) -> None:
    """The decoder's loop is over images."""
    assert not computed_anew(decoder_of(half))


def test_winograds_kernels_are_prepared_when_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "WINOGRAD_CHANNELS", 8)
    monkeypatch.setattr(convolution, "WINOGRAD_UPSAMPLING_CHANNELS", 8)
    single = traced(Model.load(find_model("tiny-random")), guided=True, dtype=jnp.float32)
    assert not computed_anew(steps_of(single)) and not computed_anew(decoder_of(single))
    left = [e for e in operations(single) if e.primitive.name == "conv_general_dilated"]
    # conv_in and conv_out of both networks, strided ones, and those of one pixel
    assert all(e.params["window_strides"] == (2, 2) or min(aval(e.invars[1]).shape) <= 4 for e in left)


def computed_anew(loop: JaxprEqn) -> Counter[str]:
    """What each turn computes although all turns share it, of more than one number per image."""
    return Counter(
        equation.primitive.name
        for equation in shared_by_all_turns(loop)
        if equation.primitive.name not in FREE and aval(equation.outvars[0]).size > 1
    )


def decoder_of(jaxpr: Jaxpr) -> JaxprEqn:
    (decoder,) = (equation for equation in jaxpr.eqns if equation.primitive.name == "scan")
    return decoder


def test_each_step_is_one_pass_of_the_network(half: Jaxpr, model: Model) -> None:
    body = steps_of(half).params["body_jaxpr"].jaxpr
    count = Counter(equation.primitive.name for equation in operations(body))
    kernels = [leaf for path, leaf in jax.tree.leaves_with_path(model.weights["unet"]) if "kernel" in str(path)]
    outside = BLOCKS + 2  # keys and values of the text, and the two layers of what is told beside it
    assert count["conv_general_dilated"] == sum(kernel.ndim == 4 for kernel in kernels)
    # Each of a block's two attentions has two products beside those with weights.
    assert count["dot_general"] == sum(kernel.ndim == 2 for kernel in kernels) - outside + 2 * 2 * BLOCKS


@pytest.mark.parametrize("interval", [False, True])
def test_with_a_cache_a_step_is_one_pass_of_the_network_too(model: Model, interval: bool) -> None:
    cached, whole = (steps_of(traced(model, guided=True, interval=interval, cached=each)) for each in (True, False))
    assert products_in(cached.params["body_jaxpr"].jaxpr) == products_in(whole.params["body_jaxpr"].jaxpr)
    assert computed_anew(cached) == computed_anew(whole)


def test_what_is_not_cached_is_the_outermost_layers(model: Model) -> None:
    body = steps_of(traced(model, guided=True, cached=True)).params["body_jaxpr"].jaxpr
    (deep,) = (equation for equation in body.eqns if equation.primitive.name == "cond")
    kept, computed = (products_in(branch.jaxpr) for branch in deep.params["branches"])
    left = products_in(body) - computed
    assert not kept
    # conv_in, conv_out, one resnet's two and its shortcut; two layers of the time's embedding, and the resnet's own
    assert left == {"conv_general_dilated": 5, "dot_general": 3}


def products_in(jaxpr: Jaxpr) -> Counter[str]:
    return Counter(each.primitive.name for each in operations(jaxpr) if each.primitive.name in PRODUCTS)


def test_products_of_a_bfloat16_network_take_bfloat16(half: Jaxpr) -> None:
    body = steps_of(half).params["body_jaxpr"].jaxpr
    operands = {
        (equation.primitive.name, str(aval(value).dtype))
        for equation in operations(body)
        if equation.primitive.name in PRODUCTS
        for value in equation.invars
    }
    assert operands == {("dot_general", "bfloat16"), ("conv_general_dilated", "bfloat16")}


def test_feature_maps_are_never_transposed_between_layers(half: Jaxpr) -> None:
    """NHWC all through: what is transposed has heads, which no feature map has."""
    body = steps_of(half).params["body_jaxpr"].jaxpr
    convolutions = [each for each in operations(body) if each.primitive.name == "conv_general_dilated"]
    assert {str(each.params["dimension_numbers"]) for each in convolutions} == {str(_nhwc())}
    heads = {4, 2, 8, 1}
    for equation in operations(half):
        if equation.primitive.name == "transpose":
            got = aval(equation.invars[0]).shape
            assert len(got) >= 4 and heads & set(got[1:3]), (got, equation.params)


def _nhwc() -> Any:
    x, k = shape((1, 4, 4, 1), jnp.float32), shape((3, 3, 1, 1), jnp.float32)
    return jax.lax.conv_dimension_numbers(x.shape, k.shape, ("NHWC", "HWIO", "NHWC"))


def test_without_guidance_a_step_is_half_the_rows(model: Model) -> None:
    rows = {
        guided: {
            aval(equation.invars[0]).shape[0]
            for equation in operations(steps_of(traced(model, guided=guided)).params["body_jaxpr"].jaxpr)
            if equation.primitive.name == "conv_general_dilated"
        }
        for guided in (False, True)
    }
    assert rows == {False: {1}, True: {2}}


def test_the_texts_keys_and_values_are_outside_the_compiled_loop(program: Program) -> None:
    """By the metadata that XLA keeps: products of the context's 77 x 48 stand before the loop, none within."""
    inside: Counter[bool] = Counter()
    for line in program.compiled_text().splitlines():
        name = re.search(r'op_name="([^"]*dot_general[^"]*)"', line)
        if name and re.search(r"\[(2,77|154),(32|64|128)\]", line) and "i,io->" in name[1]:
            inside["/while/body/" in name[1]] += 1
    assert inside[False] > 0 and inside[True] == 0, inside


def test_what_a_batch_moves_to_the_devices_is_its_inputs_once(program: Program) -> None:
    prepared = program.prepare([CAT, DOG])
    leaves = jax.tree.leaves(prepared.inputs)
    assert all(isinstance(leaf, np.ndarray) and len(leaf) == program.batch for leaf in leaves)
    tables = sum(leaf.nbytes for leaf in prepared.inputs.tables) / program.batch
    rest = sum(leaf.nbytes for leaf in leaves) / program.batch - tables
    noise = 8 * 8 * 4 * 4
    tokens = 2 * 2 * 77 * 4 * 3  # ids, weights and the empty text, of two passes for two encoders
    assert rest <= noise + tokens + 200, rest
    with jax.transfer_guard_host_to_device("disallow"):  # of what is not asked for: `put` is
        program.run(prepared)
