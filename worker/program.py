"""What a compiled program is to the worker, whatever family its model is of.

prepared = program.prepare(requests)              # host work
result = program.run(prepared)                    # returns at once
pixels = fetch(result, len(requests)).pixels      # waits
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
from jaxtyping import Bool, UInt8

from promptmill.producer.fields import JobFields

ImageRequest = JobFields
"""One image: the fields of a job, of which the model's folder is chosen by whoever asks."""

Arrays = TypeVar("Arrays")


@dataclass(frozen=True)
class Prepared(Generic[Arrays]):
    """A batch on the host, ready to run."""

    inputs: Arrays
    cuts: Sequence[Mapping[str, str]]
    """Of each request what was cut off its prompts: the field's name and the text."""


class Result(NamedTuple):
    """Pixels; and of each image whether the decoder gave numbers all over it, and whether it is of one colour."""

    pixels: UInt8[Any, "B H W 3"]
    finite: Bool[Any, " B"]
    plain: Bool[Any, " B"]


class AnyProgram(Protocol):
    """One shape of a model of any family, compiled: for `batch` requests at a time."""

    @property
    def batch(self) -> int: ...
    def prepare(self, requests: Sequence[ImageRequest]) -> Prepared[Any]: ...
    def run(self, prepared: Prepared[Any]) -> Result: ...

    def traced(self, prepared: Prepared[Any]) -> list[tuple[Any, int]]:
        """What is compiled, as jaxprs, each with the trips that its loop takes for this batch. Traced anew."""


def wait_for(result: Result) -> None:
    """Until the devices have a batch. Raises what XLA raises where they failed."""
    jax.block_until_ready(result)


def fetch(result: Result, count: int) -> Result:
    """Wait for a batch, and copy its first `count` images here: numpy arrays."""
    return Result(*(part[:count] for part in jax.device_get(result)))
