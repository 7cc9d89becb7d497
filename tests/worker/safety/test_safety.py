"""The safety checker's files and its rule; that its numbers are diffusers' is tests/parity/test_safety.py."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from safetensors.numpy import save_file

from promptmill.worker.checkpoint.weights import parameters
from promptmill.worker.errors import ConfigError, ModelNotFoundError, WeightsError
from promptmill.worker.safety.clip_vision import CLIPVisionConfig
from promptmill.worker.safety.safety import SafetyChecker, SafetyConfig, SafetyNet, SafetyScores, find_safety_checker

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 14,
    "patch_size": 7,
}
CONFIG = {"model_type": "clip", "projection_dim": 8, "vision_config": VISION}


def write_checker(folder: Path, config: dict[str, Any] = CONFIG, **replaced: np.ndarray) -> Path:
    """A safety checker of random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    _, state = nnx.split(nnx.eval_shape(partial(SafetyNet, SafetyConfig.from_file(file))))
    rng = np.random.default_rng(0)
    tensors = {item.key: rng.normal(size=item.shape).astype(np.float32) for item in parameters(state)}
    save_file({**tensors, **replaced}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> SafetyChecker:
    """On all eight devices."""
    return SafetyChecker.load(write_checker(tmp_path_factory.mktemp("safety")))


PIXELS = np.random.default_rng(1).integers(0, 256, (16, 20, 30, 3), np.uint8)


def test_a_image_has_its_scores_whatever_batch_it_is_in(checker):
    together = checker(PIXELS)
    assert len(together) == 16
    for count in (1, 3, 8):
        alone = checker(PIXELS[:count])
        for one, other in zip(alone, together[:count], strict=True):
            np.testing.assert_allclose(one.concepts, other.concepts, atol=1.1e-3)


def test_pixels_on_the_devices_are_checked_where_they_lie(checker):
    mesh = Mesh(np.array(jax.local_devices()), ("device",))
    on_devices = jax.device_put(PIXELS, NamedSharding(mesh, jax.P("device")))
    assert checker.finish(checker.start(on_devices), 5) == checker(PIXELS)[:5]


def scores_of(tmp_path: Path, special_care: list[float], concepts: float) -> SafetyScores:
    """Of any image, with thresholds at so much under its own cosines."""
    loaded = SafetyChecker.load(write_checker(tmp_path), devices=jax.local_devices()[:1])
    cosines = jax.device_get(loaded.start(jnp.asarray(PIXELS[:1])))
    thresholds = {
        "special_care_embeds_weights": cosines.special_care[0] - np.array(special_care, np.float32),
        "concept_embeds_weights": cosines.concepts[0] - np.float32(concepts),
    }
    (scores,) = SafetyChecker.load(write_checker(tmp_path, **thresholds), devices=jax.local_devices()[:1])(PIXELS[:1])
    return scores


@pytest.mark.parametrize(
    ("special_care", "concept", "found"),
    [
        ([-0.1, -0.1, -0.1], 0.004, True),
        ([-0.1, -0.1, -0.1], -0.004, False),
        ([-0.1, -0.1, -0.1], 0.0004, False),  # rounds to 0
        ([-0.1, 0.1, -0.1], -0.004, True),  # 0.01 lower, because of the special one
        ([-0.1, 0.1, -0.1], -0.014, False),
    ],
)
def test_above_its_threshold_a_concept_is_found(tmp_path, special_care, concept, found):
    scores = scores_of(tmp_path, special_care, concept)
    assert scores.flagged is found
    assert scores.bad_concepts == (list(range(17)) if found else [])


def test_a_special_concept_lowers_the_special_ones_after_it(tmp_path):
    scores = scores_of(tmp_path, [-0.1, 0.1, -0.1], 0.0)
    assert scores.special_care == (-0.1, 0.1, -0.09)


def test_an_old_files_second_vision_config_wins(tmp_path):
    old = {**CONFIG, "vision_config": {**VISION, "patch_size": 2}, "vision_config_dict": VISION}
    folder = write_checker(tmp_path, old)
    assert SafetyConfig.from_file(folder / "config.json").vision == CLIPVisionConfig(**VISION)


@pytest.mark.parametrize(
    ("vision", "told"),
    [
        ({"hidden_act": "relu"}, "config.json: vision_config: hidden_act is 'relu', but only gelu or quick_gelu"),
        ({"num_channels": 1}, "num_channels is 1, but images have 3"),
        ({"num_attention_heads": 3}, "num_attention_heads is 3, which does not divide hidden_size"),
    ],
)
def test_what_it_cannot_be_is_refused(tmp_path, vision, told):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**CONFIG, "vision_config": {**VISION, **vision}}))
    with pytest.raises(ConfigError, match=told):
        SafetyConfig.from_file(file)


def test_weights_of_another_model_are_refused(tmp_path):
    folder = write_checker(tmp_path)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "projection_dim": 9}))
    with pytest.raises(WeightsError, match=r"concept_embeds is \[17, 8\], expected \[17, 9\]"):
        SafetyChecker.load(folder)


def test_a_pipelines_folder_has_its_checker_inside(tmp_path):
    inside = write_checker(tmp_path / "safety_checker")
    assert find_safety_checker(str(tmp_path)) == inside == find_safety_checker(str(inside))
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json, nor a folder safety_checker"):
        find_safety_checker(str(inside.parent.parent))
