"""The convolutional blocks that the UNet and the VAE share."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from promptmill.worker.nn.convolution import upsample_2x
from promptmill.worker.nn.layers import Conv, GroupNorm, Linear


class ResnetBlock(nnx.Module):
    """Two convolutions around a residual; the UNet's also take the time embedding in between."""

    def __init__(self, inputs: int, outputs: int, *, groups: int, eps: float, time_width: int | None = None) -> None:
        self.norm1 = GroupNorm(inputs, groups=groups, eps=eps)
        self.conv1 = Conv(inputs, outputs)
        self.time_emb_proj = Linear(time_width, outputs) if time_width else None
        self.norm2 = GroupNorm(outputs, groups=groups, eps=eps)
        self.conv2 = Conv(outputs, outputs)
        self.conv_shortcut = Conv(inputs, outputs, size=1) if inputs != outputs else None

    def __call__(self, x: Float[Array, "B H W I"], time: Float[Array, "B T"] | None = None) -> Float[Array, "B H W O"]:
        h = self.conv1(self.norm1.silu(x))
        if self.time_emb_proj is not None and time is not None:
            h = h + self.time_emb_proj(jax.nn.silu(time))[:, None, None, :]
        h = self.conv2(self.norm2.silu(h))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nnx.Module):
    """Half the size by a strided convolution; an odd size rounds up."""

    def __init__(self, width: int) -> None:
        self.conv = Conv(width, width, stride=2)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Twice the size, or one less where the level above is odd, then a convolution."""

    def __init__(self, width: int) -> None:
        self.conv = Conv(width, width, upsampling=True)

    def __call__(self, x: Float[Array, "B H W C"], size: tuple[int, int] | None = None) -> Float[Array, "B H2 W2 C"]:
        _, height, width, _ = x.shape
        if size in (None, (2 * height, 2 * width)):
            return self.conv(x)
        # Nearest neighbour to 2n - 1 pixels takes the same source pixels as to 2n, less the last.
        return self.conv.directly(upsample_2x(x)[:, : size[0], : size[1]])
