"""A proxy before a Google Cloud Storage that injects one fault, once, twice or for ever, into one of its methods.

Faults are those of Google's published retry conformance cases (`return-503`, `return-reset-connection` and so on), and
what a network adds: an answer that is cut off, lost or never ends, bytes that differ.
"""

import contextlib
import http.client
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from urllib.parse import parse_qs, urlsplit

from tests.gcs_wire import Wire


@dataclass
class Exchange:
    """A request, and where its answer goes."""

    handler: http.server.BaseHTTPRequestHandler
    body: bytes
    ask: Callable[[], tuple[int, list[tuple[str, str]], bytes]]
    """Have the server do it: status, headers, body."""
    healed: threading.Event

    def send(self, status: int, headers: list[tuple[str, str]], body: bytes, *, length: int | None = None) -> None:
        self.handler.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "date", "transfer-encoding"):
                self.handler.send_header(name, value)
        self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def hang_up(self) -> None:
        self.handler.close_connection = True

    def reset(self) -> None:
        """Close with RST, not FIN."""
        connection = self.handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()


def _status(status: int) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.send(status, [("Content-Type", "application/json")], b"{}")


def _lost(exchange: Exchange) -> None:
    exchange.ask()
    exchange.hang_up()


def _cut(exchange: Exchange) -> None:
    status, headers, body = exchange.ask()
    exchange.send(status, headers, body[: len(body) // 2], length=len(body) or 1)
    exchange.hang_up()


def _stall(exchange: Exchange) -> None:
    status, headers, body = exchange.ask()
    exchange.send(status, headers, body[: len(body) // 2], length=len(body) or 1)
    exchange.healed.wait(10.0)
    exchange.hang_up()


def _corrupt(exchange: Exchange) -> None:
    status, headers, body = exchange.ask()
    exchange.send(status, headers, body[:-1] + bytes([body[-1] ^ 1]))


FAULTS: dict[str, Callable[[Exchange], None]] = {
    **{f"return-{status}": _status(status) for status in (400, 401, 404, 408, 410, 429, 500, 502, 503, 504)},
    "return-reset-connection": Exchange.reset,
    "return-broken-stream": _cut,
    "stall": _stall,
    "lost answer": _lost,
    "corrupt": _corrupt,
}

FOR_EVER = -1


class FaultyWire(Wire):
    """`inject` says what happens to the next requests of a method; `asked` are all requests, by method."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._method = ""
        self._faults: Iterator[str] = iter(())
        self._lock = threading.Lock()
        self.healed = threading.Event()
        self.asked: list[tuple[str, str]] = []
        self.injected = 0

    def inject(self, method: str, *faults: str, times: int = 1) -> None:
        """Each of the faults so many times, one after the other; the last one for ever where `times` is FOR_EVER."""
        self.healed.clear()
        self.asked.clear()
        self.injected = 0
        self._method = method
        self._faults = repeat(faults[-1]) if times == FOR_EVER else iter(faults * times)

    def heal(self) -> None:
        """From now on all is well."""
        self._method = ""
        self.healed.set()

    def relay(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        method = method_of(handler.command, handler.path)
        exchange = Exchange(handler, body, lambda: self._ask(handler, body), self.healed)
        with self._lock:
            self.asked.append((method, handler.path))
            fault = next(self._faults, None) if method == self._method else None
            self.injected += fault is not None
        with contextlib.suppress(OSError):  # the client has given up
            if fault is None:
                exchange.send(*exchange.ask())
            else:
                FAULTS[fault](exchange)

    def _ask(
        self, handler: http.server.BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream)
        headers = {name: value for name, value in handler.headers.items() if name != "Host"}
        upstream.request(handler.command, handler.path, body, headers | {"Accept-Encoding": "identity"})
        response = upstream.getresponse()
        own = f"http://127.0.0.1:{self.upstream}"  # a session for an upload in pieces leads to the server itself
        told = [(name, value.replace(own, self.url)) for name, value in response.getheaders()]
        answer = response.status, told, response.read()
        upstream.close()
        return answer


def method_of(command: str, path: str) -> str:
    """The method of Google's API that a request calls, by its published name; `media` is the object's bytes."""
    parts = urlsplit(path)
    asked = parse_qs(parts.query)
    if parts.path.startswith("/upload/"):
        return "storage.objects.insert" if command == "POST" else "storage.objects.insert piece"
    if "/rewriteTo/" in parts.path:
        return "storage.objects.rewrite"
    if command == "DELETE":
        return "storage.objects.delete"
    if parts.path.rstrip("/").endswith("/o"):
        return "storage.objects.list"
    return "storage.objects.get media" if asked.get("alt") == ["media"] else "storage.objects.get"


@contextlib.contextmanager
def faulty_wire(port: int) -> Iterator[FaultyWire]:
    """A proxy before the server at `port` of this machine."""
    wire = FaultyWire(port)
    thread = threading.Thread(target=wire.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield wire
    finally:
        wire.heal()
        wire.server.shutdown()
        wire.server.server_close()
        thread.join()
