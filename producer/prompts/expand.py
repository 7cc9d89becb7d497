"""One row -> its jobs: alternatives and wildcards of its texts, a matrix, images per prompt, seeds."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from promptmill.producer.errors import ExpansionError, JobError
from promptmill.producer.fields import FIELD_NAMES, MAX_SEED, ROWS
from promptmill.producer.prompts.seeds import derived_seed
from promptmill.producer.prompts.syntax import TemplateError, has_syntax, parse
from promptmill.producer.prompts.templates import MANY, Draws, Node, draw, every
from promptmill.producer.prompts.wildcards import Wildcards

MAX_JOBS_A_ROW = 1_000_000
MAX_COST = 100_000  # characters and choices of one text: ten times what a prompt may have

TEXTS = tuple(name for name, row in ROWS.items() if row.expands)
ORDERS = ("random", "sequential", "shuffled")

Templates = Mapping[str, tuple[str, Node]]
"""A row's templates by field, as they are written and as trees."""


@dataclass(frozen=True)
class Expansion:
    """How rows are expanded. All of it follows from `run_seed` and the indexes of the run: again gives the same.

    `plain`: alternatives are text; `unasked`: only because nobody said what they are, so they are doubtful.
    `matrix` has several values of a field, by the field's own name; a row that has the field itself keeps its value.
    """

    plain: bool = False
    unasked: bool = False
    combinatorial: bool = False
    wildcards: Path | None = None
    wildcard_order: str = "random"
    matrix: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    images_per_prompt: int = 1
    run_seed: int = 0


class Expander:
    """Expands the rows of one run, in order. Raises ExpansionError for settings that cannot be.

    Its state: how far wildcards in order have come.
    """

    def __init__(self, expansion: Expansion) -> None:
        _check(expansion)
        self._settings = expansion
        # In the order of a job's fields, whatever the order of flags: the indexes of the run follow from it.
        self._matrix = {name: expansion.matrix[name] for name in FIELD_NAMES if name in expansion.matrix}
        self._wildcards = Wildcards(None if expansion.plain else expansion.wildcards)
        self._pending: dict[str, list[int]] = {}
        self._turns: dict[str, int] = {}
        self._single = not expansion.matrix
        self._template = lru_cache(256)(self._parse)  # a negative prompt is often the same in all rows

    def trivial(self, fields: Mapping[str, Any]) -> bool:
        """Whether the fields are one job for each image as they stand, but for a seed. Asked for every row."""
        if not self._single or self._settings.plain:
            return self._single
        for name in TEXTS:  # noqa: SIM110 - any() takes twice the time
            if name in fields and _is_template(fields[name]):
                return False
        return True

    def __call__(self, fields: Mapping[str, Any], index: int, images: int | None = None) -> Iterator[dict[str, Any]]:
        """The fields of a row's jobs, complete with seeds; `index` is the first one's in the run. Raises JobError.

        The cells of the matrix share texts and seed, so that they compare; each image has its own.
        """
        images = images or self._settings.images_per_prompt
        if images == 1 and self.trivial(fields):
            yield {**fields, "seed": self._seed(fields, 0, index, 1)}
            return
        templates = self._templates(fields)
        matrix = {name: values for name, values in self._matrix.items() if fields.get(name) is None}
        self._check_count(templates, matrix, images)
        for at, (image, texts) in enumerate(self._images(templates, index, images)):
            for cell in product(*matrix.values()):
                one = {**fields, **texts, **dict(zip(matrix, cell, strict=True))}
                yield {**one, "seed": self._seed(one, image, index + at, images)}

    def _templates(self, fields: Mapping[str, Any]) -> Templates:
        if self._settings.plain:
            return {}
        named = {name: str(fields[name]) for name in TEXTS if _is_template(fields.get(name))}
        return {name: (text, self._template_of(name, text)) for name, text in named.items()}

    def _template_of(self, name: str, text: Any) -> Node:
        try:
            template = self._template(text)
        except TemplateError as error:
            raise JobError(name, str(error)) from error
        if template.cost > MAX_COST:
            raise JobError(name, f"may become {template.cost:,} characters and choices, more than {MAX_COST:,}")
        return template

    def _parse(self, text: str) -> Node:
        return parse(text, self._wildcards)

    def _images(self, templates: Templates, index: int, count: int) -> Iterator[tuple[int, dict[str, str]]]:
        """Each image's number among those of its prompt, and its texts."""
        images = range(count)
        if self._settings.combinatorial:
            for texts in _every(templates):
                yield from ((image, texts) for image in images)
            return
        for image in images:
            draws = self._draws(index + image)
            yield image, {name: draw(text, node, draws) for name, (text, node) in templates.items()}

    def _draws(self, index: int) -> Draws:
        # Of Random, only random() is promised to give the same numbers in every version of Python.
        random = Random(self._settings.run_seed << 64 | index)
        return Draws(random, None if self._settings.wildcard_order == "random" else self._next_lines)

    def _next_lines(self, file: str, lines: int, size: int) -> list[int]:
        """The next lines of a wildcard, all different; none comes again before all were there."""
        pending = self._pending.setdefault(file, [])
        while len(pending) < size:
            left = set(pending)
            turn = self._turn(file, lines)
            pending += sorted(turn, key=left.__contains__)  # those still to come are not to come twice in this pick
        taken, pending[:size] = pending[:size], []
        return taken

    def _turn(self, file: str, lines: int) -> list[int]:
        """All lines of a wildcard once, in the order of its next turn."""
        order = list(range(lines))
        if self._settings.wildcard_order == "shuffled":
            number = self._turns[file] = self._turns.get(file, 0) + 1
            random = Random(f"{self._settings.run_seed} {number} {file}")
            for last in range(lines - 1, 0, -1):  # Fisher and Yates
                at = int(random.random() * (last + 1))
                order[last], order[at] = order[at], order[last]
        return order

    def _check_count(self, templates: Templates, matrix: Mapping[str, tuple[Any, ...]], images: int) -> None:
        counts = [len(values) for values in matrix.values()]
        if self._settings.combinatorial:
            counts += [node.count for _, node in templates.values()]
        count = math.prod(counts) * images
        if count > MAX_JOBS_A_ROW:
            said = f"{count:,}" if count < MANY else f"at least {MANY:,}"
            raise JobError("prompt", f"makes {said} jobs; expected at most {MAX_JOBS_A_ROW:,} per row")

    def _seed(self, fields: Mapping[str, Any], image: int, index: int, images: int) -> Any:
        seed = fields.get("seed")
        if seed is None:
            return derived_seed(self._settings.run_seed, index)
        if not image:
            return seed  # what is no number is refused by the job
        if isinstance(seed, bool) or not isinstance(seed, int | float) or seed % 1:
            raise JobError("seed", "must be a whole number")
        if seed + image > MAX_SEED:
            raise JobError("seed", f"must leave room for {images} images: {MAX_SEED} is last")
        return int(seed) + image


