"""A bucket in memory behind Google's own client: what the JSON API does with our requests, and a network before it.

It is held against fake-gcs-server by a test: the same requests, the same answers.
"""

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter

from tests.simulation.faults import Fate
from tests.simulation.threads import Process, in_a_task, scheduler

LATENCY_S = (0.01, 0.2)
SLOW_S = (2.0, 30.0)
LATE_S = (0.1, 90.0)


@dataclass(frozen=True)
class Stored:
    """An object as the server keeps it."""

    name: str
    data: bytes
    generation: int
    told: dict[str, Any]
    """What the uploader said of it: contentType, metadata."""

    def resource(self, bucket: str) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "name": self.name,
            "bucket": bucket,
            "generation": str(self.generation),
            "metageneration": "1",
            "size": str(len(self.data)),
            "crc32c": crc32c(self.data),
            **{key: self.told[key] for key in ("contentType", "metadata") if key in self.told},
        }


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


Answer = tuple[int, bytes]


class Store:
    """The objects of one bucket. `on_write` hears of each that is created or replaced, and of what it replaced."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.objects: dict[str, Stored] = {}
        self._generations = 1_000_000
        self.on_write: Callable[[Stored, Stored | None], None] = lambda new, old: None

    def put(self, name: str, data: bytes, told: dict[str, Any] | None = None) -> Stored:
        self._generations += 1
        stored = Stored(name, data, self._generations, told or {})
        old, self.objects[name] = self.objects.get(name), stored
        self.on_write(stored, old)
        return stored

    def answer(self, method: str, url: str, headers: Any, body: bytes) -> Answer:
        parts = urlsplit(url)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if method == "POST" and parts.path == f"/upload/storage/v1/b/{self.bucket}/o":
            return self._upload(headers["content-type"], body, query)
        found = re.fullmatch(rf"(?:/download)?/storage/v1/b/{self.bucket}/o(?:/(.+))?", parts.path)
        if method != "GET" or not found:
            raise AssertionError(f"the simulated bucket does not know {method} {url}")
        if not found[1]:
            return self._list(query)
        stored = self.objects.get(unquote(found[1]))
        if stored is None or query.get("generation", str(stored.generation)) != str(stored.generation):
            return _error(404, "No such object")
        if query.get("alt") == "media":
            return _part(stored.data, headers.get("range"))
        return 200, json.dumps(stored.resource(self.bucket)).encode()

    def _upload(self, content_type: str | bytes, body: bytes, query: dict[str, str]) -> Answer:
        text = content_type.decode() if isinstance(content_type, bytes) else content_type
        boundary = re.search(r"boundary=\"?([^\";]+)", text)
        assert boundary and query["uploadType"] == "multipart"
        _, head, content, _ = body.split(b"--" + boundary[1].encode(), 3)
        told = json.loads(head.split(b"\r\n\r\n", 1)[1])
        data = content.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        there = self.objects.get(told["name"])
        generation = there.generation if there else 0
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != generation:
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        if told.get("crc32c", crc32c(data)) != crc32c(data):
            return _error(400, "Provided CRC32C does not match calculated CRC32C.")
        return 200, json.dumps(self.put(told["name"], data, told).resource(self.bucket)).encode()

    def _list(self, query: dict[str, str]) -> Answer:
        names = sorted(name for name in self.objects if name.startswith(query.get("prefix", "")))
        items = [self.objects[name].resource(self.bucket) for name in names[: int(query.get("maxResults", 1000))]]
        return 200, json.dumps({"kind": "storage#objects", "items": items}).encode()


def _part(data: bytes, asked: str | None) -> Answer:
    if asked is None:
        return 200, data
    start, _, end = asked.removeprefix("bytes=").partition("-")
    if int(start) >= len(data):
        return _error(416, "The requested range cannot be satisfied.")
    return 206, data[int(start) : int(end) + 1 if end else None]


def _error(status: int, message: str) -> Answer:
    return status, json.dumps({"error": {"code": status, "message": message}}).encode()


class BucketWorld(Protocol):
    """What the network asks of the world."""

    store: Store

    def bucket_fate(self, process: Process) -> Fate: ...
    def uniform(self, low: float, high: float) -> float: ...


@dataclass
class Network(BaseAdapter):
    """Carries the requests of Google's client to the world's bucket, or loses them."""

    world: BucketWorld | None = field(default=None)

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        if not in_a_task() or self.world is None:
            raise requests.ConnectionError("simulated: nobody is there to ask")
        status, data = self._carry(self.world, request)
        headers = {"content-length": str(len(data)), "content-type": "application/json; charset=UTF-8"}
        raw = urllib3.HTTPResponse(io.BytesIO(data), headers, status, preload_content=False)
        return _adapter.build_response(request, raw)

    def close(self) -> None:
        return None

    def _carry(self, world: BucketWorld, request: requests.PreparedRequest) -> Answer:
        process = scheduler().running().process
        fate = world.bucket_fate(process)
        scheduler().pause(world.uniform(*(SLOW_S if fate is Fate.SLOW else LATENCY_S)))
        if process.away_until > scheduler().now or fate is Fate.HANGS:
            scheduler().pause(60.0)
            raise requests.ReadTimeout("simulated: no answer")
        if fate is Fate.NOT_SENT:
            raise requests.ConnectionError("simulated: the request was lost")
        if fate in (Fate.BUSY, Fate.FORBIDDEN):
            return _error(403 if fate is Fate.FORBIDDEN else 503, fate.value)
        if fate is Fate.LATE:
            late_s = world.uniform(*LATE_S)
            scheduler().spawn(Process("network"), lambda: self._arrive(world, request, late_s))
            raise requests.ConnectionError("simulated: the request is late")
        answer = _answer(world, request)
        scheduler().pause(world.uniform(*LATENCY_S))
        if fate is Fate.ANSWER_HANGS:
            scheduler().pause(60.0)
            raise requests.ReadTimeout("simulated: no answer")
        if fate is Fate.NO_ANSWER:
            raise requests.ConnectionError("simulated: the answer was lost")
        return _error(503, fate.value) if fate is Fate.BUSY_BUT_DONE else answer

    def _arrive(self, world: BucketWorld, request: requests.PreparedRequest, late_s: float) -> None:
        scheduler().pause(late_s)
        _answer(world, request)


def _answer(world: BucketWorld, request: requests.PreparedRequest) -> Answer:
    body: Any = request.body or b""
    data = body if isinstance(body, bytes) else body.encode()
    return world.store.answer(str(request.method), str(request.url), request.headers, data)


_adapter = HTTPAdapter()
