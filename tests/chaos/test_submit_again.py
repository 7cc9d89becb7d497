"""Submitting again while the run is being rendered, by a real worker: nothing is entered twice, nothing is lost."""

import json
from pathlib import Path

import pytest

from promptmill.embedded import embedded_server
from promptmill.producer.broker import connect
from promptmill.producer.outputs.open import open_output
from promptmill.producer.presence import images_present
from tests.farm import farm_of, wait_until

JOBS = 120
TIMES = 12


@pytest.mark.slow
def test_submitting_again_while_a_worker_renders_enters_nothing_twice(tmp_path: Path) -> None:
    options = ["--output", str(tmp_path / "out"), "--run", "r", "--steps", "1", "--json"]
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"a red apple, number {number}\n" for number in range(JOBS)))
    output = open_output(str(tmp_path / "out" / "r"))
    with embedded_server() as embedded, farm_of(embedded.url, tmp_path) as farm:
        farm.start_worker()
        entered, some = [], 0
        for number in range(TIMES):
            if number == TIMES // 2:  # and the file grows meanwhile
                with file.open("a") as more:
                    more.write("".join(f"a green pear, number {number}\n" for number in range(JOBS)))
            answer = farm.call("submit", str(file), *options)
            assert answer.returncode == 0, answer.stderr
            entered.append(json.loads(answer.stdout)["enqueued"])
            some += JOBS // TIMES
            wait_until(lambda some=some: len(images_present(output)) >= some, f"{some} images are there")  # type: ignore[misc]
        assert farm.wait_until_finished("r")["done"] == 2 * JOBS
        claimed = int(connect(embedded.url).hget("promptmill:run:r", "queued") or 0)
    assert entered == [JOBS, *[0] * (TIMES // 2 - 1), JOBS, *[0] * (TIMES // 2 - 1)]
    assert claimed == 0
    assert len(images_present(output)) == 2 * JOBS
