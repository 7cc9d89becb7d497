"""What `promptmill bench` measured on this machine, for `--dry-run` to estimate from: one file in the user's cache."""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from promptmill.producer.estimate import Measured, Work
from promptmill.producer.job import Shape
from promptmill.producer.models import POCKET
from promptmill.producer.scratch import user_cache
from promptmill.producer.words import count

FILE = "bench.json"
MOST_ROWS = 200  # the newest stay


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One setting's rate, of all `devices` together; `on` is the day."""

    model: str
    width: int
    height: int
    guided: bool
    calls: float
    """Of the UNet per image, as Work counts them."""
    per_device_batch: int
    device: str
    devices: int
    dtype: str
    images_per_s: float
    on: str

    @property
    def work(self) -> Work:
        return Work(Shape(self.model, self.width, self.height, self.guided), self.calls)

    @property
    def key(self) -> tuple[object, ...]:
        """What a later measurement replaces."""
        kept = {name: value for name, value in asdict(self).items() if name not in ("images_per_s", "on")}
        return tuple(kept.values())


def bench_file() -> Path:
    """Where this user's measurements are."""
    return user_cache() / FILE


def keep(rows: Iterable[BenchRow]) -> Path | None:
    """Add measurements to the file, in one step; where it is. None where the file cannot be written."""
    known = {row.key: row for row in kept()}
    for row in rows:
        known.pop(row.key, None)
        known[row.key] = row
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: this user has no home
        path = bench_file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump([asdict(row) for row in list(known.values())[-MOST_ROWS:]], file, indent=1)
        Path(file.name).replace(path)
        return path
    return None


def kept() -> list[BenchRow]:
    """The measurements of this machine's user, the newest last; none where the file is not there or not ours."""
    names = {field.name for field in fields(BenchRow)}
    try:
        rows = json.loads(bench_file().read_text(encoding="utf-8"))
        return [BenchRow(**row) for row in rows if row.keys() == names]
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError):
        return []


def bench_rate(works: Mapping[Work, int], rows: Iterable[BenchRow], devices: int | None) -> Measured | None:
    """The rate that measurements make likely for this work, or None where one of its models was not measured.

    For each image the measurement of its model and guidance counts whose work is nearest, scaled by the work; of equal
    ones the fastest batch. All must be of one kind of device.
    """
    known = list(rows)
    chosen = {work: _nearest(work, known) for work in works}
    used = [row for row in chosen.values() if row is not None]
    if not used or len(used) < len(chosen) or len({row.device for row in used}) > 1:
        return None
    seconds = sum(
        images * row.devices / row.images_per_s * _cost(work) / _cost(row.work)
        for (work, images), row in zip(works.items(), used, strict=True)
    )
    number = devices or used[0].devices
    basis = "; ".join(dict.fromkeys(_words(row) for row in used))
    return Measured(used[0].device, number, sum(works.values()) / seconds * number, f"{basis}; scaled by the work")


def _nearest(work: Work, rows: Iterable[BenchRow]) -> BenchRow | None:
    same = [row for row in rows if row.model == work.shape.model and row.guided == work.shape.guided]

    def distance(row: BenchRow) -> tuple[float, float]:
        ratio = _cost(work) / _cost(row.work)
        return max(ratio, 1 / ratio), -row.images_per_s / row.devices

    return min(same, key=distance, default=None)


def _cost(work: Work) -> float:
    """In some unit, for one model: SDXL's operations; of the pocket model, whose parts weigh otherwise, its UNet's."""
    return work.calls * work.shape.width * work.shape.height if work.shape.model == POCKET else work.tera


def _words(row: BenchRow) -> str:
    on = f"{count(row.devices, 'device')} ({row.device}, {row.dtype})"
    at = f"{row.images_per_s:.3g} images/s at {row.width}x{row.height}, {row.per_device_batch} per device and batch"
    return f"promptmill bench of {row.on}: {at}, on {on}"
