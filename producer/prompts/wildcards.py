"""Wildcard files: a folder of NAME.txt, one alternative a line; NAME may have folders in it.

Blank lines and lines that begin with `#` are passed over. A line may have alternatives and wildcards of its own, and a
weight (`3::red`). Files are read when a prompt first names them, and then all of their lines are checked.
"""

import difflib
from functools import cached_property
from pathlib import Path

from promptmill.producer.errors import ExpansionError
from promptmill.producer.prompts.invisible import bare
from promptmill.producer.prompts.syntax import MAX_DEPTH, TemplateError, has_syntax, parse_line
from promptmill.producer.prompts.templates import Choice, Node, Text


class Wildcards:
    """The wildcard files under a folder, by name. Raises ExpansionError where there is no such folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[str, Choice] = {}
        self._open: list[str] = []
        if folder is not None and not folder.is_dir():
            raise ExpansionError(f"wildcards: {folder} is not a folder")

    def __call__(self, name: str, depth: int) -> Choice:
        """A wildcard's lines; `depth` is how many alternatives it stands within. Raises TemplateError."""
        if name in self._open:
            circle = [*self._open[self._open.index(name) :], name]
            raise TemplateError(f"it never ends: {' -> '.join(circle)}")
        if name not in self._known:
            self._open.append(name)
            try:
                self._known[name] = self._read(name, depth)
            finally:
                self._open.pop()
        if depth + self._known[name].depth - 1 > MAX_DEPTH:
            raise TemplateError(f"more than {MAX_DEPTH} alternatives within one another")
        return self._known[name]

    def _read(self, name: str, depth: int) -> Choice:
        path = self._path(name)
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise TemplateError(f"{path} is not UTF-8 at byte {error.start + 1}") from error
        except OSError as error:
            raise TemplateError(f"{path} cannot be read: {error.strerror}") from error
        numbered = ((number, bare(line)) for number, line in enumerate(lines, start=1))
        read = [self._line(path, number, line, depth) for number, line in numbered if line and not line.startswith("#")]
        if not read:
            raise TemplateError(f"{path} has no lines")
        weights, options = zip(*read, strict=True)
        return Choice(options, weights, file=name)

    def _line(self, path: Path, number: int, line: str, depth: int) -> tuple[float, Node]:
        if not has_syntax(line) and "::" not in line:
            return 1.0, Text(line)
        try:
            return parse_line(line, self, depth)
        except TemplateError as error:
            raise TemplateError(f"{path}:{number} {error}") from error

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise TemplateError(
                "no folder of wildcards was given (--wildcards FOLDER, or --plain-prompts for the text)"
            )
        if name not in self._paths:
            near = difflib.get_close_matches(name, self._paths, n=3)
            hint = f"; did you mean {' or '.join(f'__{other}__' for other in near)}?" if near else ""
            raise TemplateError(f"there is no {name}.txt in {self._folder}{hint}")
        return self._paths[name]

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """All that lies in the folder: a name cannot lead out of it."""
        folder = self._folder
        assert folder is not None
        return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.txt"))}
