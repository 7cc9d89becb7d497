"""Textual inversions into tokenizers and text encoders, so that a plain folder knows the new words.

One of several vectors becomes the tokens `word`, `word_1`, `word_2`...: diffusers' `load_textual_inversion` names them,
and both its pipeline and worker/text/prompts.py write them all where a prompt says `word`.
"""

from typing import Any

from safetensors.torch import load_file

from promptmill.importing.errors import CheckpointError
from promptmill.importing.files import describe, find_file
from promptmill.importing.request import Embedding

# The keys of both encoders' vectors: those of the community's tools, and of diffusers' training scripts.
_KEYS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))


def add_embedding(pipeline: Any, embedding: Embedding) -> dict[str, Any]:
    """Add one textual inversion; what the record says of it, its tokens included. Raises CheckpointError."""
    path = find_file(embedding.file)
    token = embedding.token or path.stem
    vectors = load_file(path)
    keys = next((keys for keys in _KEYS if vectors.keys() >= set(keys)), None)
    if keys is None:
        raise CheckpointError(
            f"{embedding.file}: holds {', '.join(sorted(vectors)[:4])}; a textual inversion for SDXL holds "
            f"{' and '.join(_KEYS[0])}, one for each text encoder"
        )
    for key, encoder, tokenizer in (
        (keys[0], pipeline.text_encoder, pipeline.tokenizer),
        (keys[1], pipeline.text_encoder_2, pipeline.tokenizer_2),
    ):
        _add(embedding.file, token, vectors[key], encoder, tokenizer, pipeline)
    count = max(len(vectors[key].reshape(-1, vectors[key].shape[-1])) for key in keys)
    return {**describe(embedding.file, path), "tokens": [token, *(f"{token}_{at}" for at in range(1, count))]}


def _add(file: str, token: str, vectors: Any, encoder: Any, tokenizer: Any, pipeline: Any) -> None:
    if encoder is None or tokenizer is None:
        raise CheckpointError(f"{file}: a refiner has one text encoder and takes no textual inversion")
    width = encoder.get_input_embeddings().weight.shape[-1]
    if vectors.shape[-1] != width:
        raise CheckpointError(f"{file}: its vectors have {vectors.shape[-1]} numbers, but the text encoder's {width}")
    try:
        pipeline.load_textual_inversion(
            vectors.to(encoder.dtype), token=token, text_encoder=encoder, tokenizer=tokenizer
        )
    except ValueError as error:
        raise CheckpointError(f"{file}: cannot be added as {token!r}: {error}") from error
