"""The safety checker beside diffusers' own, which wrote the weights that both read."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmill.worker.safety.clip_image import clip_pixels
from promptmill.worker.safety.safety import SafetyChecker, find_safety_checker

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from transformers import CLIPConfig  # noqa: E402
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402

pytestmark = pytest.mark.slow

SIDE = 28
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 7,
    "projection_dim": 512,
}
SIZES = [(64, 64), (40, 96), (96, 48), (20, 30), (28, 28), (57, 61)]


def images(height: int, width: int, count: int = 6) -> np.ndarray:
    """From nearly plain to pure noise, with some full black and white."""
    rng = np.random.default_rng(height * 1000 + width)
    mean, spread = rng.uniform(0, 255, (count, 1, 1, 3)), np.linspace(1, 160, count).reshape(-1, 1, 1, 1)
    return np.clip(rng.normal(mean, spread, (count, height, width, 3)), 0, 255).astype(np.uint8)


def write_checker(folder: Path, hidden_act: str = "quick_gelu") -> Any:
    """A random safety checker, written by PyTorch, whose thresholds about half of its cosines are above."""
    torch.manual_seed(0)
    checker: Any = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config={**VISION, "hidden_act": hidden_act}, projection_dim=24)
    )
    with torch.no_grad():
        for parameter in checker.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        special_care, concepts = cosines(checker, preprocessed(images(64, 64)))
        checker.special_care_embeds_weights.copy_(torch.from_numpy(np.median(special_care, axis=0)))
        checker.concept_embeds_weights.copy_(torch.from_numpy(np.quantile(concepts, 0.9, axis=0)))
    checker.save_pretrained(folder)
    return checker.eval()


def preprocessed(images: np.ndarray) -> Any:
    size = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    return processor(list(images), return_tensors="pt").pixel_values


@torch.no_grad()
def cosines(checker: Any, images: Any) -> tuple[np.ndarray, np.ndarray]:
    embeds = checker.visual_projection(checker.vision_model(images)[1])
    concepts = (checker.special_care_embeds, checker.concept_embeds)
    special_care, plain = (cosine_distance(embeds, part).numpy() for part in concepts)
    return special_care, plain


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, SafetyChecker]:
    folder = tmp_path_factory.mktemp("safety")
    return write_checker(folder), SafetyChecker.load(folder)


@pytest.mark.parametrize(("height", "width"), [*SIZES, (300, 500)])
def test_preprocessing_is_that_of_transformers(height: int, width: int):
    shown = images(height, width)
    theirs = preprocessed(shown).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(jax.jit(clip_pixels, static_argnums=1)(shown, SIDE), theirs, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_cosines_and_flags_are_those_of_diffusers(both, height: int, width: int):
    theirs, ours = both
    shown = images(height, width, count=16)
    inputs = preprocessed(shown)
    started = ours.start(jnp.asarray(shown))
    for mine, wanted in zip(started, cosines(theirs, inputs), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-4)
    blacked, flags = theirs(inputs, [image.copy() for image in shown])
    assert [scores.flagged for scores in ours.finish(started, len(shown))] == flags
    assert [not image.any() for image in blacked] == flags


def test_flags_of_both_kinds_were_compared(both):
    flags = [score.flagged for size in SIZES for score in both[1](images(*size, count=16))]
    special = [any(value > 0 for value in score.special_care) for score in both[1](images(64, 64, count=16))]
    assert 0.1 < np.mean(flags) < 0.9
    assert 0.1 < np.mean(special) < 0.9


def test_a_special_concept_lowers_the_later_thresholds_by_a_hundredth(both):
    theirs, ours = both
    shown = images(64, 64, count=16)
    for scores, *found in zip(ours(shown), *cosines(theirs, preprocessed(shown)), strict=True):
        special_care, concepts = found
        first = special_care - theirs.special_care_embeds_weights.numpy() > 1e-3
        plain = concepts - theirs.concept_embeds_weights.numpy()
        lowered = 0.01 if first.any() else 0.0
        assert scores.concepts == pytest.approx(plain + lowered, abs=1.1e-3)


def test_exact_gelu_is_another_checker(tmp_path: Path):
    theirs = write_checker(tmp_path, hidden_act="gelu")
    shown = images(64, 64)
    mine = SafetyChecker.load(tmp_path, devices=jax.local_devices()[:1]).start(jnp.asarray(shown))
    np.testing.assert_allclose(mine.concepts, cosines(theirs, preprocessed(shown))[1], atol=1e-4)


def test_the_published_files_older_names_are_read_too(both, tmp_path: Path):
    """Before transformers 5 the prefix came twice, and an old buffer of positions was stored."""
    theirs, _ = both
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {key.replace("vision_model.", "vision_model.vision_model."): t for key, t in load_file(file).items()}
    tensors["vision_model.vision_model.embeddings.position_ids"] = np.arange(17)[None]
    save_file(tensors, file)
    old = SafetyChecker.load(find_safety_checker(str(tmp_path)))
    shown = images(64, 64)
    assert old(shown) == both[1](shown)
