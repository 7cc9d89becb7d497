"""`promptmill verify`: whether a run's output is whole."""

import dataclasses
import json

import click

from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.runs import count


@click.command("verify")
@click.argument("run", metavar="RUN")
@broker_option
@json_option
def command(run: str, broker: str | None, as_json: bool) -> int:
    """Check RUN's plan, images, manifest and shards against each other, every byte by its digest.

    RUN is the run's folder or URL, or its name in Redis. Exit code 0: all is well; 1: something is wrong, one line
    each; 2: it could not be looked at.
    """
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None or importlib.util.find_spec("PIL") is None:
        raise click.ClickException("pyarrow and pillow are not installed here: pip install 'promptmill[dataset]'")
    from promptmill.dataset.verify import verify
    from promptmill.verbs.run_output import find_run_output

    output = find_run_output(run, broker)
    findings = 0
    for finding in verify(output):
        findings += 1
        where = finding.name if finding.index is None else f"{finding.name} (index {finding.index})"
        click.echo(json.dumps(dataclasses.asdict(finding)) if as_json else f"{where}: {finding.problem}")
    click.echo(f"{output.url}: {count(findings, 'finding') if findings else 'all is well'}", err=True)
    return 1 if findings else 0
