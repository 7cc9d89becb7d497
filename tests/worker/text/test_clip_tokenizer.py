"""CLIP's tokenizer without transformers gives transformers' ids, whatever files a folder has."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from promptmill.worker.text.clip_tokenizer import CLIPTokenizer

TEXTS = [
    "a photo of an astronaut riding a horse on the moon, highly detailed",
    "",
    "  A   Cat\tand\na DOG!!! ! 123 4x4",
    "猫が雨の中を走る ✨ naïve cafe\u0301 Ǆ İstanbul \u00a0 \u200b",
    "<|endoftext|> a <|startoftext|> b <|ENDOFTEXT|> <toy> <toy>_1 <TOY> x<toy>y _extra_ [mask]",
    "it's I'm we'll they've he'd don't 'tis O'Neill's",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16") + " 🏳️‍🌈 \x00 \x7f",
]


def as_the_first_publishers(folder: Path) -> None:
    """SDXL's folders as they are on the hub: marks are normalised."""
    path = folder / "tokenizer_config.json"
    plain = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    settings = json.loads(path.read_text())
    marks = {name: settings[name] for name in ("bos_token", "eos_token", "unk_token")}
    path.write_text(
        json.dumps(settings | {name: {"__type": "AddedToken", "content": one, **plain} for name, one in marks.items()})
    )
    (folder / "special_tokens_map.json").write_text(
        json.dumps({**{name: {"content": one, **plain} for name, one in marks.items()}, "pad_token": "!"})
    )


def saved_again(folder: Path) -> None:
    """As transformers 5 writes it: a tokenizer.json and `added_tokens_decoder`."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<toy>", "<toy>_1"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["_extra_"]})
    shutil.rmtree(folder)
    tokenizer.save_pretrained(folder)


def saved_without_settings(folder: Path) -> None:
    saved_again(folder)
    (folder / "tokenizer_config.json").unlink()


def with_added_tokens_file(folder: Path) -> None:
    """As transformers 4 wrote textual inversions."""
    largest = max(json.loads((folder / "vocab.json").read_text()).values())
    (folder / "added_tokens.json").write_text(json.dumps({"<toy>": largest + 1, "<toy>_1": largest + 2}))


def with_new_marks(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    extra = ["_extra_", {"__type": "AddedToken", "content": "<toy>", "special": False, "lstrip": True}]
    more = {"mask_token": "[mask]", "additional_special_tokens": extra}
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


LAYOUTS: list[Callable[[Path], None]] = [
    lambda folder: None,
    as_the_first_publishers,
    saved_again,
    saved_without_settings,
    with_added_tokens_file,
    with_new_marks,
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_ids_and_marks_are_transformers(
    tiny_folder: Path, tmp_path: Path, layout: Callable[[Path], None], name: str
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / name
    shutil.copytree(tiny_folder / name, folder)
    layout(folder)
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    ours = CLIPTokenizer.from_folder(folder)
    assert (ours.start, ours.end, ours.pad) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert ours.model_max_length == theirs.model_max_length
    assert ours.added == list(theirs.added_tokens_encoder)
    assert ours.backend.get_vocab(with_added_tokens=True) == theirs.get_vocab()
    theirs.backend_tokenizer.no_truncation()
    theirs.backend_tokenizer.no_padding()
    for text in TEXTS:
        expected = theirs.backend_tokenizer.encode(text, add_special_tokens=False)
        got = ours.backend.encode(text, add_special_tokens=False)
        assert (got.ids, got.offsets) == (expected.ids, expected.offsets), text


def test_a_worker_imports_no_transformers() -> None:
    """A second of every start; and it would advise to install PyTorch."""
    code = (
        "import sys, promptmill.worker.sdxl.program, promptmill.worker.pull\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'transformers', 'torch', 'diffusers'}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
