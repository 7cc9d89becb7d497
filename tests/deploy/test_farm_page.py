"""docs/farm.md and the systemd unit: their commands parse, what they name is there, and the unit's command runs."""

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import click
import pytest
import redis

from promptmill.cli import VERBS, cli
from promptmill.worker.settings import SETTINGS, WorkerSettings
from tests.deploy.programs import ROOT, program, succeeds
from tests.fake_gcs import free_port
from tests.farm import wait_until

PAGE = (ROOT / "docs" / "farm.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
SYSTEMD = ROOT / "deploy" / "systemd"
SPOT_NOTICE_S = 30


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell script that starts promptmill."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in re.split(r"&&|\|\||;|\|", line)]
    return [shlex.split(part, comments=True)[1:] for part in parts if part.startswith("promptmill ")]


def test_the_commands_of_the_page_parse() -> None:
    found = [words for block in BLOCKS for words in commands(block)]
    found += [words for code in re.findall(r"`(promptmill [^`]+)`", PAGE) for words in commands(code)]
    assert len(found) > 8
    for verb, *rest in found:
        assert verb in VERBS, verb
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        parsed = command.make_parser(click.Context(command, info_name=verb))
        parsed.parse_args(list(rest))  # raises where a flag is unknown, or lacks its value


def test_a_flag_that_is_not_there_would_be_found() -> None:
    command = cli.get_command(click.Context(cli), "status")
    assert command is not None
    with pytest.raises(click.NoSuchOption):
        command.make_parser(click.Context(command)).parse_args(["--wach"])


def test_what_the_page_names_is_there() -> None:
    named = re.findall(r"\b(deploy/[\w./-]*[\w])", PAGE)
    assert named and [path for path in named if not (ROOT / path).exists()] == []
    overlays = re.findall(r"`(?:overlays/)?((?:tpu|gpu|cpu)[\w-]*)`", PAGE)
    kinds = {path.name for path in (ROOT / "deploy" / "kubernetes" / "overlays").iterdir()}
    assert kinds <= set(overlays) | {"gpu"}
    variables = set(re.findall(r"\bPROMPTMILL_[A-Z_]+", PAGE + (SYSTEMD / "setup.sh").read_text()))
    known = {variable for row in SETTINGS.values() for variable in row.variables}
    assert variables - known == {"PROMPTMILL_PACKAGE"}


def test_the_shell_of_the_page_and_the_setup_script_are_valid(tmp_path: Path) -> None:
    script = tmp_path / "page.sh"
    script.write_text("#!/usr/bin/env bash\n" + "\n".join(BLOCKS))
    succeeds("bash", "-n", str(script))
    succeeds(program("shellcheck", "Debian's package shellcheck"), str(SYSTEMD / "setup.sh"))


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SYSTEMD / "promptmill-worker.service")
    return parser


def environment() -> dict[str, str]:
    return dict(one.split("=", 1) for one in shlex.split(unit()["Service"]["Environment"]))


def test_the_unit_stops_within_the_notice_and_always_comes_back() -> None:
    service = unit()["Service"]
    drain_s = WorkerSettings.from_env(environment()).drain_s
    assert drain_s + 5 <= float(service["TimeoutStopSec"]) <= SPOT_NOTICE_S - 2
    assert (service["Restart"], service["KillSignal"]) == ("always", "SIGTERM")
    assert unit()["Unit"]["StartLimitIntervalSec"] == "0"
    home = re.search(r"^home=(\S+)$", (SYSTEMD / "setup.sh").read_text(), re.M)
    assert home and service["ExecStart"] == f"{home[1]}/bin/promptmill worker"
    assert service["EnvironmentFile"] == "/etc/promptmill.env"


@pytest.mark.slow
def test_the_units_command_runs_with_the_units_variables(client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    words = shlex.split(unit()["Service"]["ExecStart"])
    words[0] = str(Path(sys.executable).parent / Path(words[0]).name)
    port = free_port()
    elsewhere = {
        "PROMPTMILL_BROKER": redis_url,
        "PROMPTMILL_METRICS_PORT": str(port),
        "PROMPTMILL_MODEL": "tiny-random",
    }
    env = {**os.environ, "XLA_FLAGS": "", **environment(), **elsewhere, "PROMPTMILL_MODEL": "tiny-random"}
    env |= {name: str(tmp_path) for name in env if name in ("XDG_CACHE_HOME", "HF_HOME")}

    def ready() -> bool:
        try:
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").status == 200)
        except OSError:
            return False

    process = subprocess.Popen(words, env=env, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        wait_until(ready, "the worker is ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
