"""CLIP tokenizer files with a small vocabulary: all bytes, and some words that prompts are made of."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

# CLIP's order of the ids: bytes, bytes that end a word, merges, and the two marks last, the end largest.
START, END = "<|startoftext|>", "<|endoftext|>"

_WORDS = (
    "the a an of in on at with and by to from for is are as under over near behind between into through "
    "photo photograph painting drawing sketch portrait landscape illustration render art oil watercolor "
    "digital style detailed highly ultra realistic photorealistic cinematic dramatic beautiful high "
    "quality resolution sharp focus light lighting sunset sunrise night day morning golden soft dark "
    "bright shadow sky cloud star moon sun rain snow fog red orange yellow green blue purple pink black "
    "white brown grey silver gold colorful cat dog horse bird fish lion tiger bear fox robot dragon "
    "astronaut knight wizard princess king queen warrior man woman girl boy child people person face "
    "eyes hair hand old young house castle city street forest mountain river lake ocean sea beach "
    "desert island garden field tree flower car train ship boat bicycle airplane rocket space planet "
    "galaxy temple bridge tower room window door table chair standing sitting running flying holding "
    "wearing looking made wooden stone glass metal water fire ice blurry low worst bad ugly deformed "
    "watermark text signature "
)


def write_tokenizer(folder: Path, *, pad_token: str) -> int:
    """Write the four files of a `CLIPTokenizer`; returns the size of its vocabulary."""
    merges = learn_merges(_WORDS.split())
    symbols = byte_symbols()
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    tokens += [START, END]
    folder.mkdir(parents=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad_token}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    vocab = {token: place for place, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return len(vocab)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte pair encoding (Sennrich et al. 2016, arXiv 1508.07909), until each word is one token."""
    spelled = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges = []
    while any(len(symbols) > 1 for symbols in spelled):
        counts = Counter(pair for symbols in spelled for pair in pairwise(symbols))
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        spelled = [_merge(symbols, best) for symbols in spelled]
    return merges


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        # An overlap as in "a a a" cannot go wrong: what was merged is no longer the pair's first half.
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def byte_symbols() -> list[str]:
    """A printable character for each byte, as in GPT-2's tokenizer: itself, or one from U+0100 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
