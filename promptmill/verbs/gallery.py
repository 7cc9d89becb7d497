"""`promptmill gallery`: a page to look at a run with."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from promptmill.producer.words import count
from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.runs import answer

if TYPE_CHECKING:
    from promptmill.producer.outputs.output import Output

PORT = 8421


@click.command("gallery")
@click.argument("run", metavar="RUN")
@click.option("--compare", metavar="RUN", help="Another run to show beside RUN, index by index.")
@click.option(
    "--scores",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Numbers to filter by: a .csv, .tsv, .jsonl or .parquet with a column index, and one for each score.",
)
@click.option("--serve", is_flag=True, help="Serve the page on this machine until Ctrl-C.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port to serve on; 0: any free one."
)
@broker_option
@json_option
def command(
    run: str, compare: str | None, scores: Path | None, serve: bool, port: int, broker: str | None, as_json: bool
) -> int:
    """Write an HTML page to browse RUN: every image, its prompt and its parameters, to search, filter and compare.

    RUN is the run's folder or URL (out/RUN, gs://bucket/prefix/RUN), or its name in Redis; it need not be finished. The
    page is gallery/index.html in its output, and is opened from the disk. Writing it again adds what is new.
    """
    from promptmill.verbs.verify import check_packages

    check_packages()
    from promptmill.dataset.gallery.beside import folder_beside
    from promptmill.dataset.gallery.writer import INDEX
    from promptmill.verbs.run_output import find_run_output

    output = find_run_output(run, broker)
    other = None if compare is None else find_run_output(compare, broker)
    if other is not None:
        _write(other, broker, None, [{"run": _name(output), "at": folder_beside(other, output)}])
    images = _write(
        output, broker, scores, [] if other is None else [{"run": _name(other), "at": folder_beside(output, other)}]
    )
    page = f"{output.url}/{INDEX}"
    answer(as_json, f"{count(images, 'image', commas=True)} in a gallery: {page}", gallery=page, images=images)
    if not as_json:
        click.echo(page)
    if serve:
        _serve([output] if other is None else [output, other], port)
    return 0


def _name(output: "Output") -> str:
    return output.url.rstrip("/").rpartition("/")[2]


def _write(output: "Output", broker: str | None, scores: Path | None, compare: Sequence[dict[str, str]]) -> int:
    """Write a run's gallery; how many images it has."""
    from promptmill.dataset.failures import read_failures
    from promptmill.dataset.gallery.writer import Made, write_gallery
    from promptmill.dataset.scores import read_scores
    from promptmill.producer.plan_files import load_plan
    from promptmill.verbs.run_output import failures_of

    reasons: dict[int, str] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged file of reasons: `verify` tells that
        reasons = read_failures(output)
    reasons |= failures_of(output, broker)

    def tell(made: Made) -> None:
        if not made.kept:
            click.echo(f"{_name(output)}: images {made.first:,} to {made.end - 1:,}", err=True)

    with load_plan(output) as plan:
        given = {} if scores is None else read_scores(scores, plan.jobs)
        write_gallery(output, plan, reasons, name=_name(output), scores=given, compare=compare, progress=tell)
        return plan.jobs


def _serve(outputs: Sequence["Output"], port: int) -> None:
    """Serve galleries until Ctrl-C."""
    from promptmill.dataset.gallery.beside import served_under
    from promptmill.dataset.gallery.serve import HOST, make_server, page_url

    paths = served_under(*outputs)
    try:
        server = make_server(dict(zip(paths, outputs, strict=True)), port)
    except OSError as error:
        raise click.ClickException(f"{HOST}:{port}: {error.strerror}; --port names another") from error
    with server, contextlib.suppress(KeyboardInterrupt):
        click.echo(f"serving {page_url(server, paths[0])} until Ctrl-C", err=True)
        server.serve_forever()
