"""The VAE's `config.json`."""

from dataclasses import dataclass
from typing import ClassVar

from promptmill.worker.checkpoint.json_config import SILU, JsonConfig
from promptmill.worker.errors import ConfigError


@dataclass(frozen=True)
class VAEConfig(JsonConfig):
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

    FIXED: ClassVar = {"act_fn": SILU, "shift_factor": (None, 0.0)}
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
