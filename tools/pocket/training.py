"""What both stages of training share: a budget in seconds, a rate that falls to nothing at its end, checkpoints."""

import os
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax  # type: ignore[import-untyped]


@dataclass
class Clock:
    """Seconds of training so far, over all runs, of those that there are."""

    budget: float
    spent: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        return self.spent + time.monotonic() - self._started

    def progress(self) -> float:
        """From 0 at the beginning to 1 at the end."""
        return min(1.0, self.elapsed() / self.budget)


def rate_at(progress: float, step: int, *, warmup: int = 100) -> float:
    """The part of the highest rate: a linear rise over the first steps, then half a cosine down to zero."""
    return float(min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress))))


def adam(weight_decay: float = 0.0) -> optax.GradientTransformation:
    """AdamW of rate one: the caller multiplies the updates by its rate of the moment."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(b1=0.9, b2=0.99),
        optax.add_decayed_weights(weight_decay),
        optax.scale(-1.0),
    )


def save(path: Path, values: Any) -> None:
    """Write a checkpoint whole or not at all. A pickle, for this machine's own eyes: it never leaves it."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(pickle.dumps(jax.tree.map(np.asarray, values)))
    os.replace(unfinished, path)  # noqa: PTH105


def load(path: Path) -> Any:
    """What `save` wrote there, or None where it wrote nothing."""
    if not path.is_file():
        return None
    state = pickle.loads(path.read_bytes())
    return {
        name: value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
        for name, value in state.items()
    }
