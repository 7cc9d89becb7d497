"""Checks: who is asked, what they are shown, and that nothing passes a check that does not answer."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding

from promptmill.worker.checks import CheckError, Checks, Findings, FunctionCheck, ImageCheck, Verdict, load_checks
from promptmill.worker.errors import ModelNotFoundError
from promptmill.worker.safety.safety import SafetyChecker
from promptmill.worker.settings import WorkerSettings
from tests.worker.safety.test_safety import write_checker

PIXELS = np.random.default_rng(0).integers(0, 200, (8, 32, 24, 3), np.uint8)
DOCS = Path(__file__).parents[2] / "docs" / "safety.md"


def findings_of(checks: Checks, pixels: np.ndarray) -> list[Findings]:
    return checks.finish(checks.start(jnp.asarray(pixels)), pixels)


def one(function: ImageCheck) -> Checks:
    return Checks({"mine": FunctionCheck(function)})


@pytest.fixture
def module_from_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The example of docs/safety.md, as a user saves it."""
    example = DOCS.read_text().split("```python\n# my_checks.py\n")[1].split("```")[0]
    (tmp_path / "my_checks.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_checks", raising=False)
    return "my_checks:too_bright"


def test_the_example_of_the_docs_works(module_from_the_docs):
    checks = load_checks(WorkerSettings(image_check=module_from_the_docs))
    bright = np.full((1, 32, 24, 3), 250, np.uint8)
    first, second = findings_of(checks, np.concatenate([PIXELS[:1], bright]))
    assert not first["my_checks:too_bright"].flagged
    assert second == {"my_checks:too_bright": Verdict(True, {"mean": 250.0})}


def test_no_settings_no_checks():
    assert findings_of(load_checks(WorkerSettings()), PIXELS) == [{}] * 8


def test_all_checks_are_asked_and_the_safety_checker_where_the_pixels_lie(tmp_path, module_from_the_docs):
    folder = write_checker(tmp_path / "checker")
    checks = load_checks(WorkerSettings(safety_checker=str(folder), image_check=f"{module_from_the_docs},"))
    mesh = Mesh(np.array(jax.local_devices()), ("device",))
    started = checks.start(jax.device_put(PIXELS, NamedSharding(mesh, jax.P("device"))))
    findings = checks.finish(started, PIXELS[:3])  # a short batch: the device renders more than there are jobs
    wanted = SafetyChecker.load(folder)(PIXELS)[:3]
    assert [list(found) for found in findings] == [[str(folder), module_from_the_docs]] * 3
    said = [found[str(folder)] for found in findings]
    assert [verdict.flagged for verdict in said] == [scores.flagged for scores in wanted]
    assert [verdict.details["concepts"] for verdict in said] == [scores.bad_concepts for scores in wanted]


def test_a_check_that_fails_is_named():
    def broken(pixels: np.ndarray) -> list[Verdict]:
        raise ValueError("no network")

    with pytest.raises(CheckError, match="the image check mine failed: ValueError: no network"):
        findings_of(one(broken), PIXELS)


@pytest.mark.parametrize("answer", [[], [Verdict(False)] * 7, [Verdict(False)] * 9, [False] * 8])
def test_an_answer_that_is_not_a_verdict_for_each_lets_nothing_pass(answer):
    with pytest.raises(CheckError, match=r"the image check mine gave \d verdicts for 8 images"):
        findings_of(one(lambda pixels: answer), PIXELS)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("my_checks", "must be module:function, got 'my_checks'"),
        ("no_such_module:f", "No module named 'no_such_module' .it has to be installed, or on PYTHONPATH"),
        ("json:no_such_function", "has no attribute 'no_such_function'"),
        ("json:__name__", "is str, and not a function"),
    ],
)
def test_a_check_that_is_not_there_is_told(name, told):
    with pytest.raises(CheckError, match=told):
        load_checks(WorkerSettings(image_check=name))


def test_a_worker_does_not_start_without_the_checker_it_was_told_to_ask(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        load_checks(replace(WorkerSettings(), safety_checker=str(tmp_path)))
