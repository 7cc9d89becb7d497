"""The Lua files: keys are spelt once and alike, and a checker finds what Lua itself would find too late."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from promptmill.producer.job import Shape
from promptmill.producer.queue import keys
from promptmill.producer.queue.scripts import source

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "producer" / "queue" / "scripts"


def test_lua_spells_each_key_as_python_does(client: redis.Redis):
    shape = Shape("m", 64, 64, guided=True)
    names = "{RUNS, SHAPES, key('r'), key('r', 'done'), key('r', 'failed'), key('r', 'failures'), key('r', 'shapes'), "
    names += "WORKERS, SWEPT, PIDBOX, "
    names += "stream('r', ARGV[1]), lane(ARGV[1]), turns(ARGV[1]), held(ARGV[1]), compiling(ARGV[1])}"
    lib = source("sweep").partition("-- ARGV")[0]
    assert client.eval(f"{lib}\nreturn {names}", 0, shape.key) == [
        keys.RUNS,
        keys.SHAPES,
        *(one("r") for one in (keys.run_key, keys.done_key, keys.failed_key, keys.failures_key, keys.shapes_key)),
        *(keys.WORKERS, keys.WORKERS_SWEPT, keys.PIDBOX),
        keys.queue_key("r", shape),
        *(one(shape) for one in (keys.served_key, keys.turns_key, keys.held_key, keys.compiling_key)),
    ]


def test_scripts_take_the_names_of_keys_from_the_library():
    files = sorted(SCRIPTS.glob("*.lua"))
    assert len(files) > 15
    assert [file.name for file in files if "promptmill:" in file.read_text()] == ["lib.lua"]


def luacheck(*files: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    binary = shutil.which("luacheck")
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no luacheck (Debian's lua-check)")
        pytest.skip("no luacheck here")
    return subprocess.run([binary, "--no-color", *map(str, files)], cwd=cwd, capture_output=True, text=True)


def test_luacheck_passes_and_finds_a_name_that_nobody_defines(tmp_path: Path):
    checked = luacheck(SCRIPTS)
    assert checked.returncode == 0, checked.stdout
    planted = tmp_path / "producer" / "queue" / "scripts" / "sweep.lua"
    shutil.copytree(SCRIPTS, planted.parent)
    shutil.copy(ROOT / ".luacheckrc", tmp_path)
    planted.write_text(planted.read_text().replace("key(", "kee("))
    found = luacheck(planted.relative_to(tmp_path), cwd=tmp_path)
    assert found.returncode == 1 and "accessing undefined variable 'kee'" in found.stdout