def _every(templates: Templates) -> Iterator[dict[str, str]]:
    """Every combination of the texts of each; the last turns fastest."""
    if not templates:
        yield {}
        return
    (name, (template, node)), *rest = templates.items()
    for text in every(template, node):
        for texts in _every(dict(rest)):
            yield {name: text, **texts}


def _is_template(text: Any) -> bool:
    return isinstance(text, str) and has_syntax(text)


def _check(expansion: Expansion) -> None:
    if expansion.wildcard_order not in ORDERS:
        raise ExpansionError(f"wildcard order {expansion.wildcard_order!r}: expected {' or '.join(ORDERS)}")
    if expansion.run_seed < 0:
        raise ExpansionError(f"run seed must be 0 or more, got {expansion.run_seed}")
    if expansion.images_per_prompt < 1:
        raise ExpansionError(f"images per prompt must be 1 or more, got {expansion.images_per_prompt}")
    for name, values in expansion.matrix.items():
        _check_values(name, values)
    count = expansion.images_per_prompt * math.prod(len(values) for values in expansion.matrix.values())
    if count > MAX_JOBS_A_ROW:
        raise ExpansionError(
            f"matrix and images per prompt make {count:,} jobs per row, expected at most {MAX_JOBS_A_ROW:,}"
        )


def _check_values(name: str, values: tuple[Any, ...]) -> None:
    if name not in FIELD_NAMES or name in TEXTS:
        raise ExpansionError(f"{name}: is not a field that takes several values")
    if not values:
        raise ExpansionError(f"{name}: has no values")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ExpansionError(f"{name}: has {twice!r} twice")
