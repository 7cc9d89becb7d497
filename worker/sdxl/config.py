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

from worker.sdxl.config_types import KINDS, check_types
from worker.sdxl.errors import ConfigError

_SILU = ("silu", "swish")
PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")


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
        values = cls._given(read_json(path))
        known = {field.name for field in dataclasses.fields(cls)}
        for name, value in values.items():
            if name.startswith("_") or name in cls.WITHOUT_EFFECT or name in known:
                continue
            if name not in cls.FIXED:
                raise ConfigError(f"{path}: {name} is {value!r}, but this field is not implemented")
            if value not in cls.FIXED[name]:
                raise _unexpected(path, name, value, cls.FIXED[name])
        given = {name: value for name, value in values.items() if name in known}
        check_types(path, cls, given)
        try:
            return cls(**{name: _frozen(value) for name, value in given.items()})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def _given(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values

    def _check(self, name: str, expected: tuple[Any, ...]) -> None:
        if getattr(self, name) not in expected:
            raise _unexpected(None, name, getattr(self, name), expected)

    def _check_above_zero(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not numbers or any(number is not None and number <= 0 for number in numbers):
                raise ConfigError(f"{name} is {value!r}, expected more than 0")

    def _check_divides(self, name: str, widths: tuple[int, ...]) -> None:
        for width in widths:
            if width % getattr(self, name):
                raise ConfigError(f"{name} is {getattr(self, name)}, which does not divide {width} channels")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; ConfigError where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: is not there, but the model needs it") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: is no JSON from line {error.lineno}, column {error.colno} on") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is no JSON") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {KINDS[type(values)]}")
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
        self._check_above_zero("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers")
        self._check_above_zero("num_attention_heads", "max_position_embeddings", "layer_norm_eps")
        self._check_divides("num_attention_heads", (self.hidden_size,))


@dataclass(frozen=True)
class UNetConfig(_JsonConfig):
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
    # The last lines are what diffusers' EMAModel leaves in the configuration of the averaged weights.
    WITHOUT_EFFECT: ClassVar = _names(
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
    def default_side(self) -> int:
        """Latents along one side of the image that the model was trained for; the longer, where it is not square."""
        size = self.sample_size or 128
        return max(size) if isinstance(size, tuple) else size

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
        self._check_above_zero("block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups")
        self._check_above_zero("scaling_factor")
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
    """The noise schedule that the model was trained with, and how its authors sample.

    The folder may name any of diffusers' scheduler classes. None is a field that the file leaves open: each sampler
    has its own defaults, and reads only the fields that its class knows (`solvers/settings.py`).
    """

    num_train_timesteps: int | None = None
    beta_start: float | None = None
    beta_end: float | None = None
    beta_schedule: str | None = None
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str | None = None
    timestep_spacing: str | None = None
    timestep_type: str | None = None
    steps_offset: int | None = None
    interpolation_type: str | None = None
    rescale_betas_zero_snr: bool | None = None
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    use_beta_sigmas: bool | None = None
    use_lu_lambdas: bool | None = None
    use_flow_sigmas: bool | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str | None = None
    lambda_min_clipped: float | None = None
    clip_sample: bool | None = None
    clip_sample_range: float | None = None
    thresholding: bool | None = None
    set_alpha_to_one: bool | None = None
    original_inference_steps: int | None = None
    timestep_scaling: float | None = None
    solver_order: int | None = None
    solver_type: str | None = None
    lower_order_final: bool | None = None
    euler_at_final: bool | None = None
    variance_type: str | None = None
    predict_x0: bool | None = None
    disable_corrector: tuple[int, ...] | None = None
    solver_p: Any = None

    # Of samplers that are not here, or decided by the sampler's name (algorithm_type), or of what is refused where
    # it is on: dynamic thresholding and flow matching.
    WITHOUT_EFFECT: ClassVar = _names(
        """algorithm_type dynamic_thresholding_ratio sample_max_value use_dynamic_shifting time_shift_type
        shift_terminal flow_shift predictor_order corrector_order tau_func skip_prk_steps"""
    )

    @classmethod
    def _given(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Without the fields that diffusers wrote down but was not told, as its `from_config` leaves them out."""
        defaulted = values.get("_use_default_values", ())
        return {name: value for name, value in values.items() if name not in defaulted}

    def __post_init__(self) -> None:
        self._check("beta_schedule", (None, "linear", "scaled_linear", "squaredcos_cap_v2", "exp"))
        self._check("prediction_type", (None, "epsilon", "v_prediction", "sample"))
        self._check("interpolation_type", (None, "linear", "log_linear"))
        self._check("timestep_spacing", (None, "linspace", "leading", "trailing"))
        self._check("timestep_type", (None, "discrete", "continuous"))
        self._check("final_sigmas_type", (None, "zero", "sigma_min"))


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
            raise _unexpected(path, "_class_name", index.get("_class_name"), PIPELINES)
        if index.get("add_watermarker"):
            raise _unexpected(path, "add_watermarker", index["add_watermarker"], (None, False))
        encoder = index.get("text_encoder", [True])
        if encoder is not None and not isinstance(encoder, list):
            raise _unexpected(path, "text_encoder", encoder, ("[library, class]", None))
        has_first = encoder is not None and any(encoder)  # a refiner's says [null, null]
        for name in ("force_zeros_for_empty_prompt", "requires_aesthetics_score"):
            if not isinstance(index.get(name, False), bool):
                raise _unexpected(path, name, index[name], (True, False))
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
        return self.unet.default_side * self.vae.scale_factor


def _agree(name: str, got: int | None, other: str, expected: int) -> None:
    if got != expected:
        raise ConfigError(f"{name} is {got}, but {other} is {expected}; they must agree")
