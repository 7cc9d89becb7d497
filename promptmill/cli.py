"""`promptmill VERB ...`: one file per verb in promptmill/verbs, loaded when it is called.

Settings come from flags, then PROMPTMILL_* in the environment, then promptmill.toml in this folder, then defaults.
Data goes to stdout, words to stderr. Exit codes: 0 all done, 1 finished with failed jobs, 2 usage, configuration or
infrastructure, 130 stopped by Ctrl-C.
"""

import difflib
import importlib
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from promptmill.said import line, logs_json
from promptmill.worker.settings import PREFIX, SETTINGS, variable_of

VERBS = {
    "render": "Render prompt files on this machine, with a queue and worker of its own.",
    "submit": "Put prompt files into the queue, for workers to render.",
    "worker": "Render jobs from the queue on all accelerators of this host.",
    "status": "Show runs and workers, live with --watch.",
    "list": "List runs, or the jobs of one by index, label or prompt.",
    "wait": "Wait until a run is over.",
    "cancel": "Cancel a run.",
    "pause": "Stop workers from taking more jobs of a run.",
    "unpause": "Continue a paused run.",
    "priority": "Set a run's priority: urgent, normal or low.",
    "retry": "Enqueue a run's failed jobs again.",
    "resume": "Enqueue what a run lacks, from its output alone.",
    "purge": "Delete a run from Redis; its images stay.",
    "sheet": "Draw a run's images on one contact sheet.",
    "gallery": "Write an HTML page to browse a run's images.",
    "pack": "Make a dataset of a finished run: manifest, shards, card.",
    "manifest": "Print a run's manifest as JSON lines or CSV.",
    "verify": "Check a run's images, manifest and shards, byte by byte.",
    "repair": "Restore what is broken or missing in a run.",
    "curate": "Find duplicate, blank and bad images of a run.",
    "push": "Upload a packed run to the Hugging Face hub.",
    "bench": "Measure what rendering costs on this machine.",
    "export": "Link or copy a run's images into a folder, under readable names.",
    "flower": "Watch every job in a browser.",
    "exporter": "Serve metrics of runs, queues and workers to Prometheus.",
    "doctor": "Check this host's installation, devices, Redis and output.",
    "import-model": "Convert single files, LoRAs, textual inversions to a model folder.",
}
"""Each verb is `command` in the module of its own name in promptmill.verbs."""

WITHOUT_SETTINGS = ("import-model",)
"""Verbs that take flags alone: a worker's `dtype` in the settings file is not what a model is to be stored in."""

SETTINGS_FILE = "promptmill.toml"

OTHER_VARIABLES = {variable for row in SETTINGS.values() if row.internal for variable in row.variables} | {
    f"{PREFIX}USER"  # docker-compose.yml's
}


class Verbs(click.Group):
    """The verbs, each imported when it is asked for: `promptmill submit --help` loads no JAX and no bucket's client."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _command(name) if name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = str(args[0])
        if name not in VERBS and not name.startswith("-"):
            near = difflib.get_close_matches(name.replace("_", "-"), VERBS, n=2)
            meant = f"did you mean {' or '.join(map(repr, near))}?" if near else "`promptmill --help` lists them"
            raise click.UsageError(f"no verb {name!r}; {meant}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `promptmill status | head`; click would exit with 1, and that means failed jobs
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _command(verb: str) -> click.Command:
    module = verb.replace("-", "_")
    command: click.Command = importlib.import_module(f"promptmill.verbs.{module}").command
    for option in _options(command) if verb not in WITHOUT_SETTINGS else ():
        option.envvar = [variable_of(spelling) for spelling in spellings(option)]
    return command


def _options(command: click.Command) -> list[click.Option]:
    return [param for param in command.params if isinstance(param, click.Option)]


def spellings(option: click.Option) -> list[str]:
    """The long names of a flag, without dashes. Each is a variable too (PROMPTMILL_...), and a key of the file."""
    return [flag.removeprefix("--") for flag in option.opts if flag.startswith("--")]


CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "token_normalize_func": lambda token: token.replace("_", "-"),  # --num_inference_steps as in diffusers
}


@click.group(cls=Verbs, context_settings=CONTEXT)
@click.version_option(package_name="promptmill")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Render prompts with Stable Diffusion XL, in bulk.

    \b
    promptmill render examples/prompts.txt --output out     all in one, on this machine
    promptmill submit prompts.jsonl --output gs://bucket/images
    promptmill worker                                       on every TPU, GPU or CPU host
    promptmill status --watch
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    ctx.default_map = read_settings(Path(SETTINGS_FILE))
    for sentence in unknown_variables(os.environ):
        click.secho(line("WARNING", f"warning: {sentence}"), err=True, fg="yellow")


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each PROMPTMILL_* that no verb reads, with the nearest that one does."""
    ours = [name for name in environ if name.startswith(PREFIX) and name not in OTHER_VARIABLES]
    if not ours:
        return []
    known = {variable for verb in VERBS for option in _options(_command(verb)) for variable in option.envvar or ()}
    sentences = []
    for name in sorted(set(ours) - known):
        own = [one.removeprefix(PREFIX) for one in known]
        sentences.append(f"{name} is not a setting{_near(name.removeprefix(PREFIX), own, PREFIX)}")
    return sentences


