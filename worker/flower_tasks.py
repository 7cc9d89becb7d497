"""Flower's memory of tasks and its search, for as many as a farm has; `flower_config` puts them into Flower.

Flower's own search makes sets of all tasks and a key in Python for each, at every page. Its index holds more than
the tasks themselves, and what Celery remembers of a task is mostly what no page of Flower shows.
"""

import ast
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, SupportsIndex
from weakref import WeakSet

from celery.events.state import CallableDefaultdict, Task
from flower.events import EventsState
from flower.utils.search import And, Or, SearchPage, Term, parse_query
from kombu.utils.encoding import safe_str

FIELDS = ("uuid", "name", "state", "worker", "args", "kwargs", "result")
"""What a search looks at, in the order of a task's text."""
NUMBERS = {"received", "started", "runtime", "timestamp"}
"""Columns that sort as numbers; the others sort as text."""
KEPT = {name: name for name in Task._fields if name not in ("children", "parent", "root")}
"""An event's fields that Flower shows. Each event's keys are strings of its own: these replace them."""


class JobTask(Task):
    """A task without its events' other fields, and without a set of children where it has none."""

    def event(self, type_: str, timestamp: Any = None, local_received: Any = None, fields: Any = None) -> None:
        kept = {KEPT[name]: value for name, value in (fields or {}).items() if name in KEPT}
        super().event(type_, timestamp, local_received, kept)

    @property
    def _serializer_handlers(self) -> dict[str, Any]:
        return {name: getattr(self, f"_serializable_{name}") for name in ("children", "root", "parent")}

    @_serializer_handlers.setter
    def _serializer_handlers(self, handlers: dict[str, Any]) -> None:
        """Four objects for each task, and a cycle that only the garbage collector takes apart."""

    @property
    def children(self) -> WeakSet[Any]:
        found: WeakSet[Any] = self.__dict__.setdefault("children", WeakSet())
        return found

    @children.setter
    def children(self, tasks: WeakSet[Any]) -> None:
        if tasks:
            self.__dict__["children"] = tasks


class Forgets(list[Any]):
    """Stays empty, whatever is put in."""

    def add(self, item: Any) -> None: ...

    def insert(self, index: SupportsIndex, item: Any) -> None: ...


class JobSearch:
    """What Flower asks its search for, with the same answers: `flower.utils.search.TaskSearchEngine`."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        """A task's fields in lower case, with a NUL between two."""
        self._pairs: dict[str, str] = {}
        """A task's kwargs as `key=value` in lower case, each between two NULs."""

    def rebuild(self, tasks: Iterable[tuple[str, Any]]) -> None:
        self._texts, self._pairs = {}, {}
        for _, task in tasks:
            self.upsert(task)

    def upsert(self, task: Any) -> None:
        if not task.uuid:
            return
        old, new = self._texts.get(task.uuid), _text_of(task)
        self._texts[task.uuid] = new
        if old is None or _field(old, "kwargs") != _field(new, "kwargs"):
            self._pairs[task.uuid] = _pairs_of(task.kwargs)

    def remove(self, task_id: str) -> None:
        if self._texts.pop(task_id, None) is not None:
            del self._pairs[task_id]

    def search(
        self,
        tasks: Any,
        query: str = "",
        *,
        task_type: str | None = None,
        worker: str | None = None,
        state: str | None = None,
        received_start: float | None = None,
        received_end: float | None = None,
        sort_by: str | None = None,
        descending: bool = False,
        offset: int = 0,
        limit: int | None = None,
    ) -> SearchPage:
        known = getattr(tasks, "data", tasks)
        ids = [task_id for task_id in self._texts if task_id in known]
        for field, value in (("name", task_type), ("worker", worker), ("state", state)):
            ids = self._equal(field, value.casefold(), ids) if value else ids
        ids = _received(known, ids, received_start, received_end)
        ids = self._matching(parse_query(query), ids)
        first = min(max(offset, 0), len(ids))
        last = len(ids) if limit is None else min(first + max(limit, 0), len(ids))
        if descending or not sort_by:
            page = _page(known, ids, sort_by or "timestamp", len(ids) - last, len(ids) - first)[::-1]
        else:
            page = _page(known, ids, sort_by, first, last)
        return SearchPage(page, len(ids), len(known))

    def _matching(self, expression: Any, ids: list[str]) -> list[str]:
        if isinstance(expression, Term):
            return self._found(expression, ids)
        if isinstance(expression, And):
            for child in expression.children:
                ids = self._matching(child, ids)
        elif isinstance(expression, Or):
            found = set().union(*(self._matching(child, ids) for child in expression.children))
            return [task_id for task_id in ids if task_id in found]
        return ids

    def _found(self, term: Term, ids: list[str]) -> list[str]:
        value = safe_str(term.value).casefold()
        if term.field == "state":
            return self._equal("state", value, ids)
        if term.field == "kwargs" and "=" in value:
            key, _, item = value.partition("=")
            pair, pairs = f"\0{key.strip()}={item.strip()}\0", self._pairs
            return [task_id for task_id in ids if pair in pairs[task_id]]
        texts = self._texts
        ids = [task_id for task_id in ids if value in texts[task_id]]
        return [task_id for task_id in ids if value in _field(texts[task_id], term.field)] if term.field else ids

    def _equal(self, field: str, value: str, ids: list[str]) -> list[str]:
        texts, between = self._texts, f"\0{value}\0"
        return [i for i in ids if between in texts[i] and _field(texts[i], field) == value]


