"""`promptmill sheet`: a run's images on one sheet."""

from pathlib import Path

import click

from promptmill.producer.words import count
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
    help="Most images on one sheet; of more, this many are picked evenly.",
)
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="FILE", help="PNG to write.  [contact-sheet.png in RUN's output]"
)
@click.option("--all", "all_", is_flag=True, help="All images, on as many sheets as they take.")
@broker_option
@json_option
def command(
    run: str, columns: int, max_images: int, to: Path | None, all_: bool, broker: str | None, as_json: bool
) -> int:
    """Draw the images of RUN on one sheet, each with its prompt; with --all on as many as they take.

    RUN is the run's folder or URL (out/RUN, gs://bucket/prefix/RUN), or its name in Redis. It need not be finished.
    """
    import importlib.util

    if importlib.util.find_spec("PIL") is None:
        raise click.ClickException("pillow is not installed here: pip install 'promptmill[dataset]'")
    from promptmill.contact_sheet import Sheet, make_sheet, numbered, write_sheet
    from promptmill.producer.errors import PlanError
    from promptmill.producer.layout import CONTACT_SHEET
    from promptmill.producer.plan_files import load_plan
    from promptmill.producer.presence import find_present
    from promptmill.verbs.run_output import find_run_output

    output = find_run_output(run, broker)

    def put(sheet: Sheet, page: int | None = None) -> str:
        if to is None:
            return write_sheet(output, sheet, CONTACT_SHEET if page is None else numbered(CONTACT_SHEET, page))
        file = to if page is None else to.with_name(numbered(to.name, page))
        file.write_bytes(sheet.png)
        return str(file)

    with load_plan(output) as plan:
        present = find_present(plan, output).indexes
        indexes = [index for index, there in enumerate(present) if there]
        if not indexes:
            raise PlanError(f"{output.url} has no images yet")
        if not all_:
            sheet = make_sheet(output, plan, indexes, columns=columns, most=max_images)
            place = put(sheet)
            answer(as_json, f"{sheet.sentence}: {place}", sheet=place, shown=sheet.shown, images=sheet.images)
            places = [place]
        else:
            pages = (indexes[first : first + max_images] for first in range(0, len(indexes), max_images))
            sheets = (make_sheet(output, plan, page, columns=columns, most=max_images) for page in pages)
            places = [put(sheet, number) for number, sheet in enumerate(sheets)]
            told = f"{count(len(indexes), 'image', commas=True)} on {count(len(places), 'sheet', commas=True)}"
            answer(as_json, told, sheets=places, images=len(indexes))
    if not as_json:
        click.echo("\n".join(places))
    return 0
