"""What an SDXL folder's JSON files say: the UNet's, and all of them together."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from promptmill.producer.families.families import FAMILIES
from promptmill.producer.models import latent_side
from promptmill.worker.checkpoint.json_config import SILU, JsonConfig, names, read_json, unexpected
from promptmill.worker.errors import ConfigError
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.text.config import CLIPConfig

PIPELINES = FAMILIES["sdxl"].pipelines


@dataclass(frozen=True)
class UNetConfig(JsonConfig):
    """The denoiser (diffusers `UNet2DConditionModel`).

    `attention_head_dim` is the *number of heads* of each level: diffusers named it wrongly and kept the name.
    """

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1280
    transformer_layers_per_block: int | tuple[int, ...] = 1
    attention_head_dim: int | tuple[int, ...] = 8
    use_linear_projection: bool = False
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    time_cond_proj_dim: int | None = None

    FIXED: ClassVar = {
        "act_fn": SILU,
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "center_input_sample": (False,),
        "only_cross_attention": (False,),
        "mid_block_only_cross_attention": (None, False),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "reverse_transformer_layers_per_block": (None,),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "num_attention_heads": (None,),
        "dual_cross_attention": (False,),
        "class_embed_type": (None,),
        "num_class_embeds": (None,),
        "resnet_time_scale_shift": ("default",),
        "resnet_skip_time_act": (False,),
        "resnet_out_scale_factor": (1,),
        "time_embedding_type": ("positional",),
        "time_embedding_dim": (None,),
        "time_embedding_act_fn": (None,),
        "timestep_post_act": (None,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "attention_type": ("default",),
        "class_embeddings_concat": (False,),
        "cross_attention_norm": (None,),
    }
    # upcast_attention asks for float32 scores, which are always float32 here.
    # The last lines are what diffusers' EMAModel leaves in the configuration of the averaged weights.
    WITHOUT_EFFECT: ClassVar = names(
        """dropout upcast_attention addition_embed_type_num_heads
        decay min_decay inv_gamma power optimization_step update_after_step use_ema_warmup"""
    )

    def __post_init__(self) -> None:
        self._check("addition_embed_type", ("text_time",))
        self._check_above_zero("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block")
        self._check_above_zero("norm_num_groups", "norm_eps", "cross_attention_dim", "attention_head_dim")
        self._check_above_zero("addition_time_embed_dim", "projection_class_embeddings_input_dim")
        self._check_above_zero("time_cond_proj_dim")
        self._check_divides("norm_num_groups", self.block_out_channels)
        for kind in self.down_block_types:
            if kind not in ("DownBlock2D", "CrossAttnDownBlock2D"):
                raise ConfigError(f"down_block_types holds {kind!r}, which is not implemented")
        for kind in self.up_block_types:
            if kind not in ("UpBlock2D", "CrossAttnUpBlock2D"):
                raise ConfigError(f"up_block_types holds {kind!r}, which is not implemented")
        for name in ("down_block_types", "up_block_types", "attention_heads", "transformer_layers", "layers"):
            if len(getattr(self, name)) != self.levels:
                raise ConfigError(f"{name} has {len(getattr(self, name))} levels, expected {self.levels}")
        for heads, width in zip(self.attention_heads, self.block_out_channels, strict=True):
            if width % heads:
                raise ConfigError(f"attention_head_dim is {heads} heads, which do not divide {width} channels")
        if self.addition_time_embed_dim is None or self.projection_class_embeddings_input_dim is None:
            raise ConfigError(
                "addition_time_embed_dim and projection_class_embeddings_input_dim must be set for text_time"
            )

    @classmethod
    def sdxl_base(cls) -> "UNetConfig":
        """stabilityai/stable-diffusion-xl-base-1.0: 2,567,463,684 parameters."""
        return cls(
            sample_size=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280),
            cross_attention_dim=2048,
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )

    @property
    def levels(self) -> int:
        return len(self.block_out_channels)

    @property
    def attention_heads(self) -> tuple[int, ...]:
        return self._each_level(self.attention_head_dim)

    @property
    def transformer_layers(self) -> tuple[int, ...]:
        return self._each_level(self.transformer_layers_per_block)

    @property
    def layers(self) -> tuple[int, ...]:
        return self._each_level(self.layers_per_block)

    def _each_level(self, value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value,) * self.levels if isinstance(value, int) else value


@dataclass(frozen=True)
class ModelConfig:
    """Everything that the JSON of one diffusers folder says. A refiner has the second text encoder alone."""

    text_encoder: CLIPConfig | None
    text_encoder_2: CLIPConfig
    unet: UNetConfig
    vae: VAEConfig
    scheduler: SchedulerConfig
    force_zeros_for_empty_prompt: bool = True
    requires_aesthetics_score: bool = False

    def __post_init__(self) -> None:
        context = self.text_encoder_2.hidden_size + (self.text_encoder.hidden_size if self.text_encoder else 0)
        _agree("unet cross_attention_dim", self.unet.cross_attention_dim, "the encoders' hidden_size", context)
        added = self.time_ids * (self.unet.addition_time_embed_dim or 0) + self.text_encoder_2.projection_dim
        _agree(
            "unet projection_class_embeddings_input_dim",
            self.unet.projection_class_embeddings_input_dim,
            f"{self.time_ids} x addition_time_embed_dim + text_encoder_2 projection_dim",
            added,
        )
        _agree("unet in_channels", self.unet.in_channels, "vae latent_channels", self.vae.latent_channels)
        _agree("unet out_channels", self.unet.out_channels, "vae latent_channels", self.vae.latent_channels)

    @classmethod
    def from_folder(cls, folder: Path) -> "ModelConfig":
        """Read a diffusers folder whose model_index.json names one of PIPELINES."""
        path = folder / "model_index.json"
        index = read_json(path)
        if index.get("_class_name") not in PIPELINES:
            raise unexpected(path, "_class_name", index.get("_class_name"), PIPELINES)
        if index.get("add_watermarker"):
            raise unexpected(path, "add_watermarker", index["add_watermarker"], (None, False))
        encoder = index.get("text_encoder", [True])
        if encoder is not None and not isinstance(encoder, list):
            raise unexpected(path, "text_encoder", encoder, ("[library, class]", None))
        has_first = encoder is not None and any(encoder)  # a refiner's says [null, null]
        for name in ("force_zeros_for_empty_prompt", "requires_aesthetics_score"):
            if not isinstance(index.get(name, False), bool):
                raise unexpected(path, name, index[name], (True, False))
        try:
            return cls(
                text_encoder=CLIPConfig.from_file(folder / "text_encoder" / "config.json") if has_first else None,
                text_encoder_2=CLIPConfig.from_file(folder / "text_encoder_2" / "config.json"),
                unet=UNetConfig.from_file(folder / "unet" / "config.json"),
                vae=VAEConfig.from_file(folder / "vae" / "config.json"),
                scheduler=SchedulerConfig.from_file(folder / "scheduler" / "scheduler_config.json"),
                force_zeros_for_empty_prompt=index.get("force_zeros_for_empty_prompt", True),
                requires_aesthetics_score=index.get("requires_aesthetics_score", False),
            )
        except ConfigError as error:
            if str(error).startswith(str(folder)):
                raise
            raise ConfigError(f"{folder}: {error}") from error

    @property
    def time_ids(self) -> int:
        """Numbers of micro-conditioning: original size, crop, and target size or, for a refiner, its score."""
        return 5 if self.requires_aesthetics_score else 6

    @property
    def most_clip_skip(self) -> int:
        """How many layers `clip_skip` can leave out of the encoder with fewest."""
        encoders = [encoder for encoder in (self.text_encoder, self.text_encoder_2) if encoder]
        return min(encoder.num_hidden_layers for encoder in encoders) - 1

    @property
    def default_size(self) -> int:
        """Side in pixels of the square image that the model was trained for."""
        return latent_side(self.unet.sample_size) * self.vae.scale_factor


def _agree(name: str, got: int | None, other: str, expected: int) -> None:
    if got != expected:
        raise ConfigError(f"{name} is {got}, but {other} is {expected}; they must agree")
