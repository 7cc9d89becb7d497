"""What of a run's prompts will surprise, said at submission: each kind counted, with its first example.

A new kind is one row in DOUBTS, or, if it needs more than the text, a method of Doubts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from promptmill.producer.job import Job
from promptmill.producer.prompts.invisible import first_unseen
from promptmill.producer.prompts.tokens import CountTokens, counter, estimate, tokenizer_folder
from promptmill.producer.words import have

MOST_UNUSED = 50  # names that are told
WINDOW = 75  # tokens of a text in each window, the two marks aside

K = TypeVar("K")

Detail = Callable[[str], str | None]
"""What is doubtful in a prompt, for the message, or None."""


@dataclass(frozen=True)
class Doubt:
    """A kind of doubtful prompt. `has` follows "3 jobs have ", `so` is what comes of it."""

    find: Detail
    has: str
    so: str


def _shown(pattern: str) -> Detail:
    """The first text that matches, as it is written."""
    compiled = re.compile(pattern)

    def find(prompt: str) -> str | None:
        found = compiled.search(prompt)
        return found and repr(found[0].strip()[:60])

    return find


DOUBTS = (
    Doubt(
        first_unseen,
        "invisible characters in the prompt",
        "the model sees them, so that it is another prompt than it looks; take them out",
    ),
    Doubt(
        _shown(r"(?:^|\s)--(?:prompt|negative_prompt|steps|cfg_scale|sampler_name|sampler_index|batch_size|n_iter)\b"),
        "options of A1111's web UI in the prompt",
        "they are read as words of the prompt (--dialect a1111 reads them as options)",
    ),
    Doubt(
        _shown(r"(?<=\S)\s--[nwhdslgt]\s+[^\s-]\S*"),
        "options of kohya's scripts in the prompt",
        "they are read as words of the prompt (--dialect kohya reads them as options)",
    ),
    Doubt(
        _shown(r"(?<=\S)\s--(?:ar|aspect|v|stylize|style|chaos|niji|no|q|quality|iw|tile|weird|raw)\b"),
        "options of Midjourney in the prompt",
        "they are read as words of the prompt; fields of a job are columns or flags here (--width, --seed)",
    ),
    Doubt(
        _shown(r"<(?:lora|lyco|lycoris|hypernet):[^<>]*>"),
        "a LoRA in the prompt",
        "it is read as words of the prompt; promptmill import-model makes a model of a checkpoint with its LoRAs",
    ),
)


ALTERNATIVES = Doubt(
    _shown(r"\{[^{}|]*\|[^{}]*\}|__(?=[^\s_])[^{}|\\\n]{1,100}?(?<=\S)__"),
    "what looks like alternatives in the prompt",
    "they are read as text (--expand draws one, --combinatorial takes all; --plain-prompts says that text is meant)",
)


@dataclass
class _Seen:
    count: int
    where: str
    detail: str


class Doubts:
    """The doubtful prompts of one run; `where` is the row under way, `file:line`.

    `alternatives`: nobody said what braces are, so those that look like alternatives are doubtful.
    """

    def __init__(self, *, alternatives: bool = False) -> None:
        self._doubts = (*DOUBTS, ALTERNATIVES) if alternatives else DOUBTS
        self.where = ""
        self.cut = 0  # jobs whose prompt is longer than its windows, as far as that is known here
        self._seen: dict[Doubt, _Seen] = {}
        self._cuts: dict[tuple[str, bool], _Seen] = {}
        self._unused: dict[str, None] = {}
        self._counters: dict[str, CountTokens | None] = {}

    def see(self, prompt: str, windows: int, model: str) -> None:
        """Takes note of a job's prompt. Asked for every job, so it does little where all is well."""
        plain = prompt.isascii()
        if not plain or "--" in prompt or "<" in prompt or "|" in prompt or "__" in prompt:
            self._find(prompt)
        if not plain or len(prompt) > WINDOW * windows:  # no character of ASCII is more than a token
            self.cut += self._see_length("prompt", prompt, windows, model)

    def see_others(self, job: Job) -> None:
        """Takes note of a job's other texts; those that jobs share are seen once."""
        for name in ("prompt_2", "negative_prompt", "negative_prompt_2"):
            text = getattr(job, name)
            if text:
                self._find(text)
                self._see_length(name, text, job.prompt_windows or 1, job.model)

    def see_unused(self, names: Sequence[str]) -> None:
        """Takes note of another program's settings that mean nothing here."""
        if len(self._unused) < MOST_UNUSED:
            self._unused.update(dict.fromkeys(names))

    def sentences(self) -> list[str]:
        """A sentence for each kind of doubt, each once."""
        unused = [f"has no meaning here and is left out: {', '.join(self._unused)}"] if self._unused else []
        return [
            *unused,
            *map(_doubtful, self._seen, self._seen.values()),
            *map(_too_long, self._cuts, self._cuts.values()),
        ]

    def _find(self, text: str) -> None:
        for doubt in self._doubts:
            detail = doubt.find(text)
            if detail:
                _note(self._seen, doubt, self.where, detail)

    def _see_length(self, name: str, text: str, windows: int, model: str) -> bool:
        count = self._counter(model)
        tokens = (count or estimate)(text)
        if tokens <= WINDOW * windows:
            return False
        _note(self._cuts, (name, count is not None), self.where, f"{tokens} tokens")
        return True

    def _counter(self, model: str) -> CountTokens | None:
        if model not in self._counters:
            folder = tokenizer_folder(model)
            try:
                self._counters[model] = counter(folder) if folder else None
            except (OSError, ValueError):  # the worker will say it
                self._counters[model] = None
        return self._counters[model]


def _note(seen: dict[K, _Seen], kind: K, where: str, detail: str) -> None:
    found = seen.setdefault(kind, _Seen(0, where, detail))
    found.count += 1


def _doubtful(doubt: Doubt, seen: _Seen) -> str:
    return f"{have(seen.count, 'job', commas=True)} {doubt.has}, first at {seen.where}: {seen.detail}; {doubt.so}"


def _too_long(kind: tuple[str, bool], seen: _Seen) -> str:
    name, counted = kind
    how = "by the model's tokenizer" if counted else "estimated, as the model's tokenizer is not on this machine"
    sure = "" if counted else " that may be"
    return (
        f"{have(seen.count, 'job', commas=True)} a {name}{sure} longer than {WINDOW} tokens per window, "
        f"first at {seen.where}: {seen.detail} ({how}); "
        f"the end is cut off, and kept in the image's record (--prompt-windows N)"
    )
