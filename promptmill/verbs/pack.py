"""`promptmill pack`: a finished run as a dataset."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from promptmill.producer.words import count
from promptmill.verbs.image_options import encoding_of, image_options
from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.runs import answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptmill.dataset.manifest import Row
    from promptmill.dataset.options import PackOptions
    from promptmill.dataset.rows import Rows
    from promptmill.producer.outputs.output import Output
    from promptmill.producer.plan import Plan

SHEET_IMAGES = 48


@click.command("pack")
@click.argument("run", metavar="RUN")
@click.option(
    "--shard-size",
    type=click.IntRange(1, 10_000_000),
    default=10_000,
    show_default=True,
    help="Jobs per shard, failed ones included.",
)
@click.option("--shard-bytes", metavar="SIZE", help="Shards of about this size instead: 1GB, 500MB.")
@click.option(
    "--split",
    metavar="NAME=SHARE,...",
    help="Splits, such as train=0.98,val=0.02. All images of one prompt are in one split.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["webdataset", "parquet", "imagefolder"]),
    default="webdataset",
    show_default=True,
    help="Tars; Parquet files with the images inside; folders of images with a metadata.parquet each.",
)
@image_options
@click.option(
    "--resize",
    metavar="N|WxH",
    help="512: the longer side at most 512 pixels. 512x512: scaled to cover that, and center-cropped.",
)
@click.option(
    "--license",
    "licence",
    default="unknown",
    show_default=True,
    help="For the dataset's card: an identifier of the hub, such as cc-by-4.0 or openrail++.",
)
@click.option(
    "--scores",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Numbers for the manifest: a .csv, .tsv, .jsonl or .parquet (of curate) with a column index.",
)
@click.option(
    "--by-workers",
    is_flag=True,
    help="Let the workers of --broker do it: one Celery task per plan file, whose images are looked at, and per shard.",
)
@click.option("--partial", is_flag=True, help="Pack even if some images are still to come.")
@broker_option
@json_option
def command(
    run: str,
    shard_size: int,
    shard_bytes: str | None,
    split: str | None,
    format_: str,
    image_format: str | None,
    quality: int | None,
    resize: str | None,
    licence: str,
    scores: Path | None,
    by_workers: bool,
    partial: bool,
    broker: str | None,
    as_json: bool,
) -> int:
    """Write RUN's manifest, its images as shards of a dataset, and the dataset's card, into its output.

    RUN is the run's folder or URL (out/RUN, gs://bucket/prefix/RUN), or its name in Redis. Jobs that failed leave
    holes, which data/shards.json names. Packing again writes only what is not there.
    """
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None or importlib.util.find_spec("PIL") is None:
        raise click.ClickException("pyarrow and pillow are not installed here: pip install 'promptmill[dataset]'")
    from promptmill.dataset.finish import finish
    from promptmill.dataset.options import PackOptions, check_resize, parse_bytes, parse_splits
    from promptmill.dataset.pack import Shard, total_bytes
    from promptmill.dataset.scores import read_scores
    from promptmill.producer.plan_files import load_plan
    from promptmill.verbs.run_output import failures_of, find_run_output

    asked = encoding_of({"image_format": image_format, "quality": quality})
    options = PackOptions(
        format=format_,
        shard_size=shard_size,
        shard_bytes=None if shard_bytes is None else parse_bytes(shard_bytes),
        splits={} if split is None else parse_splits(split),
        quality=quality,
        resize=None if resize is None else check_resize(resize),
    )
    output = find_run_output(run, broker)

    def tell(shard: Shard) -> None:
        click.echo(f"{shard.name}: {count(shard.samples, 'image')}, {total_bytes(shard):,} bytes", err=True)

    def help_pack(rows: "Rows", renew: bool) -> None:
        if by_workers:
            _by_workers(broker, output, options, rows, renew)

    def look() -> "Iterator[list[Row]] | None":
        return _looked(broker, output, len(plan.pages)) if by_workers else None

    with load_plan(output) as plan:
        options = replace(options, image_format=(asked or plan.encoding).format)
        failures = failures_of(output, broker)
        counts = finish(
            *(output, plan, failures),
            options=options,
            partial=partial,
            licence=licence,
            scores=None if scores is None else read_scores(scores, plan.jobs),
            look=look,
            help_pack=help_pack,
            draw=lambda: _draw_sheet(output, plan),
            progress=tell,
        )
    holes = {state: number for state, number in counts.items() if state != "done"}
    rest = "".join(f", {number} {state}" for state, number in sorted(holes.items()))
    answer(as_json, f"{output.url}: {count(counts.get('done', 0), 'image')} packed{rest}", output=output.url, **counts)
    return 1 if holes else 0


def _draw_sheet(output: "Output", plan: "Plan") -> None:
    """A contact sheet for the card, of images picked evenly, where there is none yet."""
    from promptmill.contact_sheet import make_sheet, write_sheet
    from promptmill.producer.layout import CONTACT_SHEET

    picked = sorted({number * plan.jobs // SHEET_IMAGES for number in range(SHEET_IMAGES)})
    indexes = [job.index for job in plan.at(picked) if output.exists(plan.image_name(job.id))]
    if indexes and not output.exists(CONTACT_SHEET):
        write_sheet(output, make_sheet(output, plan, indexes))


def _looked(broker: str | None, output: "Output", pages: int) -> "Iterator[list[Row]]":
    from promptmill.manifest_tasks import rows_by_workers
    from promptmill.producer.broker import DEFAULT_URL
    from promptmill.producer.layout import page_name

    def tell(page: int) -> None:
        click.echo(f"{page_name(page)}: looked at by a worker", err=True)

    return rows_by_workers(broker or DEFAULT_URL, output, pages, tell)


def _by_workers(broker: str | None, output: "Output", options: "PackOptions", rows: "Rows", renew: bool) -> None:
    from promptmill.dataset.pieces import pieces
    from promptmill.producer.broker import DEFAULT_URL
    from promptmill.shard_tasks import pack_by_workers

    pack_by_workers(
        *(broker or DEFAULT_URL, output, options, pieces(rows, options)),
        tell=lambda shard: click.echo(f"{shard}: packed by a worker", err=True),
        renew=renew,
    )
