"""Addresses between runs' galleries, scores that others gave, and what the server gives out."""

import math
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptmill.dataset.gallery.beside import ApartError, folder_beside, served_under
from promptmill.dataset.gallery.serve import make_server, page_url
from promptmill.dataset.scores import ScoresError, read_scores
from promptmill.producer.outputs.open import open_output
from tests.dataset.galleries import gallery_of, make_run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_real_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("here", "there", "address", "paths"),
    [
        ("/out/a", "/out/b", "../../b/gallery/", ["a", "b"]),
        ("/x/one two/a", "/x/more/b#1?", "../../../more/b%231%3F/gallery/", ["one two/a", "more/b#1?"]),
        ("gs://bucket/p/a", "gs://bucket/q/r/a", "../../../q/r/a/gallery/", ["p/a", "q/r/a"]),
    ],
)
def test_a_gallery_is_found_from_another(here: str, there: str, address: str, paths: list[str]):
    outputs = open_output(here), open_output(there)
    assert folder_beside(*outputs) == address
    assert served_under(*outputs) == paths


@pytest.mark.parametrize(
    ("here", "there", "problem"),
    [
        ("gs://one/a", "gs://two/a", "are not in one storage"),
        ("gs://one/a", "/out/b", "are not in one storage"),
        ("/out/a", "/out/a", "cannot be compared with itself"),
    ],
)
def test_runs_that_lie_apart_are_refused(here: str, there: str, problem: str):
    with pytest.raises(ApartError, match=problem):
        folder_beside(open_output(here), open_output(there))


def test_scores_are_read_from_tables_and_lines(tmp_path: Path):
    (tmp_path / "s.csv").write_text("index,aesthetic,clip\n2,5.5,0.25\n0,,1e-3\n")
    (tmp_path / "s.jsonl").write_text('{"index": 2, "aesthetic": 5.5, "clip": 0.25}\n{"index": 0, "clip": 0.001}\n')
    columns = {"index": [2, 0], "id": ["b", "a"], "aesthetic": [5.5, None], "clip": [0.25, 0.001], "why": [["x"], []]}
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    for name in ("s.csv", "s.jsonl", "s.parquet"):
        scores = read_scores(tmp_path / name, 3)
        assert set(scores) == {"aesthetic", "clip"}
        assert list(scores["clip"])[::2] == [0.001, 0.25] and math.isnan(scores["clip"][1])
        assert scores["aesthetic"][2] == 5.5 and math.isnan(scores["aesthetic"][0])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("index,a\n0,1\n3,1\n", r"s\.csv:3: index must be a whole number from 0 to 2, got '3'"),
        ("index,a\n0.5,1\n", r"s\.csv:2: index must be"),
        ("index,a\n1,good\n", r"s\.csv:2: a: expected a number, got 'good'"),
        ("a\n1\n", r"s\.csv:2: index must be a whole number from 0 to 2, got None"),
        ("index\n1\n", r"s\.csv: has no scores"),
    ],
)
def test_wrong_scores_are_refused_with_their_line(tmp_path: Path, text: str, problem: str):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ScoresError, match=problem):
        read_scores(tmp_path / "s.csv", 3)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    output = make_run(tmp_path, "a", [{"prompt": "one"}])
    gallery_of(output)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "a" / "gallery" / "notes.txt").write_text("secret")
    with make_server({"a": output}, 0) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def asked(server: ThreadingHTTPServer, path: str, host: str = "localhost:1") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_address[1]}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_server_gives_out_what_the_page_asks_for(server: ThreadingHTTPServer, tmp_path: Path):
    (image,) = (tmp_path / "a" / "images").rglob("*.png")
    assert page_url(server, "a").endswith("/a/gallery/index.html")
    for path, kind in {
        "/": "text/html; charset=utf-8",
        "/a/gallery/app.js": "text/javascript; charset=utf-8",
        "/a/gallery/data/00000.js": "text/javascript; charset=utf-8",
        "/a/gallery/sprites/00000.webp?abc": "image/webp",
        f"/a/{image.relative_to(tmp_path / 'a')}": "image/png",
    }.items():
        assert asked(server, path) == (200, kind)


@pytest.mark.parametrize(
    "path",
    [
        "/a/run.json",
        "/a/plan/00000.jsonl.zst",
        "/a/gallery/notes.txt",
        "/a/gallery/../run.json",
        "/a/gallery/%2e%2e/run.json",
        "/a/gallery/data/../../../secret",
        "/secret",
        "/../secret",
        "//secret",
        "/a/gallery/data/00001.js",
        "/a/gallery/index.html%00",
    ],
)
def test_the_server_gives_out_nothing_else(server: ThreadingHTTPServer, path: str):
    assert asked(server, path) == (404, "Not Found\n")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8421", "127.0.0.1.evil.example", ""])
def test_a_page_that_was_led_here_gets_nothing(server: ThreadingHTTPServer, host: str):
    assert asked(server, "/a/gallery/run.js", host) == (403, "Forbidden\n")
