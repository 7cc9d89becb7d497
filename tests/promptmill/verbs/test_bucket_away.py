"""A bucket that cannot be reached is told by the short look at it, not after each long try to read something there."""

import pytest

import promptmill as package
from promptmill.producer.outputs import gcs
from tests.promptmill.conftest import Command

URL = "gs://no-such-bucket/x"
VERBS = {
    "submit": ["submit", "cats.txt", "--output", URL],
    "dry run": ["submit", "cats.txt", "--output", URL, "--dry-run"],
    "render": ["render", "cats.txt", "--output", URL],
    "resume": ["resume", "r", "--output", URL],
    "verify": ["verify", f"{URL}/r"],
    "pack": ["pack", f"{URL}/r"],
    "sheet": ["sheet", f"{URL}/r"],
    "export": ["export", f"{URL}/r", "named"],
}


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(gcs, "_CHECK_RETRY_SECONDS", 0.2)


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_a_bucket_that_is_away_is_told_at_once(at_redis: str, promptmill: Command, words: list[str]) -> None:
    ran = promptmill(*words)
    assert ran.code == 2
    assert "cannot use gs://no-such-bucket/x" in ran.err and "http://127.0.0.1:9" in ran.err


def test_python_is_told_too(at_redis: str) -> None:
    with pytest.raises(package.OutputError, match="cannot use gs://no-such-bucket/x"):
        package.submit(["a cat"], output=URL)
