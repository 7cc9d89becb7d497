"""`promptmill bench`: what rendering costs on this machine, as a table."""

import dataclasses
import datetime
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptmill.verbs.options import Sizes, Values, field_options, json_option
from promptmill.verbs.worker_options import setting_options

if TYPE_CHECKING:
    from promptmill.producer.job import Job
    from promptmill.producer.measured import BenchRow
    from promptmill.worker.bench import Bench, Measured, Refused

MLPERF = "mlperf"

MLPERF_FIELDS: dict[str, Any] = {
    "width": 1024,
    "height": 1024,
    "num_inference_steps": 20,
    "guidance_scale": 8.0,
    "sampler": "euler",
    "negative_prompt": "normal quality, low quality, worst quality, low res, blurry, nsfw, nude",
}
"""SDXL in MLPerf Inference v4.1 to v5.1 (github.com/mlcommons/inference, text_to_image/main.py)."""

PROMPT = "a photo of an astronaut riding a horse on the moon, highly detailed, cinematic light"

COLUMNS = {
    "model": "model",
    "size": "size",
    "steps": "steps",
    "per_device_batch": "batch per device",
    "devices": "devices",
    "compile_s": "compile, s",
    "first_image_s": "first image, s",
    "latency_s": "latency, s",
    "images_per_s": "images/s",
    "images_per_s_per_device": "per device",
    "tera_per_image": "TFLOP/image",
    "share": "of ceiling",
    "host_ms": "host, ms/image",
    "images_per_money": "images per 1",
}
"""Of the table, by the key in JSON; the last one where --price is given."""


