"""Weights come from any safetensors layout that diffusers writes, or an error says what does not fit."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from safetensors.numpy import load_file, save_file

from promptmill.worker.checkpoint.weights import load_weights, parameters
from promptmill.worker.errors import WeightsError
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.nn.vae import VAE
from promptmill.worker.sdxl.config import ModelConfig
from promptmill.worker.sdxl.parts import builders
from promptmill.worker.text.clip import CLIPText
from promptmill.worker.text.config import CLIPConfig

ROOT = Path(__file__).parents[3]
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def tensors(tiny_folder: Path) -> Tensors:
    return load_file(tiny_folder / "vae" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="session")
def expected(tiny_folder: Path) -> nnx.State:
    return load_vae(tiny_folder / "vae", tiny_folder)


def load_vae(folder: Path, tiny_folder: Path, dtype: Any = jnp.float32) -> nnx.State:
    config = VAEConfig.from_file(tiny_folder / "vae" / "config.json")
    return load_weights(folder, partial(VAE, config), dtype=dtype, sharding=everywhere())[1]


def everywhere() -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.local_devices()), ("device",)), jax.P())


def assert_same(got: nnx.State, expected: nnx.State) -> None:
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def write_shards(folder: Path, tensors: Tensors, index_name: str) -> None:
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, folder / file)
    weight_map = {key: file for file, keys in shards.items() for key in keys}
    (folder / index_name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_a_kernel_is_turned_to_inputs_first(tensors: Tensors, expected: nnx.State) -> None:
    kernel = expected["decoder"]["conv_in"]["kernel"][...]
    assert np.array_equal(kernel, tensors["decoder.conv_in.weight"].transpose(2, 3, 1, 0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keys_of_products_of_one_input_are_merged_in_their_order(
    tiny_folder: Path, tensors: Tensors, dtype: str
) -> None:
    state = load_vae(tiny_folder / "vae", tiny_folder, jnp.dtype(dtype))
    merged = state["decoder"]["mid_block"]["attentions"][0]["to_qkv"]
    names = [f"decoder.mid_block.attentions.0.{name}" for name in ("to_q", "to_k", "to_v")]
    kernels, biases = ([tensors[f"{name}.{kind}"] for name in names] for kind in ("weight", "bias"))
    expected = np.concatenate([kernel.T for kernel in kernels], axis=1).astype(jnp.dtype(dtype))
    assert np.array_equal(merged["kernel"][...], expected)
    assert np.array_equal(merged["bias"][...], np.concatenate(biases).astype(jnp.dtype(dtype)))


def test_a_part_of_what_is_merged_is_missed_by_its_own_key(tmp_path: Path, tiny_folder: Path, tensors: Tensors) -> None:
    left = {key: value for key, value in tensors.items() if key != "decoder.mid_block.attentions.0.to_k.weight"}
    save_file(left, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=r"1 keys are missing: decoder.mid_block.attentions.0.to_k.weight"):
        load_vae(tmp_path, tiny_folder)


def test_weights_lie_whole_on_every_device(expected: nnx.State) -> None:
    for leaf in jax.tree.leaves(expected):
        assert leaf.sharding.is_fully_replicated and len(leaf.sharding.device_set) == jax.local_device_count()


@pytest.mark.parametrize(
    "index_name",
    ["diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.fp16.json"],
)
def test_shards_are_read_by_their_index(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors, expected: nnx.State, index_name: str
) -> None:
    write_shards(tmp_path, tensors, index_name)
    assert_same(load_vae(tmp_path, tiny_folder), expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("wanted", [jnp.float32, jnp.bfloat16])
def test_files_of_another_precision_are_cast_to_the_dtype_asked_for(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors, dtype: Any, wanted: Any
) -> None:
    halves = {key: value.astype(dtype) for key, value in tensors.items()}
    save_file(halves, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    state = load_vae(tmp_path, tiny_folder, wanted)
    bias = state["decoder"]["conv_in"]["bias"][...]
    assert bias.dtype == wanted
    assert np.array_equal(np.asarray(bias), halves["decoder.conv_in.bias"].astype(wanted))


@pytest.mark.parametrize(("word", "dtype"), [("F8_E4M3", ml_dtypes.float8_e4m3fn), ("F8_E5M2", ml_dtypes.float8_e5m2)])
def test_floats_of_eight_bits_are_cast(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors, word: str, dtype: Any
) -> None:
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    eighths = {key: value.astype(dtype) for key, value in tensors.items()}
    save_file({key: value.view(np.uint8) for key, value in eighths.items()}, path)
    name_type(path, "U8", word)
    bias = load_vae(tmp_path, tiny_folder)["decoder"]["conv_in"]["bias"][...]
    assert np.array_equal(np.asarray(bias), eighths["decoder.conv_in.bias"].astype(np.float32))


def name_type(path: Path, old: str, new: str) -> None:
    """Give all tensors of a file another type's name in the header, of as many bytes."""
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["dtype"] == old
            entry["dtype"] = new
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])


