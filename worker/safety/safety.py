"""Stable Diffusion's safety checker: how near an image comes to twenty concepts, known by their embeddings only.

    checker = SafetyChecker.load(find_safety_checker("CompVis/stable-diffusion-safety-checker"))
    scores = checker(pixels)           # uint8, N H W 3
    scores[0].flagged, scores[0].bad_concepts

It equals diffusers' `StableDiffusionSafetyChecker` (pipelines/stable_diffusion/safety_checker.py): CLIP's image
encoder, a projection, the cosine to each concept, and a threshold for each. It always computes in float32: thresholds
have three decimals, and the error of bfloat16 is larger than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jaxtyping import Array, Float, UInt8

from promptmill.worker.checkpoint.json_config import read_json
from promptmill.worker.checkpoint.weights import load_weights
from promptmill.worker.devices import Devices
from promptmill.worker.errors import ConfigError, ModelNotFoundError
from promptmill.worker.nn.layers import Linear
from promptmill.worker.safety.clip_image import clip_pixels
from promptmill.worker.safety.clip_vision import CLIPVision, CLIPVisionConfig

CONCEPTS, SPECIAL_CARE = 17, 3
SPECIAL_CARE_ADJUSTMENT = 0.01
"""What a special concept that was found lowers all later thresholds by."""

# Of a hub repository: no pickle, no Flax and no TensorFlow weights.
_PATTERNS = ["config.json", "model*.safetensors", "model*.safetensors.index*.json"]


@dataclass(frozen=True)
class SafetyConfig:
    """A safety checker's config.json: a `CLIPConfig`, of which the text half is not used."""

    vision: CLIPVisionConfig
    projection_dim: int = 512

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Raises ConfigError with the file and the field."""
        values = read_json(path)
        # Where an old file has both, transformers takes the second, and its defaults for what that leaves out.
        vision = values.get("vision_config_dict") or values.get("vision_config") or {}
        try:
            config = CLIPVisionConfig.from_fields(vision)
        except ConfigError as error:
            raise ConfigError(f"{path}: vision_config: {error}") from error
        return cls(config, values.get("projection_dim", cls.projection_dim))


class Cosines(NamedTuple):
    """Of each image, the cosine between its embedding and each concept's. On the device; perhaps not there yet."""

    special_care: Float[Any, "B 3"]
    concepts: Float[Any, "B 17"]


@dataclass(frozen=True)
class SafetyScores:
    """Of one image, how far each cosine is above its threshold, to three decimals: above 0 is found."""

    special_care: tuple[float, ...]
    concepts: tuple[float, ...]

    @property
    def bad_concepts(self) -> list[int]:
        return [place for place, score in enumerate(self.concepts) if score > 0]

    @property
    def flagged(self) -> bool:
        return bool(self.bad_concepts)


class SafetyNet(nnx.Module):
    """Images, resized and normalised, to cosines. The thresholds are weights too, called so by the checkpoints."""

    def __init__(self, config: SafetyConfig) -> None:
        width = config.projection_dim
        self.vision_model = CLIPVision(config.vision)
        self.visual_projection = Linear(config.vision.hidden_size, width, bias=False)
        self.concept_embeds = nnx.Param(jnp.zeros((CONCEPTS, width)))
        self.special_care_embeds = nnx.Param(jnp.zeros((SPECIAL_CARE, width)))
        self.concept_embeds_weights = nnx.Param(jnp.zeros(CONCEPTS))
        self.special_care_embeds_weights = nnx.Param(jnp.zeros(SPECIAL_CARE))

    def __call__(self, x: Float[Array, "B H W 3"]) -> Cosines:
        embeds = self.visual_projection(self.vision_model(x))
        return Cosines(_cosines(embeds, self.special_care_embeds[...]), _cosines(embeds, self.concept_embeds[...]))


def _cosines(images: Float[Array, "B P"], concepts: Float[Array, "K P"]) -> Float[Array, "B K"]:
    return jnp.einsum("bp,kp->bk", _normalised(images), _normalised(concepts))


