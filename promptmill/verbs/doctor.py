"""`promptmill doctor`: whether this host can do its part, and what to do where not."""

import dataclasses
import json

import click

from promptmill.producer.broker import DEFAULT_URL
from promptmill.verbs.options import broker_option, json_option

COLORS = {"ok": "green", "warning": "yellow", "wrong": "red"}


@click.command("doctor")
@broker_option
@click.option(
    "--output", metavar="URL", help="Write, read and list there too: leaves promptmill-doctor.txt.  [no output]"
)
@json_option
def command(broker: str | None, output: str | None, as_json: bool) -> int:
    """Check this host: versions, devices, memory, Redis, clocks, output, caches; and say how to mend what is wrong.

    Exit code 2: something is wrong, and a worker here would not work.
    """
    from promptmill.doctor import Subject, examine

    findings = []
    for finding in examine(Subject(broker or DEFAULT_URL, broker is not None, output)):
        findings.append(finding)
        if not as_json:
            state = click.style(f"{finding.state:8}", fg=COLORS[finding.state])
            click.echo(
                f"{state} {finding.part}: {finding.found}" + (f"\n         {finding.advice}" if finding.advice else "")
            )
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], ensure_ascii=False))
    return 2 if any(finding.state == "wrong" for finding in findings) else 0
