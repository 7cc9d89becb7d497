"""URLs of outputs: which there are, and which are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import (
    OutputUrlError,
)


def test_the_urls_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert open_output("out/").url == str(tmp_path / "out")
    assert open_output("a/../b").url == str(tmp_path / "b")
    assert open_output("~/out").url == str(tmp_path / "home" / "out")
    assert open_output("file:///data/my%20run").url == "/data/my run"
    assert open_output("file://localhost/data").url == "/data"
    assert open_output(":odd:name").url == str(tmp_path / ":odd:name")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/run", "there is no storage s3://; known are file://, gs:// and a folder's path"),
        ("GS://bucket", "there is no storage GS://"),
        ("gs://", "the bucket is missing"),
        ("gs:///run", "the bucket is missing"),
        ("gs://_bucket/run", "a bucket cannot be called '_bucket'"),
        ("gs://bucket?x=y/run", "a bucket cannot be called 'bucket?x=y'"),
        ("gs:/bucket/run", "two slashes"),
        ("file://out", "expected file:///absolute/path"),
        ("file://host/out", "expected file:///absolute/path"),
        ("", "expected the path of a folder"),
        ("a\0b", "expected the path of a folder"),
        ("~nobody-of-this-name/out", "home directory"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, message: str) -> None:
    with pytest.raises(OutputUrlError) as refusal:
        open_output(url)
    assert message in str(refusal.value)


def test_a_folder_needs_nothing_of_google() -> None:
    script = (
        "import sys; from promptmill.producer.outputs.open import open_output; open_output('.').check();"
        "print([m for m in sys.modules if m.startswith(('google', 'requests'))])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_a_folder_whose_name_is_not_utf8_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputUrlError, match="not UTF-8"):
        open_output(str(tmp_path / "caf\udce9"))
