"""Prompts to tokens: one window as diffusers has it, several as compel has them, and nothing lost without a word."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import CLIPTokenizer

from promptmill.worker.errors import ConfigError, RequestError
from promptmill.worker.text import prompts
from promptmill.worker.text.prompts import Cut, Tokenizers, Tokens, tokenize
from promptmill.worker.text.weighting import Segment, plain

TEXTS = [
    "a photo of an astronaut riding a horse on the moon, highly detailed, cinematic light",
    "",
    "  A   Cat\tand\na DOG ",
    "猫が雨の中を走る ✨" * 9,
    "cat " * 200,
    "(a:1.3) [b] 'tis 3/4 <|endoftext|> it's café cafe\u0301 #trending",
]


@pytest.fixture(scope="module")
def tokenizers(tiny_folder: Path) -> Tokenizers:
    return Tokenizers(tiny_folder)


def windows(tokenizers: Tokenizers, text: str, windows: int, weighted: bool = False) -> Tokens:
    return tokenize(tokenizers, [text], [text], windows=windows, weighted=weighted)[0]


def test_one_window_holds_what_diffusers_makes_of_a_text(tiny_folder: Path, tokenizers: Tokenizers) -> None:
    tokens, _ = tokenize(tokenizers, TEXTS, TEXTS[::-1], windows=1)
    for name, got, texts in (("tokenizer", tokens.ids, TEXTS), ("tokenizer_2", tokens.ids_2, TEXTS[::-1])):
        theirs = CLIPTokenizer.from_pretrained(tiny_folder / name)
        # As StableDiffusionXLPipeline.encode_prompt calls it.
        expected = theirs(texts, padding="max_length", max_length=theirs.model_max_length, truncation=True).input_ids
        np.testing.assert_array_equal(got[:, 0], expected)
    assert (tokens.weights == 1).all() and (tokens.windows == 1).all() and tokens.ids.dtype == np.int32


def test_a_long_text_goes_on_in_windows_of_75_with_marks_of_their_own(tiny_folder: Path) -> None:
    text = "a cat and a red dog in the rain " * 20  # 180 tokens
    plain = CLIPTokenizer.from_pretrained(tiny_folder / "tokenizer")
    all_ids = plain(text).input_ids[1:-1]
    tokens = windows(Tokenizers(tiny_folder), text, 4)
    assert len(all_ids) == 180 and tokens.ids.shape == (1, 4, 77) and tokens.windows == [3]
    start, end = plain.bos_token_id, plain.eos_token_id
    for index in range(3):
        part = all_ids[75 * index : 75 * (index + 1)]
        np.testing.assert_array_equal(tokens.ids[0, index, : len(part) + 2], [start, *part, end])
    np.testing.assert_array_equal(tokens.ids_2[0, 2, 32:], 0)  # each encoder's own padding, after the end mark
    np.testing.assert_array_equal(tokens.ids[0, 3], tokens.empty[0])
    np.testing.assert_array_equal(tokens.ids_2[0, 3], tokens.empty_2[0])


@pytest.mark.parametrize(("words", "windows"), [(74, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_a_text_takes_the_windows_that_it_needs(tokenizers: Tokenizers, words: int, windows: int) -> None:
    tokens, (cut,) = tokenize(tokenizers, ["cat " * words], ["cat"], windows=3)
    assert tokens.windows == [windows] and cut is None
    tokens, (cut,) = tokenize(tokenizers, ["cat"], ["cat " * words], windows=3)
    assert tokens.windows == [windows] and cut is None


def test_the_cut_end_is_told_as_it_was_written(tokenizers: Tokenizers) -> None:
    text = "cat " * 74 + "✨ the\tEND"  # ✨ is three tokens, the second of them the first that is lost
    _, cuts = tokenize(tokenizers, [text, "cat", text], [text, text, "dog"], windows=1)
    assert cuts == [Cut("✨ the\tEND", "", 75), Cut("", "✨ the\tEND", 75), Cut("✨ the\tEND", "", 75)]
    assert str(cuts[0]) == "longer than 75 tokens, so the end was cut off: '✨ the\\tEND'"
    assert len(str(Cut("x" * 9999, "", 75))) < 300


def test_what_is_cut_off_a_weighted_text_keeps_its_brackets(tokenizers: Tokenizers) -> None:
    text = "(cat:1.2) " * 74 + r"\(dog\) (and fish:1.3)"
    _, (cut,) = tokenize(tokenizers, [text], [text], windows=1, weighted=True)
    assert cut == Cut(r"dog\) (and fish:1.3)", "", 75)


def test_weights_stand_at_their_words_and_nowhere_else(tokenizers: Tokenizers) -> None:
    plain = windows(tokenizers, "cat " * 73 + "red dog and fish", 2)
    marked = windows(tokenizers, "cat " * 73 + "(red [dog] and:1.5) fish", 2, weighted=True)
    np.testing.assert_array_equal(marked.ids, plain.ids)
    expected = np.ones((2, 77), np.float32)
    expected[0, 74:76] = [1.5, 1.5 / 1.1]
    expected[1, 1] = 1.5
    np.testing.assert_allclose(marked.weights[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(marked.weights, marked.weights_2)
    assert (plain.weights == 1).all()


def test_texts_of_one_batch_choose_for_themselves_whether_brackets_are_weights(tokenizers: Tokenizers) -> None:
    tokens, _ = tokenize(tokenizers, ["(cat:2)"] * 2, ["(cat:2)"] * 2, windows=1, weighted=[False, True])
    assert (tokens.weights[0] == 1).all() and tokens.weights[1].max() == 2
    assert (tokens.ids[0, 0] != tokens.ids[1, 0]).any()


def test_a_bracket_that_never_closes_is_the_requests_fault(tokenizers: Tokenizers) -> None:
    with pytest.raises(RequestError, match="never closed"):
        windows(tokenizers, "a (cat", 1, weighted=True)


def test_a_lone_second_tokenizer_takes_the_first_text(tiny_folder: Path, tokenizers: Tokenizers) -> None:
    """As diffusers' image-to-image pipeline does for a refiner, which ignores prompt_2."""
    tokens, (cut,) = tokenize(Tokenizers(tiny_folder, ("tokenizer_2",)), ["cat " * 80], ["dog"], windows=1)
    np.testing.assert_array_equal(tokens.ids_2, windows(tokenizers, "cat " * 80, 1).ids_2)
    assert cut == Cut("cat " * 5, "", 75)


