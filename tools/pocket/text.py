"""From captions to what the UNet is told of them."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from transformers import CLIPTokenizer

from tools.pocket.nets import bind


class Texts:
    """Token ids of either encoder."""

    def __init__(self, folder: Path) -> None:
        self._each = [CLIPTokenizer.from_pretrained(str(folder / name)) for name in ("tokenizer", "tokenizer_2")]

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        first, second = (
            np.asarray(each(texts, padding="max_length", truncation=True)["input_ids"], np.int32) for each in self._each
        )
        return first, second


def encode_text(builders: dict[str, Any], weights: Any, ids: Any, ids_2: Any) -> tuple[Any, Any]:
    """Both encoders' hidden states side by side, and the second's pooled vector."""
    context, _ = bind(builders["text_encoder"], weights["text_encoder"])(ids)
    context_2, pooled = bind(builders["text_encoder_2"], weights["text_encoder_2"])(ids_2)
    return jnp.concatenate([context, context_2], axis=-1), pooled
