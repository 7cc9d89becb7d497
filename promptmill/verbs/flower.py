"""`promptmill flower`: Flower, configured for jobs."""

import importlib.util
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from promptmill.verbs.options import broker_option, env

USER = "promptmill"
AUTHENTICATION = ("FLOWER_BASIC_AUTH", "FLOWER_AUTH", "FLOWER_AUTH_PROVIDER")
"""Environment variables of Flower's own, for whoever has a way in already."""


@click.command("flower", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@broker_option
@click.option("--no-password", is_flag=True, help="Ask for no password. Whoever reaches the port can stop workers.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[FLOWER OPTIONS]...")
def command(broker: str | None, no_password: bool, options: tuple[str, ...]) -> int:
    """Watch every job in a browser: Flower, which shows prompts, runs, indexes and images, at http://localhost:5555.

    All of Flower's own options may be given: --port, --address, --persistent --db FILE, --basic-auth USER:PASSWORD,
    --max-tasks, --url-prefix. Without --basic-auth it makes up a password and prints it.
    """
    if importlib.util.find_spec("flower") is None:
        raise click.ClickException("Flower is not installed here: pip install 'promptmill[flower]'")
    options = tuple(_joined(options))
    if broker:
        os.environ[env("broker")] = broker
    from promptmill.worker import app as apps

    if not no_password and not _has_way_in(options):
        password = secrets.token_urlsafe(12)
        options = (*options, f"--basic-auth={USER}:{password}")
        click.echo(f"log in as {USER} with the password {password} (--basic-auth USER:PASSWORD for your own)", err=True)
    config = Path(apps.__file__).with_name("flower_config.py")
    try:
        apps.app.start(["flower", f"--conf={config}", *options])
    except OSError as error:
        raise click.ClickException(f"Flower cannot start: {error}; --port and --address say where") from error
    return 0


def _joined(words: Iterable[str]) -> Iterator[str]:
    """`--port 80` as `--port=80`, which is how Flower's own parser wants it."""
    name = ""
    for word in words:
        if name and not word.startswith("-"):
            yield f"{name}={word}"
            name = ""
            continue
        if name:
            yield name
        name = word if word.startswith("-") and "=" not in word else ""
        if not name:
            yield word
    if name:
        yield name


def _has_way_in(options: tuple[str, ...]) -> bool:
    names = {option.lstrip("-").partition("=")[0].replace("_", "-") for option in options if option.startswith("-")}
    return bool(names & {"basic-auth", "auth", "auth-provider"}) or any(os.environ.get(name) for name in AUTHENTICATION)
