"""How far it is: words, so on stderr, and none too many where nobody watches."""

import pytest

from promptmill import progress
from promptmill.progress import Progress


def test_without_a_terminal_a_short_wait_says_nothing(capfd):
    with Progress("images", 3) as bar:
        bar.note("starting")
        bar.to(3)
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_a_long_wait_says_a_line(capfd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Progress("images", 3) as bar:
        bar.to(1)
        bar.to(3)
    assert capfd.readouterr() == ("", "images 1 of 3\nimages 3 of 3\n")


def test_a_long_wait_is_told_its_rate_and_one_without_an_end_no_total(capfd, monkeypatch: pytest.MonkeyPatch):
    now = iter([0.0, 0.0, 20.0, 40.0])
    monkeypatch.setattr("promptmill.progress.time.monotonic", lambda: next(now))
    with Progress("enqueued", None, unit="jobs") as bar:
        bar.to(1000)
        bar.to(5000)
        bar.to(161000)
        assert bar.rate == 4000
    assert capfd.readouterr().err == "enqueued 5000 (200 jobs/s)\nenqueued 161000 (4,000 jobs/s)\n"


def test_no_rate_is_told_while_it_stands_still_and_none_spans_a_stop(capfd, monkeypatch: pytest.MonkeyPatch):
    now = iter([0.0, 0.0, 10.0, 20.0, 30.0, 630.0, 640.0])
    monkeypatch.setattr("promptmill.progress.time.monotonic", lambda: next(now))
    with Progress("images", 100) as bar:
        for count in (0, 10, 20, 30, 30, 40):
            bar.to(count)
        assert bar.rate == 1.0
    told = capfd.readouterr().err.splitlines()
    assert told[2:] == ["images 30 of 100 (1 images/s)", "images 30 of 100", "images 40 of 100 (1 images/s)"]


def test_a_bar_has_no_rate_of_its_own(monkeypatch: pytest.MonkeyPatch, capfd):
    """tqdm's spans stops."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("images", 100) as bar:
        bar.to(50)
        shown = str(bar._bar)
    assert "50/100" in shown and "it/s" not in shown and "?" not in shown
