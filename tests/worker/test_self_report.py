"""What a worker says of itself."""

from promptmill.worker.self_report import SelfReport


def test_a_worker_renders_while_it_holds_jobs_and_is_ready_again_after_the_last():
    busy = False
    report = SelfReport("w", lambda: busy)
    assert report.now().state == "starting"
    report.compiling("shape")
    assert (report.now().state, report.now().shape) == ("compiling", "shape")
    report.compiling(None)
    report.phase("ready")
    assert report.now().state == "ready"
    busy = True
    report.serving("another")
    report.compiling("shape")
    assert (report.now().state, report.now().shape) == ("rendering", "another"), "it compiles beside"
    busy = False
    assert (report.now().state, report.now().shape) == ("compiling", "shape")
    report.phase("draining")
    assert report.now().state == "draining"


def test_problems_stay_until_they_are_cured():
    report = SelfReport("w", lambda: False)
    report.trouble("model", "no such file")
    report.trouble("/out", "read-only")
    report.cured("model")
    report.cured("never")
    assert report.now().problems == {"/out": "read-only"}


def test_images_are_counted_and_their_rate():
    report = SelfReport("w", lambda: False)
    assert report.now().images_per_s == 0
    for _ in range(3):
        report.landed()
    assert report.now().images == 3
    assert report.now().images_per_s > 0


def test_it_says_what_it_compiles_also_while_it_renders():
    report = SelfReport("w", lambda: True)
    report.phase("ready")
    report.compiling("64x64")
    said = report.now()
    assert (said.state, said.compiling) == ("rendering", "64x64") and said.compiling_s >= 0
    report.compiling(None)
    assert (report.now().compiling, report.now().compiling_s) == ("", 0.0)
