"""`promptmill verify`: whether a run's output is whole."""

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from promptmill.producer.words import count
from promptmill.verbs.options import broker_option, json_option

if TYPE_CHECKING:
    from promptmill.dataset.findings import Finding


@click.command("verify")
@click.argument("run", metavar="RUN")
@click.option(
    "--fast", is_flag=True, help="Check images and shards by size and a bucket's checksums, without reading them."
)
@broker_option
@json_option
def command(run: str, fast: bool, broker: str | None, as_json: bool) -> int:
    """Check RUN's plan, images, manifest and shards against each other, every byte by its digest.

    RUN is the run's folder or URL, or its name in Redis. What Redis knows of the run is held against it too. Exit code
    0: all is well; 1: something is wrong, one line each; 2: the run could not be read.
    """
    check_packages()
    from promptmill.dataset.verify import verify
    from promptmill.verbs.run_output import find_any_run_output, ledger_of

    output = find_any_run_output(run, broker)
    findings = 0
    for finding in verify(output, fast=fast, ledger=ledger_of(output, broker)):
        findings += 1
        click.echo(json.dumps(dataclasses.asdict(finding), ensure_ascii=False) if as_json else sentence(finding))
    click.echo(f"{output.url}: {count(findings, 'finding') if findings else 'all is well'}", err=True)
    return 1 if findings else 0


def sentence(finding: "Finding") -> str:
    """Where, and what."""
    where = finding.name if finding.index is None else f"{finding.name} (index {finding.index})"
    return f"{where}: {finding.problem}"


def check_packages() -> None:
    """Raises click.ClickException where the packages of a dataset are not installed."""
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None or importlib.util.find_spec("PIL") is None:
        raise click.ClickException("pyarrow and pillow are not installed here: pip install 'promptmill[dataset]'")
