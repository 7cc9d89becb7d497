"""What stays in float32, what bfloat16 costs, and that the VAE's memory does not grow with the batch."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from promptmill.worker.sdxl.generate import TEXT_TO_IMAGE, generate
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import Kind, PlainRequest, prepare_inputs
from tests.parity import precision

# diffusers' schedulers convert arrays in a way that NumPy 2 warns of.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")]

SIDE = 256


def test_bfloat16_is_near_float32_and_no_worse_than_pytorch(tiny_folder: Path) -> None:
    rows = {row.says: row for row in precision.rows(tiny_folder)}
    for row in rows.values():
        print(f"| {' | '.join(row.cells())} |")
    ours, theirs = rows[precision.OURS_UPCAST], rows[precision.THEIRS]
    assert ours.psnr >= 25
    assert ours.latents <= 1.2 * theirs.latents


def test_the_vae_decodes_image_by_image(model: Model) -> None:
    """What a batch of four needs beside its arguments is the UNet's, which is small here; the VAE's does not grow."""
    one, four = (_temporaries(model, batch) for batch in (1, 4))
    decoding = _decoding(model)
    assert decoding > 0.5 * one, "the VAE must be what needs the memory, or this shows nothing"
    assert four - one < decoding, (one, four, decoding)


def _temporaries(model: Model, batch: int) -> int:
    kind = Kind(SIDE, SIDE, guided=False)
    requests = [PlainRequest("", SIDE, SIDE, guidance_scale=1.0)] * batch
    inputs = prepare_inputs(model.config, model.tokenizers, requests, kind).inputs
    whole = partial(generate, model.config, model.graphs, TEXT_TO_IMAGE)
    return _temporary_bytes(jax.jit(whole).lower(model.weights, inputs))


def _decoding(model: Model) -> int:
    side = SIDE // model.config.vae.scale_factor
    latents = jnp.zeros((1, side, side, model.config.vae.latent_channels))
    decode = jax.jit(partial(precision.decode, model.graphs["vae"]))
    return _temporary_bytes(decode.lower(model.weights["vae"], latents))


def _temporary_bytes(lowered: jax.stages.Lowered) -> int:
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None, "XLA for the CPU knows"
    return int(analysis.temp_size_in_bytes)
