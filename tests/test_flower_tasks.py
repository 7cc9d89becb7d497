"""`promptmill flower` answers what Flower answers, row for row: both hear the same 5,000 tasks.

Real events of three workers, in all states, and more tasks than either may keep.
"""

import os
import random
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.flower import OWN, get
from promptmill.embedded import embedded_server
from promptmill.worker.app import make_app
from promptmill.worker.events import TASK_NAME
from promptmill.worker.settings import WorkerSettings
from tests.fake_gcs import free_port, wait_for_http
from tests.farm import running, wait_until

pytestmark = pytest.mark.slow

TASKS, KEPT, ROWS = 5_000, 4_500, 20
COLUMNS = ["name", "uuid", "state", "args", "kwargs", "result", "received", "started", "runtime", "worker", "retries"]
COLUMNS += ["exchange", "routing_key", "revoked", "exception", "expires", "eta", "timestamp", "nonsense"]
STARTS = [0, ROWS, KEPT // 2, KEPT - 5, 2 * KEPT]
FOUND = ["kwargs:run=cats", "kwargs:seed=3", "KWARGS:Run=Cats", "kwargs:'of'", "state:success", "kwargs:of="]
FOUND += ["state:FAILURE worker:worker@1", '"number 77"', "cat OR ÄPFEL", "result:.png name:promptmill.render"]
FOUND += ["(state:REVOKED OR state:RETRY) kwargs:run=dogs", "args:äpfel", "RENDER", "worker:ker@2"]
NOTHING = ["kwargs:run=ca", "state:SUC", "name:other", "ca", "NOT cat", '"open', "worker:worker@4"]
ASKED = ["limit=30", "limit=30&offset=100&sort_by=-received", "limit=30&state=SUCCESS&sort_by=started"]
ASKED += ["limit=30&workername=worker@2&sort_by=name", "limit=30&taskname=promptmill.pack_shard"]
ASKED += ["limit=30&received_start=2020-01-01 00:00", "limit=30&received_end=2020-01-01 00:00"]
ASKED += ["limit=30&search=kwargs:run=dogs&state=FAILURE", "sort_by=state"]

OURS = ["promptmill", "flower"]
PROMPTS = ["red apple", "CAT", "cat", "bowl of Äpfel", "'quoted' {word}", "STRASSE"]
LIVES = [[], ["started"], *[["started", "succeeded"]] * 4, ["started", "failed"], ["revoked"]]
LIVES += [["started", "retried", "started", "succeeded"], ["started", "retried"], ["succeeded"]]


@dataclass
class Flower:
    url: str

    def page(self, start: int, search: str, column: str, order: str) -> Any:
        query = {"draw": 1, "start": start, "length": ROWS, "search[value]": search}
        query |= {"order[0][column]": 0, "order[0][dir]": order, "columns[0][data]": column}
        page = get(f"{self.url}/tasks/datatable?{urllib.parse.urlencode(query)}")
        for row in page["data"]:
            row["children"].sort()  # a set, by hashes of this process
        return page

    def listed(self, query: str) -> Any:
        return list(get(f"{self.url}/api/tasks?{urllib.parse.quote(query, safe='=&')}").items())

    def knows(self, task_id: str) -> bool:
        return bool(self.listed(f"limit=1&search={task_id}"))


@contextmanager
def started(words: list[str], broker: str, *options: str) -> Iterator[Flower]:
    port = free_port()
    command = [sys.executable, "-P", "-m", *words, "--address=127.0.0.1", f"--port={port}", "--basic-auth=me:secret"]
    environ = {**os.environ, "PROMPTMILL_BROKER": broker}
    with running([*command, f"--max-tasks={KEPT}", *options], env=environ, stderr=subprocess.DEVNULL) as process:
        wait_for_http(f"http://127.0.0.1:{port}/healthcheck", process)
        yield Flower(f"http://127.0.0.1:{port}")
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Flower]]:
    """Flower with its own memory of tasks, and ours; both have heard the same."""
    conf = tmp_path_factory.mktemp("flower") / "own.py"
    conf.write_text(OWN)
    own = ["celery", "-A", "promptmill.worker.app", "flower", f"--conf={conf}"]
    with embedded_server() as server, ExitStack() as stack:
        both = [stack.enter_context(started(words, server.url)) for words in (own, OURS)]
        tell(server.url, both, TASKS)
        yield both


