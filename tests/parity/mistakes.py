"""Mistakes that ports of SDXL make or have made, to plant one at a time: the harness must see each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax

from promptmill.worker.checkpoint import weights
from promptmill.worker.nn import attention, blocks, transformer, vae
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.sdxl.config import UNetConfig
from promptmill.worker.text import clip
from promptmill.worker.text.config import CLIPConfig
from tests.parity import ours


@dataclass(frozen=True)
class Mistake:
    """What is wrong, which part of the matrix must show it, and what plants it."""

    says: str
    part: str
    plant: Callable[[pytest.MonkeyPatch], None]


def _set(module: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(module, name, value)


def _misread(kind: Any, **fields: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """The configuration's JSON says one thing, the network is built as if it said another."""
    read = kind.from_file

    def misread(path: Path) -> Any:
        return replace(read(path), **fields)

    return _set(kind, "from_file", misread)


def _without(ending: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Parameters whose key ends so are zero, as if they were left out."""
    load = weights.load_weights

    def load_without(*args: Any, **kwargs: Any) -> tuple[nnx.GraphDef, nnx.State]:
        graph, state = load(*args, **kwargs)
        flat = dict(nnx.to_flat_state(state))
        dropped = [path for path in flat if ".".join(map(str, path)).endswith(ending)]
        assert dropped, f"no parameter ends in {ending}"
        for path in dropped:
            flat[path] = flat[path].replace(jnp.zeros_like(flat[path][...]))
        return graph, nnx.from_flat_state(flat)

    return _set(ours, "load_weights", load_without)


def _uncausal(query: jax.Array, key: jax.Array, value: jax.Array, **_: Any) -> jax.Array:
    return attention.attention(query, key, value)


def _unscaled(query: jax.Array, key: jax.Array, value: jax.Array, *_: Any) -> jax.Array:
    return attention.attention(query * query.shape[-1] ** 0.5, key, value)


def _pad_after(self: blocks.Downsample, x: jax.Array) -> jax.Array:
    same = lax.conv_general_dilated(
        x, self.conv.kernel[...], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return same + self.conv.bias[...][None, None, None]


tanh_gelu = partial(jax.nn.gelu, approximate=True)
quick, exact = clip.ACTIVATIONS["quick_gelu"], clip.ACTIVATIONS["gelu"]

PART_MISTAKES: dict[str, Mistake] = {
    "transformer-group-norm-eps": Mistake(
        "eps 1e-5 in the transformer's GroupNorm (old Flax diffusers)",
        "base-quiet",
        _set(transformer, "GROUP_NORM_EPS", 1e-5),
    ),
    "transformer-layer-norm-eps": Mistake(
        "eps 1e-6 in the transformer's LayerNorms (Flax's default)",
        "base-quiet",
        _set(transformer, "LAYER_NORM_EPS", 1e-6),
    ),
    "unet-norm-eps": Mistake("norm_eps of the UNet ignored", "groups-2-one-head", _misread(UNetConfig, norm_eps=1e-5)),
    "vae-norm-eps": Mistake("eps 1e-5 in the VAE's norms", "vae-quiet", _set(vae, "NORM_EPS", 1e-5)),
    "clip-norm-eps": Mistake(
        "eps 1e-6 in CLIP's LayerNorms (Flax's default)",
        "clip-l-quiet",
        _misread(CLIPConfig, layer_norm_eps=1e-6),
    ),
    "tanh-gelu": Mistake(
        "tanh GELU in GEGLU (JAX's default)", "groups-2-one-head", _set(transformer, "gelu", tanh_gelu)
    ),
    "quick-gelu-for-gelu": Mistake(
        "quick GELU where the configuration says GELU", "big-g", _set(clip, "ACTIVATIONS", {"gelu": quick})
    ),
    "gelu-for-quick-gelu": Mistake(
        "GELU where the configuration says quick GELU", "clip-l", _set(clip, "ACTIVATIONS", {"quick_gelu": exact})
    ),
    "no-attention-bias": Mistake("no bias on attention's output", "base-quiet", _without("to_out.0.bias")),
    "no-query-bias": Mistake("no bias on CLIP's queries", "clip-l", _without("q_proj.bias")),
    "unmasked-text": Mistake("no causal mask in the text encoder", "clip-l", _set(clip, "attention", _uncausal)),
    "unscaled-attention": Mistake(
        "attention not divided by sqrt(d)", "base-quiet", _set(transformer, "attention", _unscaled)
    ),
    "pooled-at-the-end": Mistake(
        "pooled from the last index, not where the text ends",
        "big-g",
        _set(clip, "_pooling_place", lambda ids, _: jnp.full(ids.shape[0], ids.shape[1] - 1)),
    ),
    "new-eos-rule": Mistake(
        "eos id 2 looked for, instead of the largest id", "big-g", _set(clip, "OLD_EOS_TOKEN_ID", -1)
    ),
    "groups-ignored": Mistake(
        "norm_num_groups ignored (old Flax diffusers)",
        "groups-2-one-head",
        _misread(UNetConfig, norm_num_groups=4),
    ),
    "heads-ignored": Mistake(
        "head counts of the levels ignored",
        "conv-projection-heads",
        _misread(UNetConfig, attention_head_dim=(2, 4)),
    ),
    "cosines-first": Mistake("flip_sin_to_cos ignored", "sines-first", _misread(UNetConfig, flip_sin_to_cos=True)),
    "freq-shift-ignored": Mistake("freq_shift ignored", "sines-first", _misread(UNetConfig, freq_shift=0)),
    "padded-after": Mistake(
        "strided convolutions padded after, not around (XLA's SAME)",
        "sines-first",
        _set(blocks.Downsample, "__call__", _pad_after),
    ),
    "no-guidance-embedding": Mistake(
        "the guidance embedding left out", "guidance-as-input", _without("cond_proj.kernel")
    ),
    "latents-mean-ignored": Mistake(
        "latents_mean and latents_std ignored",
        "latents-mean-std",
        _misread(VAEConfig, latents_mean=None, latents_std=None),
    ),
    "old-scaling-factor": Mistake(
        "SD 1.x's scaling factor in the VAE", "vae-quiet", _misread(VAEConfig, scaling_factor=0.18215)
    ),
}
