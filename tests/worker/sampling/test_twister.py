"""The device's generator goes on where the host's stopped. Oracles: numpy's MT19937, and PyTorch itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from promptmill.worker.errors import RequestError
from promptmill.worker.sampling import twister
from promptmill.worker.sampling.noise import draw_noise, start_generator

SEEDS = (0, 1, 1234, 2**32 - 1, 2**63 + 7)
# Height, width, channels: a whole number of blocks; 396 values; the least there is; more words than one doubling.
SIZES = [(8, 8, 4), (11, 9, 4), (2, 2, 4), (37, 41, 4)]
TOLERANCE = 2e-6


def start(seeds: tuple[int, ...], size: tuple[int, int, int]) -> jax.Array:
    return jnp.asarray(np.stack([start_generator(seed, *size)[1] for seed in seeds]))


def draws(states: jax.Array, size: tuple[int, int, int], times: int) -> tuple[np.ndarray, np.ndarray]:
    """As a sampler's loop does it: one program, the state traced. Axes: draw, batch, height, width, channels."""

    def body(step: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        state, noises = carry
        state, noise = twister.draw(state, *size)
        return state, jax.lax.dynamic_update_index_in_dim(noises, noise, step, 0)

    @jax.jit
    def run(states: jax.Array, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.fori_loop(0, steps, body, (states, jnp.zeros((times, len(states), *size), jnp.float32)))

    state, noises = run(states, jnp.int32(times))
    return np.asarray(state), np.asarray(noises)


class Reference:
    """numpy's generator and Box-Muller in doubles."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.RandomState(seed & 0xFFFFFFFF)

    def draw(self, size: tuple[int, int, int]) -> np.ndarray:
        height, width, channels = size
        count = height * width * channels
        words = self._words(count)
        values = self._normal(words[: count - count % 16])
        if count % 16:
            values = np.append(values, np.zeros(count % 16))
            values[-16:] = self._normal(self._words(16))
        return values.reshape(channels, height, width).transpose(1, 2, 0)

    def _words(self, count: int) -> np.ndarray:
        return self.generator.randint(0, 2**32, size=count, dtype=np.uint32)

    @staticmethod
    def _normal(words: np.ndarray) -> np.ndarray:
        uniform = ((words & 0xFFFFFF) * 2.0**-24).reshape(-1, 16)
        radius = np.sqrt(-2 * np.log(1 - uniform[:, :8]))
        angle = 2 * np.pi * uniform[:, 8:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


@pytest.mark.parametrize("size", SIZES)
def test_two_hundred_draws_are_what_the_generator_gives_next(size: tuple[int, int, int]) -> None:
    _, noises = draws(start(SEEDS, size), size, 200)
    for row, seed in enumerate(SEEDS):
        reference = Reference(seed)
        np.testing.assert_allclose(start_generator(seed, *size)[0], reference.draw(size), rtol=0, atol=TOLERANCE)
        for draw, noise in enumerate(noises[:, row]):
            np.testing.assert_allclose(noise, reference.draw(size), rtol=0, atol=TOLERANCE, err_msg=f"draw {draw}")


def test_a_large_draw_is_what_the_generator_gives_next() -> None:
    size = (64, 64, 4)
    _, noises = draws(start((5,), size), size, 2)
    reference = Reference(5)
    reference.draw(size)
    for noise in noises[:, 0]:
        np.testing.assert_allclose(noise, reference.draw(size), rtol=0, atol=TOLERANCE)


def test_the_state_after_is_the_generators_own() -> None:
    """Bit by bit: drawing on the device leaves the words that the host finds further on in the same stream."""
    size = (8, 8, 4)
    state, _ = draws(start(SEEDS, size), size, 3)
    assert np.array_equal(state, [start_generator(seed, 8, 8, 4 * 4)[1] for seed in SEEDS])


def test_start_generator_gives_the_noise_of_the_seed() -> None:
    noise, state = start_generator(3, 5, 7, 4)
    assert np.array_equal(noise, draw_noise(3, 5, 7, 4))
    assert state.shape == (624,) and state.dtype == np.uint32


def test_a_generator_that_drew_nothing_gives_the_starting_noise() -> None:
    _, noises = draws(start((11,), (0, 0, 0)), (8, 8, 4), 1)
    np.testing.assert_allclose(noises[0, 0], draw_noise(11, 8, 8, 4), rtol=0, atol=TOLERANCE)


def test_a_row_does_not_know_its_neighbours() -> None:
    size = (8, 8, 4)
    _, alone = draws(start(SEEDS[2:3], size), size, 3)
    _, together = draws(start(SEEDS, size), size, 3)
    assert np.array_equal(alone[:, 0], together[:, 2])


def test_split_over_devices_it_needs_no_collective() -> None:
    size = (8, 8, 4)
    states = start(tuple(range(16)), size)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = PartitionSpec("data")
    draw = partial(twister.draw, height=8, width=8, channels=4)
    divided = jax.jit(jax.shard_map(draw, mesh=mesh, in_specs=split, out_specs=(split, split)))
    text = divided.lower(states).compile().as_text()
    assert text is not None
    for collective in ("all-reduce", "all-gather", "collective-permute", "all-to-all", "reduce-scatter"):
        assert collective not in text, collective
    for whole, part in zip(jax.jit(draw)(states), divided(states), strict=True):
        np.testing.assert_allclose(whole, part, rtol=0, atol=TOLERANCE)


def test_a_draw_of_a_megapixel_image_takes_few_steps_in_a_row() -> None:
    """Each concatenation waits for the one before: a hundred of them would cost a GPU a tenth of a denoising step."""
    states = start((0,), (128, 128, 4))
    text = jax.jit(partial(twister.draw, height=128, width=128, channels=4)).lower(states).as_text()
    assert "while" not in text
    assert text.count("stablehlo.concatenate") < 30


def test_fewer_than_sixteen_values_are_refused() -> None:
    with pytest.raises(RequestError, match=r"1 x 3 x 4 has 12 values.*at least 16"):
        twister.draw(jnp.zeros((1, 624), jnp.uint32), 1, 3, 4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [*SIZES, (64, 80, 4)])
def test_two_hundred_draws_are_what_torch_draws(size: tuple[int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    height, width, channels = size
    _, noises = draws(start(SEEDS, size), size, 200)
    for row, seed in enumerate(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        for noise in (start_generator(seed, *size)[0], *noises[:, row]):
            drawn = torch.randn((1, channels, height, width), generator=generator)[0].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(noise, drawn, rtol=0, atol=TOLERANCE)
