"""The errors a user can meet, one tree.

PromptmillError
├── JobError             a field of a job is wrong; names the field
├── PromptFileError      a row of a prompt file is wrong; names file, line and field
│   └── PromptFileErrors several of them
├── ModelNameError       no such model folder, or not the name of a model
├── ExpansionError       no such folder of wildcards, or an expansion that cannot be
├── PlanError            the run's plan cannot be written, or another one lies there already
├── PresetError          no such preset
├── LedgerError          the run's name is unknown to Redis, or taken by a different plan
├── BrokerError          Redis cannot be reached, started, or used
├── OutputError          a folder or bucket cannot be read or written (producer/outputs/output.py)
├── ModelError           a model cannot be loaded, or not render a request (worker/errors.py)
├── CheckError           a check of images cannot be loaded, or did not answer (worker/checks.py)
├── BrokenImageError     the model gave no image (promptmill/pipeline.py)
├── CheckpointError      a file cannot be imported (promptmill/importing/errors.py)
└── and those of dataset/, for runs that cannot be packed
"""

from collections.abc import Mapping, Sequence
from typing import Any

from promptmill.producer.words import printable

MOST_RANGES = 10  # of lines with the same fault, in one message


class PromptmillError(Exception):
    """Anything that the user can mend; its text is a sentence for them."""


class JobError(PromptmillError):
    """A field of a job is wrong. `field` is its name as the user wrote it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class PromptFileError(PromptmillError):
    """A row of a prompt file is wrong: `path:line: field: problem`. `line` counts from 1.

    `text` is the row's, and `row` its fields and labels, as far as they could be read.
    """

    def __init__(
        self,
        path: str,
        line: int,
        field: str | None,
        problem: str,
        text: str | None = None,
        row: Mapping[str, Any] | None = None,
    ) -> None:
        where = f"{path}:{line}" if line else path
        super().__init__(printable(f"{where}: {field}: {problem}" if field else f"{where}: {problem}"))
        self.others = 0
        """Other rows of the file that are wrong in the same way."""
        self._other_lines: list[list[int]] = []  # first and last of a range
        self.path = path
        self.line = line
        self.field = field
        self.problem = problem
        self.text = text
        self.row = row

    def also(self, line: int) -> None:
        """Another row is wrong in the same way."""
        self.others += 1
        if self._other_lines and self._other_lines[-1][1] == line - 1:
            self._other_lines[-1][1] = line
        elif len(self._other_lines) <= MOST_RANGES:
            self._other_lines.append([line, line])

    def __str__(self) -> str:
        said = super().__str__()
        if not self.others:
            return said
        ranges = [str(low) if low == high else f"{low}-{high}" for low, high in self._other_lines]
        shown = ", ".join(ranges[:MOST_RANGES]) + ", ..." * (len(ranges) > MOST_RANGES)
        return f"{said} (also line{'s' * (self.others > 1)} {shown})"


class PromptFileErrors(PromptFileError):
    """Several wrong rows; the first ones are listed, the rest counted."""

    def __init__(self, errors: Sequence[PromptFileError], count: int) -> None:
        first = errors[0]
        super().__init__(first.path, first.line, first.field, first.problem)
        lines = [str(error) for error in errors]
        if left := count - sum(1 + error.others for error in errors):
            lines.append(f"... and {left} more")
        self.args = ("\n".join(lines),)
        self.errors = list(errors)
        self.count = count


class ModelNameError(PromptmillError):
    """No such model folder, or not the name of a model."""


class ExpansionError(PromptmillError):
    """No such folder of wildcards, or an expansion that cannot be."""


class PlanError(PromptmillError):
    """The run's plan cannot be written, or another plan lies there already."""


class LedgerError(PromptmillError):
    """The run's name is unknown to Redis, or taken by a different plan."""


class BrokerError(PromptmillError):
    """Redis cannot be reached, started, or used."""
