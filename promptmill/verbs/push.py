"""`promptmill push`: a packed run onto the Hugging Face hub."""

import click

from promptmill.producer.words import count
from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.runs import answer


@click.command("push")
@click.argument("run", metavar="RUN")
@click.argument("repo", metavar="USER/NAME")
@click.option("--private", is_flag=True, help="Make the repository private, if it is created now.")
@click.option("--revision", help="Branch to push to.  [main]")
@click.option("--dry-run", is_flag=True, help="List what would be uploaded, without contacting the hub.")
@broker_option
@json_option
def command(
    run: str, repo: str, private: bool, revision: str | None, dry_run: bool, broker: str | None, as_json: bool
) -> int:
    """Upload RUN's shards, manifest and card to the dataset repository USER/NAME of the Hugging Face hub.

    RUN is the run's folder or URL, or its name in Redis; it must be packed. Shards that are there already are left out.
    The token is that of `hf auth login`, or HF_TOKEN.
    """
    import importlib.util

    for package in ("pyarrow", "PIL", "huggingface_hub"):
        if importlib.util.find_spec(package) is None:
            raise click.ClickException(f"{package} is not installed here: pip install 'promptmill[hub]'")
    from promptmill.dataset.push import Upload, push, uploads
    from promptmill.verbs.run_output import find_run_output

    output = find_run_output(run, broker)
    todo = uploads(output)
    size = sum(upload.bytes for upload in todo)
    if dry_run:
        for upload in () if as_json else todo:
            click.echo(f"{upload.name}\t{upload.bytes}")
        files = [{"name": upload.name, "bytes": upload.bytes} for upload in todo]
        answer(as_json, f"{repo}: {count(len(todo), 'file')}, {size:,} bytes would go", repo=repo, files=files)
        return 0
    from huggingface_hub import HfApi

    def tell(upload: Upload) -> None:
        click.echo(f"{upload.name}: {upload.bytes:,} bytes", err=True)

    went = push(output, repo, HfApi(), private=private, revision=revision, progress=tell)
    answer(as_json, f"{repo}: {count(went, 'file')} pushed", repo=repo, pushed=went)
    return 0
