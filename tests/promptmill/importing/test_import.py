"""Checkpoints that PyTorch and its tools made, there and back: every weight is the one that it should be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.numpy import load_file, save_file  # noqa: E402

from promptmill.importing.build import RECORD, import_model  # noqa: E402
from promptmill.importing.errors import CheckpointError  # noqa: E402
from promptmill.importing.files import sha256  # noqa: E402
from promptmill.importing.request import Embedding, ImportRequest, Lora, Scheduler  # noqa: E402
from promptmill.worker.sdxl.config import ModelConfig  # noqa: E402
from promptmill.worker.sdxl.tiny import write_tiny_random  # noqa: E402
from tests.promptmill.importing.lora import (  # noqa: E402
    ATTENTION,
    Deltas,
    write_diffusers_lora,
    write_kohya_lora,
)
from tests.promptmill.importing.single_file import UNET, read, unet, write_single_file  # noqa: E402

pytestmark = pytest.mark.slow

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
Import = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Import:
    """Imports into a new folder."""

    def run(source: Path, **parts: Any) -> Path:
        import_model(ImportRequest(str(source), tmp_path / "made", **parts))
        return tmp_path / "made"

    return run


def index(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "model_index.json").read_text()))


def assert_same_weights(got: Path, expected: Path, plus: Deltas | None = None) -> None:
    for component in COMPONENTS:
        ours, theirs = read(got, component), read(expected, component)
        assert ours.keys() == theirs.keys(), component
        added = (plus or {}).get(component, {})
        assert added.keys() <= theirs.keys()
        for key, value in theirs.items():
            wanted = value + added.get(key, np.zeros((), np.float32))
            np.testing.assert_allclose(ours[key], wanted, rtol=0, atol=1e-5 if key in added else 0, err_msg=key)


def test_a_single_file_comes_back_weight_for_weight(tiny: Path, tmp_path: Path, made: Import) -> None:
    file = write_single_file(tiny, tmp_path / "checkpoint.safetensors")
    folder = made(file, config=str(tiny))
    assert_same_weights(folder, tiny)
    record = index(folder)[RECORD]
    assert record["source"] == {"file": "checkpoint.safetensors", "sha256": sha256(file)}
    assert record["loras"] == record["embeddings"] == []
    assert str(tmp_path) not in json.dumps(index(folder))


def test_a_folder_comes_back_and_diffusers_reads_what_came(tiny: Path, made: Import) -> None:
    from diffusers import StableDiffusionXLPipeline

    folder = made(tiny)
    assert_same_weights(folder, tiny)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    np.testing.assert_array_equal(pipeline.unet.conv_in.weight.detach(), read(tiny, "unet")["conv_in.weight"])


def test_a_v_prediction_file_says_so_by_its_marks(tiny: Path, tmp_path: Path, made: Import) -> None:
    folder = made(write_single_file(tiny, tmp_path / "v.safetensors", marks=("v_pred", "ztsnr")), config=str(tiny))
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["prediction_type"], scheduler["rescale_betas_zero_snr"]) == ("v_prediction", True)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.middle_block.0.", "first_stage_model.decoder.mid."])
def test_a_file_that_lacks_weights_is_refused_and_leaves_nothing(
    tiny: Path, tmp_path: Path, made: Import, prefix: str
) -> None:
    file = write_single_file(tiny, tmp_path / "whole.safetensors")
    save_file({k: v for k, v in load_file(file).items() if not k.startswith(prefix)}, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match="lacks"):
        made(tmp_path / "part.safetensors", config=str(tiny))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.safetensors", "whole.safetensors"]


def test_other_kinds_of_files_are_told_by_their_keys(tmp_path: Path, made: Import) -> None:
    number = np.zeros((4, 4), np.float32)
    for key, why in {
        "cond_stage_model.transformer.weight": "is a Stable Diffusion 1 or 2 checkpoint",
        "lora_unet_x.lora_down.weight": "is a LoRA, not a model",
        "down_blocks.0.resnets.0.conv1.weight": "is a UNet alone",
        "double_blocks.0.weight": "it is no SDXL checkpoint",
    }.items():
        save_file({key: number}, tmp_path / "x.safetensors")
        with pytest.raises(CheckpointError, match=why):
            made(tmp_path / "x.safetensors")


@pytest.mark.parametrize("targets", [ATTENTION, [*ATTENTION, "conv1", "proj_in", "ff.net.2"]], ids=["attention", "all"])
def test_diffusers_loras_are_added_to_the_weights(tiny: Path, tmp_path: Path, made: Import, targets: list[str]) -> None:
    file, deltas = write_diffusers_lora(tiny, tmp_path / "lora", seed=1, unet_targets=targets)
    folder = made(tiny, loras=(Lora(str(file), 0.7),))
    assert_same_weights(folder, tiny, _times(deltas, 0.7))
    assert index(folder)[RECORD]["loras"] == [{"file": file.name, "sha256": sha256(file), "weight": 0.7}]


def test_kohyas_loras_are_added_with_each_layers_own_rank_and_alpha(tiny: Path, tmp_path: Path, made: Import) -> None:
    file, deltas = write_kohya_lora(tiny, tmp_path / "kohya.safetensors", seed=2)
    assert_same_weights(made(tiny, loras=(Lora(str(file)),)), tiny, deltas)


def test_several_loras_add_up_also_negative_ones(tiny: Path, tmp_path: Path, made: Import) -> None:
    first, one = write_diffusers_lora(tiny, tmp_path / "lora", seed=3, unet_targets=ATTENTION)
    second, two = write_kohya_lora(tiny, tmp_path / "kohya.safetensors", seed=4)
    folder = made(tiny, loras=(Lora(str(first), 0.5), Lora(str(second), -0.25)))
    both = {
        part: {
            key: 0.5 * one[part].get(key, np.zeros((), np.float32))
            - 0.25 * two[part].get(key, np.zeros((), np.float32))
            for key in one[part] | two[part]
        }
        for part in one
    }
    assert_same_weights(folder, tiny, both)


def test_a_lora_of_another_model_is_refused_and_not_half_fused(tiny: Path, tmp_path: Path, made: Import) -> None:
    file, _ = write_kohya_lora(tiny, tmp_path / "kohya.safetensors", seed=5)
    name = "lora_te1_text_model_encoder_layers_9_mlp_fc1"
    foreign = {f"{name}.lora_down.weight": (2, 16), f"{name}.lora_up.weight": (64, 2)}
    extra = {key: np.zeros(shape, np.float32) for key, shape in foreign.items()}
    save_file({**load_file(file), **extra, f"{name}.alpha": np.array(1, np.float32)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match=r"1 of its \d+ layers are not in this model"):
        made(tiny, loras=(Lora(str(tmp_path / "foreign.safetensors")),))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("key", "kind"), [("dora_scale", "DoRA"), ("hada_w1_a", "LoHa"), ("lokr_w1", "LoKr")])
def test_relatives_of_lora_are_named(tiny: Path, tmp_path: Path, made: Import, key: str, kind: str) -> None:
    save_file({f"lora_unet_x.{key}": np.zeros((2, 2), np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=f"is {kind}"):
        made(tiny, loras=(Lora(str(tmp_path / "x.safetensors")),))


def write_embedding(path: Path, vectors: int, keys: tuple[str, str] = ("clip_l", "clip_g")) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(vectors)
    tensors = {
        key: draw.standard_normal((vectors, width)).astype(np.float32)
        for key, width in zip(keys, (16, 32), strict=True)
    }
    save_file(tensors, path)
    return tensors


@pytest.mark.parametrize("vectors", [1, 3])
def test_textual_inversions_become_words_of_both_encoders(
    tiny: Path, tmp_path: Path, made: Import, vectors: int
) -> None:
    from transformers import CLIPTokenizer

    tensors = write_embedding(tmp_path / "my-style.safetensors", vectors)
    folder = made(tiny, embeddings=(Embedding(str(tmp_path / "my-style.safetensors"), "<mine>"),))
    tokens = ["<mine>", *(f"<mine>_{at}" for at in range(1, vectors))]
    assert index(folder)[RECORD]["embeddings"][0]["tokens"] == tokens
    for component, key in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")):
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / component.replace("text_encoder", "tokenizer")))
        ids = tokenizer(" ".join(tokens), add_special_tokens=False)["input_ids"]
        table = read(folder, component)["text_model.embeddings.token_embedding.weight"]
        np.testing.assert_array_equal(table[ids], tensors[key])
        old = read(tiny, component)["text_model.embeddings.token_embedding.weight"]
        np.testing.assert_array_equal(table[: len(old)], old)


@pytest.mark.parametrize(
    ("keys", "token", "why"),
    [
        (("emb_params", "x"), None, "holds emb_params, x; a textual inversion for SDXL holds clip_l and clip_g"),
        (("clip_g", "clip_l"), None, "its vectors have 32 numbers, but the text encoder's 16"),
        (("clip_l", "clip_g"), "cat</w>", "already in tokenizer vocabulary"),
    ],
)
def test_what_is_no_textual_inversion_for_the_model_is_refused(
    tiny: Path, tmp_path: Path, made: Import, keys: tuple[str, str], token: str | None, why: str
) -> None:
    write_embedding(tmp_path / "x.safetensors", 1, keys)
    with pytest.raises(CheckpointError, match=why):
        made(tiny, embeddings=(Embedding(str(tmp_path / "x.safetensors"), token),))


@pytest.mark.parametrize("names", ["diffusers", "original"])
def test_another_unet_takes_the_place_of_the_models(tiny: Path, tmp_path: Path, made: Import, names: str) -> None:
    """As Lightning's and Hyper-SD's UNets come, under diffusers' names; ComfyUI's files have the original ones."""
    prefix = UNET if names == "original" else ""
    tensors = unet(tiny) if names == "original" else read(tiny, "unet")
    save_file(
        {prefix + key: np.ascontiguousarray(value + 1) for key, value in tensors.items()}, tmp_path / "u.safetensors"
    )
    folder = made(
        tiny,
        unet=str(tmp_path / "u.safetensors"),
        preset="lightning-4",
        scheduler=Scheduler("EulerDiscreteScheduler", (("timestep_spacing", "trailing"),)),
    )
    for key, value in read(tiny, "unet").items():
        np.testing.assert_array_equal(read(folder, "unet")[key], value + 1)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["timestep_spacing"], scheduler["steps_offset"]) == ("trailing", 1)
    assert index(folder)[RECORD]["preset"] == "lightning-4"


def test_a_consistency_models_unet_brings_its_guidance_input(tiny: Path, tmp_path: Path, made: Import) -> None:
    extra = {"time_embedding.cond_proj.weight": np.ones((16, 24), np.float32)}
    save_file({**read(tiny, "unet"), **extra}, tmp_path / "lcm.safetensors")
    folder = made(tiny, unet=str(tmp_path / "lcm.safetensors"), scheduler=Scheduler("LCMScheduler"))
    assert json.loads((folder / "unet" / "config.json").read_text())["time_cond_proj_dim"] == 24
    assert json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"] == "LCMScheduler"


def test_another_vae_takes_the_place_of_the_models(tiny: Path, tmp_path: Path, made: Import) -> None:
    other = {key: value + 1 for key, value in read(tiny, "vae").items()}
    save_file(other, tmp_path / "vae.safetensors")
    folder = made(tiny, vae=str(tmp_path / "vae.safetensors"))
    np.testing.assert_array_equal(read(folder, "vae")["decoder.conv_in.weight"], other["decoder.conv_in.weight"])


def test_a_unet_of_another_shape_is_refused(tiny: Path, tmp_path: Path, made: Import) -> None:
    save_file({**read(tiny, "unet"), "conv_in.bias": np.zeros(3, np.float32)}, tmp_path / "u.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit the model's UNet2DConditionModel.*conv_in\.bias"):
        made(tiny, unet=str(tmp_path / "u.safetensors"))


def test_weights_are_stored_as_asked_but_loras_are_added_in_float32(tiny: Path, tmp_path: Path, made: Import) -> None:
    file, deltas = write_kohya_lora(tiny, tmp_path / "kohya.safetensors", seed=6)
    folder = made(tiny, loras=(Lora(str(file), 1e-3),), dtype="float16")
    for key, delta in deltas["unet"].items():
        wanted = (read(tiny, "unet")[key] + np.float32(1e-3) * delta).astype(np.float16)
        np.testing.assert_allclose(read(folder, "unet")[key].astype(np.float32), wanted, rtol=2e-3, atol=1e-6)
    assert {value.dtype for value in read(folder, "vae").values()} == {np.dtype(np.float16)}
    assert index(folder)[RECORD]["dtype"] == "float16"


def test_our_image_of_the_folder_is_pytorchs_with_the_same_lora_and_word(
    tiny: Path, tmp_path: Path, made: Import
) -> None:
    """PyTorch keeps both as adapters and tokens of the running pipeline; we have them in the weights."""
    import jax
    from diffusers import StableDiffusionXLPipeline

    from promptmill.worker.program import fetch
    from promptmill.worker.sdxl.program import Model
    from promptmill.worker.sdxl.requests import PlainRequest

    file, _ = write_diffusers_lora(tiny, tmp_path / "lora", seed=7, unet_targets=ATTENTION)
    vectors = write_embedding(tmp_path / "style.safetensors", 3)
    folder = made(
        tiny, loras=(Lora(str(file), 0.3),), embeddings=(Embedding(str(tmp_path / "style.safetensors"), "<mine>"),)
    )

    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(tiny, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="it")
    pipeline.set_adapters(["it"], [0.3])
    for key, number in (("clip_l", ""), ("clip_g", "_2")):
        encoder, tokenizer = getattr(pipeline, f"text_encoder{number}"), getattr(pipeline, f"tokenizer{number}")
        tensor = torch.from_numpy(vectors[key])
        pipeline.load_textual_inversion(tensor, token="<mine>", text_encoder=encoder, tokenizer=tokenizer)

    settings: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 5.0}
    said = {"prompt": "a cat, <mine> style", "width": 64, "height": 64, **settings}
    expected = np.asarray(pipeline(**said, generator=torch.Generator().manual_seed(8)).images[0], np.float64)
    program = Model.load(folder, devices=jax.local_devices()[:1]).compile(width=64, height=64, guided=True)
    result = fetch(program.run(program.prepare([PlainRequest(**said, seed=8)])), 1)
    psnr = 10 * np.log10(255**2 / max(np.square(result.pixels[0] - expected).mean(), 1e-9))
    assert psnr >= 45, psnr
    plain = Model.load(tiny, devices=jax.local_devices()[:1]).compile(width=64, height=64, guided=True)
    other = fetch(plain.run(plain.prepare([PlainRequest(**{**said, "prompt": "a cat, style"}, seed=8)])), 1)
    assert np.abs(other.pixels[0].astype(float) - expected).mean() > 1  # both do something


def _times(deltas: Deltas, weight: float) -> Deltas:
    return {part: {key: weight * value for key, value in found.items()} for part, found in deltas.items()}


REFINER: dict[str, dict[str, Any]] = {
    "unet/config.json": {"cross_attention_dim": 32, "projection_class_embeddings_input_dim": 72},
    "model_index.json": {
        "_class_name": "StableDiffusionXLImg2ImgPipeline",
        "requires_aesthetics_score": True,
        "text_encoder": [None, None],
        "tokenizer": [None, None],
    },
}


def test_a_refiner_of_one_file_comes_back(tmp_path: Path, made: Import) -> None:
    refiner = write_tiny_random(tmp_path / "refiner", changes=REFINER)
    shutil.rmtree(refiner / "text_encoder", ignore_errors=True)
    shutil.rmtree(refiner / "tokenizer", ignore_errors=True)
    folder = made(write_single_file(refiner, tmp_path / "refiner.safetensors"), config=str(refiner))
    for component in ("unet", "vae", "text_encoder_2"):
        ours, theirs = read(folder, component), read(refiner, component)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in theirs), component
    assert index(folder)["_class_name"] == "StableDiffusionXLImg2ImgPipeline"
    assert index(folder)["requires_aesthetics_score"] is True
    ModelConfig.from_folder(folder)
