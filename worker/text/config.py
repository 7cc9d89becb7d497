"""A CLIP text encoder's `config.json`."""

from dataclasses import dataclass
from typing import ClassVar

from promptmill.worker.checkpoint.json_config import JsonConfig, names


@dataclass(frozen=True)
class CLIPConfig(JsonConfig):
    """A CLIP text encoder (transformers `CLIPTextConfig`)."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407

    FIXED: ClassVar = {"model_type": ("clip_text_model",)}
    # The rest is for training, for generation, or transformers' own book-keeping.
    WITHOUT_EFFECT: ClassVar = names(
        """architectures attention_dropout bos_token_id pad_token_id dropout initializer_factor
        initializer_range torch_dtype dtype transformers_version return_dict output_hidden_states
        output_attentions use_cache problem_type id2label label2id chunk_size_feed_forward
        is_encoder_decoder tie_word_embeddings gradient_checkpointing"""
    )

    def __post_init__(self) -> None:
        self._check("hidden_act", ("quick_gelu", "gelu"))
        self._check_above_zero("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers")
        self._check_above_zero("num_attention_heads", "max_position_embeddings", "layer_norm_eps")
        self._check_divides("num_attention_heads", (self.hidden_size,))
