"""Executables over restarts: the second process compiles nothing, and what is not ours is passed over with a word."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import serialize_executable

from promptmill.worker import executables
from promptmill.worker.devices import Devices
from promptmill.worker.executables import MAGIC, MOST_FILES, fingerprint, keep_compiled_programs

WEIGHTS, BATCH = jnp.arange(3.0), np.arange(24.0, dtype=np.float32).reshape(8, 3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test keeps its executables, and no other. XLA keeps none, however long it took: those are not kept."""
    monkeypatch.setattr(executables, "_folder", tmp_path)
    least_s = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    yield tmp_path
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_s)


def compiled(devices: Devices, name: str = "sum") -> tuple[np.ndarray, bool]:
    """The result of a small program, and whether it was traced for that."""
    traced = []

    def function(weights: jax.Array, batch: jax.Array) -> jax.Array:
        traced.append(1)
        return (batch * weights[None]).sum(axis=1)

    shape = jax.ShapeDtypeStruct(BATCH.shape, BATCH.dtype, sharding=devices.split)
    run = devices.compile(function, jax.device_put(WEIGHTS, devices.whole), shape, name=name)
    result = run(jax.device_put(WEIGHTS, devices.whole), devices.put(BATCH))
    assert result.sharding.device_set == set(devices.mesh.devices.flat)
    return np.asarray(result), bool(traced)


@pytest.mark.parametrize("which", [slice(0, 8), slice(0, 1), slice(2, 4)])
def test_what_was_compiled_once_is_loaded_on_the_same_devices(folder: Path, which: slice) -> None:
    devices = Devices.of(jax.local_devices()[which])
    first, traced = compiled(devices)
    again, traced_again = compiled(devices)
    assert traced and not traced_again
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, (BATCH * np.arange(3)).sum(axis=1))
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600 and file.read_bytes().startswith(MAGIC)


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


