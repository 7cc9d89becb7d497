"""Connections to the real Redis that are kept: whoever is simulated opens many, and a new one costs both sides more
than a request."""

import socket
import struct
from pathlib import Path
from typing import Any

PATIENCE_S = 5
"""Real seconds within which a Redis that does well has answered."""

_END = b"$11\r\nthat is all\r\n"
_ASK_END = b"*2\r\n$4\r\nPING\r\n" + _END
_RESET, _WAS_RESET = b"*1\r\n$5\r\nRESET\r\n", b"+RESET\r\n"


class Link:
    """One connection."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Not settimeout: with that, Python polls before each call.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", PATIENCE_S, 0))
        self._socket.connect(str(path))
        self.is_fresh = True
        """Whether the server knows nothing of it."""

    def ask(self, request: bytes) -> bytes:
        """The whole answer to a request, or to several at once. A ping behind them tells where it ends."""
        before, self.is_fresh = b"" if self.is_fresh else _RESET, True
        self._socket.sendall(before + request + _ASK_END)
        answer = self._socket.recv(1 << 16)
        while not answer.endswith(_END):
            more = self._socket.recv(1 << 16)
            assert more, "the real Redis has closed the connection"
            answer += more
        return answer[: -len(_END)].removeprefix(_WAS_RESET if before else b"")

    def run(self, script: str, *args: str) -> Any:
        """Run a script of whoever simulates, and return what it returns: numbers, bytes, None, and lists of those."""
        words = [b"EVAL", script.encode(), b"0", *(arg.encode() for arg in args)]
        request = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        return _read(self.ask(b"*%d\r\n%s" % (len(words), request)), 0)[0]

    def close(self) -> None:
        self._socket.close()


def _read(answer: bytes, at: int) -> tuple[Any, int]:
    """The value that begins there, and where the next one does."""
    end = answer.index(b"\r\n", at)
    kind, said, at = answer[at : at + 1], answer[at + 1 : end], end + 2
    if kind == b"-":
        raise RuntimeError(said.decode())
    number = int(said)
    if kind == b":" or number < 0:
        return (number if kind == b":" else None), at
    if kind == b"$":
        return answer[at : at + number], at + number + 2
    found = []
    for _ in range(number):
        value, at = _read(answer, at)
        found.append(value)
    return found, at


class Links:
    """The connections of one server, lent and given back. One that was given back knows nothing of who had it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._all: list[Link] = []
        """So that none is collected together with who forgot it: its socket would be closed before it is given back."""
        self._idle: list[Link] = []

    def take(self) -> Link:
        if not self._idle:
            self._all.append(Link(self._path))
            return self._all[-1]
        return self._idle.pop()

    def give_back(self, link: Link) -> None:
        link.is_fresh = False
        self._idle.append(link)

    def close(self) -> None:
        while self._all:
            self._all.pop().close()
