"""A packed run in figures: what its card and its Croissant file tell."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from promptmill.dataset.options import ONLY_SPLIT, PackOptions
from promptmill.dataset.rows import Rows

COUNTED = ("state", "model", "refiner", "sampler", "num_inference_steps", "guidance_scale", "width", "height", "reason")
"""Columns whose values are counted; beyond MOST_VALUES of them, one says no more than that."""

MOST_VALUES = 1000


@dataclass
class Summary:
    """`counts` has, by column, how many rows have each value; `index` is data/shards.json, `run` is run.json."""

    run: Mapping[str, Any]
    index: Mapping[str, Any]
    counts: dict[str, Counter[Any]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    seeds: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        return str(self.run.get("run", "dataset"))

    @property
    def options(self) -> PackOptions:
        return PackOptions.from_json(self.index["options"])

    @property
    def splits(self) -> Mapping[str, Mapping[str, int]]:
        """By name, as they were asked for: shards, samples, bytes, holes. One without a job is left out."""
        splits: Mapping[str, Mapping[str, int]] = self.index["splits"]
        return {name: splits[name] for name in self.options.splits or (ONLY_SPLIT,) if name in splits}

    @property
    def samples(self) -> int:
        return sum(split["samples"] for split in self.splits.values())

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(split["bytes"] for split in self.splits.values())

    def values(self, name: str) -> list[tuple[Any, int]]:
        """The values of a counted column, the most frequent first; without nulls."""
        return [(value, count) for value, count in self.counts[name].most_common() if value is not None]


def summarize(rows: Rows, run: Mapping[str, Any], index: Mapping[str, Any]) -> Summary:
    """Read the manifest once, a column at a time."""
    summary = Summary(run, index)
    for batch in rows.batches((*COUNTED, "seed")):
        for name in COUNTED:
            counter = summary.counts[name]
            for value, count in _counted(batch.column(name)):
                if value in counter or len(counter) < MOST_VALUES:
                    counter[value] += count
        low, high = pc.min_max(batch.column("seed")).as_py().values()
        if low is not None:
            known = summary.seeds or (low, high)
            summary.seeds = min(low, known[0]), max(high, known[1])
    return summary


def _counted(column: pa.Array) -> Iterator[tuple[Any, int]]:
    for pair in pc.value_counts(column):
        yield pair["values"].as_py(), pair["counts"].as_py()