def _normalised(x: Float[Array, "N P"]) -> Float[Array, "N P"]:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)  # the epsilon of torch's `normalize`


class SafetyChecker:
    """A safety checker on devices, for images of any size."""

    def __init__(self, config: SafetyConfig, graph: nnx.GraphDef, weights: nnx.State, devices: Devices) -> None:
        self._weights, self._devices = weights, devices
        self._thresholds = jax.device_get((weights["special_care_embeds_weights"], weights["concept_embeds_weights"]))
        # Two programs, so that another size of images compiles the small one only.
        self._shrink = devices.jit(lambda _, pixels: clip_pixels(pixels, config.vision.image_size))
        self._measure = devices.jit(partial(_measure, graph))

    @classmethod
    def load(cls, folder: Path, *, devices: Sequence[jax.Device] | None = None) -> Self:
        """Read a folder with config.json and model.safetensors. Raises ConfigError, WeightsError."""
        own = Devices.of(devices)
        config = SafetyConfig.from_file(folder / "config.json")
        graph, weights = load_weights(folder, partial(SafetyNet, config), dtype=jnp.float32, sharding=own.whole)
        return cls(config, graph, weights, own)

    def start(self, pixels: UInt8[Array, "B H W 3"]) -> Cosines:
        """Queues the work behind what makes the pixels, and returns at once. B is a multiple of the devices."""
        cosines: Cosines = self._measure(self._weights, self._shrink((), pixels))
        return cosines

    def finish(self, cosines: Cosines, count: int) -> list[SafetyScores]:
        """Waits, and gives the scores of the first `count` images."""
        special_care, concepts = jax.device_get(cosines)
        return [self._judge(*both) for both in zip(special_care[:count], concepts[:count], strict=True)]

    def __call__(self, pixels: UInt8[np.ndarray, "N H W 3"]) -> list[SafetyScores]:
        """The scores of images that lie on the host."""
        missing = -len(pixels) % self._devices.count
        padded = np.concatenate([pixels, pixels[-1:].repeat(missing, axis=0)])
        return self.finish(self.start(self._devices.put(padded)), len(pixels))

    def _judge(self, special_care: Float[np.ndarray, "3"], concepts: Float[np.ndarray, "17"]) -> SafetyScores:
        """Cosines less thresholds, as diffusers does it: in float32, one after the other, rounded before compared."""
        of_special_care, of_concepts = self._thresholds
        adjustment, special = 0.0, []
        for cosine, threshold in zip(special_care, of_special_care, strict=True):
            special.append(_score(cosine, threshold, adjustment))
            adjustment = SPECIAL_CARE_ADJUSTMENT if special[-1] > 0 else adjustment
        plain = [_score(*pair, adjustment) for pair in zip(concepts, of_concepts, strict=True)]
        return SafetyScores(tuple(special), tuple(plain))


def _score(cosine: np.float32, threshold: np.float32, adjustment: float) -> float:
    rounded = np.round(cosine - threshold + np.float32(adjustment), 3)
    return round(float(rounded), 3)  # for whoever reads it: 0.012, and not what float32 makes of that


def _measure(graph: nnx.GraphDef, weights: nnx.State, images: Float[Array, "B H W 3"]) -> Cosines:
    with jax.default_matmul_precision("highest"):  # else TPUs multiply in bfloat16, and GPUs in TF32
        cosines: Cosines = nnx.merge(graph, weights)(images)
    return cosines


def find_safety_checker(name: str) -> Path:
    """The folder of a safety checker: a path, or a hub id such as CompVis/stable-diffusion-safety-checker.

    Of a folder with a whole pipeline it is `safety_checker`. Raises ModelNotFoundError.
    """
    folder = Path(name).expanduser()
    for place in (folder, folder / "safety_checker"):
        if (place / "config.json").is_file():
            return place
    if folder.is_dir():
        raise ModelNotFoundError(f"{folder}: has no config.json, nor a folder safety_checker with one")
    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=_PATTERNS))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(f"{name}: is neither a folder nor a model found on the hub: {error}") from error