def test_threads_share_tokenizers(tokenizers: Tokenizers) -> None:
    expected = [windows(tokenizers, text, 3).ids for text in TEXTS]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda text: windows(tokenizers, text, 3).ids, TEXTS * 20))
    for index, ids in enumerate(found):
        np.testing.assert_array_equal(ids, expected[index % len(TEXTS)])


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Path) -> Path:
    """Tokenizers and encoders' configurations, to be spoilt."""
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(tiny_folder / name, tmp_path / name)
    for name in ("text_encoder", "text_encoder_2"):
        (tmp_path / name).mkdir()
        shutil.copy(tiny_folder / name / "config.json", tmp_path / name)
    return tmp_path


def change(path: Path, **values: Any) -> None:
    settings = json.loads(path.read_text())
    kept = {name: value for name, value in {**settings, **values}.items() if value is not None}
    path.write_text(json.dumps(kept))


def add_words(folder: Path, *words: str) -> None:
    """As diffusers' `load_textual_inversion` adds them, and `save_pretrained` writes them."""
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = CLIPTokenizer.from_pretrained(folder / name)
        tokenizer.add_tokens(list(words))
        tokenizer.save_pretrained(folder / name)
        change(folder / name.replace("tokenizer", "text_encoder") / "config.json", vocab_size=len(tokenizer))


def test_a_textual_inversion_of_several_vectors_becomes_all_its_tokens(folder: Path) -> None:
    add_words(folder, "<toy>", "<toy>_1", "<toy>_2", "<one>")
    tokens = windows(Tokenizers(folder), "a <toy> on (<one>:2) <toy>_1", 1, weighted=True)
    first = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    words = ["a</w>", "<toy>", "<toy>_1", "<toy>_2", "on</w>", "<one>", "<toy>_1"]
    np.testing.assert_array_equal(tokens.ids[0, 0, 1:8], first.convert_tokens_to_ids(words))
    np.testing.assert_array_equal(tokens.weights[0, 0, 1:8], [1, 1, 1, 1, 1, 2, 1])


