"""`promptmill flower` in a real browser, beside a real worker. SCREENSHOTS=FOLDER keeps what it looked like."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.dataset.galleries import browser
from tests.fake_gcs import free_port
from tests.farm import Farm, farm_of, wait_until

pytestmark = pytest.mark.slow

HARMFUL = "<img src=x onerror=\"document.title='harmed'\">"
LONG = "a very long prompt " * 40
WIDE = ["--model", "tiny-random", "--steps", "2", "--width", "1024", "--height", "1024"]
ME: Any = {"username": "me", "password": "secret"}
PROMPTS = ["a red apple", HARMFUL, LONG, *(f"cat {number}" for number in range(9))]


@dataclass
class Flower:
    farm: Farm
    url: str
    page: Any

    def look(self, path: str) -> Any:
        self.page.goto(f"{self.url}/{path}")
        return self.page

    def ask(self, path: str) -> Any:
        header = {"Authorization": f"Basic {base64.b64encode(b'me:secret').decode()}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{path}", headers=header)) as answer:
            return json.load(answer)

    def keep(self, name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / name)


@pytest.fixture
def flower(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[Flower]:
    """Flower, a worker, and a run of twelve that is done, but for one job that was revoked."""
    with farm_of(redis_url, tmp_path) as farm, browser() as chromium:
        port = free_port()
        command = [sys.executable, "-m", "promptmill", "flower", "--address", "127.0.0.1", "--port", str(port)]
        farm.start_worker(*command, "--basic-auth", "me:secret")
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _is_up(url), "Flower answers")
        farm.start_worker()
        farm.wait_until_ready(1)
        farm.submit(PROMPTS, str(tmp_path / "out"), "fruit", "--model", "tiny-random", "--steps", "2")
        farm.wait_until_finished("fruit")
        context = chromium.new_context(http_credentials=ME, viewport={"width": 1700, "height": 800})
        shown = Flower(farm, url, context.new_page())
        wait_until(lambda: len(shown.ask("api/tasks?limit=100&state=SUCCESS")) == len(PROMPTS), "Flower heard of all")
        yield shown


def _is_up(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{url}/healthcheck", timeout=5).status == 200)
    except OSError:
        return False


def test_a_port_that_is_taken_is_told(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = ["--address", "127.0.0.1", "--port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "promptmill", "flower", "--broker", redis_url, "--no-password", *where]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, "Traceback" in ran.stderr) == (2, False)
    assert "Flower cannot start: " in ran.stderr and "--port and --address say where" in ran.stderr


def test_tasks_show_prompt_run_index_and_image(flower: Flower) -> None:
    page = flower.look("tasks?length=50")
    page.wait_for_selector("#tasks-table tbody tr:nth-child(12)")
    flower.keep("flower-tasks.png")
    rows = page.locator("#tasks-table tbody tr").all_inner_texts()
    (apple,) = [row for row in rows if "a red apple" in row]
    assert "fruit / 0" in apple and "SUCCESS" in apple and re.search(r"/images/[0-9a-f]{2}/[0-9a-f]{32}\.png", apple)
    assert any(HARMFUL in row for row in rows) and page.title() != "harmed"
    assert not any(LONG.strip() in row for row in rows) and any("a very long prompt" in row for row in rows)
    assert len(flower.ask("api/tasks?limit=100&search=kwargs:run=fruit")) == len(PROMPTS)
    assert flower.ask("api/tasks?limit=100&search=kwargs:run=other") == {}


def test_a_worker_shows_its_devices_and_what_it_renders(flower: Flower) -> None:
    (name,) = flower.ask("api/workers?refresh=1")
    flower.look(f"worker/{name}")
    flower.page.get_by_role("tab", name="Other").or_(flower.page.get_by_text("Other", exact=True)).first.click()
    flower.page.get_by_text("64x64:guided").first.wait_for(state="visible")
    shown = flower.page.content()
    flower.keep("flower-worker.png")
    assert "'devices': 1" in shown or "&#x27;devices&#x27;: 1" in shown or "&#39;devices&#39;: 1" in shown
    assert "64x64:guided" in shown


def test_the_broker_tab_has_the_queues_of_jobs(flower: Flower) -> None:
    flower.farm.submit(["of a size that takes long to compile"], str(flower.farm.folder / "out"), "wide", *WIDE)
    flower.look("broker")
    row = flower.page.locator("tr", has_text="jobs 1024x1024:guided").inner_text()
    flower.keep("flower-broker.png")
    assert row.split("\t")[1] == "1", "a job of that shape"
    assert "promptmill" in flower.page.locator("#queue-table").inner_text()


def test_who_has_no_password_sees_nothing(flower: Flower) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{flower.url}/tasks")
    assert refused.value.code == 401
