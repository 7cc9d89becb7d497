"""A TCP proxy before a Redis that can be cut, and turned to another server: what a failover does to clients."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class SwitchingWire:
    """Relays to a port of this machine, or to none. `url` is where clients connect to."""

    def __init__(self, port: int, password: str) -> None:
        self._port: int | None = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"redis://:{password}@127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def turn_to(self, port: int | None) -> None:
        """From now on to this port; None: nowhere. What is open is closed."""
        self._port = port
        opened, self._open = self._open, []
        for one in opened:
            _close(one)

    def close(self) -> None:
        self.turn_to(None)
        _close(self._listener)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                try:
                    if self._port is None:
                        raise ConnectionRefusedError
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    _close(client)
                    continue
                self._open += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=_relay, args=(source, target), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for one in (source, target):
        _close(one)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextlib.contextmanager
def switching_wire(port: int, password: str) -> Iterator[SwitchingWire]:
    wire = SwitchingWire(port, password)
    try:
        yield wire
    finally:
        wire.close()
