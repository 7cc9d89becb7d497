"""The real SDXL, as far as shapes can tell without its 7 GB of weights."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmill.producer.models import TINY_RANDOM
from promptmill.worker.checkpoint.weights import parameters
from promptmill.worker.checkpoints import find_model
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.nn.convolution import Call, choose
from promptmill.worker.nn.layers import Conv, convolutions
from promptmill.worker.quantization import FORMATS
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sdxl.config import ModelConfig, UNetConfig
from promptmill.worker.sdxl.generate import generate
from promptmill.worker.sdxl.parts import builders
from promptmill.worker.sdxl.requests import Kind, PlainRequest, prepare_inputs
from promptmill.worker.text.config import CLIPConfig
from promptmill.worker.text.prompts import Tokenizers

SDXL_BASE = ModelConfig(
    text_encoder=CLIPConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_attention_heads=12,
        projection_dim=768,
        hidden_act="quick_gelu",
        eos_token_id=2,
    ),
    text_encoder_2=CLIPConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_attention_heads=20,
        num_hidden_layers=32,
        projection_dim=1280,
        hidden_act="gelu",
        eos_token_id=2,
    ),
    unet=UNetConfig.sdxl_base(),
    vae=VAEConfig(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        scaling_factor=0.13025,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ),
    scheduler=SchedulerConfig(),
)


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[nnx.GraphDef, nnx.State]]:
    return {name: nnx.split(nnx.eval_shape(build)) for name, build in builders(SDXL_BASE).items()}


def test_each_network_has_its_published_number_of_parameters(networks: dict[str, Any]) -> None:
    counts = {
        name: sum(int(np.prod(parameter.shape)) for parameter in parameters(state))
        for name, (_, state) in networks.items()
    }
    assert counts == {
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
        "unet": 2_567_463_684,
        "vae": 49_490_199,  # the decoder's half
    }


@pytest.mark.parametrize("name", FORMATS)
def test_a_quantised_unet_takes_half_of_what_it_takes_in_bfloat16(name: str) -> None:
    """2.6 GB, as README.md says; 99% of the numbers are in one byte each, as docs/decisions.md says."""
    state = nnx.split(nnx.eval_shape(builders(SDXL_BASE, name)["unet"]))[1]
    leaves = [leaf for _, leaf in nnx.to_flat_state(state)]
    small = sum(leaf.size for leaf in leaves if leaf.dtype == FORMATS[name])
    others = sum(leaf.size for leaf in leaves) - small
    assert round(small / 2_567_463_684, 3) == 0.99 and 2.59e9 < small + 2 * others < 2.61e9


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_prepared_kernels_take_little_more_than_the_weights(dtype: Any) -> None:
    """On a CPU, where most are prepared: docs/performance.md's goal is 1.15 of the weights."""
    nets = [nnx.eval_shape(build) for build in builders(SDXL_BASE).values()]
    weights = sum(sizes(nnx.state(net)) for net in nets)
    kept = weights + sum(growth(conv, jnp.dtype(dtype)) for net in nets for conv in convolutions(net))
    assert 1.0 < kept / weights < (1.09 if dtype == jnp.float32 else 1.03)


def growth(conv: Conv, dtype: jnp.dtype) -> int:
    """How many numbers more are kept of a convolution than the checkpoint has."""
    known = Call(dtype, conv.size, conv.inputs, conv.outputs, conv.stride, conv.upsampling)
    prepare, kernel = choose(known, "cpu").prepare, jax.ShapeDtypeStruct(conv.kernel.shape, dtype)
    if prepare is None:
        return 0
    return sizes(jax.eval_shape(prepare, kernel)) - (0 if conv.upsampling else kernel.size)


def sizes(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def abstract_model(kind: Kind, request: PlainRequest) -> tuple[Any, Any, dict[str, nnx.GraphDef]]:
    """Weights and inputs of a bfloat16 program as shapes alone, and the networks' graphs."""
    shape = jax.ShapeDtypeStruct
    built = {name: nnx.split(nnx.eval_shape(build)) for name, build in builders(SDXL_BASE).items()}
    weights = {
        name: jax.tree.map(lambda leaf, dtype=dtype: shape(leaf.shape, dtype), state)
        for name, (_, state) in built.items()
        for dtype in [jnp.float32 if name == "vae" else jnp.bfloat16]
    }
    tokenizers = Tokenizers(find_model(TINY_RANDOM), ("tokenizer", "tokenizer_2"))  # windows of 77, as the real ones
    arrays = prepare_inputs(SDXL_BASE, tokenizers, [request], kind).inputs
    inputs = jax.tree.map(lambda array: shape(array.shape, array.dtype), arrays)
    return weights, inputs, {name: graph for name, (graph, _) in built.items()}


@pytest.mark.slow
def test_one_guided_image_of_1024_pixels_traces_in_bfloat16() -> None:
    kind = Kind(1024, 1024, guided=True)
    weights, inputs, graphs = abstract_model(kind, PlainRequest("a cat", 1024, 1024))
    result = jax.eval_shape(partial(generate, SDXL_BASE, graphs, kind.stage), weights, inputs)
    assert result.pixels.shape == (1, 1024, 1024, 3) and result.pixels.dtype == jnp.uint8