def tell(broker: str, flowers: list[Flower], tasks: int) -> None:
    """The lives of so many tasks. The first makes sure that all listen, the last that all have heard."""

    def heard(task_id: str) -> bool:
        workers[0].send("task-received", uuid=task_id, name=TASK_NAME)
        return all(flower.knows(task_id) for flower in flowers)

    app = make_app(WorkerSettings(broker=broker))
    with app.connection_for_write() as connection:
        workers = [app.events.Dispatcher(connection, hostname=f"worker@{number}") for number in range(3)]
        wait_until(lambda: heard("first"), "Flower listens")
        chosen = random.Random(7)
        ids = [f"{chosen.getrandbits(128):032x}" for _ in range(tasks)]
        for number, task_id in enumerate(ids):
            live(chosen.choice(workers), chosen, number, task_id, parent=ids[number - 1])
        heard("last")
        wait_until(lambda: all(flower.knows("last") for flower in flowers), "Flower has heard of all")


def live(worker: Any, chosen: random.Random, number: int, task_id: str, parent: str) -> None:
    """One task, as far as it gets: many have the same values, and some lack them."""
    kind = chosen.choice([TASK_NAME] * 9 + ["promptmill.pack_shard", "Success"])
    kwargs = {"run": chosen.choice(["cats", "Dogs", "none"]), "index": number, "seed": chosen.randrange(9), "of": None}
    told = {"name": kind, "args": repr((f"a {chosen.choice(PROMPTS)}, number {number}",)), "kwargs": repr(kwargs)}
    told |= {"parent_id": parent, "root_id": parent} if kind != TASK_NAME else {}
    worker.send("task-received", uuid=task_id, **told, retries=chosen.randrange(3), eta=None)
    steps: dict[str, dict[str, Any]] = {
        "started": {},
        "succeeded": {"result": repr(f"out/{task_id}.png"), "runtime": chosen.randrange(4) / 4},
        "failed": {"exception": chosen.choice(["No such model", "not finite"]), "traceback": ""},
        "retried": {"exception": "again", "traceback": ""},
        "revoked": {"terminated": False, "signum": None, "expired": False},
    }
    for step in chosen.choice(LIVES):
        worker.send(f"task-{step}", uuid=task_id, **steps[step])


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_sorts_as_in_flower(flowers: list[Flower], column: str) -> None:
    own, ours = flowers
    for order in ("asc", "desc"):
        for start in STARTS:
            expected = own.page(start, "", column, order)
            assert expected["recordsFiltered"] == KEPT
            assert ours.page(start, "", column, order) == expected, (order, start)


@pytest.mark.parametrize("search", [*FOUND, *NOTHING])
def test_every_search_finds_what_flower_finds(flowers: list[Flower], search: str) -> None:
    own, ours = flowers
    for column, order in (("received", "desc"), ("args", "asc"), ("state", "desc")):
        for start in (0, ROWS):
            expected = own.page(start, search, column, order)
            assert (0 < expected["recordsFiltered"] <= KEPT) == (search in FOUND)
            assert ours.page(start, search, column, order) == expected


@pytest.mark.parametrize("query", ASKED)
def test_the_interface_for_programs_answers_alike(flowers: list[Flower], query: str) -> None:
    own, ours = flowers
    expected = own.listed(query)
    assert expected or "received_end" in query
    assert ours.listed(query) == expected


def test_tasks_are_there_again_after_a_restart(tmp_path: Path) -> None:
    kept = ("--persistent=True", f"--db={tmp_path / 'flower'}")
    with embedded_server() as server:
        with started(OURS, server.url, *kept) as flower:
            tell(server.url, [flower], 200)
            before = flower.page(0, "", "kwargs", "asc"), flower.page(0, "kwargs:run=cats", "received", "desc")
        with started(OURS, server.url, *kept) as flower:
            after = flower.page(0, "", "kwargs", "asc"), flower.page(0, "kwargs:run=cats", "received", "desc")
    assert before[1]["recordsFiltered"] > ROWS
    assert _without_children(after) == _without_children(before)


def _without_children(pages: tuple[Any, Any]) -> list[Any]:
    """Celery does not save them."""
    return [{**row, "children": []} for page in pages for row in page["data"]]
