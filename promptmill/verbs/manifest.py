"""`promptmill manifest`: a run's table as text."""

import click

from promptmill.verbs.options import broker_option
from promptmill.verbs.verify import check_packages


@click.command("manifest")
@click.argument("run", metavar="RUN")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="jsonl: one object per line.",
)
@broker_option
def command(run: str, form: str, broker: str | None) -> int:
    """Print RUN's manifest, one row per index: the job, and its image or failure.

    RUN is the run's folder or URL, or its name in Redis. For a run that is not packed it is computed now, which reads
    every image.
    """
    check_packages()
    from promptmill.dataset.manifest_text import FORMS, rows_of_run
    from promptmill.verbs.run_output import failures_of, find_run_output

    output = find_run_output(run, broker)
    for line in FORMS[form](rows_of_run(output, lambda: failures_of(output, broker))):
        click.echo(line)
    return 0
