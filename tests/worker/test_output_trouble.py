"""Whose trouble a refused write is, and for how long an output is left alone."""

import re

import pytest

from promptmill.worker.output_trouble import FIRST_PAUSE_S, Blame, OutputTrouble
from promptmill.worker.self_report import SelfReport

URL = "gs://b"


@pytest.fixture
def report() -> SelfReport:
    return SelfReport("w", is_busy=lambda: False)


@pytest.fixture
def trouble(report: SelfReport) -> OutputTrouble:
    return OutputTrouble(report)


def test_an_output_that_refuses_everything_fails_no_job(trouble, report):
    jobs = [f"job {n}" for n in range(3)]
    assert {trouble.refused(URL, job, "403") for job in jobs} == {Blame.OUTPUT}
    for _ in range(5):
        assert {trouble.refused(URL, job, "403") for job in jobs} == {Blame.OUTPUT_AGAIN}
    assert trouble.to_pass_over() == [URL]
    assert "403" in report.now().problems[URL]


def test_an_output_that_comes_and_goes_fails_no_job(trouble):
    for _ in range(5):
        blames = [trouble.refused(URL, f"job {n}", "403") for n in range(1, 4)]
        assert Blame.JOB not in blames[1:], "two are refused and nothing landed between: it is the output"
        trouble.worked(URL, "job 9")


def test_a_job_that_is_refused_while_others_land_is_its_own_trouble(trouble, report):
    assert trouble.refused(URL, "bad", "403") is Blame.OUTPUT
    assert trouble.refused(URL, "bad", "403") is Blame.OUTPUT_AGAIN, "others are to be tried first"
    trouble.worked(URL, "good")
    assert report.now().problems == {}
    for _ in range(3):
        assert trouble.refused(URL, "bad", "403") is Blame.JOB
    assert trouble.to_pass_over() == [], "the output takes others"
    assert trouble.refused(URL, "other", "403") is Blame.OUTPUT
    assert trouble.refused(URL, "bad", "403") is Blame.OUTPUT_AGAIN, "now that another is refused too"


def test_a_job_that_landed_is_no_suspect_any_more(trouble):
    trouble.refused(URL, "job", "403")
    trouble.worked(URL, "job")
    assert trouble.refused(URL, "job", "403") is Blame.OUTPUT


def test_workers_that_are_refused_together_do_not_come_back_together():
    pauses = set()
    for number in range(20):
        report = SelfReport(f"w{number}", is_busy=lambda: False)
        OutputTrouble(report).refused(URL, "job", "403")
        found = re.search(r"next try in (\d+) s", report.now().problems[URL])
        assert found
        pauses.add(int(found[1]))
    assert len(pauses) > 1
    assert all(FIRST_PAUSE_S / 2 - 1 <= pause_s <= FIRST_PAUSE_S for pause_s in pauses)
