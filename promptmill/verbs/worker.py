"""`promptmill worker`: the Celery worker, started right."""

import dataclasses
import logging
import os
import sys
import warnings
from typing import Any

import click

from promptmill.verbs.worker_options import worker_options


@click.command("worker")
@worker_options
def command(**given: Any) -> None:
    """Render jobs from the queue on all accelerators of this host, until stopped.

    SIGTERM, or Ctrl-C once: claim nothing more, finish what is held, give back what takes longer than --drain.
    """
    try:
        from promptmill.worker.app import default_hostname, make_app
    except ImportError as error:
        raise click.ClickException(
            f"{error.name} is not installed here: pip install 'promptmill[worker]' (or [tpu], [cuda])"
        ) from error
    from promptmill.producer.broker import connect, eviction
    from promptmill.said import line
    from promptmill.worker.settings import WorkerSettings

    settings = dataclasses.replace(
        WorkerSettings.from_env(), **{name: value for name, value in given.items() if value is not None}
    )
    # A wrong URL is said now; later on Celery waits for a broker that is away.
    if warning := eviction(connect(settings.broker)):
        click.echo(line("WARNING", f"Warning: {warning}"), err=True)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings(
        "ignore", message="You're running the worker with superuser"
    )  # JSON only: no pickle to fear
    app = make_app(settings)
    worker = app.Worker(
        hostname=settings.hostname or default_hostname(),
        pool_cls="threads",
        loglevel=settings.loglevel,
        task_events=True,
        quiet=True,
    )
    worker.start()
    # Not by the interpreter's own end: a thread that still compiles would be torn out of XLA, which aborts (SIGABRT).
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(worker.exitcode or 0))
