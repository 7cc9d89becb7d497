"""What `render` says while its output or its Redis is away, and that it goes on when it is over."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from promptmill.producer.outputs.open import open_output
from promptmill.producer.presence import images_present
from tests.farm import wait_until
from tests.mortal_redis import MortalRedis

pytestmark = pytest.mark.slow

IMAGES = 60


class Render:
    """A `promptmill render` under way, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str], words: Path) -> None:
        self.process = process
        self._words = words

    @property
    def words(self) -> str:
        return self._words.read_text()

    def wait_for(self, word: str) -> None:
        wait_until(lambda: word in self.words or self.process.poll() is not None, word)
        assert word in self.words, self.words

    def end(self) -> dict[str, object]:
        answer, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, self.words
        told: dict[str, object] = json.loads(answer)
        return told


@contextlib.contextmanager
def render_of(folder: Path, *options: str, before: str = "") -> Iterator[Render]:
    """Renders into `folder`/out, in a mount namespace of its own where there is something to do `before`."""
    (folder / "p.txt").write_text("".join(f"prompt {number}\n" for number in range(IMAGES)))
    (folder / "out").mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-m", "promptmill", "render", str(folder / "p.txt"), "--json"]
    command += ["--output", str(folder / "out"), "--run", "r", "--model", "tiny-random", "--steps", "8", *options]
    if before:
        command = ["unshare", "--mount", "sh", "-c", f'{before} || exit 77; exec "$@"', "sh", *command]
    with (folder / "words").open("w") as words:
        environ = {**os.environ, "XLA_FLAGS": ""}
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=words, text=True)
    try:
        yield Render(process, folder / "words")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.parametrize(
    ("word", "begin", "end"),
    [
        ("No space left on device", "head -c 4M /dev/zero > {out}/filler; true", "rm {out}/filler"),
        ("Read-only file system", "mount -o remount,ro {out}", "mount -o remount,rw {out}"),
    ],
)
def test_a_full_or_read_only_disk_is_told_with_its_path_and_waited_for(
    tmp_path: Path, word: str, begin: str, end: str
) -> None:
    out = tmp_path / "out"
    with render_of(tmp_path, before=f"mount -t tmpfs -o size=2M none {out}") as render:

        def there(command: str) -> None:
            enter = ["nsenter", "--mount", "--target", str(render.process.pid), "sh", "-c", command.format(out=out)]
            subprocess.run(enter, check=True, stderr=subprocess.DEVNULL)

        inside = Path(f"/proc/{render.process.pid}/root{out}")
        wait_until(
            lambda: render.process.poll() is not None or len(list(inside.glob("r/images/*/*.png"))) > 3, "some images"
        )
        if render.process.poll() == 77:
            pytest.skip("nothing may be mounted here")
        there(begin)
        render.wait_for(f"in trouble: {out}: ")
        assert word in render.words
        there(end)
        report = render.end()
        assert f"{out} works again" in render.words
    assert (report["rendered"], report["failed"]) == (IMAGES, 0)


def test_an_output_that_was_removed_is_told_and_waited_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with render_of(tmp_path) as render:
        wait_until(_some_images(out), "some images")
        out.rename(tmp_path / "aside")
        out.write_text("a file in its place")
        render.wait_for(f"{out} is not a folder")
        out.unlink()
        (tmp_path / "aside").rename(out)
        report = render.end()
    assert (report["rendered"], report["failed"]) == (IMAGES, 0)
    assert len(images_present(open_output(str(out)).child("r"))) == IMAGES


def test_a_redis_that_goes_away_is_told_and_waited_for(tmp_path: Path, mortal_redis: MortalRedis) -> None:
    with render_of(tmp_path, "--broker", mortal_redis.url) as render:
        wait_until(_some_images(tmp_path / "out"), "some images")
        mortal_redis.kill()
        render.wait_for("waiting: Redis: ")
        mortal_redis.start()
        report = render.end()
        assert "Redis answers again" in render.words
    assert (report["rendered"], report["failed"]) == (IMAGES, 0)


def _some_images(out: Path) -> Callable[[], bool]:
    return lambda: len(images_present(open_output(str(out)).child("r"))) > 3
