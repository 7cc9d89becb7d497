"""`promptmill gallery`: a page to look at a run with."""

import contextlib

import click

from promptmill.producer.words import count
from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.runs import answer


@click.command("gallery")
@click.argument("run", metavar="RUN")
@broker_option
@json_option
def command(run: str, broker: str | None, as_json: bool) -> int:
    """Write a page to look at RUN with: every image, its prompt and its parameters, to search, filter and compare.

    RUN is the run's folder or URL (out/RUN, gs://bucket/prefix/RUN), or its name in Redis; it need not be finished. The
    page is gallery/index.html in its output, and is opened from the disk. Writing it again adds what is new.
    """
    from promptmill.verbs.verify import check_packages

    check_packages()
    from promptmill.dataset.failures import read_failures
    from promptmill.dataset.gallery.writer import INDEX, Made, write_gallery
    from promptmill.producer.plan_files import load_plan
    from promptmill.verbs.run_output import failures_of, find_run_output

    output = find_run_output(run, broker)

    def tell(made: Made) -> None:
        if not made.kept:
            click.echo(f"images {made.first:,} to {made.end - 1:,}", err=True)

    reasons: dict[int, str] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged file of reasons: `verify` tells that
        reasons = read_failures(output)
    reasons |= failures_of(output, broker)
    with load_plan(output) as plan:
        write_gallery(output, plan, reasons, name=output.url.rpartition("/")[2], progress=tell)
        images = plan.jobs
    page = f"{output.url}/{INDEX}"
    answer(as_json, f"{count(images, 'image', commas=True)} in a gallery: {page}", gallery=page, images=images)
    if not as_json:
        click.echo(page)
    return 0
