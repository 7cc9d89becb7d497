"""`promptmill sheet`: a run's images on one sheet."""

from pathlib import Path

import click

from promptmill.verbs.options import broker_option, env, json_option
from promptmill.verbs.runs import answer


@click.command("sheet")
@click.argument("run", metavar="RUN")
@click.option("--columns", type=click.IntRange(1, 64), default=8, show_default=True, help="Images per row.")
@click.option(
    "--max-images",
    type=click.IntRange(1, 10_000),
    default=256,
    show_default=True,
    envvar=env("max_images"),
    help="Of more, as many are picked evenly.",
)
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="FILE", help="A PNG.  [contact-sheet.png in RUN's output]"
)
@broker_option
@json_option
def command(run: str, columns: int, max_images: int, to: Path | None, broker: str | None, as_json: bool) -> int:
    """Draw the images of RUN on one sheet, each with its prompt.

    RUN is the run's folder or URL (out/RUN, gs://bucket/prefix/RUN), or its name in Redis. It need not be finished.
    """
    import importlib.util

    if importlib.util.find_spec("PIL") is None:
        raise click.ClickException("pillow is not installed here: pip install 'promptmill[dataset]'")
    from promptmill.contact_sheet import make_sheet, write_sheet
    from promptmill.producer.errors import PlanError
    from promptmill.producer.plan_files import load_plan
    from promptmill.producer.presence import find_present
    from promptmill.verbs.run_output import find_run_output

    output = find_run_output(run, broker)
    with load_plan(output) as plan:
        present = find_present(plan, output).indexes
        indexes = [index for index, there in enumerate(present) if there]
        if not indexes:
            raise PlanError(f"{output.url} has no images yet")
        sheet = make_sheet(output, plan, indexes, columns=columns, most=max_images)
    if to is None:
        place = write_sheet(output, sheet)
    else:
        place = str(to)
        to.write_bytes(sheet.png)
    answer(as_json, f"{sheet.sentence}: {place}", sheet=place, shown=sheet.shown, images=sheet.images)
    if not as_json:
        click.echo(place)
    return 0