@pytest.mark.parametrize(
    "name", ["diffusion_pytorch_model.fp16.safetensors", "model.safetensors", "model.bf16.safetensors"]
)
def test_every_usual_name_will_do(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors, expected: nnx.State, name: str
) -> None:
    save_file(tensors, tmp_path / name)
    assert_same(load_vae(tmp_path, tiny_folder), expected)


@pytest.mark.parametrize(
    ("component", "extra"),
    [
        ("vae", ["loss.logvar", "loss.discriminator.main.0.weight", "model_ema.decay", "model_ema.num_updates"]),
        ("vae", ["encoder.conv_in.weight", "quant_conv.bias"]),
        ("text_encoder", ["text_projection.weight", "logit_scale", "text_model.embeddings.position_ids"]),
        ("text_encoder_2", ["logit_scale", "text_model.embeddings.position_ids"]),
    ],
)
def test_what_no_image_depends_on_may_be_there(
    tmp_path: Path, tiny_folder: Path, component: str, extra: list[str]
) -> None:
    name = "diffusion_pytorch_model.safetensors" if component == "vae" else "model.safetensors"
    found = load_file(tiny_folder / component / name)
    save_file({**found, **{key: np.zeros((1, 77), np.int64) for key in extra}}, tmp_path / name)
    build = builders(ModelConfig.from_folder(tiny_folder))[component]
    load = partial(load_weights, build=build, dtype=jnp.float32, sharding=everywhere())
    assert_same(load(tmp_path)[1], load(tiny_folder / component)[1])


def test_the_way_in_may_be_there_where_the_configuration_has_none(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors
) -> None:
    config = VAEConfig.from_file(tiny_folder / "vae" / "config.json")
    without = partial(VAE, dataclasses.replace(config, use_post_quant_conv=False))
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    state = load_weights(tmp_path, without, dtype=jnp.float32, sharding=everywhere())[1]
    assert set(state) == {"decoder"}


def test_a_full_precision_file_is_preferred_to_a_half(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors, expected: nnx.State
) -> None:
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    save_file({}, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert_same(load_vae(tmp_path, tiny_folder), expected)


def test_the_attention_of_old_autoencoders_is_understood(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors, expected: nnx.State
) -> None:
    old = {}
    for key, value in tensors.items():
        for new, name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            key = key.replace(f".{new}.", f".{name}.")
        old[key] = value[..., None, None] if "proj_attn.weight" in key else value
    save_file(old, tmp_path / "diffusion_pytorch_model.safetensors")
    assert_same(load_vae(tmp_path, tiny_folder), expected)


def test_a_text_encoder_as_transformers_5_writes_it_is_understood(tmp_path: Path, tiny_folder: Path) -> None:
    folder = tiny_folder / "text_encoder"
    published = load_file(folder / "model.safetensors")
    bare = {key.removeprefix("text_model."): value for key, value in published.items()}
    bare["embeddings.position_ids"] = np.arange(77)[None]
    save_file(bare, tmp_path / "model.safetensors")
    build = partial(CLIPText, CLIPConfig.from_file(folder / "config.json"), projection=False)
    load = partial(load_weights, build=build, dtype=jnp.float32, sharding=everywhere())
    assert_same(load(tmp_path)[1], load(folder)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("decoder.conv_in.bias"), "1 keys are missing: decoder.conv_in.bias"),
        (lambda t: t.update({"decoder.lora": np.zeros(1, "f")}), "1 keys are unexpected: decoder.lora"),
        (
            lambda t: t.update({"decoder.conv_in.bias": np.zeros(9, "f")}),
            r"of another shape: decoder.conv_in.bias is \[9\], expected \[32\]",
        ),
        (lambda t: t.clear(), r"[0-9]+ keys are missing: .* and [0-9]+ more"),
    ],
)
def test_keys_that_do_not_fit_are_named(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors, change: Any, message: str
) -> None:
    changed = dict(tensors)
    change(changed)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(changed, path)
    with pytest.raises(WeightsError, match=f"{path} does not fit the configuration: .*{message}"):
        load_vae(tmp_path, tiny_folder)


def test_weights_that_are_not_numbers_of_floating_point_are_refused(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors
) -> None:
    quantised = {**tensors, "decoder.conv_in.bias": np.zeros(32, np.int8)}
    save_file(quantised, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=r"decoder.conv_in.bias is I8, expected a floating point type; .*quantised"):
        load_vae(tmp_path, tiny_folder)


