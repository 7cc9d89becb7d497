"""A proxy before a Redis that loses an answer, once Redis has done as it was asked."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from promptmill.producer.queue.scripts import source


class LossyWire:
    """Relays to the Redis at a `unix://` URL. `url` is where clients connect to."""

    def __init__(self, redis_url: str) -> None:
        self._redis = urlsplit(redis_url).path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._losing = threading.Event()
        self._silent = False
        self._request = b""
        self._open: list[socket.socket] = [self._listener]
        self.lost = threading.Event()
        """An answer was lost since the last call of `lose_answer`."""
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answer(self, script: str, *, silently: bool) -> None:
        """Lose the answer to the next call of a script: silently, or by closing the connection."""
        self._request = hashlib.sha1(source(script).encode()).hexdigest().encode()
        self._silent = silently
        self.lost.clear()
        self._losing.set()

    def close(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._redis)
                self._open += [client, server]
                deaf = threading.Event()
                threading.Thread(target=self._forth, args=(client, server, deaf), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client, deaf), daemon=True).start()

    def _forth(self, client: socket.socket, server: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                if self._losing.is_set() and self._request in data:
                    self._losing.clear()
                    deaf.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _back(self, server: socket.socket, client: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                if not deaf.is_set():
                    client.sendall(data)
                    continue
                self.lost.set()
                if not self._silent:
                    break
            client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def lossy_wire(redis_url: str) -> Iterator[LossyWire]:
    wire = LossyWire(redis_url)
    try:
        yield wire
    finally:
        wire.close()