def test_what_a_textual_inversion_pushes_out_is_told_as_it_was_written(folder: Path) -> None:
    add_words(folder, "<toy>", "<toy>_1", "<toy>_2")
    text = "cat " * 74 + "<toy> dog"
    assert tokenize(Tokenizers(folder), [text], [text], windows=1)[1] == [Cut("<toy> dog", "", 75)]


def test_without_a_length_of_its_own_a_tokenizer_has_its_encoders(folder: Path) -> None:
    change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=None)
    assert Tokenizers(folder).length == 77
    for name in ("text_encoder", "text_encoder_2"):
        change(folder / name / "config.json", max_position_embeddings=32)
    tokenizers = Tokenizers(folder)
    tokens, (cut,) = tokenize(tokenizers, ["cat " * 31], ["cat"], windows=1)
    assert tokenizers.length == 32 and tokens.ids.shape == (1, 1, 32) and cut == Cut("cat ", "", 30)


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder / "tokenizer_2"), "tokenizer_2: is not there"),
    "no merges": (lambda folder: (folder / "tokenizer/merges.txt").unlink(), "tokenizer/merges.txt: is not there"),
    "no vocabulary": (lambda folder: (folder / "tokenizer/vocab.json").unlink(), "tokenizer/vocab.json: is not there"),
    "broken vocabulary": (
        lambda folder: (folder / "tokenizer/vocab.json").write_text('{"a": 1'),
        "tokenizer: cannot be read as a CLIP tokenizer",
    ),
    "vocabulary without merges' tokens": (
        lambda folder: (folder / "tokenizer/vocab.json").write_text('{"a": 1}'),
        "tokenizer: cannot be read as a CLIP tokenizer",
    ),
    "broken settings": (
        lambda folder: (folder / "tokenizer/tokenizer_config.json").write_text("{"),
        "tokenizer: cannot be read as a CLIP tokenizer",
    ),
    "another length": (
        lambda folder: change(folder / "tokenizer_2/tokenizer_config.json", model_max_length=64),
        "tokenizer_2: its texts are 64 tokens long, but those of tokenizer 77; they must agree",
    ),
    "no room": (
        lambda folder: change(folder / "tokenizer/tokenizer_config.json", model_max_length=2),
        "tokenizer: its texts are 2 tokens long, expected at least 3",
    ),
    "ids beyond the encoder's table": (
        lambda folder: change(folder / "text_encoder_2/config.json", vocab_size=965),
        "tokenizer_2: its largest id is 965, but its encoder's vocab_size is 965",
    ),
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_tokenizer_that_would_give_other_images_is_refused(folder: Path, spoil: str) -> None:
    act, reason = SPOILT[spoil]
    act(folder)
    with pytest.raises(ConfigError) as caught:
        Tokenizers(folder)
    assert str(caught.value).startswith(f"{folder}/{reason}")


def test_texts_that_come_again_are_read_once(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs repeat their negative prompt, and often prompts: tokenising must cost next to nothing."""
    read: list[str] = []

    def counted(text: str) -> list[Segment]:
        read.append(text)
        return plain(text)

    monkeypatch.setattr(prompts, "plain", counted)
    tokenizers = Tokenizers(tiny_folder)
    first, _ = tokenize(tokenizers, ["cat", "dog", "cat"], ["cat", "dog", "cat"], windows=1)
    again, _ = tokenize(tokenizers, ["cat", "dog"], ["cat", "dog"], windows=1)
    assert read == ["cat", "cat", "dog", "dog"], "once for each of the two tokenizers"
    np.testing.assert_array_equal(first.ids[:2], again.ids)
    tokenize(tokenizers, ["cat"], ["cat"], windows=2)
    assert len(read) == 6, "other windows are another reading"
