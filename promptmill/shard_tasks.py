"""Packing by all workers: an ordinary Celery task per shard. Whoever sends them writes the index and the seal.

A shard is put once and has a record: a task that comes twice, or that nobody finished, costs time and no bytes.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from promptmill.producer.errors import PromptmillError
from promptmill.worker_tasks import LOOK_S, STALLED_S, answer_of, worker_app

if TYPE_CHECKING:
    from promptmill.dataset.options import PackOptions
    from promptmill.dataset.pieces import Piece
    from promptmill.producer.outputs.output import Output

TASK_NAME = "promptmill.pack_shard"


def pack_shard(url: str, options: dict[str, Any], piece: dict[str, Any], renew: bool = False) -> dict[str, str]:
    """Pack one piece of the run at that URL; `renew`: in place of an earlier shard, of less.

    Returns {"shard": its name}, or {"error": a sentence}.
    """
    try:
        from promptmill.dataset.beside import scratch_beside
        from promptmill.dataset.object_file import open_object
        from promptmill.dataset.options import PackOptions
        from promptmill.dataset.pack import put_shard
        from promptmill.dataset.pieces import Piece
        from promptmill.dataset.rows import Rows
        from promptmill.producer.layout import MANIFEST
        from promptmill.producer.outputs.open import open_output
    except ImportError as error:
        return {"error": f"{error.name} is not installed on a worker: pip install 'promptmill[dataset]'"}
    try:
        output = open_output(url)
        with (
            scratch_beside(output, "pack") as scratch,
            open_object(output, MANIFEST) as file,
            Rows(file) as rows,
        ):
            shard = put_shard(output, rows, scratch.folder, PackOptions.from_json(options), Piece(**piece), renew=renew)
    except PromptmillError as error:
        return {"error": str(error)}
    return {"shard": shard.name}


def pack_by_workers(
    broker: str,
    output: "Output",
    options: "PackOptions",
    pieces: Iterable["Piece"],
    tell: Callable[[str], None],
    *,
    renew: bool = False,
) -> None:
    """Have the workers of a broker pack the pieces; return when they are done, or stalled.

    Raises NoWorkersError, TaskError.
    """
    app = worker_app(broker)
    waiting = [
        app.send_task(TASK_NAME, (output.url, options.to_json(), asdict(piece), renew), ignore_result=False)
        for piece in pieces
    ]
    heard = time.monotonic()
    while waiting and time.monotonic() - heard < STALLED_S:
        done = [result for result in waiting if result.ready()]
        for result in done:
            tell(answer_of(result)["shard"])
        if done:
            heard = time.monotonic()
            waiting = [result for result in waiting if result not in done]
        time.sleep(LOOK_S)
