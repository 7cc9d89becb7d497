"""The values are PyTorch 2.13's: `torch.randn(count, generator=torch.Generator().manual_seed(seed))`."""

import numpy as np
import pytest

from promptmill.worker.sampling.noise import draw_noise, randn

# By seed and count: the first three values and the last three.
FIRST_AND_LAST = {
    (0, 3): [1.5409961, -0.2934289, -2.1787894, 1.5409961, -0.2934289, -2.1787894],
    (0, 15): [1.5409961, -0.2934289, -2.1787894, -0.8566746, 1.1006042, -1.0711874],
    (0, 16): [-1.1258398, -1.1523602, -0.2505786, 1.2376579, 1.1167772, -0.2472782],
    (1, 17): [-1.5255959, -1.1607615, 0.6995424, -0.7980698, -0.1316232, -0.7984398],
    (1234, 31): [-0.1117186, -0.4965901, 0.1630737, 1.8408576, -1.0174322, 1.2192405],
    (42, 260): [1.9269153, 1.4872841, 0.9007172, -1.8790557, -0.1798331, 0.7903857],
    (2147483648, 64): [-1.8465972, 1.1185824, -0.1104458, 1.4415331, -1.6578023, 0.1089602],
    (4294967295, 1000): [-2.6642976, -1.0910486, 0.4514474, 0.0540317, 0.1091517, 0.6625367],
    (18446744073709551615, 256): [-2.6642976, -1.0910486, 0.4514474, -0.0066214, 0.4424838, 0.7502494],
}


@pytest.mark.parametrize(("seed", "count"), FIRST_AND_LAST)
def test_noise_is_what_torch_draws(seed: int, count: int) -> None:
    values = randn(seed, count)
    assert values.shape == (count,) and values.dtype == np.float32
    expected = FIRST_AND_LAST[seed, count]
    np.testing.assert_allclose([*values[:3], *values[-3:]], expected, rtol=0, atol=1e-6)


def test_only_the_low_32_bits_of_a_seed_count_as_in_torch() -> None:
    assert np.array_equal(randn(2**32 + 5, 64), randn(5, 64))
    assert not np.array_equal(randn(6, 64), randn(5, 64))


def test_noise_is_drawn_channels_first() -> None:
    noise = draw_noise(3, height=5, width=7, channels=4)
    assert noise.shape == (5, 7, 4)
    assert np.array_equal(noise[..., 0].ravel(), randn(3, 4 * 5 * 7)[: 5 * 7])


def test_noise_is_standard_normal() -> None:
    values = randn(0, 100_000)
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 15, 16, 17, 396, 65_536])
def test_noise_is_what_torch_draws_here_too(count: int) -> None:
    torch = pytest.importorskip("torch")
    expected = torch.randn(count, generator=torch.Generator().manual_seed(99)).numpy()
    np.testing.assert_allclose(randn(99, count), expected, rtol=0, atol=2e-6)
