"""The configurations that each network is compared in: small in width, but built like the models that people use."""

from dataclasses import dataclass
from typing import Any

# Which of two classes PyTorch has for a text encoder is a matter of the checkpoint, not of its numbers.
ENCODER, PROJECTING_ENCODER, UNET, VAE = "text_encoder", "text_encoder_2", "unet", "vae"


@dataclass(frozen=True)
class Part:
    """One network: which one, its configuration, and whether its signals are so small that each eps shows."""

    kind: str
    config: dict[str, Any]
    quiet: bool = False
    about: str = ""
    # How many numbers the UNet is told of sizes and crops; the refiner's last is its aesthetic score.
    time_ids: int = 6
    latent_size: tuple[int, int] = (9, 13)


_CLIP_L: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 192,
    "projection_dim": 48,
    "num_attention_heads": 12,
    "num_hidden_layers": 3,
    "hidden_act": "quick_gelu",
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
_BIG_G: dict[str, Any] = {
    **_CLIP_L,
    "hidden_size": 80,
    "intermediate_size": 320,
    "projection_dim": 80,
    "num_attention_heads": 20,
    "num_hidden_layers": 4,
    "hidden_act": "gelu",
}

_BASE: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [40, 80, 160],
    "cross_attention_dim": 128,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "projection_class_embeddings_input_dim": 6 * 32 + 80,
    "transformer_layers_per_block": [1, 2, 3],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
REFINER_UNET: dict[str, Any] = {
    **_BASE,
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [24, 48, 96, 96],
    "cross_attention_dim": 80,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "projection_class_embeddings_input_dim": 5 * 32 + 80,
    "transformer_layers_per_block": 4,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
_ONE_X: dict[str, Any] = {
    **_BASE,
    "attention_head_dim": 8,
    "block_out_channels": [32, 64, 64, 64],
    "cross_attention_dim": 48,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "norm_num_groups": 32,
    "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "use_linear_projection": False,
}
# Two levels, so that what is tried on it compiles quickly.
_SMALL: dict[str, Any] = {
    **_BASE,
    "attention_head_dim": [2, 4],
    "block_out_channels": [16, 32],
    "cross_attention_dim": 48,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "transformer_layers_per_block": 1,
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}

_SDXL_VAE: dict[str, Any] = {
    "block_out_channels": [8, 16, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "scaling_factor": 0.13025,
    "force_upcast": True,
    "sample_size": 64,
}
_SMALL_VAE: dict[str, Any] = {
    **_SDXL_VAE,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}

PARTS: dict[str, Part] = {
    "clip-l": Part(ENCODER, _CLIP_L, about="SDXL's first: quick GELU, eos id 2 (largest id pools)"),
    "big-g": Part(PROJECTING_ENCODER, _BIG_G, about="SDXL's second and the refiner's: GELU, projected"),
    "clip-l-gelu": Part(ENCODER, {**_CLIP_L, "hidden_act": "gelu"}, about="GELU"),
    "big-g-quick-gelu": Part(PROJECTING_ENCODER, {**_BIG_G, "hidden_act": "quick_gelu"}, about="quick GELU"),
    "real-eos": Part(PROJECTING_ENCODER, {**_BIG_G, "eos_token_id": 299}, about="eos id is the text's own end"),
    "first-eos": Part(PROJECTING_ENCODER, {**_BIG_G, "eos_token_id": 7}, about="eos id in mid-vocabulary"),
    "narrow-projection": Part(
        PROJECTING_ENCODER,
        {**_BIG_G, "projection_dim": 24, "num_attention_heads": 1, "num_hidden_layers": 1, "layer_norm_eps": 1e-2},
        about="one layer, one head, projection to 24, eps 1e-2",
    ),
    "clip-l-quiet": Part(ENCODER, _CLIP_L, quiet=True, about="signals as small as eps"),
    "big-g-quiet": Part(PROJECTING_ENCODER, _BIG_G, quiet=True, about="signals as small as eps"),
    "sdxl-base": Part(UNET, _BASE, about="three levels, 1-2-3 transformer layers (10 in the real one)"),
    "sdxl-refiner": Part(
        UNET, REFINER_UNET, time_ids=5, about="four levels, four layers each, one encoder, 5 time ids"
    ),
    "sd-1.x-like": Part(UNET, _ONE_X, about="attention in the first three of four levels, 1x1 convolutions, 32 groups"),
    "base-quiet": Part(UNET, _SMALL, quiet=True, about="signals as small as eps"),
    "conv-projection-heads": Part(
        UNET,
        {**_SMALL, "use_linear_projection": False, "attention_head_dim": [8, 16]},
        about="1x1 convolutions around attention, 8 and 16 heads of 2",
    ),
    "groups-2-one-head": Part(
        UNET,
        {**_SMALL, "norm_num_groups": 2, "norm_eps": 1e-2, "attention_head_dim": 1},
        about="2 groups, eps 1e-2, one head",
    ),
    "uneven-layers": Part(
        UNET,
        {**_SMALL, "layers_per_block": [3, 1], "transformer_layers_per_block": [1, 2]},
        about="3 and 1 layers, 1 and 2 transformer layers",
    ),
    "guidance-as-input": Part(UNET, {**_SMALL, "time_cond_proj_dim": 256}, about="guidance embedded in 256 (LCM)"),
    "guidance-odd-width": Part(UNET, {**_SMALL, "time_cond_proj_dim": 15}, about="guidance embedded in 15"),
    "sines-first": Part(
        UNET,
        {**_SMALL, "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 16, "out_channels": 16},
        latent_size=(8, 8),
        about="sines first, frequencies shifted; 16 latent channels, even size",
    ),
    "sdxl-vae": Part(VAE, _SDXL_VAE, about="SDXL's: four levels"),
    "vae-quiet": Part(VAE, _SMALL_VAE, quiet=True, about="signals as small as eps"),
    "latents-mean-std": Part(
        VAE,
        {**_SMALL_VAE, "latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.9, 1.1, 0.5, 2.0]},
        about="latents_mean and latents_std",
    ),
    "no-mid-attention": Part(VAE, {**_SMALL_VAE, "mid_block_add_attention": False}, about="no attention in the middle"),
    "no-post-quant": Part(
        VAE,
        {**_SMALL_VAE, "use_post_quant_conv": False, "use_quant_conv": False},
        about="no convolution after the quantiser",
    ),
    "sixteen-latents-vae": Part(
        VAE,
        {**_SMALL_VAE, "latent_channels": 16, "norm_num_groups": 2, "layers_per_block": 3},
        about="16 latent channels, 2 groups",
    ),
}
