"""Which columns are fields, which are labels, and which were surely mistyped."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.producer.errors import JobError
from promptmill.producer.prompts.columns import NAMES, Columns, Reading, near_name


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("promt", "prompt"),
        ("Prompt", "prompt"),
        ("prompts", "prompt"),
        ("widht", "width"),
        ("Steps ", "steps"),
        ("stpes", "steps"),
        ("negativePrompt", "negative_prompt"),
        ("Negative Prompt", "negative_prompt"),
        ("negative-promt", "negative_prompt"),
        ("guidance_scal", "guidance_scale"),
        ("prompt2", "prompt_2"),
    ],
)
def test_a_mistyped_field_is_found(column: str, field: str) -> None:
    assert near_name(column) == field


@pytest.mark.parametrize(
    "column",
    [
        "id",
        "author",
        "caption",
        "text",
        "url",
        "prompt_id",
        "prompt_hash",
        "seed_1",
        "model_name",
        "my_seed",
        "image",
        "aesthetic",
        "original_width",
        "style",
        "title",
        "tags",
        "split",
        "",
        "x" * 10_000,
        "プロンプト",
    ],
)
def test_a_label_is_not_taken_for_a_mistyped_field(column: str) -> None:
    assert near_name(column) is None


@given(st.sampled_from(NAMES), st.data())
def test_two_letters_that_changed_places_are_found_in_every_long_name(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(name) - 2))
    swapped = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    if len(name) >= 6 and "_" not in swapped[at : at + 2] and swapped not in NAMES:
        assert near_name(swapped) is not None


columns = st.lists(st.sampled_from([*NAMES, "id", "author", "widht"]) | st.text(max_size=8), unique=True, max_size=6)
readings = st.builds(
    Reading,
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["id", "author", "caption"]), max_size=2),
    st.frozensets(st.sampled_from(["widht", "id", "prompt"]), max_size=2),
)


@settings(max_examples=300)
@given(columns, readings)
def test_every_value_is_a_field_or_a_label_or_its_column_is_wrong(names: list[str], reading: Reading) -> None:
    values = list(range(len(names)))
    try:
        fields, labels = Columns(names, reading).split(values)
    except JobError:
        return
    row: dict[str, Any] = dict(zip(names, values, strict=True))
    assert all(row[reading.columns.get(name, name)] == value for name, value in fields.items())
    assert labels.items() <= row.items()
    named = {value for name, value in row.items() if name}
    assert named <= {*fields.values(), *labels.values()} <= set(values)
    assert not reading.labels - set(reading.columns.values()) & fields.keys() - reading.columns.keys()