@click.command("bench")
@field_options("model", "num_inference_steps", "guidance_scale", "sampler")
@click.option("--size", type=Sizes(), help="Sizes in pixels, such as 1024,768x512.  [the model's own]")
@click.option(
    "--per-device-batch",
    type=Values(click.IntRange(1, 64)),
    default="1",
    show_default=True,
    help="Images per device and batch.",
)
@click.option("--preset", help="As for render, or mlperf: 1024x1024, 20 guided Euler steps.  [the checkpoint's own]")
@setting_options("dtype", "vae_dtype", "quantize")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Batches to time per row.")
@click.option(
    "--price", type=click.FloatRange(0, min_open=True), help="Price of a device per hour, for images per unit of money."
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a JAX profiler trace of one batch into this folder.",
)
@json_option
def command(
    *,
    size: tuple[tuple[int, int], ...] | None,
    per_device_batch: tuple[int, ...],
    preset: str | None,
    dtype: str | None,
    quantize: str | None,
    vae_dtype: str | None,
    repeats: int,
    price: float | None,
    profile: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Measure what rendering costs on this machine's devices: compile time, latency, images per second.

    Values with commas make a row each, in every combination. `--dry-run` of submit and render estimates from what was
    measured here. Throughput is that of the program; a worker uploads beside it.
    """
    jobs = _jobs(given, size, preset)
    try:
        from promptmill.worker.bench import Bench
    except ImportError as error:
        raise click.ClickException(
            f"{error.name} is not installed here: pip install 'promptmill[worker]' (or [tpu], [cuda])"
        ) from error
    from promptmill.producer.measured import keep

    bench = Bench(dtype=dtype, vae_dtype=vae_dtype, quantize=quantize or "none", repeats=repeats, profile=profile)
    rows = []
    for job, batch in itertools.product(jobs, per_device_batch):
        what = f"{job.model}, {job.width}x{job.height}, {job.num_inference_steps} steps"
        click.echo(f"{what}, {batch} per device ...", err=True)
        rows.append(bench.measure(job, batch))
    kept = keep(_kept(jobs, per_device_batch, rows))
    said = describe(bench, rows, price)
    click.echo(json.dumps(said, ensure_ascii=False) if as_json else report(said))
    if kept:
        click.echo(f"kept for --dry-run in {kept}", err=True)
    return 0


def _jobs(given: dict[str, Any], sizes: Sequence[tuple[int, int]] | None, preset: str | None) -> "list[Job]":
    """Each combination as a job. Raises PromptmillError for one that cannot be."""
    from promptmill.producer.families.presets import over
    from promptmill.producer.job import Job
    from promptmill.producer.models import DEFAULT_MODEL, model_defaults, resolve_model

    said = {name: values for name, values in given.items() if values is not None and name != "model"}
    model = resolve_model(given["model"] or DEFAULT_MODEL)
    fields = model_defaults(model, None if preset == MLPERF else preset).job_fields()
    fields = over(fields, MLPERF_FIELDS) if preset == MLPERF else fields
    found = []
    for values in itertools.product(*said.values()):
        own = over(fields, dict(zip(said, values, strict=True)))
        for width, height in sizes or [(own["width"], own["height"])]:
            found.append(Job(**{**own, "prompt": PROMPT, "model": model, "width": width, "height": height}))
    return found


def _kept(jobs: "Sequence[Job]", batches: Sequence[int], rows: "Iterable[Measured | Refused]") -> "Iterable[BenchRow]":
    from promptmill.producer.estimate import work_of
    from promptmill.producer.measured import BenchRow
    from promptmill.worker.bench import Measured

    today = datetime.date.today().isoformat()
    for (job, _), row in zip(itertools.product(jobs, batches), rows, strict=True):
        if isinstance(row, Measured):
            yield BenchRow(
                model=job.model,
                width=job.width,
                height=job.height,
                guided=job.guided,
                calls=work_of(job).calls,
                per_device_batch=row.per_device_batch,
                device=row.device,
                devices=row.devices,
                dtype=_types(row.dtype, row.vae_dtype, row.quantize),
                images_per_s=row.images_per_s,
                on=today,
            )


def describe(bench: "Bench", rows: "Sequence[Measured | Refused]", price: float | None) -> dict[str, Any]:
    """All that was measured, as JSON has it."""
    return {
        "device": str(bench.devices.mesh.devices.flat[0].device_kind),
        "devices": bench.devices.count,
        "dtype": bench.dtype,
        "quantize": bench.quantize,
        "vae_dtype": bench.vae_dtype,
        "ceiling": dataclasses.asdict(bench.ceiling),
        "load_s": bench.load_s,
        "price": price,
        "rows": [_described(row, price) for row in rows],
    }


def _described(row: "Measured | Refused", price: float | None) -> dict[str, Any]:
    said = dataclasses.asdict(row)
    rate = getattr(row, "images_per_s_per_device", None)
    if rate is not None:
        said["images_per_s_per_device"] = rate
        said["images_per_money"] = rate * 3600 / price if price else None
    return said


def report(said: dict[str, Any]) -> str:
    """The table for a person, and below it what it rests on."""
    columns = {name: head for name, head in COLUMNS.items() if said["price"] or name != "images_per_money"}
    lines = [list(columns.values()), *(_cells(row, list(columns)) for row in said["rows"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    types = _types(said["dtype"], said["vae_dtype"], said["quantize"])
    loads = ", ".join(f"{model} in {seconds:.1f} s" for model, seconds in said["load_s"].items())
    return "\n".join(
        [
            *(line.rstrip() for line in table),
            f"on {said['devices']} x {said['device']} in {types}; weights loaded: {loads}",
            f"ceiling: {said['ceiling']['source']}",
        ]
    )


def _types(dtype: str, vae_dtype: str | None, quantize: str) -> str:
    """All, as a person reads them, and as `--dry-run` tells measurements apart."""
    vae = "" if vae_dtype is None else f", VAE in {vae_dtype}"
    return f"{dtype}{vae}" if quantize == "none" else f"{dtype}{vae}, UNet in {quantize}"


def _cells(row: dict[str, Any], columns: Sequence[str]) -> list[str]:
    values = {"latency_s": row.get("reason"), **row, "size": f"{row['width']}x{row['height']}"}
    values |= {"share": f"{row['share']:.0%}"} if "share" in row else {}
    return [_cell(values.get(name, "-")) for name in columns]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)
