"""Numbers with their nouns, as people write them."""


def count(number: int, what: str, *, commas: bool = False) -> str:
    """`1 image`, `2 images`; with commas `2,000 images`."""
    return f"{number:{',' if commas else ''}} {what}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """The text on one line, with what would not be seen as escapes."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def are(number: int, what: str, *, commas: bool = False) -> str:
    """`1 image is`, `2 images are`."""
    return f"{count(number, what, commas=commas)} {'is' if number == 1 else 'are'}"


def have(number: int, what: str, *, commas: bool = False) -> str:
    """`1 job has`, `2 jobs have`."""
    return f"{count(number, what, commas=commas)} {'has' if number == 1 else 'have'}"
