"""The simulated bucket answers as fake-gcs-server does: the same requests, one after the other, to both."""

import json
import uuid
from typing import Any

import pytest
import requests

from tests.fake_gcs import FakeGcs
from tests.simulation.bucket import Store, crc32c


@pytest.fixture
def both(fake_gcs: FakeGcs):
    """What asks both servers, and returns what they answered."""
    bucket = fake_gcs.create_bucket(f"b{uuid.uuid4().hex}").removeprefix("gs://")
    store = Store(bucket)

    def ask(method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> tuple[Any, Any]:
        path = path.replace("BUCKET", bucket)
        theirs = requests.request(method, f"http://127.0.0.1:{fake_gcs.port}{path}", headers=headers, data=body)
        ours = store.answer(method, f"http://simulated{path}", headers or {}, body)
        return (theirs.status_code, theirs.content), ours

    return ask


def upload(name: str, data: bytes, match: int | str, **told: Any) -> tuple[str, str, dict[str, str], bytes]:
    head = json.dumps({"name": name, "crc32c": crc32c(data), **told}).encode()
    parts = [b"content-type: application/json\r\n\r\n" + head, b"content-type: image/png\r\n\r\n" + data]
    body = b"".join(b"--xyz\r\n" + part + b"\r\n" for part in parts) + b"--xyz--"
    path = f"/upload/storage/v1/b/BUCKET/o?uploadType=multipart&ifGenerationMatch={match}"
    return "POST", path, {"content-type": 'multipart/related; boundary="xyz"'}, body


def told_of(answer: tuple[int, bytes]) -> dict[str, Any]:
    resource = json.loads(answer[1])
    return {key: resource.get(key) for key in ("name", "size", "crc32c", "metadata")}


def test_an_object_is_created_once_and_read_back(both):
    theirs, ours = both(*upload("a/x.png", b"12345", 0, metadata={"job_id": "1"}))
    assert theirs[0] == ours[0] == 200
    assert told_of(theirs) == told_of(ours)
    theirs, ours = both(*upload("a/x.png", b"other", 0))
    assert theirs[0] == ours[0] == 412
    for path in ("/storage/v1/b/BUCKET/o/a%2Fx.png", "/storage/v1/b/BUCKET/o/none"):
        theirs, ours = both("GET", path)
        assert theirs[0] == ours[0]
    theirs, ours = both("GET", "/download/storage/v1/b/BUCKET/o/a%2Fx.png?alt=media")
    assert theirs == ours == (200, b"12345")
    theirs, ours = both("GET", "/download/storage/v1/b/BUCKET/o/a%2Fx.png?alt=media", {"range": "bytes=1-3"})
    assert theirs == ours == (206, b"234")


def test_an_object_is_replaced_where_its_generation_is_known_and_listed(both):
    first = both(*upload("a/x.png", b"cut", 0))
    generations = [json.loads(answer[1])["generation"] for answer in first]
    for wrong in (1, 0):
        theirs, ours = both(*upload("a/x.png", b"whole", wrong))
        assert theirs[0] == ours[0] == 412
    # Each server counts its generations in its own way: both are told theirs.
    for number, generation in enumerate(generations):
        assert both(*upload("a/x.png", b"whole", generation))[number][0] == 200
    theirs, ours = both("GET", "/storage/v1/b/BUCKET/o?prefix=a/")
    assert [told_of((200, json.dumps(one).encode())) for one in json.loads(theirs[1])["items"]] == [
        told_of((200, json.dumps(one).encode())) for one in json.loads(ours[1])["items"]
    ]
