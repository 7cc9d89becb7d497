"""What a diffusers folder's JSON files say, as frozen dataclasses.

Defaults are those of the diffusers 0.42 and transformers 5 constructors, which is what a missing field means.
A field is one of three kinds: a dataclass field (implemented), `FIXED` (implemented for these values only),
or `WITHOUT_EFFECT` (cannot change a rendered pixel). Anything else raises: nothing is silently ignored.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from worker.sdxl.errors import ConfigError

_SILU = ("silu", "swish")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True)
class _JsonConfig:
    """Reads itself from one JSON file, and refuses what it does not know."""

    FIXED: ClassVar[dict[str, tuple[Any, ...]]] = {}
    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read `path`; ConfigError names the file, the field, what it holds and what is understood."""
        values = read_json(path)
        known = {field.name for field in dataclasses.fields(cls)}
        for name, value in values.items():
            if name.startswith("_") or name in cls.WITHOUT_EFFECT or name in known:
                continue
            if name not in cls.FIXED:
                raise ConfigError(f"{path}: {name} is {value!r}, but this field is not implemented")
            if value not in cls.FIXED[name]:
                raise _unexpected(path, name, value, cls.FIXED[name])
        try:
            return cls(**{name: _frozen(value) for name, value in values.items() if name in known})
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{path}: {error}") from error

    def _check(self, name: str, expected: tuple[Any, ...]) -> None:
        if getattr(self, name) not in expected:
            raise _unexpected(None, name, getattr(self, name), expected)

    def _check_divides(self, name: str, widths: tuple[int, ...]) -> None:
        for width in widths:
            if width % getattr(self, name):
                raise ConfigError(f"{name} is {getattr(self, name)}, which does not divide {width} channels")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; ConfigError where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def _unexpected(path: Path | None, name: str, value: Any, expected: tuple[Any, ...]) -> ConfigError:
    where = f"{path}: " if path else ""
    return ConfigError(f"{where}{name} is {value!r}, but only {' or '.join(map(repr, expected))} is implemented")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class CLIPConfig(_JsonConfig):
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
    WITHOUT_EFFECT: ClassVar = _names(
        """architectures attention_dropout bos_token_id pad_token_id dropout initializer_factor
        initializer_range torch_dtype dtype transformers_version return_dict output_hidden_states
        output_attentions use_cache problem_type id2label label2id chunk_size_feed_forward
        is_encoder_decoder tie_word_embeddings gradient_checkpointing"""
    )

    def __post_init__(self) -> None:
        self._check("hidden_act", ("quick_gelu", "gelu"))
        self._check_divides("num_attention_heads", (self.hidden_size,))


