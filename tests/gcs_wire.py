"""A proxy before a Google Cloud Storage, for what a network and a bucket's owner do to its answers."""

import contextlib
import http.client
import http.server
import threading
from collections.abc import Callable, Iterator

Answer = tuple[int, bytes]


class QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: the client asks after the bucket in a thread of its own, which may outlive the server."""


class Wire:
    """A proxy before the server. It can lose or change an answer, once the server has done as asked.

    Or it refuses, with the status that `refuse` returns, and the server hears of nothing.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.requests: list[str] = []
        self.interfere: Callable[[str, Answer], Answer | None] = lambda request, answer: answer
        self.refuse: Callable[[str, bytes], int | None] = lambda request, body: None
        wire = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                wire.relay(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = relay

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def relay(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        request = f"{handler.command} {handler.path}"
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if status := self.refuse(request, body):
            handler.send_response(status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream)
        headers = {name: value for name, value in handler.headers.items() if name != "Host"}
        upstream.request(handler.command, handler.path, body, headers | {"Accept-Encoding": "identity"})
        response = upstream.getresponse()
        self.requests.append(request)
        answer = self.interfere(request, (response.status, response.read()))
        upstream.close()
        if answer is None:
            handler.close_connection = True
            return
        handler.send_response(answer[0])
        for name, value in response.getheaders():
            if name.lower() not in ("content-length", "connection", "date", "transfer-encoding"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer[1])))
        handler.end_headers()
        handler.wfile.write(answer[1])

    def uploads(self) -> list[str]:
        return [request for request in self.requests if request.startswith("POST /upload/")]

    def pages(self) -> list[str]:
        return [request for request in self.requests if "/o?" in request and request.startswith("GET")]


@contextlib.contextmanager
def serve(port: int) -> Iterator[Wire]:
    """A proxy before the server at `port` of this machine."""
    wire = Wire(port)
    thread = threading.Thread(target=wire.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield wire
    finally:
        wire.server.shutdown()
        wire.server.server_close()
        thread.join()
