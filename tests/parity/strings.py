"""Ten thousand prompts, plain and strange, the same on every machine and in every Python."""

import random
import unicodedata
from collections.abc import Callable, Sequence

COUNT = 10_000

_WORDS = """
    a photo of an astronaut riding a horse on mars at sunset in the style of ukiyo-e highly detailed, 8k
    (masterpiece:1.2) best-quality cyberpunk city|neon rain, trending_on_artstation f/1.8 35mm bokeh; matte
    painting by greg rutkowski & alphonse mucha #concept [octane render] half-timbered rock'n'roll --no text
    antidisestablishmentarianism photorealistic volumetric lighting cinematic grandmother's café naïve façade
"""
_CONTRACTED = "it's don't we're I've I'm they'll he'd O'Reilly's 'tis y'all'd've 's 't 're 've 'm 'll 'd"
_MARKS = """
    <|startoftext|> <|endoftext|> <|EndOfText|> <|STARTOFTEXT|> <|endoftext|><|endoftext|> <|endoftext| |endoftext|>
    <| <start_of_text> <s> [PAD] </w> ! !!!
"""
# Single ones, then sequences: a family, a profession, a flag, a key; and the joiners left over.
_EMOJI = """
    😀 😂 🐱 🐶 🚀 🌃 🎨 ❤ ❤\ufe0f ☺\ufe0f ☀ ⭐ 👍🏽 👩🏿 👩\u200d👩\u200d👧\u200d👦 👩🏾\u200d🚀
    🏳\ufe0f\u200d🌈 🧑\u200d🎨
    🇯🇵 🇩🇪🇫🇷 1\ufe0f\u20e3 #\ufe0f\u20e3 ©\ufe0f
    🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f \u200d \ufe0f 🏽
"""
_ACCENTED = "é è ê ë ē ő ñ ç å ø æ œ ß ẞ ü Ü É Ñ Å \u212b \u2126 İ ı ǅ ŉ ﬁ ﬄ ệ Ṩ ằ ǖ 각 が パ ά ΐ й ё"
_NUMBERS = "0 7 42 1080p 3.14159 1,000,000 16:9 2nd 1/2 ½ ¾ ² ³ ₂ Ⅷ ⅻ ① ⑳ ㊿ ٣٤٥ १२३ ๔๕ 一二三 ７８９ 𝟘𝟙 1e-5 0x1F"
PLAIN, CONTRACTED, MARKS, EMOJI, ACCENTED, NUMBERS = (
    text.split() for text in (_WORDS, _CONTRACTED, _MARKS, _EMOJI, _ACCENTED, _NUMBERS)
)
PUNCTUATION = (
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡¢£¤¥¦§¨©«¬®¯°±´¶·¸»¿×÷–—‘’“”…‰′″‹›€™∀∑√∞≈≠≤≥─■▲●★♥♪、。「」！？：；（）"
)
BLANKS = "\t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u2000\u2003\u2009\u2028\u2029\u202f\u205f\u3000 "
INVISIBLE = "\x00\x01\x07\x08\x1b\x7f\x9d\xad\u061c\u180e\u200b\u200c\u200e\u2060\u202e\ufeff\ufffd\ue000"
COMBINING = "\u0300\u0301\u0302\u0303\u0308\u030a\u0316\u0323\u0327\u0328\u0338\u0345\u3099"
# First and last character of letters that Unicode has had for long, with capitals where a script has them.
SCRIPTS = {
    "latin": "ÀÖ",
    "latin extended": "Āž",
    "vietnamese": "Ạỹ",
    "greek": "Α\u03a1",
    "greek small": "ας",
    "cyrillic": "Аџ",
    "armenian": "ԱՖ",
    "hebrew": "את",
    "arabic": "ءي",
    "devanagari": "ऄह",
    "bengali": "অঌ",
    "tamil": "யஹ",
    "thai": "กฮ",
    "tibetan": "ཀཇ",
    "georgian": "აჰ",
    "jamo": "ᄀᄒ",
    "cherokee": "ᎠᏴ",
    "khmer": "កឡ",
    "hiragana": "ぁゖ",
    "katakana": "ァヺ",
    "ideographs": "一鿋",
    "hangul": "가힣",
    "rare ideographs": "𠀀𪛖",
    "mathematical": "𝐀𝑀",
    "deseret": "𐐀𐑏",
    "gothic": "𐌰𐍀",
    "full width": "Ａｚ",
}

