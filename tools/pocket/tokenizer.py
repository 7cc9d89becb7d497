"""The pocket model's two tokenizers: all bytes, and every word of its captions as one token."""

import json
from pathlib import Path

from promptmill.worker.text import tiny_tokenizer
from tools.pocket.captions import words
from tools.pocket.nets import TEXT_LENGTH

# Words of prompts that no caption has: as tokens they do not crowd out those that it has.
_OTHERS = (
    "photo photograph painting drawing sketch watercolor oil art style detailed the with and by to at of is under over "
    "alarm anchor anchors beer beers bell bells bomb bombs box boxes broccoli bus buses camera cameras castle "
    "castles clock clocks cow cows diamond diamonds dinosaur dinosaurs dress dresses drum drums flamingo flamingos "
    "french fries full glass glasses kitchen knife knives lion lions lock locks magnet magnets monkey monkeys "
    "padlock padlocks palm pencil pencils shoe shoes sign signs skull skulls sneaker sneakers stop teddy trophies "
    "trophy truck trucks "
    "near between snow sunset beautiful blurry low quality bad ugly brown silver gold colorful dark bright cute emoji"
)


def write_tokenizers(folder: Path) -> int:
    """Write `tokenizer` and `tokenizer_2`, which differ in what they pad with, as SDXL's do; returns the vocabulary."""
    merges = tiny_tokenizer.learn_merges(list(dict.fromkeys([*words(), *_OTHERS.split()])))
    tokens = _tokens(merges)
    for name, pad_token in (("tokenizer", tiny_tokenizer.END), ("tokenizer_2", "!")):
        _write(folder / name, tokens, merges, pad_token)
    return len(tokens)


def _tokens(merges: list[tuple[str, str]]) -> list[str]:
    symbols = tiny_tokenizer.byte_symbols()
    joined = dict.fromkeys("".join(pair) for pair in merges)
    return [*symbols, *(f"{symbol}</w>" for symbol in symbols), *joined, tiny_tokenizer.START, tiny_tokenizer.END]


def _write(folder: Path, tokens: list[str], merges: list[tuple[str, str]], pad_token: str) -> None:
    start, end = tiny_tokenizer.START, tiny_tokenizer.END
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pad_token}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TEXT_LENGTH, "do_lower_case": True, **special}
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {token: place for place, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
