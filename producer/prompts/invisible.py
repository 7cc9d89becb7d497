"""Characters that nobody sees: cut from both ends of a text, told where they stand within.

A byte order mark of an editor, a zero-width space of a web page, a soft hyphen of a PDF: to the model each is a token,
and a prompt that has one is another job than the same prompt without it.
"""

import re
import unicodedata

_SPACES = " \t\n\r\x85\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_JOINERS = "\u200c\u200d"  # of Persian and Indic scripts, and of emoji such as families
_UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0001"
)
_TAIL = "\ufe00-\ufe0f\U000e0020-\U000e007f"  # of emoji such as a red heart and the flag of Wales

_END = f"[{_SPACES}{_JOINERS}{_UNSEEN}]"
_START = re.compile(f"{_END}+")
_LAST = re.compile(_END)
_NOTHING = re.compile(f"[{_SPACES}{_JOINERS}{_UNSEEN}{_TAIL}]+")
_WITHIN = re.compile(f"[{_UNSEEN}]|(?<=[!-~])[{_JOINERS}](?=[!-~])")


def bare(text: str) -> str:
    """The text without spaces and unseen characters at its ends, '' where nobody would see any of it.

    Control characters stay: they are refused.
    """
    if not text:
        return text
    if "!" <= text[0] <= "~" and "!" <= text[-1] <= "~":  # nearly all texts
        return text
    if _NOTHING.fullmatch(text):
        return ""
    found = _START.match(text)
    start, end = found.end() if found else 0, len(text)
    while end > start and _LAST.match(text, end - 1):
        end -= 1
    return text[start:end]


def first_unseen(text: str) -> str | None:
    """The first character within a text that nobody sees, for a message; None where there is none.

    Joiners count between characters of ASCII alone: elsewhere they are spelling, or an emoji's.
    """
    found = _WITHIN.search(text)
    return found and f"U+{ord(found[0]):04X} ({name_of(found[0])}) at character {found.start() + 1}"


def name_of(char: str) -> str:
    """`zero width space`; a byte order mark under the name that people know."""
    return "byte order mark" if char == "\ufeff" else unicodedata.name(char, "no name").lower()
