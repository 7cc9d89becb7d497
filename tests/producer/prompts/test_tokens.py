"""Tokens of a prompt: counted as transformers counts them, or estimated so that no long prompt passes."""

import gzip
import importlib.util
import json
from pathlib import Path
from random import Random

import pytest

from promptmill.producer.prompts.tokens import counter, estimate, tokenizer_folder

TEXTS = [
    "a red apple on a blue background",
    "Don't we'll I'M 1234 f/1.8 (masterpiece:1.2), best_quality,1girl--x...",
    "½ cup of m² ① Ünïcödé Straße a__b",
    "日本語のテキスト、赤いりんご",
    "красное яблоко на столе",
    "हिन्दी में एक लाल सेब",
    "تفاحة حمراء ١٢٣",
    "👩‍👩‍👧 🏳️‍🌈 ❤️",
    "<|endoftext|> a <|startoftext|>",
    "e\u0301te\u0301\u00a0 NFD\u200b",
    "aaaa" * 60,
    "",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's own tokenizer, made of the table that open_clip brings."""
    pytest.importorskip("transformers")
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        pytest.skip("needs open-clip-torch")
    table = gzip.decompress((Path(found.origin).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode()
    merges = table.split("\n")[1 : 49152 - 256 - 2 + 1]
    folder = tmp_path_factory.mktemp("clip")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    pocket = tokenizer_folder("pocket")
    assert pocket is not None
    known = json.loads((pocket / "vocab.json").read_text())
    letters = sorted((token for token in known if len(token.removesuffix("</w>")) == 1), key=known.__getitem__)
    tokens = [*letters, *("".join(line.split()) for line in merges), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "tokenizer_config.json").write_bytes((pocket / "tokenizer_config.json").read_bytes())
    return folder


@pytest.mark.parametrize("model", ["pocket", "clip"])
def test_a_model_at_hand_counts_as_transformers_does(model: str, request: pytest.FixtureRequest):
    transformers = pytest.importorskip("transformers")
    folder = request.getfixturevalue("clip") if model == "clip" else tokenizer_folder("pocket")
    assert folder is not None
    theirs, count = transformers.CLIPTokenizer.from_pretrained(str(folder)), counter(folder)
    for text in TEXTS:
        assert count(text) == len(theirs(text)["input_ids"]) - 2, text


WORDS = """
masterpiece,best_quality 1girl solo,long_hair looking_at_viewer volumetric lighting art nouveau alphonse mucha
chiaroscuro hyperdetailed filigree a the red apple on table, Szechuan kodachrome f/1.8 8k (bokeh:1.2) [blurry]
photograph of an astronaut riding a horse świeże jabłko 苹果 りんご яблоко
"""


def long_prompts(count) -> list[str]:
    """Prompts of 76 tokens or a few more, of words, tags and names."""
    words, random, found = WORDS.split(), Random(0), []
    for _ in range(300):
        text = ""
        while count(text) <= 75:
            text += random.choice((" ", ",", ", ")) + random.choice(words)
        found.append(text)
    return found


def test_the_estimate_lets_no_long_prompt_pass(clip: Path):
    long = long_prompts(counter(clip))
    assert all(estimate(text) > 75 for text in long)
    assert sum(map(estimate, long)) < 1.6 * 78 * len(long)  # and does not say so of everything


def test_the_estimate_is_fair_to_usual_prompts():
    assert estimate("a photograph of an astronaut riding a horse on the moon, golden hour") < 30
    assert estimate("一个红色的苹果放在蓝色的盘子上" * 3) > 75
    assert estimate("masterpiece,best_quality,1girl,solo,long_hair,red_apple,blue_sky," * 4) > 75


def test_a_hub_models_tokenizer_is_that_of_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert tokenizer_folder("owner/name") is None
    repository = tmp_path / "models--owner--name"
    tokenizer = repository / "snapshots" / "abc" / "tokenizer"
    tokenizer.mkdir(parents=True)
    (tokenizer / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    for name in ("owner/name", "owner/name@main", "owner/name@abc"):
        assert tokenizer_folder(name) == tokenizer
    assert tokenizer_folder("owner/name@other") is None
    assert counter(tokenizer)("ab cd") == 3


@pytest.mark.parametrize("content", ["", "#version: 0.2\n", "a b c\n", "\xff"])
def test_what_is_no_table_of_merges_is_told(tmp_path: Path, content: str):
    (tmp_path / "merges.txt").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"merges|decode"):
        counter(tmp_path)
