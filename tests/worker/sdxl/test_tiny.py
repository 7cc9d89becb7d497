"""The built-in model is whole, the same everywhere, and can be written by many at once."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from worker.sdxl.errors import ConfigError
from worker.sdxl.requests import Tokenizers
from worker.sdxl.tiny import write_tiny_random


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_writers_at_the_same_time_leave_one_whole_folder(tmp_path: Path, tiny_folder: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(write_tiny_random, [tmp_path / "tiny"] * 4))
    assert folders == [tmp_path / "tiny"] * 4
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny"]
    assert digest(tmp_path / "tiny") == digest(tiny_folder)


def test_another_seed_gives_other_weights_only(tmp_path: Path, tiny_folder: Path) -> None:
    other, this = digest(write_tiny_random(tmp_path / "tiny", seed=1)), digest(tiny_folder)
    assert other.keys() == this.keys()
    assert {Path(name).suffix for name in this if this[name] != other[name]} == {".safetensors"}


def test_it_is_small(tiny_folder: Path) -> None:
    assert sum(path.stat().st_size for path in tiny_folder.rglob("*") if path.is_file()) < 8_000_000


def test_prompts_become_few_tokens_with_clips_marks_and_padding(tiny_folder: Path) -> None:
    tokenizers = Tokenizers(tiny_folder)
    text = "a photo of an astronaut riding a horse on the moon, highly detailed, cinematic light"
    ids, ids_2 = tokenizers([text], [text])
    end = ids.max()
    assert ids.shape == ids_2.shape == (1, 77) and ids.dtype == np.int32
    assert ids[0, 0] == end - 1  # the start mark
    used = int(ids.argmax())
    assert used < 25
    assert (ids[0, used:] == end).all()  # the first tokenizer pads with the end mark
    assert np.array_equal(ids_2[0, : used + 1], ids[0, : used + 1])
    assert (ids_2[0, used + 1 :] == 0).all()  # the second with "!"


def test_a_long_prompt_is_cut_and_keeps_its_end_mark(tiny_folder: Path) -> None:
    tokenizers = Tokenizers(tiny_folder)
    ids, _ = tokenizers(["cat " * 200, "猫が雨の中を走る ✨"], ["", ""])
    assert ids.shape == (2, 77)
    assert ids[0, -1] == ids.max() and ids[0].argmax() == 76
    assert ids[1].max() == ids.max()


def test_a_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}/tokenizer: is not there"):
        Tokenizers(tmp_path)
