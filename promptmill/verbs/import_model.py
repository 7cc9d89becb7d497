"""`promptmill import-model`: checkpoints of other kinds into a model folder that every worker reads."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptmill.verbs.options import json_option

if TYPE_CHECKING:
    from promptmill.importing.request import Embedding, ImportRequest, Lora, Scheduler

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SCHEDULERS = {"lcm": "LCMScheduler", "tcd": "TCDScheduler", "ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler"}
SCHEDULERS |= {"euler_a": "EulerAncestralDiscreteScheduler"}

INSTALL = (
    "{} is not installed here: pip install 'promptmill[import]'. PyTorch alone for the CPU, without gigabytes of CUDA: "
    "pytorch.org says how to get it"
)


@click.command("import-model")
@click.argument("source")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--unet", help="Another UNet for the model: a .safetensors file, a folder, or a hub id.")
@click.option("--vae", help="Another VAE: a .safetensors file, a folder, or a hub id.")
@click.option("--lora", "loras", multiple=True, metavar="FILE[:WEIGHT]", help="A LoRA to fuse.  [weight 1]")
@click.option(
    "--embedding", "embeddings", multiple=True, metavar="FILE[:TOKEN]", help="A textual inversion.  [the file's name]"
)
@click.option(
    "--config", help="Model whose configuration and tokenizers a single file gets: a folder or a hub id.  [SDXL]"
)
@click.option("--dtype", type=click.Choice([*DTYPES]), help="dtype to store the weights in.  [the source's own]")
@click.option("--preset", help="Preset that the checkpoint needs, such as lightning-4.  [from the file names]")
@click.option(
    "--prediction-type",
    type=click.Choice(["epsilon", "v_prediction", "sample"]),
    help="What the UNet predicts.  [the source's own]",
)
@click.option("--zero-snr/--no-zero-snr", default=None, help="The checkpoint was trained with zero terminal SNR.")
@click.option("--revision", help="Branch, tag or commit of the hub's repository.")
@click.option("--variant", help="Variant of the weights to read, such as fp16.  [the only ones, or the full ones]")
@json_option
def command(folder: Path, as_json: bool, **given: Any) -> int:
    """Make a model folder of SOURCE: a hub id, a diffusers folder, or a single .safetensors file (A1111's keys).

    Files may lie here or on the hub (org/name/FILE.safetensors). LoRAs (kohya's and diffusers' formats) are fused into
    the weights, textual inversions become words of the tokenizers. What went in is written to model_index.json.
    Needs PyTorch and diffusers: pip install 'promptmill[import]'. Prints the folder.
    """
    from promptmill.importing.errors import CheckpointError

    try:
        request = _request(folder, given)
        record = _import(request)
    except CheckpointError as error:
        raise click.ClickException(str(error)) from error
    _tell(request, record)
    click.echo(json.dumps({"folder": str(folder), **record}) if as_json else folder)
    return 0


def _import(request: "ImportRequest") -> dict[str, Any]:
    try:
        from promptmill.importing.build import import_model
    except ImportError as error:
        raise click.ClickException(INSTALL.format(error.name)) from error
    return import_model(request)


def _request(folder: Path, given: dict[str, Any]) -> "ImportRequest":
    """What the flags ask for; what can be refused without opening a checkpoint is refused here."""
    from promptmill.importing.errors import CheckpointError
    from promptmill.importing.files import refuse_pickle
    from promptmill.importing.request import ImportRequest
    from promptmill.producer.families.presets import get_preset

    if folder.exists():
        raise CheckpointError(f"{folder}: already exists; name a new folder")
    loras = tuple(parse_lora(text) for text in given["loras"])
    embeddings = tuple(parse_embedding(text) for text in given["embeddings"])
    added = [*(lora.file for lora in loras), *(embedding.file for embedding in embeddings)]
    files = [given["source"], given["unet"], given["vae"], *added]
    for name in filter(None, files):
        refuse_pickle(name)
    names = [*(lora.file for lora in loras), *filter(None, [given["unet"], given["source"]])]
    preset = get_preset(given["preset"]).name if given["preset"] else recognised(names)
    return ImportRequest(
        source=given["source"],
        output=folder,
        unet=given["unet"],
        vae=given["vae"],
        loras=loras,
        embeddings=embeddings,
        config=given["config"],
        dtype=DTYPES.get(given["dtype"]),
        scheduler=scheduler_for(preset, given["prediction_type"], given["zero_snr"]),
        preset=preset,
        revision=given["revision"],
        variant=given["variant"],
    )


def parse_lora(text: str) -> "Lora":
    """`FILE` or `FILE:WEIGHT`; a colon before what is no number belongs to the file's name."""
    from promptmill.importing.request import Lora

    file, _, weight = text.rpartition(":")
    try:
        number = float(weight) if file else math.nan
    except ValueError:
        number = math.nan
    return Lora(file, number) if math.isfinite(number) else Lora(text)


def parse_embedding(text: str) -> "Embedding":
    """`FILE` or `FILE:TOKEN`; where a file of the whole name exists, it is meant."""
    from promptmill.importing.request import Embedding

    file, _, token = text.rpartition(":")
    return Embedding(text) if not file or Path(text).exists() else Embedding(file, token)


def recognised(names: list[str]) -> str | None:
    """The preset of the first name that is a published checkpoint's, or that of a folder imported before."""
    from promptmill.producer.families.presets import recognise
    from promptmill.producer.models import model_defaults

    for name in names:
        if Path(name).is_dir() and (Path(name) / "model_index.json").is_file():
            return model_defaults(name).preset
        found = recognise([name if not Path(name).exists() else Path(name).name])
        if found:
            return found.name if found.name != "base" else None
    return None


def scheduler_for(preset: str | None, prediction_type: str | None, zero_snr: bool | None) -> "Scheduler":
    """The scheduler that the folder names, so that PyTorch too samples it as the preset says."""
    from promptmill.importing.request import Scheduler
    from promptmill.producer.families.presets import PRESETS

    known = PRESETS[preset] if preset and preset != "base" else None
    fields = {
        "timestep_spacing": known.timestep_spacing if known else None,
        "prediction_type": prediction_type or (known.prediction_type if known else None),
        "rescale_betas_zero_snr": zero_snr,
    }
    said = tuple((name, value) for name, value in fields.items() if value is not None)
    return Scheduler(SCHEDULERS[known.sampler] if known else None, said)


def _tell(request: "ImportRequest", record: dict[str, Any]) -> None:
    if record["preset"]:
        click.echo(f"it is rendered as {record['preset']} unless flags say otherwise", err=True)
    for embedding in record["embeddings"]:
        click.echo(f"use it in prompts as {embedding['tokens'][0]}", err=True)