Draw = Callable[[random.Random], str]


def varied_strings(count: int = COUNT) -> list[str]:
    """As many of each kind; no two alike but the shortest."""
    return [KINDS[index % len(KINDS)](random.Random(index)) for index in range(count)]


def _pick(rng: random.Random, items: Sequence[str]) -> str:
    # Of all that `random` has, only `random()` itself is promised never to change.
    return items[int(rng.random() * len(items))]


def _times(rng: random.Random, most: int) -> range:
    return range(1 + int(rng.random() * most))


def _words(rng: random.Random, most: int = 25) -> str:
    return " ".join(_pick(rng, PLAIN) for _ in _times(rng, most))


def _capitals(rng: random.Random) -> str:
    changes = (str.upper, str.lower, str.title, str.swapcase)
    return " ".join(changes[int(rng.random() * 4)](_pick(rng, PLAIN)) for _ in _times(rng, 12))


def _contracted(rng: random.Random) -> str:
    return " ".join(_either(rng, _pick(rng, CONTRACTED)) for _ in _times(rng, 8))


def _either(rng: random.Random, text: str) -> str:
    return text.upper() if rng.random() < 0.3 else text


def _from(items: Sequence[str], most: int, gap: float = 0.5) -> Draw:
    """Some of the items, with a blank before one in so many."""

    def draw(rng: random.Random) -> str:
        return "".join((" " if rng.random() < gap else "") + _pick(rng, items) for _ in _times(rng, most))

    return draw


def _script(rng: random.Random) -> str:
    ends = SCRIPTS[_pick(rng, list(SCRIPTS))]
    first, span = ord(ends[0]), ord(ends[1]) - ord(ends[0]) + 1
    return " ".join("".join(chr(first + int(rng.random() * span)) for _ in _times(rng, 9)) for _ in _times(rng, 6))


def _accents(rng: random.Random) -> str:
    """Composed, taken apart, or with marks piled up in any order."""
    text = _from(ACCENTED, 12)(rng)
    if rng.random() < 0.4:
        return unicodedata.normalize("NFD", text)
    if rng.random() < 0.5:
        return "".join(letter + _pick(rng, COMBINING) + _pick(rng, COMBINING) for letter in text)
    return text


def _between_words(items: Sequence[str]) -> Draw:
    def draw(rng: random.Random) -> str:
        return "".join(_pick(rng, items) + _pick(rng, PLAIN) + _pick(rng, ["", *items]) for _ in _times(rng, 8))

    return draw


def _long_word(rng: random.Random) -> str:
    return "".join(_pick(rng, "abcdefghijklmnopqrstuvwxyzETAOIN") for _ in range(20 + int(rng.random() * 300)))


def _long(rng: random.Random) -> str:
    return ", ".join([_words(rng, 30) for _ in range(6)])


def _short(rng: random.Random) -> str:
    return _pick(rng, ["", " ", "\n", ".", "'", "a", "A", "é", "e\u0301", "猫", "🐱", "1", "\x00", *MARKS, *CONTRACTED])


def _mixed(rng: random.Random) -> str:
    gap = _pick(rng, ["", " ", ", "])
    return gap.join(KINDS[int(rng.random() * (len(KINDS) - 1))](rng) for _ in _times(rng, 4))


KINDS: tuple[Draw, ...] = (
    _words,
    _capitals,
    _contracted,
    _from(PUNCTUATION, 30, gap=0.2),
    _from(NUMBERS, 12),
    _script,
    _script,
    _accents,
    _from(EMOJI, 8),
    _between_words(EMOJI),
    _between_words(BLANKS),
    _between_words(INVISIBLE),
    _between_words(MARKS),
    _from(MARKS, 6),
    _long_word,
    _long,
    _short,
    _mixed,
)
