"""How a run is packed: the format, where shards end, splits, and what becomes of each image."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from promptmill.producer.errors import PromptmillError

SHARD_SIZE = 10_000
"""Indexes per shard."""

ONLY_SPLIT = "train"
"""The split of everything where none were asked for, as `datasets` calls it."""

SAMPLE_BYTES = 4096
"""Of a sample beside its image, for `shard_bytes`: two more members of a tar with their headers, or a row."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_RESIZE = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?")


class PackError(PromptmillError):
    """Options that no dataset can be packed with; the text says what was got and what is expected."""


@dataclass(frozen=True)
class PackOptions:
    """Of each shard the same everywhere: what decides its bytes beside the manifest."""

    format: str = "webdataset"
    shard_size: int = SHARD_SIZE
    """Indexes per shard, failed ones included: a shard's range does not depend on what came of it."""
    shard_bytes: int | None = None
    """Where given, a shard ends before its rendered images, with SAMPLE_BYTES each, would be more than this."""
    splits: Mapping[str, float] = field(default_factory=dict)
    image_format: str = "png"
    quality: int | None = None
    """1 to 100; None is lossless where the format can be."""
    resize: str | None = None
    """`512`: the longer side at most 512 pixels; `512x512`: scaled to cover that and cut in the middle."""

    def to_json(self) -> dict[str, Any]:
        """The options as `data/shards.json` has them. Splits are pairs: their order decides, and JSON sorts names."""
        return {**asdict(self), "splits": [list(split) for split in self.splits.items()]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PackOptions":
        return cls(**{**value, "splits": dict(value["splits"])})


def parse_bytes(text: str) -> int:
    """`1GB`, `500 MB`, `2GiB`, `1000000` -> bytes. Raises PackError."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise PackError(f"{text!r} is not a size such as 1GB or 500MB")
    number, unit, binary = match.groups()
    power = 1024 ** ("KMGT".index(unit.upper()) + 1) if binary and unit else _UNITS[unit.upper()]
    found = int(float(number) * power)
    if found < 1:
        raise PackError(f"{text!r} is less than one byte")
    return found


def parse_splits(text: str) -> dict[str, float]:
    """`train=0.98,val=0.02` -> shares by name, which together are 1. Raises PackError."""
    splits: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = (piece.strip() for piece in part.partition("="))
        try:
            number = float(share)
        except ValueError:
            number = math.nan
        if not equals or not _SPLIT_NAME.fullmatch(name) or not 0 < number <= 1:
            raise PackError(f"{part.strip()!r} is not a name and a share between 0 and 1, such as train=0.98")
        if name in splits:
            raise PackError(f"{name!r} is there twice")
        splits[name] = number
    if not math.isclose(total := sum(splits.values()), 1, abs_tol=1e-6):
        raise PackError(f"the shares of {text!r} are {total:g} together, expected 1")
    return splits


def check_resize(text: str) -> str:
    """`512` or `512x384` as it is. Raises PackError."""
    match = _RESIZE.fullmatch(text)
    if match is None or not all(int(side) for side in match.groups() if side is not None):
        raise PackError(f"{text!r} is not a size such as 512, or 512x384")
    return text


def split_of(prompt: str, splits: Mapping[str, float]) -> str:
    """The split of all images of a prompt, by a hash of its text: no prompt is in two, in any run, in any order."""
    if not splits:
        return ONLY_SPLIT
    point = int.from_bytes(sha256(prompt.encode()).digest()[:8]) / 2**64
    reached = 0.0
    for name, share in splits.items():
        reached += share
        if point < reached:
            return name
    return name  # what rounding leaves
