"""The gallery in a real Chromium, opened from the disk."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan import PlanOptions, plan_run
from promptmill.producer.plan_files import load_plan
from tests.dataset.galleries import HOSTILE, PLAIN, Watched, gallery_of, hostile_run

pytestmark = pytest.mark.slow

REASON = "</script><script>window.harmed = 10</script>"


@pytest.fixture
def seen(seen: Watched) -> Iterator[Watched]:
    """Nothing is asked of a network."""
    yield seen
    assert [url for url in seen.asked if not url.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = hostile_run(tmp_path_factory.mktemp("out"))
    return gallery_of(output, {len(HOSTILE) - 1: REASON})


def test_what_users_wrote_is_text_wherever_it_stands(hostile: Path, seen: Watched):
    page = seen.open(hostile)
    page.click("#filters")
    assert page.locator("#facets details").count() > 3
    page.evaluate("() => document.querySelectorAll('details').forEach(one => one.open = true)")
    captions = page.locator(".cell .caption").all_text_contents()
    assert sorted(captions) == sorted(f"{index} {text[:200]}" for index, text in enumerate(HOSTILE))
    page.locator("#grid").press("Home")
    page.keyboard.press("Enter")
    for index, text in enumerate(HOSTILE):
        page.locator(".head b", has_text=str(index)).wait_for()
        names, values = (page.locator(f"#full {cell}").all_text_contents() for cell in ("th", "td"))
        told = dict(zip(names, values, strict=True))
        assert told["prompt"] == text and told["negative_prompt"] == text
        page.keyboard.press("ArrowRight")
    assert REASON in page.locator("#full .reason").text_content()  # type: ignore[operator]
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    page.locator("#sweep select").first.select_option("prompt")
    assert page.locator("#sweep table").count() == 1
    assert page.evaluate(
        "() => [window.harmed, {}.polluted, document.querySelectorAll('main img, b b, td *:not(bdi)').length]"
    )[:2] == [None, None]
    assert page.evaluate("() => document.scripts.length") == 2


def test_the_command_renders_the_same_job(hostile: Path, seen: Watched, tmp_path: Path):
    page = seen.open(hostile)
    with load_plan(open_output(str(hostile.parents[1]))) as plan:
        jobs = [plan.whole(planned) for planned in plan]
    for index, job in enumerate(jobs):
        page.goto(f"{hostile.as_uri()}#i={index}")
        page.locator(".head b", has_text=str(index)).wait_for()
        command = page.locator("#full pre").text_content() or ""
        assert " | promptmill render - --format jsonl --plain-prompts " in command
        line = subprocess.run(
            ["bash", "-c", command.rpartition(" | ")[0]], capture_output=True, cwd=tmp_path, check=True
        ).stdout
        (tmp_path / "one.jsonl").write_bytes(line)
        assert json.loads(line)["prompt"] == job.prompt
        with plan_run([str(tmp_path / "one.jsonl")], PlanOptions(expansion=PLAIN)) as again:
            assert [planned.id for planned in again] == [job.id]
    assert [path.name for path in tmp_path.iterdir()] == ["one.jsonl"]
