"""The two tokenizers of Stable Diffusion XL as it is published, made from CLIP's table of merges.

    pip install --no-deps open-clip-torch
    python benchmarks/real_tokenizers.py FOLDER

writes FOLDER/tokenizer and FOLDER/tokenizer_2. The table (MIT, OpenAI's) is a file of that package, of which nothing
is imported: no PyTorch comes with it.
"""

import argparse
import gzip
import json
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from promptmill.worker.text.tiny_tokenizer import END, START, byte_symbols

PACKAGE = "open-clip-torch"
LENGTH = 77
# The table goes on to 262,144 merges; CLIP's vocabulary of 49,408 is both spellings of 256 bytes, these, and two marks.
MERGES = 49_408 - 2 * 256 - 2
# The second pads with id 0, which is "!": so that mark, where a prompt has it, becomes padding too.
PAD_TOKENS = {"tokenizer": END, "tokenizer_2": "!"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", type=Path, help=f"bpe_simple_vocab_16e6.txt.gz, if {PACKAGE} is not installed")
    options = parser.parse_args()
    table = options.table or find_table()
    if table is None:
        raise SystemExit(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}, or give --table")
    write_tokenizers(options.folder, table)


def find_table() -> Path | None:
    """Where the installed package keeps it."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    return path if path.is_file() else None


def write_tokenizers(folder: Path, table: Path) -> None:
    """The four files of each, in `tokenizer` and `tokenizer_2`, as in the folder of the published base model."""
    merges = read_merges(table)
    vocab = json.dumps(vocabulary(merges), ensure_ascii=False)
    for name, pad_token in PAD_TOKENS.items():
        part = folder / name
        part.mkdir(parents=True)
        (part / "vocab.json").write_text(vocab, encoding="utf-8")
        (part / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
        _write_json(part / "special_tokens_map.json", _special_tokens(pad_token))
        _write_json(part / "tokenizer_config.json", _settings(pad_token))


def read_merges(table: Path) -> list[str]:
    with gzip.open(table, "rt", encoding="utf-8") as lines:
        return [line.removesuffix("\n") for line in islice(lines, 1, MERGES + 1)]


def vocabulary(merges: list[str]) -> dict[str, int]:
    """CLIP's order: bytes, bytes that end a word, merges, the two marks."""
    symbols = byte_symbols()
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *(merge.replace(" ", "") for merge in merges)]
    return {token: place for place, token in enumerate([*tokens, START, END])}


def _special_tokens(pad_token: str, **marks: str) -> dict[str, Any]:
    """The marks are `normalized`: also `<|ENDOFTEXT|>` in a prompt is one, for a tokenizer that pads with another."""
    plain = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    tokens: dict[str, Any] = {
        name: {**marks, "content": content, **plain}
        for name, content in (("bos_token", START), ("eos_token", END), ("unk_token", END))
    }
    return {**tokens, "pad_token": pad_token}


def _settings(pad_token: str) -> dict[str, Any]:
    return {
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": LENGTH,
        "tokenizer_class": "CLIPTokenizer",
        **_special_tokens(pad_token, __type="AddedToken"),
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
