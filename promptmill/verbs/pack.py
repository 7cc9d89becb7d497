"""`promptmill pack`: a finished run as a dataset."""

import click

from promptmill.producer.words import count
from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.runs import answer


@click.command("pack")
@click.argument("run", metavar="RUN")
@click.option(
    "--shard-size",
    type=click.IntRange(1, 10_000_000),
    default=10_000,
    show_default=True,
    help="Indexes of the run per shard.",
)
@click.option("--shard-bytes", metavar="SIZE", help="Shards of about this size instead: 1GB, 500MB.")
@click.option(
    "--split",
    metavar="NAME=SHARE,...",
    help="Splits, such as train=0.98,val=0.02. All images of one prompt are in the same.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["webdataset", "parquet", "imagefolder"]),
    default="webdataset",
    show_default=True,
    help="Tars; Parquet with the images inside; folders of images with a metadata.parquet each.",
)
@click.option(
    "--image-format",
    type=click.Choice(["png", "webp", "jpeg", "jxl"]),
    default="png",
    show_default=True,
    help="Of the images in the dataset. PNG is as rendered; WebP and JPEG XL are lossless without --quality.",
)
@click.option("--quality", type=click.IntRange(1, 100), help="Of lossy images.  [lossless where it can be; JPEG 95]")
@click.option(
    "--resize",
    metavar="N|WxH",
    help="512: the longer side at most 512 pixels. 512x512: scaled to cover that, and cut in the middle.",
)
@click.option("--partial", is_flag=True, help="Also pack a run with images that are still to come.")
@broker_option
@json_option
def command(
    run: str,
    shard_size: int,
    shard_bytes: str | None,
    split: str | None,
    format_: str,
    image_format: str,
    quality: int | None,
    resize: str | None,
    partial: bool,
    broker: str | None,
    as_json: bool,
) -> int:
    """Write RUN's manifest, and its images as shards of a dataset, into its output.

    RUN is the run's folder or URL (out/RUN, gs://bucket/prefix/RUN), or its name in Redis. Jobs that failed leave
    holes, which data/shards.json names. Packing again writes only what is not there.
    """
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None or importlib.util.find_spec("PIL") is None:
        raise click.ClickException("pyarrow and pillow are not installed here: pip install 'promptmill[dataset]'")
    from promptmill.dataset.finish import finish
    from promptmill.dataset.options import PackOptions, check_resize, parse_bytes, parse_splits
    from promptmill.dataset.pack import Shard, total_bytes
    from promptmill.producer.plan_files import load_plan
    from promptmill.verbs.run_output import failures_of, find_run_output

    options = PackOptions(
        format=format_,
        shard_size=shard_size,
        shard_bytes=None if shard_bytes is None else parse_bytes(shard_bytes),
        splits={} if split is None else parse_splits(split),
        image_format=image_format,
        quality=quality,
        resize=None if resize is None else check_resize(resize),
    )
    output = find_run_output(run, broker)

    def tell(shard: Shard) -> None:
        click.echo(f"{shard.name}: {count(shard.samples, 'image')}, {total_bytes(shard):,} bytes", err=True)

    with load_plan(output) as plan:
        failures = failures_of(output, broker)
        counts = finish(output, plan, failures, options=options, partial=partial, progress=tell)
    holes = {state: number for state, number in counts.items() if state != "done"}
    rest = "".join(f", {number} {state}" for state, number in sorted(holes.items()))
    answer(as_json, f"{output.url}: {count(counts.get('done', 0), 'image')} packed{rest}", output=output.url, **counts)
    return 1 if holes else 0
