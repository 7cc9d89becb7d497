"""README, CONTRIBUTING, CHANGELOG and docs/: every relative link, anchor, verb and flag that they name exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from promptmill.cli import VERBS, cli

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.md")])

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"\bpromptmill ([a-z][a-z-]+)((?:[^`\n|&;#]|(?<=\\)\n)*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
INLINE_FLAG = re.compile(r"`--([a-z][a-z0-9_-]*)")

OF_OTHERS = {
    "kohya and A1111": {
        "prompt",
        "w",
        "h",
        "d",
        "s",
        "l",
        "g",
        "n",
        "ss",
        "x",
        "cfg_scale",
        "sampler_name",
        "batch_size",
        "n_iter",
    },
    "Midjourney": {"ar"},
    "Celery and Flower": {"pool", "basic-auth", "persistent", "url-prefix", "max-tasks"},
    "gcloud": {"accelerator-type"},
    "benchmarks": {
        flag for file in (ROOT / "benchmarks").glob("*.py") for flag in re.findall(r'"--([a-z-]+)"', file.read_text())
    },
}


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            yield f"{link}: no such file"
        elif anchor and anchor not in anchors_of(target):
            yield f"{link}: no such heading"


def flags_of(verb: str) -> set[str]:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    options = [one for param in command.params for one in (*param.opts, *param.secondary_opts)]
    return {"--help", *options, *(one.replace("_", "-") for one in options)}


def wrong_commands(page: Path) -> Iterator[str]:
    """`promptmill VERB ... --flag` of a verb, or with a flag of the verb, that does not exist."""
    for verb, rest in COMMAND.findall(page.read_text()):
        if verb not in VERBS:
            continue  # a sentence: "promptmill is young"
        for flag in FLAG.findall(rest):
            if flag not in flags_of(verb):
                yield f"promptmill {verb} has no {flag}"


def test_the_pages_are_found():
    assert {"README.md", "settings.md", "architecture.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_anchor_of_a_page_exists(page: Path):
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_has_the_flags_that_it_names(page: Path):
    assert list(wrong_commands(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_flag_in_a_sentence_exists(page: Path):
    known = {flag.removeprefix("--") for verb in VERBS for flag in flags_of(verb)}.union(*OF_OTHERS.values())
    named = INLINE_FLAG.findall(FENCE.sub("", page.read_text()))
    assert [flag for flag in named if flag not in known and flag.replace("_", "-") not in known] == []
