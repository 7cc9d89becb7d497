"""In tests, an array of another shape or dtype than the annotation's raises where it goes in or comes out."""

from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, TypeCheckError, jaxtyped

from promptmill.worker.nn.convolution import upsample_2x
from promptmill.worker.safety.clip_image import clip_pixels
from promptmill.worker.sampling.noise import draw_noise
from promptmill.worker.sdxl.unet import UpBlock
from tests.typecheck import checked

Arrays = list[Float[Array, "B C"]] | None


@pytest.mark.parametrize(
    "pixels",
    [jnp.zeros((9, 9, 3), jnp.uint8), jnp.zeros((1, 9, 9, 4), jnp.uint8), jnp.zeros((1, 9, 9, 3))],
    ids=["an axis is missing", "another number of channels", "another dtype"],
)
def test_a_wrong_array_is_refused_at_the_call(pixels: Any) -> None:
    with pytest.raises(TypeCheckError, match=r"parameters of promptmill\.worker\.safety\.clip_image\.clip_pixels"):
        clip_pixels(pixels, 8)


@pytest.mark.parametrize("function", [upsample_2x, draw_noise, UpBlock.__call__])
def test_every_room_is_imported_with_its_checks(function: Any) -> None:
    assert hasattr(function, "__wrapped__")


@jaxtyped(typechecker=checked)
def _of_axes(x: Float[Array, "B C"], more: Arrays, name: str) -> Float[Array, "C B"]:
    return x if name == "unturned" else x.T


def test_axes_of_one_name_are_of_one_size_in_all_arguments_and_in_the_answer() -> None:
    x = jnp.zeros((2, 3))
    assert _of_axes(x, [x, x], "turned").shape == (3, 2)
    with pytest.raises(TypeCheckError, match="return value"):
        _of_axes(x, None, "unturned")
    with pytest.raises(TypeCheckError, match="parameter 'more'"):
        _of_axes(x, [jnp.zeros((3, 2))], "turned")
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        _of_axes(np.zeros((2, 3), np.float32), None, "turned")  # type: ignore[arg-type]


class _Named(Protocol):
    name: str


def test_what_is_no_array_is_left_to_mypy() -> None:
    @jaxtyped(typechecker=checked)
    def named(x: Float[Array, "B C"], of: _Named, number: int) -> str:
        return str(number)

    assert named(jnp.zeros((1, 1)), object(), "a stand-in") == "a stand-in"  # type: ignore[arg-type]
