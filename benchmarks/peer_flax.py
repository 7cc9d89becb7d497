"""The last Flax pipeline as a side of a comparison, in an environment of its own: `benchmarks.peers`' lines.

    ENV/bin/python benchmarks/peer_flax.py '{"side": "flax", "what": "unet", "folder": ..., "size": 256, ...}'

The environment has diffusers 0.39.0, transformers 4.57.6 and a flax and jax of their time (`benchmarks.side_by_side
--make-flax ENV` makes it), and nothing of ours. Its own loaders want PyTorch, so the safetensors files are read here,
tensor by tensor, by the names of the modules.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from diffusers import (
    FlaxAutoencoderKL,
    FlaxEulerDiscreteScheduler,
    FlaxStableDiffusionXLPipeline,
    FlaxUNet2DConditionModel,
)
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTokenizer, FlaxCLIPTextModel, FlaxCLIPTextModelWithProjection

Tree = dict[str, Any]
CLASSES: dict[str, Any] = {
    "unet": FlaxUNet2DConditionModel,
    "vae": FlaxAutoencoderKL,
    "text_encoder": FlaxCLIPTextModel,
    "text_encoder_2": FlaxCLIPTextModelWithProjection,
}
# What the old attention of the autoencoder is called there.
_OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out_0": "proj_attn"}


def main() -> None:
    settings = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    started = time.perf_counter()
    call = (_image if settings["what"] == "image" else _part)(settings)
    loaded = time.perf_counter()
    output = call()
    compiled = time.perf_counter()
    if settings.get("output"):
        np.save(settings["output"], output)
    call()
    first = {"load_s": loaded - started, "compile_s": compiled - loaded, "first_s": time.perf_counter() - compiled}
    print(json.dumps({**first, "device": jax.devices()[0].device_kind}), file=answers)
    for _ in sys.stdin:
        started = time.perf_counter()
        call()
        print(json.dumps({"s": time.perf_counter() - started}), file=answers)
    print(json.dumps({"peak": None}), file=answers)


def _load(folder: Path, part: str, dtype: Any) -> tuple[Any, Tree]:
    """A network, and its weights from the files of PyTorch's."""
    if part.startswith("text_encoder"):
        model = CLASSES[part](CLIPTextConfig.from_pretrained(folder / part), dtype=dtype, _do_init=False)
        shapes = model.params_shape_tree
    else:
        model = CLASSES[part].from_config(CLASSES[part].load_config(folder / part), dtype=dtype)
        shapes = jax.eval_shape(model.init_weights, jax.random.PRNGKey(0))
    params: Tree = {}
    for path, value in _converted(folder / part, shapes, dtype):
        at = params
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = value
    missing = {str(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)} - {
        str(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    assert not missing, f"{part}: no weights for {sorted(missing)[:5]}"
    return model, params


def _converted(folder: Path, shapes: Tree, dtype: Any) -> Iterator[tuple[list[str], jax.Array]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - no mapping
                path, turned = _place(key, shapes)
                if path:
                    value = tensors.get_tensor(key).astype(dtype)
                    yield path, jnp.asarray(_turned(value) if turned else value)


def _place(key: str, shapes: Tree) -> tuple[list[str] | None, bool]:
    """Where a tensor of PyTorch's goes, and whether it is a kernel; None for what is not there."""
    joined = re.sub(r"(\w+)\.(\d+)", r"\1_\2", key).split(".")
    for names in (joined, [_OLD.get(name, name) for name in joined], key.split(".")):
        *where, last = names
        at: Any = shapes
        for name in where:
            at = at.get(name) if isinstance(at, dict) or hasattr(at, "get") else None
        for leaf in (("kernel", "scale", "embedding") if last == "weight" else (last,)) if at is not None else ():
            if leaf in at:
                return [*where, leaf], leaf == "kernel"
    return None, False


def _turned(value: np.ndarray) -> np.ndarray:
    """Inputs first; a 1 x 1 convolution may be a matrix there or the other way round, as the shapes say themselves."""
    return value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)


def _part(settings: Tree) -> Callable[[], np.ndarray]:
    folder, part, dtype = Path(settings["folder"]), settings["what"], jnp.dtype(settings["dtype"])
    given = {name: jnp.asarray(value) for name, value in np.load(settings["inputs"]).items()}
    latents = given["latents"].transpose(0, 3, 1, 2).astype(dtype)
    model, params = _load(folder, part, dtype)
    if part == "vae":
        scale = model.config.scaling_factor
        decode = jax.jit(lambda params, x: model.apply({"params": params}, x / scale, method=model.decode).sample)
        return lambda: np.asarray(decode(params, latents), np.float32).transpose(0, 2, 3, 1)
    added = {"text_embeds": given["pooled"].astype(dtype), "time_ids": given["time_ids"]}
    context = given["context"].astype(dtype)
    run = jax.jit(
        lambda params, x, t, context, added: model.apply({"params": params}, x, t, context, added_cond_kwargs=added)
    )
    return lambda: np.asarray(run(params, latents, given["timestep"], context, added).sample, np.float32).transpose(
        0, 2, 3, 1
    )


def _image(settings: Tree) -> Callable[[], np.ndarray]:
    """The whole pipeline, jitted for one device as its documentation does."""
    folder, dtype = Path(settings["folder"]), jnp.dtype(settings["dtype"])
    networks, params = {}, {}
    for part in CLASSES:
        networks[part], params[part] = _load(folder, part, dtype)
    scheduler, params["scheduler"] = FlaxEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    tokenizers = {name: CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")}
    pipeline = FlaxStableDiffusionXLPipeline(**networks, **tokenizers, scheduler=scheduler)
    batch = settings["batch"]
    texts = [pipeline.prepare_inputs([settings[name]] * batch) for name in ("prompt", "negative")]

    def generate(params: Tree, ids: jax.Array, negative: jax.Array) -> jax.Array:
        size = settings["size"], settings["size"]
        key = jax.random.PRNGKey(0)
        images = pipeline._generate(ids, params, key, settings["steps"], *size, settings["guidance"], None, negative)
        return (images * 255).round().astype(jnp.uint8)

    compiled = jax.jit(generate)
    return lambda: np.asarray(compiled(params, *texts))


if __name__ == "__main__":
    main()
