"""A folder's CLIP tokenizer by the `tokenizers` library alone: transformers takes a second to import.

What a folder means is transformers' to say (`CLIPTokenizer.from_pretrained`, version 5): the same files, the same order
of added tokens, the same normaliser. A test compares the two on every layout of files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

START, END = "<|startoftext|>", "<|endoftext|>"

_SPECIAL = {"bos_token": START, "eos_token": END, "unk_token": END, "sep_token": None, "pad_token": END}
_SPECIAL |= {"cls_token": None, "mask_token": None}
"""Named special tokens in the order in which they are added, each with its default."""

NO_LIMIT = int(1e30)
"""transformers' `model_max_length` where a folder names none."""

_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class CLIPTokenizer:
    """Text to ids, without marks, padding or truncation. Keeps nothing between calls, so threads may share it."""

    backend: Tokenizer
    start: int
    end: int
    pad: int | None
    model_max_length: int

    @classmethod
    def from_folder(cls, folder: Path) -> "CLIPTokenizer":
        """Read `tokenizer.json`, or `vocab.json` and `merges.txt`, and the settings beside them.

        Raises whatever the files' readers raise.
        """
        settings, added = _settings(folder)
        special = {name: settings.get(name, default) for name, default in _SPECIAL.items()}
        backend = Tokenizer(_model(folder, unknown=str(special["unk_token"])))
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        backend.encode_special_tokens = bool(settings.get("split_special_tokens", False))
        _add_tokens(backend, added, special, settings["extra_special_tokens"])
        limit = settings.get("model_max_length", settings.get("max_len"))
        return cls(
            backend,
            _id(backend, special["bos_token"]),
            _id(backend, special["eos_token"]),
            None if special["pad_token"] is None else _id(backend, special["pad_token"]),
            NO_LIMIT if limit is None else int(limit),
        )

    @property
    def largest_id(self) -> int:
        return max(self.backend.get_vocab(with_added_tokens=True).values())

    @property
    def added(self) -> list[str]:
        """The added tokens, marks among them, by their ids."""
        return [token.content for _, token in sorted(self.backend.get_added_tokens_decoder().items())]


def _id(backend: Tokenizer, token: Any) -> int:
    found = backend.token_to_id(str(token))
    if found is None:
        raise ValueError(f"{token!r} is not in its vocabulary")
    return found


def _settings(folder: Path) -> tuple[dict[str, Any], dict[int, AddedToken]]:
    """`tokenizer_config.json` with the older files merged into it, and the added tokens by id."""
    settings = _read(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in settings:
        added = {int(index): AddedToken(**token) for index, token in settings["added_tokens_decoder"].items()}
    else:
        named = _read(folder / "special_tokens_map.json")
        settings |= {name: {**one, "special": True} if isinstance(one, Mapping) else one for name, one in named.items()}
        added = _older_added_tokens(folder, {str(_content(settings.get(name))) for name in _SPECIAL})
    by_content = {token.content: token for token in added.values()}
    for name in _SPECIAL.keys() & settings.keys():
        settings[name] = by_content.get(_content(settings[name]), _token(settings[name]))
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    settings["extra_special_tokens"] = [_token(one) for one in extra]
    return settings, added


def _older_added_tokens(folder: Path, special: set[str]) -> dict[int, AddedToken]:
    """Of `added_tokens.json`, and of `tokenizer.json`, where the settings name none."""
    plain = {"rstrip": False, "lstrip": False}
    added = {
        index: AddedToken(text, normalized=text not in special, special=text in special, **plain)
        for text, index in _read(folder / "added_tokens.json").items()
    }
    for token in _read(folder / "tokenizer.json").get("added_tokens", []):
        added[token.pop("id")] = AddedToken(**token)
    return added


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _content(token: Any) -> Any:
    return token["content"] if isinstance(token, Mapping) else token


def _token(token: Any) -> Any:
    """An AddedToken of what JSON has for one; a plain name stays one."""
    if not isinstance(token, Mapping):
        return token
    return AddedToken(**{name: value for name, value in token.items() if name != "__type"})


def _model(folder: Path, unknown: str) -> BPE:
    more = {"continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "fuse_unk": False, "unk_token": unknown}
    if not (folder / "tokenizer.json").is_file():
        return BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"), **more)
    model = _read(folder / "tokenizer.json")["model"]
    merges = [(first, second) for first, second in map(_pair, model["merges"])]
    return BPE(vocab=model["vocab"], merges=merges, **more)


def _pair(merge: Any) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else list(merge)


def _add_tokens(
    backend: Tokenizer, added: Mapping[int, AddedToken], special: Mapping[str, Any], extra: list[Any]
) -> None:
    """The added tokens by id, then the named ones that are not among them: ids of new ones follow from the order."""
    known = {token.content for token in added.values()}
    tokens = [token for _, token in sorted(added.items())]
    for token in [one for one in special.values() if one is not None] + extra:
        if str(getattr(token, "content", token)) not in known and token not in tokens:
            tokens.append(token)
    names = {str(getattr(one, "content", one)) for one in special.values() if one is not None}
    for index, token in enumerate(tokens):
        if isinstance(token, str):
            tokens[index] = AddedToken(token, special=True)
        elif token.content in names:
            token.special = True
    backend.add_tokens(tokens)
