"""How far apart both sides are, as rows of the tables in `docs/fidelity.md`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import torch

from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest
from tests.parity import cases, ours, theirs, theirs_parts
from tests.parity.matrix import PARTS

# What a network in float32 may differ by: a few dozen roundings.
LIMIT = 2e-5
# Of images in float32, dB: some pixels that lie between two grey levels are rounded the other way.
PSNR_LIMIT = 60.0


@dataclass(frozen=True)
class PartRow:
    """One network's relative errors: ours against PyTorch, and PyTorch's own float32 against its float64."""

    name: str
    kind: str
    about: str
    errors: dict[str, float]
    rounding: dict[str, float]

    @property
    def worst(self) -> float:
        return max(self.errors.values())

    def cells(self) -> list[str]:
        """The row as the table shows it."""
        return [
            f"`{self.kind}`",
            self.name,
            self.about,
            ", ".join(f"{output} {error:.1e}" for output, error in self.errors.items()),
            ", ".join(f"{error:.1e}" for error in self.rounding.values()),
        ]


def part_row(name: str, folder: Path) -> PartRow:
    """Write the part, run it on both sides, and compare."""
    part = PARTS[name]
    theirs_parts.write(part, folder)
    expected, exact = theirs_parts.outputs(part, folder), theirs_parts.outputs(part, folder, torch.float64)
    got = ours.part_outputs(part, folder)
    errors = {output: cases.relative_error(got[output], values) for output, values in expected.items()}
    rounding = {output: cases.relative_error(expected[output], values) for output, values in exact.items()}
    return PartRow(name, part.kind, part.about, errors, rounding)


@dataclass(frozen=True)
class ImageRow:
    """How far our image is from PyTorch's: in dB, and in grey levels of 255 where it is farthest."""

    name: str
    sampler: str
    psnr: float
    largest: int
    differing: float

    def cells(self) -> list[str]:
        """The row as the table shows it."""
        psnr = "equal" if self.largest == 0 else f"{self.psnr:.1f}"
        return [self.name, f"`{self.sampler}`", psnr, str(self.largest), f"{self.differing:.2%}"]


@dataclass(frozen=True)
class Sides:
    """The same folders, loaded by both."""

    render: Callable[[PlainRequest], np.ndarray]
    expect: Callable[[PlainRequest], np.ndarray]

    @classmethod
    def of(cls, base: Path, refiner: Path | None = None) -> "Sides":
        """Both sides of a base model, or of one with a refiner after it."""
        folders = [folder for folder in (base, refiner) if folder]
        models = [Model.load(folder, devices=jax.local_devices()[:1]) for folder in folders]
        pipelines = [theirs.load(folder) for folder in folders]
        program_for = ours.programs(*models)
        return cls(
            render=lambda request: ours.image(program_for(request), request),
            expect=partial(theirs.refined if refiner else theirs.image, *pipelines),
        )

    def row(self, name: str, request: PlainRequest) -> ImageRow:
        """Render the request on both sides, and compare."""
        got, expected = self.render(request), self.expect(request)
        apart = np.abs(got.astype(int) - expected)
        return ImageRow(name, request.sampler, cases.psnr(got, expected), int(apart.max()), float((apart > 0).mean()))