def foreign(file: Path) -> None:
    import hashlib
    import pickle

    body = pickle.dumps(("not an executable", None))
    file.write_bytes(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def linked(file: Path) -> None:
    file.rename(file.with_name("there"))
    file.symlink_to("there")


SPOILT: dict[str, Callable[[Path], Any]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "one bit": flipped,
    "of another program": foreign,
    "text": lambda file: file.write_text("hello\nworld"),
    "others may write it": lambda file: file.chmod(0o666),
    "a link": linked,
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_file_that_is_no_good_is_passed_over_with_a_word_and_replaced(
    folder: Path, caplog: pytest.LogCaptureFixture, spoil: str
) -> None:
    devices = Devices.of(jax.local_devices()[:1])
    first, _ = compiled(devices)
    (file,) = folder.iterdir()
    SPOILT[spoil](file)
    with caplog.at_level(logging.WARNING):
        again, traced = compiled(devices)
    assert traced and "is passed over, and compiled anew" in caplog.text
    np.testing.assert_array_equal(first, again)
    assert not compiled(devices)[1], "it is whole again"


def test_whatever_differs_has_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = jax.local_devices()
    shape = jax.ShapeDtypeStruct((8, 3), jnp.float32)
    plain = fingerprint("name", (WEIGHTS, shape), devices)
    assert plain == fingerprint("name", (WEIGHTS, shape), devices)
    others = {
        fingerprint("other", (WEIGHTS, shape), devices),
        fingerprint("name", (WEIGHTS, jax.ShapeDtypeStruct((16, 3), jnp.float32)), devices),
        fingerprint("name", (WEIGHTS, jax.ShapeDtypeStruct((8, 3), jnp.bfloat16)), devices),
        fingerprint("name", ({"w": WEIGHTS}, shape), devices),
        fingerprint("name", (WEIGHTS, shape), devices[:4]),
        fingerprint("name", (WEIGHTS, shape), devices[4:]),
    }
    monkeypatch.setenv("XLA_FLAGS", "--xla_something=1")
    others.add(fingerprint("name", (WEIGHTS, shape), devices))
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(executables, "_version", lambda package: "99")
    others.add(fingerprint("name", (WEIGHTS, shape), devices))
    monkeypatch.setattr(executables, "_code", lambda: "changed")
    others.add(fingerprint("name", (WEIGHTS, shape), devices))
    assert len(others) == 9 and plain not in others


def test_without_a_name_nothing_is_kept(folder: Path) -> None:
    devices = Devices.of()
    shape = jax.ShapeDtypeStruct(BATCH.shape, BATCH.dtype, sharding=devices.split)
    devices.compile(lambda weights, batch: batch, jax.device_put(WEIGHTS, devices.whole), shape)
    assert list(folder.iterdir()) == []


def test_a_program_that_cannot_be_written_is_rendered_with(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(made: object) -> None:
        raise ValueError("Compilation does not support serialization")

    monkeypatch.setattr(serialize_executable, "serialize", refuse)
    assert compiled(Devices.of())[1]
    assert "the executable is not kept: Compilation does not support serialization" in caplog.text
    assert list(folder.iterdir()) == []


def test_those_that_were_not_used_for_the_longest_time_go(folder: Path) -> None:
    for number in range(MOST_FILES + 1):
        (folder / f"old-{number:03}").touch()
        os.utime(folder / f"old-{number:03}", (number, number))
    compiled(Devices.of())
    names = sorted(file.name for file in folder.iterdir())
    assert len(names) == MOST_FILES and "old-001" not in names and "old-002" in names


def test_an_executable_that_fails_before_it_has_rendered_is_dropped(folder: Path) -> None:
    devices = Devices.of()
    compiled(devices)
    executables.proven()
    assert not executables.distrust(), "it was compiled here"
    assert not compiled(devices)[1]
    assert executables.distrust() and list(folder.iterdir()) == []
    assert compiled(devices)[1] and not compiled(devices)[1]
    executables.proven()
    assert not executables.distrust() and len(list(folder.iterdir())) == 1


def test_a_folder_where_others_may_write_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executables, "_folder", None)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.values["jax_compilation_cache_dir"]
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    keep_compiled_programs(tmp_path / "open")
    assert "compiled programs are not kept: others may write" in caplog.text
    assert executables._folder is None and jax.config.values["jax_compilation_cache_dir"] == before


CHILD = """
import hashlib, json, sys
import jax
compiled = []
listen = lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
jax.monitoring.register_event_duration_secs_listener(listen)
from promptmill.worker.checks import Checks
from promptmill.worker.program import fetch
from promptmill.worker.programs import Programs, default_shape
from promptmill.worker.settings import WorkerSettings
from promptmill.producer.job import Job
shape = default_shape("tiny-random")
program = Programs(WorkerSettings(), Checks({})).get(shape)
job = Job(prompt="a cat", model=shape.model, width=shape.width, height=shape.height, num_inference_steps=3)
pixels = fetch(program.run(program.prepare([job])), 1).pixels
print(json.dumps({"compiled": len(compiled), "pixels": hashlib.sha256(pixels.tobytes()).hexdigest()}))
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing_and_renders_the_same_bits(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environ |= {"XDG_CACHE_HOME": str(tmp_path), "XLA_FLAGS": ""}

    def process() -> dict[str, Any]:
        ran = subprocess.run([sys.executable, "-c", CHILD], env=environ, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        said: dict[str, Any] = json.loads(ran.stdout)
        return said

    first, second = process(), process()
    assert first["compiled"] > 0 and second["compiled"] == 0
    assert first["pixels"] == second["pixels"]
    folder = tmp_path / "promptmill" / "xla"
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in (folder / "executables").iterdir():
        file.unlink()
    third = process()  # XLA's own cache has it
    assert list((folder / "executables").iterdir()) == [], "what XLA read from its cache cannot be written once more"
    assert third["pixels"] == process()["pixels"] == first["pixels"]