def _text_of(task: Any) -> str:
    return "\0".join(_text(getattr(task, name, "")) for name in FIELDS)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.casefold()
    return "" if value is None else safe_str(getattr(value, "hostname", value)).casefold()


def _field(text: str, name: str) -> str:
    return text.split("\0")[FIELDS.index(name)]


def _pairs_of(kwargs: Any) -> str:
    kwargs = literal(kwargs)
    if not isinstance(kwargs, Mapping):
        return ""
    pairs = (f"{_text(key)}={_text(value)}" for key, value in kwargs.items())
    return "\0" + "\0".join(pairs) + "\0"


def literal(text: Any) -> Any:
    """The value whose `repr` this is; what is none stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text


def _received(tasks: Mapping[str, Any], ids: list[str], start: float | None, end: float | None) -> list[str]:
    if start is None and end is None:
        return ids
    times = {task_id: tasks[task_id].received for task_id in ids}
    return [i for i in ids if times[i] is None or (start or 0) <= times[i] <= (end or float("inf"))]


def _page(tasks: Mapping[str, Any], ids: list[str], column: str, first: int, last: int) -> list[str]:
    """A part of the tasks in the order of a column: first those without a value, and equal values by their ids.

    All are sorted by value alone, which is fast; by id are only those on the page and what equals its ends.
    """
    if first >= last:
        return []
    keys = _keys(tasks, ids, column)
    rows = [n for n, key in enumerate(keys) if key is None]
    rows += sorted((n for n, key in enumerate(keys) if key is not None), key=keys.__getitem__)
    low, high = first, last
    while low > 0 and keys[rows[low - 1]] == keys[rows[first]]:
        low -= 1
    while high < len(rows) and keys[rows[high]] == keys[rows[last - 1]]:
        high += 1
    groups = groupby(rows[low:high], key=keys.__getitem__)
    return [i for _, equals in groups for i in sorted(ids[n] for n in equals)][first - low : last - low]


def _keys(tasks: Mapping[str, Any], ids: list[str], column: str) -> list[Any]:
    values = [getattr(tasks[i], column, None) for i in ids]
    key_of = _number if column in NUMBERS else _text
    return [None if value is None else key_of(value) for value in values]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


class JobsState(EventsState):
    """Without Celery's own indexes, which no page of Flower reads: by time (four entries a task), name and worker."""

    Task = JobTask

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._taskheap = Forgets()
        self.tasks_by_type = CallableDefaultdict(self._tasks_by_type, Forgets)
        self.tasks_by_worker = CallableDefaultdict(self._tasks_by_worker, Forgets)
        self.search_engine = JobSearch()
        self.search_engine.rebuild(self.tasks.items())