def test_pickled_weights_are_refused_with_the_reason(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model.bin.*can run any code"):
        load_vae(tmp_path, tiny_folder)


def test_a_folder_without_weights_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(WeightsError, match=f"{tmp_path}: has no safetensors file"):
        load_vae(tmp_path, tiny_folder)


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    whole = (tiny_folder / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(whole[:-100])
    with pytest.raises(WeightsError, match=f"{path}: cannot be read as safetensors"):
        load_vae(tmp_path, tiny_folder)


def test_a_pointer_of_git_lfs_is_told_from_a_broken_file(tmp_path: Path, tiny_folder: Path) -> None:
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 334643268\n")
    with pytest.raises(WeightsError, match=f"{path}: cannot be read as safetensors: it is a pointer of git-lfs"):
        load_vae(tmp_path, tiny_folder)


def test_shards_without_their_index_are_refused(tmp_path: Path, tiny_folder: Path, tensors: Tensors) -> None:
    save_file(tensors, tmp_path / "diffusion_pytorch_model-00001-of-00002.safetensors")
    with pytest.raises(WeightsError, match=rf"{tmp_path}: holds shards \(.*-00001-of-00002.*\), but not their index"):
        load_vae(tmp_path, tiny_folder)


def test_a_file_of_another_name_is_named(tmp_path: Path, tiny_folder: Path, tensors: Tensors) -> None:
    save_file(tensors, tmp_path / "sdxl_vae.safetensors")
    with pytest.raises(WeightsError, match=r"no safetensors file named .*; it holds sdxl_vae\.safetensors"):
        load_vae(tmp_path, tiny_folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not an index"),
        ("{}", "is not an index"),
        ('{"weight_map": [1]}', "is not an index"),
        ('{"weight_map": {"decoder.conv_in.bias": 1}}', "is not an index"),
        ('{"weight_map": {}}', "its weight_map is empty"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, tiny_folder: Path, text: str, message: str) -> None:
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(WeightsError, match=f"^{index}: {message}"):
        load_vae(tmp_path, tiny_folder)


@pytest.mark.parametrize("shard", ["c.safetensors", "../a.safetensors"])
def test_an_index_may_name_only_files_beside_it(
    tmp_path: Path, tiny_folder: Path, tensors: Tensors, shard: str
) -> None:
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, shard)}))
    with pytest.raises(WeightsError, match=f"{index}: names the shard [ac].safetensors, which is not beside it"):
        load_vae(tmp_path, tiny_folder)


LOAD_AND_MEASURE = """
import sys
from functools import partial
from pathlib import Path
import jax, jax.numpy as jnp
from promptmill.worker.text.clip import CLIPText
from promptmill.worker.text.config import CLIPConfig
from promptmill.worker.checkpoint.weights import load_weights

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

build = partial(CLIPText, CLIPConfig(**eval(sys.argv[2])), projection=False)
device = jax.devices()[0]
jax.block_until_ready(jax.device_put(jnp.zeros(8), device))
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS:")
sharding = jax.sharding.SingleDeviceSharding(device)
_, state = load_weights(Path(sys.argv[1]), build, dtype=jnp.dtype(sys.argv[3]), sharding=sharding)
weights = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
print((status("VmHWM:") - before) / weights, weights)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel's peak is Linux's")
@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("float16", "float32"),
        pytest.param("float32", "float32", marks=pytest.mark.slow),
        pytest.param("float32", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_loading_takes_little_more_memory_than_the_weights(tmp_path: Path, stored: str, wanted: str) -> None:
    """All memory counts here, mapped pages too; on one device, since each holds the weights."""
    # Small tensors, as the real model's are beside all of it: a few are always under way.
    layers = 96 if wanted == "bfloat16" else 48
    shape: dict[str, Any] = {
        "hidden_size": 256,
        "num_hidden_layers": layers,
        "vocab_size": 100,
        "num_attention_heads": 4,
    }
    _, state = nnx.split(nnx.eval_shape(partial(CLIPText, CLIPConfig(**shape), projection=False)))
    tensors = {wish.key: np.ones(wish.shape, stored) for wish in parameters(state)}
    save_file(tensors, tmp_path / "model.safetensors")
    environ = {**os.environ, "XLA_FLAGS": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOAD_AND_MEASURE, str(tmp_path), repr(shape), wanted]
    done = subprocess.run(command, env=environ, cwd=ROOT, check=True, capture_output=True, text=True)
    peak, weights = map(float, done.stdout.split())
    assert weights > 240e6
    assert 0.9 < peak <= 1.15
