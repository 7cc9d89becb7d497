"""The syntax of alternatives in a prompt: text -> tree.

    {a|b}               one of them; alternatives nest and may be empty
    {3::a|1::b}         a three times as often as b
    {2$$a|b|c}          two different ones, with ", " between them; {1-2$$ and $$a|b|c}: one or two, " and " between
    __name__            a line of the wildcard file name.txt; {2$$__name__}: two different lines
    \\{ \\} \\| \\$ \\_ \\# \\::  those characters themselves; any other backslash is a backslash

dynamicprompts' language, but for what docs/decisions.md tells: what looks like syntax and is wrong is never text.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from promptmill.producer.prompts.templates import SEPARATOR, Choice, Node, Parts, Text

MAX_DEPTH = 50  # of braces and wildcards within one another

_ESCAPED = r"\\(::|[{}|$_#])"
_TOKEN = re.compile(_ESCAPED + r"|__(?=[^\s_])([^{}|\\\n]{1,100}?)(?<=\S)__|([{}|])|([^\\_{}|]+|.)", re.DOTALL)
_WEIGHT = re.compile(r"\s*([+-]?[0-9.][0-9.eE+-]*)\s*::")
_A_WEIGHT = re.compile(r"[0-9]{1,6}(\.[0-9]{0,6})?|\.[0-9]{1,6}")
_PICK = re.compile(r"\s*([-0-9\s]*)\$\$")
_A_PICK = re.compile(r"([0-9]{1,6})|(?=.*[0-9])([0-9]{1,6})?\s*-\s*([0-9]{1,6})?")
_SEPARATOR = re.compile(r"((?:[^{}|$\\]|\\[{}|$_#]|\\(?![{}|$_#])|\$(?!\$))*)\$\$")
_TO_ESCAPE = re.compile(r"^#|[{}|$]|::|_(?=_)|(?<=[_\\])_|(?<=\\)#")

ReadWildcard = Callable[[str, int], Choice]
"""A wildcard's lines, by its name and how deep it stands. Raises TemplateError."""


class TemplateError(ValueError):
    """The text does not follow the syntax; says what is wrong, at which character."""


def has_syntax(text: str) -> bool:
    """Whether there may be something to expand; of the other texts parse() would make themselves."""
    return "{" in text or "}" in text or "\\" in text or "__" in text


def parse(text: str, wildcard: ReadWildcard, depth: int = 0) -> Node:
    """The template that a text is. Raises TemplateError."""
    parser = _Parser(text, wildcard)
    return parser.to_end(depth)


def parse_line(line: str, wildcard: ReadWildcard, depth: int = 0) -> tuple[float, Node]:
    """A line of a wildcard file: an alternative, with its weight. Raises TemplateError."""
    parser = _Parser(line, wildcard)
    return parser.weight(), parser.to_end(depth)


def escape(text: str) -> str:
    """The template that means just this text."""
    return _TO_ESCAPE.sub(lambda found: f"\\{found[0]}", text)


class _Parser:
    def __init__(self, text: str, wildcard: ReadWildcard) -> None:
        self._text = text
        self._wildcard = wildcard
        self._at = 0

    def to_end(self, depth: int) -> Node:
        node = self._parts(depth, within=False)
        if self._at < len(self._text):
            raise TemplateError(f"has '}}' at character {self._at + 1} with no '{{' before it{_AS_SUCH}")
        return node

    def weight(self) -> float:
        start = self._at
        found = self._take(_WEIGHT)
        if found is None:
            return 1.0
        if not _A_WEIGHT.fullmatch(found[1]) or not float(found[1]):
            what = "expected a number above 0, such as 3 or 0.5; '\\::' for the text"
            raise TemplateError(f"has the weight '{found[1][:20]}::' at character {start + 1}: {what}")
        return float(found[1])

    def _parts(self, depth: int, within: bool) -> Node:
        """Up to the end, or to what ends an alternative."""
        parts: list[Node] = []
        plain = ""
        while self._at < len(self._text):
            found = _TOKEN.match(self._text, self._at)
            assert found  # its last alternative takes anything
            escaped, name, mark, other = found.groups()
            if mark == "}" or (mark == "|" and within):
                break
            start, self._at = self._at, found.end()
            if mark != "{" and not name:
                plain += escaped or mark or other
                continue
            parts += [Text(plain)] * bool(plain)
            plain = ""
            parts.append(self._lines(name, start, depth + 1) if name else self._choice(start, depth + 1))
        parts += [Text(plain)] * (bool(plain) or not parts)
        return parts[0] if len(parts) == 1 else Parts(tuple(parts))

    def _lines(self, name: str, start: int, depth: int) -> Choice:
        self._check_depth(start, depth)
        try:
            return self._wildcard(name, depth)
        except TemplateError as error:
            raise TemplateError(f"has __{name}__ at character {start + 1}: {error}") from error

    def _check_depth(self, start: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            problem = f"has more than {MAX_DEPTH} alternatives within one another"
            raise TemplateError(f"{problem} at character {start + 1}")

    def _choice(self, start: int, depth: int) -> Choice:
        self._check_depth(start, depth)
        pick = self._take(_PICK)
        between = self._take(_SEPARATOR) if pick else None
        separator = SEPARATOR if between is None else re.sub(_ESCAPED, r"\1", between[1])
        weights, options = zip(*self._options(start, depth), strict=True)
        if pick is None:
            self._check_single(options, start)
            return Choice(options, weights)
        choice = Choice(options, weights)
        if len(options) == 1 and isinstance(options[0], Choice) and options[0].file is not None:
            choice = options[0]
        low, high = self._range(pick[1].strip(), len(choice.options), start)
        return replace(choice, low=low, high=high, separator=separator)

    def _options(self, start: int, depth: int) -> list[tuple[float, Node]]:
        options = []
        while True:
            options.append((self.weight(), self._parts(depth, within=True)))
            if self._at >= len(self._text):
                raise TemplateError(f"has '{{' at character {start + 1} that is never closed{_AS_SUCH}")
            self._at += 1
            if self._text[self._at - 1] == "}":
                return options

    def _check_single(self, options: tuple[Node, ...], start: int) -> None:
        if len(options) > 1:
            return
        what = "nothing" if options[0] == Text("") else "a single alternative"
        raise TemplateError(f"has {what} between the braces at character {start + 1}{_AS_SUCH}")

    def _range(self, said: str, count: int, start: int) -> tuple[int, int]:
        """`2`, `1-2`, `2-` (two or more) or `-2` (one or two)."""
        found = _A_PICK.fullmatch(said)
        if not found:
            raise TemplateError(f"picks '{said[:20]}$$' at character {start + 1}: expected 2$$, 1-2$$, 2-$$ or -2$$")
        exactly, low, high = (int(number) if number else None for number in found.groups())
        if exactly is None:
            low, high = 1 if low is None else low, count if high is None else high
        else:
            low = high = exactly
        if not low <= high <= count or high == 0:
            raise TemplateError(f"picks {said} of {count} alternatives at character {start + 1}")
        return low, high

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return found


_AS_SUCH = " (for the brace itself write a backslash before it, or give --plain-prompts)"
