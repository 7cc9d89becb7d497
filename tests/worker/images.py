"""Images to test with: smooth shapes and colours, with some grain."""

import numpy as np


def smooth_image(height: int, width: int, seed: int = 0, grain: float = 6.0) -> np.ndarray:
    """A sum of waves in each channel, and noise: uint8, H W 3."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = np.zeros((height, width, 3))
    for channel in range(3):
        for frequency in (1.5, 4.0, 11.0):
            turn, phase = rng.uniform(0, 2 * np.pi, 2)
            waves[..., channel] += np.sin(2 * np.pi * frequency * (x * np.cos(turn) + y * np.sin(turn)) + phase)
    noisy = 128 + 35 * waves + rng.normal(0, grain, waves.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
