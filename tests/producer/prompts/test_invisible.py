"""Characters that nobody sees: cut at the ends of a prompt, said within it, and never taken out of an emoji."""

import json
from pathlib import Path

import pytest

from promptmill.producer.errors import PromptFileErrors
from promptmill.producer.plan import PlanOptions, plan_run
from promptmill.producer.prompts.invisible import bare
from tests.producer.prompts.formats import prompts, read, said

FAMILY, FLAG, HEART = "👩‍👩‍👧", "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f", "❤️"
UNSEEN = {
    "byte order mark": "\ufeff",
    "zero width space": "\u200b",
    "soft hyphen": "\u00ad",
    "left-to-right mark": "\u200e",
    "right-to-left override": "\u202e",
    "word joiner": "\u2060",
    "hangul filler": "\u3164",
    "braille pattern blank": "\u2800",
}
SPACES = ("\u00a0", "\u3000", "\u2009", "\u2028")


def planned(path: Path) -> tuple[list[str], list[str]]:
    """The plan's prompts, and what is said about them."""
    with plan_run([str(path)], PlanOptions()) as plan:
        return [plan.whole(job).prompt for job in plan], [line for line in plan.warnings(None) if "invisible" in line]


@pytest.mark.parametrize("char", [*UNSEEN.values(), *SPACES, "\u200d", "\ufeff \u200b"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_what_nobody_sees_is_cut_at_both_ends(tmp_path: Path, char: str, suffix: str):
    path = tmp_path / f"a{suffix}"
    text = f"{char}a red apple{char}"
    path.write_text({".txt": text, ".jsonl": json.dumps({"prompt": text}), ".csv": f'prompt\n"{text}"\n'}[suffix])
    assert planned(path) == (["a red apple"], [])


@pytest.mark.parametrize("name", ["negative_prompt", "prompt_2"])
def test_other_texts_are_cut_too(tmp_path: Path, name: str):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": "x", name: text}) for text in ("blurry", "\u200bblurry\ufeff")))
    with plan_run([str(path)], PlanOptions(defaults={"seed": 1})) as plan:
        assert (plan.jobs, plan.images) == (2, 1)


@pytest.mark.parametrize("text", [FAMILY, FLAG, HEART, f"a {FAMILY}", f"{HEART} {FLAG}", "می‌خواهم", "क्‍ष"])
def test_emoji_and_spelling_keep_their_joiners(tmp_path: Path, text: str):
    path = tmp_path / "a.txt"
    path.write_text(text)
    assert planned(path) == ([text], [])


@pytest.mark.parametrize("line", ["\ufeff", "\u200b", "\u200b\u00a0\ufeff", "\u3164", "\ufe0f", "\u200d"])
def test_a_line_on_which_nobody_sees_anything_is_blank(tmp_path: Path, line: str):
    path = tmp_path / "a.txt"
    path.write_text(f"a red apple\n{line}\n{line} \n\u200b# a comment\na pear\n")
    assert prompts(read(path)) == ["a red apple", "a pear"]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": line}))
    with pytest.raises(PromptFileErrors, match="prompt: is empty"):
        plan_run([str(path)])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_windows_editors_may_be_put_one_behind_the_other(tmp_path: Path, encoding: str):
    lines = ["a red apple\r\n", "# the second\r\na pear\r\n", "\ufeffa plum\r\n"]
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(text.encode(encoding) for text in lines))
    assert prompts(read(path)) == ["a red apple", "a pear", "a plum"]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(f'{{"prompt": "{text}"}}\r\n'.encode(encoding) for text in ("one", "two")))
    assert prompts(read(path)) == ["one", "two"]


def test_a_csv_may_have_a_mark_before_any_record(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffprompt,seed\n\ufeffone,1\n\ufeff"two, more",2\n')
    assert [fields for fields, _ in said(read(path))] == [
        {"prompt": "one", "seed": 1},
        {"prompt": "two, more", "seed": 2},
    ]


@pytest.mark.parametrize(("name", "char"), UNSEEN.items())
def test_what_nobody_sees_within_a_prompt_is_said(tmp_path: Path, name: str, char: str):
    path = tmp_path / "a.txt"
    path.write_text(f"a red apple\na red{char} apple\na{char} pear")
    found, (told,) = planned(path)
    assert found == ["a red apple", f"a red{char} apple", f"a{char} pear"]
    assert told.startswith("2 jobs have invisible characters in the prompt, first at ")
    assert f"a.txt:2: U+{ord(char):04X} ({name}) at character 6" in told


@pytest.mark.parametrize("text", ["", "\x00", " \x0b ", "a", "\x85"])
def test_control_characters_are_left_to_be_refused(text: str):
    assert bare(text) == text.strip(" \x85")
