"""Long and weighted prompts against PyTorch's encoders and pipeline, the windows and weights written out anew.

The formulas are compel's (windows, padding, pooled vector) and ComfyUI's (weights); see docs/prompts.md.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch

from promptmill.worker.sdxl.generate import Condition, Inputs, encode_text
from promptmill.worker.sdxl.program import Model, Program
from promptmill.worker.sdxl.requests import PlainRequest
from tests.parity import ours, theirs

pytestmark = pytest.mark.slow

SIZE = 75
Stretches = list[tuple[str, float]]

# Stretches of the positive and the negative prompt with their weights, and the windows that both then take.
PROMPTS: dict[str, tuple[Stretches, Stretches | None, int]] = {
    "short": ([("a cat in the rain", 1)], [("blurry", 1)], 1),
    "full": ([("cat " * 75, 1)], [("blurry", 1)], 1),
    "long": ([("a red cat in the rain, oil painting, " * 12, 1)], [("blurry", 1)], 2),
    "long-negative": ([("a cat", 1)], [("blurry, low quality, watermark " * 30, 1)], 3),
    "long-no-negative": ([("a wizard on a bridge at night " * 20, 1)], None, 2),
    "weighted": ([("a ", 1), ("cat", 1.5), (" in the ", 1), ("rain", 0.3)], [("fog", 0)], 1),
    "long-weighted": ([("a red cat, " * 18, 1), ("oil painting " * 20, 1.4)], [("low ", 1), ("quality", 1.21)], 2),
}


def written(stretches: Stretches) -> str:
    return "".join(text if weight == 1 else f"({text}:{weight})" for text, weight in stretches)


def request_of(name: str) -> PlainRequest:
    positive, negative, chunks = PROMPTS[name]
    return PlainRequest(
        written(positive),
        64,
        64,
        negative_prompt=None if negative is None else written(negative),
        num_inference_steps=4,
        seed=7,
        prompt_windows=chunks,
        prompt_weighting="weighted" in name,
    )


@torch.no_grad()
def embeddings(pipeline: Any, stretches: Stretches, windows: int) -> tuple[Any, Any]:
    """One text's hidden states and pooled vector, window by window."""
    states = []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        ids, weights = [], []
        for text, weight in stretches:
            found = tokenizer(text).input_ids[1:-1]
            ids += found
            weights += [weight] * len(found)
        parts = []
        for start in range(0, windows * SIZE, SIZE):
            hidden, pooled = window(tokenizer, encoder, ids[start : start + SIZE])
            base, _ = window(tokenizer, encoder, [])
            for index, weight in enumerate(weights[start : start + SIZE], start=1):
                hidden[index] = base[index] + weight * (hidden[index] - base[index])
            parts.append((hidden, pooled))
        states.append(torch.cat([hidden for hidden, _ in parts]))
    return torch.cat(states, dim=-1)[None], parts[0][1]


def window(tokenizer: Any, encoder: Any, ids: list[int]) -> tuple[Any, Any]:
    row = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    row += [tokenizer.pad_token_id] * (SIZE + 2 - len(row))
    output = encoder(torch.tensor([row]), output_hidden_states=True)
    return output.hidden_states[-2][0], output[0]


def expected(pipeline: Any, name: str) -> dict[str, Any]:
    """In the pipeline's words; a negative prompt that was not given is all zeros, in as many windows."""
    positive, negative, windows = PROMPTS[name]
    context, pooled = embeddings(pipeline, positive, windows)
    zeros = torch.zeros_like(context), torch.zeros_like(pooled)
    other, other_pooled = zeros if negative is None else embeddings(pipeline, negative, windows)
    return {
        "prompt_embeds": context,
        "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": other,
        "negative_pooled_prompt_embeds": other_pooled,
    }


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Any:
    return theirs.load(tiny_folder)


@pytest.fixture(scope="module")
def program_of(model: Model) -> Callable[[int], Program]:
    """By how many windows it has room for."""
    return cache(lambda chunks: model.compile(width=64, height=64, guided=True, prompt_windows=chunks))


@partial(jax.jit, static_argnums=0)
def _condition(graphs: Any, weights: dict[str, Any], inputs: Inputs) -> Condition:
    return encode_text({name: nnx.merge(graph, weights[name]) for name, graph in graphs}, inputs)


@pytest.mark.parametrize("name", PROMPTS)
def test_embeddings_agree(model: Model, program_of: Callable[[int], Program], pipeline: Any, name: str) -> None:
    encoders = tuple((part, model.graphs[part]) for part in ("text_encoder", "text_encoder_2"))
    got = _condition(encoders, model.weights, program_of(3).prepare([request_of(name)]).inputs)
    want = expected(pipeline, name)
    keys = want["prompt_embeds"].shape[1]
    assert got.lengths is not None
    np.testing.assert_array_equal(got.lengths, [[keys, keys]])
    for index, prefix in enumerate(("negative_", "")):
        context, pooled = want[f"{prefix}prompt_embeds"], want[f"{prefix}pooled_prompt_embeds"]
        np.testing.assert_allclose(got.context[0, index, :keys], context[0], atol=1e-5)
        np.testing.assert_allclose(got.pooled[0, index], pooled[0], atol=1e-5)


@pytest.mark.parametrize("room", [0, 1], ids=["exact room", "room to spare"])
@pytest.mark.parametrize("name", PROMPTS)
def test_images_agree(program_of: Callable[[int], Program], pipeline: Any, name: str, room: int) -> None:
    request = request_of(name)
    got = ours.image(program_of(PROMPTS[name][2] + room), request)
    want = pipeline(
        **expected(pipeline, name),
        width=64,
        height=64,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=theirs.generator(request.seed),
    ).images[0]
    difference = np.abs(np.asarray(want).astype(int) - got)
    assert difference.max() <= 2 and (difference > 0).mean() < 0.05
