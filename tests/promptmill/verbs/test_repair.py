"""`repair` as a user calls it, with a worker of its own and with those of a Redis."""

import json
from pathlib import Path

import pytest

from tests.dataset.conftest import Run, encoding, run
from tests.dataset.faults import every_file
from tests.farm import Farm, farm_of
from tests.promptmill.conftest import Command

__all__ = ["encoding", "run"]

PROMPTS = [f"a cat, {number}" for number in range(6)]


def test_repairing_says_what_was_done_and_what_is_left(promptmill: Command, run: Run, here: Path):
    promptmill("pack", run.folder, "--partial", "--shard-size", 5)
    broken = sorted(run.folder.glob("images/*/*.png"))[0]
    before = broken.read_bytes()
    broken.write_bytes(before[:-1])
    (run.folder / "notes.txt").write_text("mine")
    ran = promptmill("repair", run.folder, "--json")
    assert ran.code == 0
    steps = [json.loads(line) for line in ran.out.splitlines()]
    assert [(step["action"], step["name"]) for step in steps] == [
        ("set aside", "notes.txt"),
        ("restored", str(broken.relative_to(run.folder))),
    ]
    assert ran.err == f"{run.folder}: 1 set aside, 1 restored\n"
    assert broken.read_bytes() == before
    again = promptmill("repair", run.folder)
    assert (again.code, again.out, again.err) == (0, "", f"{run.folder}: all is well\n")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in every_file(folder)}


def lose(folder: Path) -> list[Path]:
    """Two images, and the shard that has them."""
    lost = sorted(folder.glob("images/*/*.png"))[:2]
    for path in (*lost, *folder.glob("data/*.tar")):
        path.unlink()
    return lost


@pytest.mark.slow
def test_what_is_in_no_shard_is_rendered_here_to_the_same_bytes(redis_url: str, tmp_path: Path):
    with farm_of(redis_url, tmp_path) as farm:
        farm.environ.pop("PROMPTMILL_BROKER")
        file, out = tmp_path / "cats.txt", tmp_path / "out" / "cats"
        file.write_text("\n".join(PROMPTS))
        rendered = farm.call("render", str(file), "--output", str(tmp_path / "out"), "--run", "cats")
        assert rendered.returncode == 0, rendered.stderr
        assert farm.call("pack", str(out)).returncode == 0
        before = contents(out)
        lose(out)
        assert farm.call("verify", str(out)).returncode == 1
        repaired = farm.call("repair", str(out))
        assert repaired.returncode == 0, repaired.stderr
        assert "2 rendered, 1 rebuilt" in repaired.stderr
        assert contents(out) == before


def known_to(farm: Farm) -> set[str]:
    return {run["run"] for run in json.loads(farm.call("status", "--json").stdout)["runs"]}


@pytest.mark.slow
@pytest.mark.usefixtures("client")
def test_workers_of_a_redis_render_what_is_lost_whether_it_knows_the_run_or_not(redis_url: str, tmp_path: Path):
    with farm_of(redis_url, tmp_path) as farm:
        farm.start_worker()
        farm.submit(PROMPTS, str(tmp_path / "out"), "cats")
        out = tmp_path / "out" / "cats"
        assert farm.wait_until_finished("cats")["failed"] == 0
        assert farm.call("pack", str(out)).returncode == 0
        before = contents(out)
        for known in (True, False):
            if not known:
                assert farm.call("purge", "cats").returncode == 0
            lose(out)
            repaired = farm.call("repair", "cats" if known else str(out))
            assert repaired.returncode == 0, repaired.stderr
            assert contents(out) == before
            assert ("cats" in known_to(farm)) is known
