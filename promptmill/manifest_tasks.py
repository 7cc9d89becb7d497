"""The manifest by all workers: an ordinary Celery task per file of the plan. Whoever sends them writes the manifest.

A task reads that file from the output, looks at each of its images, and answers with the rows: packed JSON, so that
they fit into the result backend. Nothing of it stays, and a task that comes twice costs time alone.
"""

import base64
import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import zstandard

from promptmill.producer.errors import PromptmillError
from promptmill.worker_tasks import STALLED_S, answer_of, wait_for, worker_app

if TYPE_CHECKING:
    from promptmill.dataset.manifest import Row
    from promptmill.producer.outputs.output import Output

TASK_NAME = "promptmill.look_at_images"

IN_FLIGHT = 64
"""Files of the plan whose rows may lie in Redis: some two megabytes each."""


def look_at_images(url: str, number: int) -> dict[str, str]:
    """Look at the images of one file of the plan of the run at that URL.

    Returns {"rows": their rows of the manifest, packed}, or {"error": a sentence}.
    """
    try:
        from promptmill.dataset.manifest import page_rows
        from promptmill.producer.outputs.open import open_output
    except ImportError as error:
        return {"error": f"{error.name} is not installed on a worker: pip install 'promptmill[dataset]'"}
    try:
        return {"rows": packed_rows(page_rows(open_output(url), number))}
    except PromptmillError as error:
        return {"error": str(error)}


def packed_rows(rows: "list[Row]") -> str:
    """Rows as text: base64 of zstd of JSON."""
    return base64.b64encode(zstandard.compress(json.dumps(rows).encode())).decode()


def unpacked_rows(text: str) -> "list[Row]":
    """The rows of such a text."""
    rows: list[Row] = json.loads(zstandard.decompress(base64.b64decode(text)))
    return rows


def rows_by_workers(
    broker: str, output: "Output", pages: int, tell: Callable[[int], object] = lambda page: None
) -> "Iterator[list[Row]]":
    """The rows of each file of the plan, in order, by the workers of a broker; of stalled ones, by this process.

    Failures are not told apart: a row without an image is missing. Raises NoWorkersError, TaskError, OutputError.
    """
    from promptmill.dataset.manifest import page_rows

    app = worker_app(broker)
    waiting: deque[Any] = deque()
    sent, patience_s = 0, STALLED_S
    for page in range(pages):
        while sent < min(page + IN_FLIGHT, pages):
            waiting.append(app.send_task(TASK_NAME, (output.url, sent), ignore_result=False))
            sent += 1
        result = waiting.popleft()
        if wait_for(result, patience_s):
            answer = answer_of(result)
            tell(page)
            yield unpacked_rows(answer["rows"])
        else:
            patience_s = 0.0  # nobody is there any more
            yield page_rows(output, page)
