"""The flags that say how prompt files are read."""

import click
import pytest
from click.testing import CliRunner

from promptmill.producer.prompts.files import Reading
from promptmill.verbs.reading_options import reading_of, reading_options


def reading(*flags: str) -> Reading:
    """What a verb with these flags reads."""
    found: list[Reading] = []

    @click.command()
    @reading_options
    def verb(**given: object) -> None:
        found.append(reading_of(given))

    ran = CliRunner().invoke(verb, flags)
    if ran.exit_code:
        raise click.UsageError(ran.output)
    return found[0]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], Reading()),
        (["--format", "csv.gz"], Reading(format="csv.gz")),
        (["--prompt-column", "caption"], Reading({"prompt": "caption"})),
        (
            ["--column", "steps=n", "--column", "guidance-scale=a=b"],
            Reading({"num_inference_steps": "n", "guidance_scale": "a=b"}),
        ),
        (["--label", "widht", "--label", "Seed"], Reading(labels=frozenset({"widht", "Seed"}))),
    ],
)
def test_flags_are_a_reading(flags: list[str], expected: Reading) -> None:
    assert reading(*flags) == expected


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--column", "nonsense=x"], "expected FIELD=COLUMN"),
        (["--column", "seed"], "expected FIELD=COLUMN"),
        (["--column", "seed="], "expected FIELD=COLUMN"),
        (["--column", "steps=a", "--column", "num_inference_steps=b"], "a field may have one column"),
        (["--column", "prompt=a", "--prompt-column", "b"], "a field may have one column"),
    ],
)
def test_a_wrong_flag_is_told(flags: list[str], problem: str) -> None:
    with pytest.raises(click.UsageError, match=problem):
        reading(*flags)
