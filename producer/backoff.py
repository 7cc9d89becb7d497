"""Pauses between tries of what does not answer.

    pauses = backoff(first_s=0.2, most_s=15.0)
    while not tried():
        wait(next(pauses))

Hosts that lose Redis or a bucket lose it together. Were their pauses alike, all would knock again at the same moment,
each time; so each pause is drawn anew from the whole range up to its bound (full jitter: M. Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015).
"""

import random
from collections.abc import Iterator


def backoff(*, first_s: float, most_s: float) -> Iterator[float]:
    """Pauses without end, in seconds: each from half of `first_s` to a bound that doubles up to `most_s`.

    Begin anew after a success. The lower bound is there because a pause of nothing is no pause.
    """
    bound_s = first_s
    while True:
        yield random.uniform(first_s / 2, bound_s)
        bound_s = min(2 * bound_s, most_s)
