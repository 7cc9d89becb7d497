"""Serves galleries on this machine: those in a bucket, and those that are too large to carry about.

It gives out what a gallery's page asks for, and nothing else of an output: no plan, no shards, no other folder.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import quote, unquote, urlsplit

from promptmill.dataset.gallery.shown import shown
from promptmill.dataset.gallery.writer import INDEX, content_type
from promptmill.producer.layout import job_of
from promptmill.producer.outputs.output import ObjectNotFound, Output, OutputError

HOST = "127.0.0.1"
NAMES = re.compile(r"gallery/(index\.html|app\.js|style\.css|run\.js|data/\d{5,}\.js|sprites/\d{5,}\.webp)")
OURS = ("127.0.0.1", "localhost", "[::1]")
"""Names that a browser may call this server by, at any port: another is that of a page that was led here by its DNS."""

_FOREVER, _ANEW = "max-age=31536000, immutable", "no-cache"


def make_server(outputs: Mapping[str, Output], port: int) -> ThreadingHTTPServer:
    """A server of runs' galleries by the paths under which they are served. Raises OSError for a port that is taken."""

    class OfThese(_Handler):
        runs = outputs

    return ThreadingHTTPServer((HOST, port), OfThese)


def page_url(server: ThreadingHTTPServer, path: str) -> str:
    """The address of the gallery that is served under this path."""
    return f"http://{HOST}:{server.server_address[1]}/{quote(path)}/{INDEX}"


class _Handler(BaseHTTPRequestHandler):
    runs: ClassVar[Mapping[str, Output]]
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may idle

    def do_GET(self) -> None:
        if re.sub(r":\d+$", "", self.headers.get("Host", "")) not in OURS:
            return self._refuse(HTTPStatus.FORBIDDEN)
        asked = urlsplit(self.path)
        path = unquote(asked.path).removeprefix("/")
        if not path:
            return self._redirect(f"/{quote(next(iter(self.runs)))}/{INDEX}")
        for served, output in self.runs.items():
            name = path.removeprefix(f"{served}/")
            if name != path and (NAMES.fullmatch(name) or job_of(name)):
                return self._give(output, name, _FOREVER if asked.query else _ANEW)
        return self._refuse(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _give(self, output: Output, name: str, keep: str) -> None:
        try:
            data = output.get(name)
        except ObjectNotFound:
            return self._refuse(HTTPStatus.NOT_FOUND)
        except OutputError:
            return self._refuse(HTTPStatus.BAD_GATEWAY)
        data, kind = shown(data, content_type(name), self.headers.get("Accept", ""))
        headers = {"Content-Type": kind, "Cache-Control": keep, "Vary": "Accept"}
        return self._answer(HTTPStatus.OK, data, headers)

    def _redirect(self, to: str) -> None:
        self._answer(HTTPStatus.FOUND, b"", {"Location": to})

    def _refuse(self, status: HTTPStatus) -> None:
        self._answer(status, f"{status.phrase}\n".encode(), {"Content-Type": "text/plain"})

    def _answer(self, status: HTTPStatus, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data)), "X-Content-Type-Options": "nosniff"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