@dataclass(frozen=True)
class UNetConfig(_JsonConfig):
    """The denoiser (diffusers `UNet2DConditionModel`).

    `attention_head_dim` is the *number of heads* of each level: diffusers named it wrongly and kept the name.
    """

    sample_size: int | None = None
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
        "act_fn": _SILU,
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
    WITHOUT_EFFECT: ClassVar = frozenset({"dropout", "upcast_attention", "addition_embed_type_num_heads"})

    def __post_init__(self) -> None:
        self._check("addition_embed_type", ("text_time",))
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
class VAEConfig(_JsonConfig):
    """The image decoder (diffusers `AutoencoderKL`)."""

    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)

    FIXED: ClassVar = {"act_fn": _SILU, "shift_factor": (None, 0.0)}
    # The encoder's fields: only the decoder is needed to render.
    WITHOUT_EFFECT: ClassVar = frozenset({"in_channels", "down_block_types", "sample_size", "use_quant_conv"})

    def __post_init__(self) -> None:
        self._check("out_channels", (3,))
        self._check_divides("norm_num_groups", self.block_out_channels)
        if self.up_block_types != ("UpDecoderBlock2D",) * len(self.block_out_channels):
            raise ConfigError(
                f"up_block_types is {self.up_block_types!r}, but only UpDecoderBlock2D at each of the "
                f"{len(self.block_out_channels)} levels is implemented"
            )
        for name in ("latents_mean", "latents_std"):
            value = getattr(self, name)
            if value is not None and len(value) != self.latent_channels:
                raise ConfigError(f"{name} has {len(value)} values, expected {self.latent_channels}")

    @property
    def scale_factor(self) -> int:
        """Pixels a latent, along one side."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class SchedulerConfig(_JsonConfig):
    """The noise schedule that the model was trained with (diffusers `EulerDiscreteScheduler`).

    The folder may name any scheduler class; a sampler reads these fields of it, as `from_config` does.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    prediction_type: str = "epsilon"
    interpolation_type: str = "linear"
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    rescale_betas_zero_snr: bool = False
    final_sigmas_type: str = "zero"

    FIXED: ClassVar = {
        "trained_betas": (None,),
        "use_beta_sigmas": (None, False),
        "timestep_type": ("discrete",),
    }
    # Fields of other schedulers, which Euler has no use for; diffusers drops them just so.
    WITHOUT_EFFECT: ClassVar = _names(
        """use_dynamic_shifting time_shift_type predict_x0 disable_corrector solver_p shift_terminal
        predictor_order corrector_order tau_func
        clip_sample clip_sample_range sample_max_value set_alpha_to_one skip_prk_steps thresholding
        dynamic_thresholding_ratio algorithm_type solver_order solver_type lower_order_final
        euler_at_final use_lu_lambdas lambda_min_clipped variance_type original_inference_steps
        timestep_scaling use_flow_sigmas flow_shift"""
    )

    def __post_init__(self) -> None:
        self._check("beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2"))
        self._check("prediction_type", ("epsilon", "v_prediction", "sample"))
        self._check("interpolation_type", ("linear", "log_linear"))
        self._check("timestep_spacing", ("linspace", "leading", "trailing"))
        self._check("final_sigmas_type", ("zero", "sigma_min"))
        if self.use_karras_sigmas and self.use_exponential_sigmas:
            raise ConfigError("use_karras_sigmas and use_exponential_sigmas are both true, expected one at most")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that the JSON of one diffusers folder says."""

    text_encoder: CLIPConfig
    text_encoder_2: CLIPConfig
    unet: UNetConfig
    vae: VAEConfig
    scheduler: SchedulerConfig
    force_zeros_for_empty_prompt: bool = True

    def __post_init__(self) -> None:
        time_ids = 6
        context = self.text_encoder.hidden_size + self.text_encoder_2.hidden_size
        _agree("unet cross_attention_dim", self.unet.cross_attention_dim, "both encoders' hidden_size", context)
        added = time_ids * (self.unet.addition_time_embed_dim or 0) + self.text_encoder_2.projection_dim
        _agree(
            "unet projection_class_embeddings_input_dim",
            self.unet.projection_class_embeddings_input_dim,
            "6 x addition_time_embed_dim + text_encoder_2 projection_dim",
            added,
        )
        _agree("unet in_channels", self.unet.in_channels, "vae latent_channels", self.vae.latent_channels)
        _agree("unet out_channels", self.unet.out_channels, "vae latent_channels", self.vae.latent_channels)

    @classmethod
    def from_folder(cls, folder: Path) -> "ModelConfig":
        """Read a diffusers folder whose model_index.json names a `StableDiffusionXLPipeline`."""
        path = folder / "model_index.json"
        index = read_json(path)
        if index.get("_class_name") != "StableDiffusionXLPipeline":
            raise _unexpected(path, "_class_name", index.get("_class_name"), ("StableDiffusionXLPipeline",))
        if index.get("add_watermarker"):
            raise _unexpected(path, "add_watermarker", index["add_watermarker"], (None, False))
        try:
            return cls(
                text_encoder=CLIPConfig.from_file(folder / "text_encoder" / "config.json"),
                text_encoder_2=CLIPConfig.from_file(folder / "text_encoder_2" / "config.json"),
                unet=UNetConfig.from_file(folder / "unet" / "config.json"),
                vae=VAEConfig.from_file(folder / "vae" / "config.json"),
                scheduler=SchedulerConfig.from_file(folder / "scheduler" / "scheduler_config.json"),
                force_zeros_for_empty_prompt=index.get("force_zeros_for_empty_prompt", True),
            )
        except ConfigError as error:
            if str(error).startswith(str(folder)):
                raise
            raise ConfigError(f"{folder}: {error}") from error

    @property
    def default_size(self) -> int:
        """Side in pixels of the square image that the model was trained for."""
        return (self.unet.sample_size or 128) * self.vae.scale_factor


def _agree(name: str, got: int | None, other: str, expected: int) -> None:
    if got != expected:
        raise ConfigError(f"{name} is {got}, but {other} is {expected}; they must agree")
