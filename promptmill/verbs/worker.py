"""`promptmill worker`: the Celery worker, started right."""

import dataclasses
import logging
import os
import sys
import warnings
from typing import Any

import click

from promptmill.verbs.check_options import check_options
from promptmill.verbs.options import broker_option, env


@click.command("worker")
@broker_option
@click.option("--model", envvar=env("model"), help="Load and compile this model before anything is claimed.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    envvar=env("dtype"),
    help="What the UNet and the text encoders compute in.  [bfloat16 on TPU and GPU, float32 on CPU]",
)
@click.option("--per-device-batch", type=click.IntRange(1, 64), envvar=env("per_device_batch"), help="Images.  [1]")
@click.option(
    "--batches-in-flight",
    type=click.IntRange(1, 16),
    envvar=env("batches_in_flight"),
    help="Held at once.  [3]",
)
@click.option("--models-kept", type=click.IntRange(1), envvar=env("models_kept"), help="On the devices at once.  [1]")
@check_options
@click.option("--lease", "lease_s", type=click.FloatRange(1), envvar=env("lease_s"), help="Seconds.  [30]")
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(0),
    envvar=env("drain_s"),
    help="Seconds to finish in at a stop.  [30]",
)
@click.option(
    "--concurrency",
    "-c",
    type=click.IntRange(1),
    envvar=env("concurrency"),
    help="Encoding and uploading threads.  [8]",
)
@click.option("--hostname", "-n", envvar=env("hostname"), help="Celery node name.  [promptmill-PID@HOST]")
@click.option("--loglevel", "-l", default="INFO", envvar=env("loglevel"), show_default=True, help="As Celery's.")
def command(concurrency: int | None, hostname: str | None, loglevel: str, **given: Any) -> None:
    """Render jobs from the queue on all accelerators of this host, until told to stop.

    SIGTERM, or Ctrl-C once: claim nothing more, finish what is held, give back what takes longer than --drain.
    """
    try:
        from promptmill.worker.app import default_hostname, make_app
    except ImportError as error:
        raise click.ClickException(
            f"{error.name} is not installed here: pip install 'promptmill[worker]' (or [tpu], [cuda])"
        ) from error
    from promptmill.producer.broker import connect
    from promptmill.worker.settings import WorkerSettings

    settings = dataclasses.replace(
        WorkerSettings.from_env(), **{name: value for name, value in given.items() if value is not None}
    )
    connect(settings.broker)  # a wrong URL is said now; later on Celery waits for a broker that is away
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings(
        "ignore", message="You're running the worker with superuser"
    )  # JSON only: no pickle to fear
    worker = make_app(settings).Worker(
        hostname=hostname or default_hostname(),
        pool_cls="threads",
        concurrency=concurrency or 8,
        loglevel=loglevel.upper(),
        task_events=True,
        quiet=True,
    )
    worker.start()
    # Not by the interpreter's own end: a thread that still compiles would be torn out of XLA, which aborts (SIGABRT).
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(worker.exitcode or 0))
