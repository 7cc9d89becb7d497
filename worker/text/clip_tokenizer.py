"""Transformers' CLIP tokenizer, without its advice at import to install PyTorch, which a worker does not need."""

import os

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from transformers import CLIPTokenizer

__all__ = ["CLIPTokenizer"]