def read_settings(path: Path) -> dict[str, Any]:
    """The settings file as click's defaults: keys at the top serve every verb, a table `[render]` that verb alone.

    A key is a flag of the verb, with `_` or `-`. Raises click.ClickException for what no verb knows.
    """
    if not path.exists():
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # as Windows' editors write it
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.ClickException(f"{path}: {error}") from error
    tables = {name: value for name, value in settings.items() if isinstance(value, dict)}
    verbs = [verb for verb in VERBS if verb not in WITHOUT_SETTINGS]
    for name in tables:
        if name in WITHOUT_SETTINGS:
            raise click.ClickException(f"{path}: [{name}] has no settings, flags alone")
        if name not in verbs:
            raise click.ClickException(f"{path}: [{name}] is not a verb ({', '.join(verbs)})")
    common = {name: value for name, value in settings.items() if name not in tables}
    flags = {verb: _flags(verb) for verb in verbs}
    for name in common:
        if not any(_flag(name) in known for known in flags.values()):
            raise click.ClickException(
                f"{path}: {name} is not a setting of any verb{_near(name, set().union(*flags.values()))}"
            )
    defaults: dict[str, Any] = {}
    for verb, known in flags.items():
        own = tables.get(verb, {})
        for name in own:
            if _flag(name) not in known:
                raise click.ClickException(f"{path}: {name} is not a setting of [{verb}]{_near(name, known)}")
        said = {**common, **own}
        meant = {known[_flag(name)]: value for name, value in said.items() if _flag(name) in known}
        defaults[verb] = {str(option.name): _as_typed(value, option.multiple) for option, value in meant.items()}
    return defaults


def _near(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _flags(verb: str) -> dict[str, click.Option]:
    """The verb's flags by their spellings."""
    return {spelling: option for option in _options(_command(verb)) for spelling in spellings(option)}


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _as_typed(value: Any, multiple: bool) -> str | list[str]:
    """The value as it would be typed after its flag: click checks text, and lets a float pass for a whole number."""
    if multiple:
        return [str(one) for one in (value if isinstance(value, list) else [value])]
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _origin(error: click.ClickException) -> str:
    """Where a wrong value came from, unless it was typed: then ''."""
    if not isinstance(error, click.BadParameter) or not error.ctx or not error.param or not error.param.name:
        return ""
    source = error.ctx.get_parameter_source(error.param.name)
    if source is click.core.ParameterSource.ENVIRONMENT:
        return next((name for name in error.param.envvar or () if os.environ.get(name)), "")
    return SETTINGS_FILE if source is click.core.ParameterSource.DEFAULT_MAP else ""


def main() -> None:
    """The console script. Every error that the user can mend is one sentence and exit code 2."""
    _open_closed_streams()
    import redis

    from promptmill.producer.errors import PromptmillError

    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        _show(error)
        _leave(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except redis.RedisError as error:  # it was there when we began
        click.echo(line("CRITICAL", f"promptmill: Redis: {error}"), err=True)
        _leave(f"Redis: {error}")
    except PromptmillError as error:
        click.echo(line("CRITICAL", f"promptmill: {error}"), err=True)
        _leave(str(error))
    sys.exit(code or 0)


def _show(error: click.ClickException) -> None:
    origin = _origin(error)
    from_where = f"That value is from {origin}." if origin else ""
    if logs_json():
        click.echo(line("CRITICAL", f"{error.format_message()} {from_where}".strip()), err=True)
        return
    error.show()
    if from_where:
        click.echo(from_where, err=True)


def _open_closed_streams() -> None:
    """Let a standard stream that the shell closed (`2>&-`) be the null device, or a file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _leave(problem: str) -> NoReturn:
    """With exit code 2; where data was to be JSON, the problem is JSON as well."""
    if "--json" in sys.argv[1:] or os.environ.get(variable_of("--json")):
        click.echo(json.dumps({"error": problem, "code": 2}, ensure_ascii=False))
    sys.exit(2)
