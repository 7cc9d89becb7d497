"""Lines of text in UTF-8, whatever Unicode they were written in."""

import codecs
import io
import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import BinaryIO

from promptmill.producer.errors import PromptFileError

LONGEST_LINE = 1 << 24  # bytes; what is longer is no prompt file
CHUNK = 1 << 16  # bytes

_BOMS = {  # a UTF-16 one is the beginning of a UTF-32 one
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def byte_lines(name: str, file: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends, in UTF-8; files in UTF-16 or UTF-32 are known by their byte order mark.

    No line begins with such a mark: files that were put one behind the other have it in their midst.

    Raises PromptFileError for a line without end, and where UTF-16 or UTF-32 is damaged.
    """
    for line in _with_marks(name, file):
        yield line if not line.startswith(codecs.BOM_UTF8) else _MARKS.sub(b"", line)


_MARKS = re.compile(b"^(%s)+" % codecs.BOM_UTF8)


def _with_marks(name: str, file: BinaryIO) -> Iterator[bytes]:
    head = file.read(4)
    bom = next((bom for bom in _BOMS if head.startswith(bom)), None)
    if bom is not None:
        yield from _transcoded(name, file, head[len(bom) :], _BOMS[bom])
        return
    if len(head) == 4 and not ((head[1] or head[3]) and (head[0] or head[2])):
        raise PromptFileError(name, 0, None, "looks like UTF-16 without its byte order mark: save the file as UTF-8")
    start = head.removeprefix(codecs.BOM_UTF8) + (b"" if head.endswith(b"\n") else file.readline(LONGEST_LINE))
    lines = chain(io.BytesIO(start), iter(partial(file.readline, LONGEST_LINE), b""))
    for number, line in enumerate(lines, start=1):
        if len(line) >= LONGEST_LINE:
            raise _too_long(name, number)
        yield line


def not_utf8(name: str, number: int, error: UnicodeDecodeError) -> PromptFileError:
    """`error` is of the line's decoding."""
    text = error.object.decode(errors="replace").rstrip("\r\n")
    return PromptFileError(
        name, number, None, f"is not UTF-8 at byte {error.start + 1} of the line: save the file as UTF-8", text
    )


def _transcoded(name: str, file: BinaryIO, head: bytes, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    number, held = 1, ""
    for data in chain([head], iter(partial(file.read, CHUNK), b""), [b""]):
        if data or held or decoder.getstate()[0]:
            try:
                held += decoder.decode(data, not data)
            except UnicodeDecodeError as error:
                raise _damaged(name, number, held, encoding, error) from error
        *lines, held = held.split("\n")
        for line in lines:
            yield f"{line}\n".encode()
        number += len(lines)
        if len(held) >= LONGEST_LINE:
            raise _too_long(name, number)
    if held:
        yield held.encode()


def _damaged(name: str, number: int, held: str, encoding: str, error: UnicodeDecodeError) -> PromptFileError:
    before = held + error.object[: error.start].decode(encoding)
    byte = len(before.rpartition("\n")[2].encode(encoding)) + 1
    what = encoding[:6].upper()
    problem = f"is not {what}, as its byte order mark says, at byte {byte} of the line"
    return PromptFileError(name, number + before.count("\n"), None, problem)


def _too_long(name: str, number: int) -> PromptFileError:
    return PromptFileError(name, number, None, f"is longer than {LONGEST_LINE >> 20} MiB")
