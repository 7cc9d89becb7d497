"""Compiled programs kept over restarts: whole executables of ours, and beneath them XLA's own cache on disk.

An executable that is there needs no tracing, no lowering and no XLA. It is found by a fingerprint of all that it was
made of; where anything differs it is made anew, and XLA's cache, which looks at the lowered program, may still help.

Both hold code that is run, so nothing is read from where others may write: the folder and its files are this user's
own, and private. A file that is cut short, altered, or of a JAX that writes otherwise is passed over with a word.

    FOLDER/executables/FINGERPRINT    a line of ours, the digest of the rest, and what JAX serialised
"""

import contextlib
import hashlib
import json
import logging
import os
import pickle
import stat
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

logger = logging.getLogger(__name__)

MAGIC = b"promptmill-executable-1\n"
MOST_FILES = 64  # those used last stay

_folder: Path | None = None
"""State: where executables of this process are kept, once `keep_compiled_programs` has found it private."""

_unproven: list[Path] = []
"""State: files whose executables were loaded and have not rendered yet."""

XLA_HIT = "/jax/compilation_cache/cache_hits"


def keep_compiled_programs(folder: Path) -> None:
    """Keep programs in `folder` over restarts, if nobody else can write there.

    JAX_COMPILATION_CACHE_DIR, where it is set, names the folder instead.
    """
    global _folder
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or folder)
    executables = folder / "executables"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        executables.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        logger.warning("compiled programs are not kept: %s", error)
        return
    for one in (folder, executables):
        if not _is_private(one):
            logger.warning("compiled programs are not kept: others may write in %s", one)
            return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _folder = executables


def kept_or_made(name: str, arguments: Any, devices: Sequence[jax.Device], make: Callable[[], Any]) -> Any:
    """The executable of an earlier process, or the one that `make` compiles, which is then kept.

    `name` says all that is static in the program; `arguments` are what it is called with, as arrays or shapes.
    """
    if _folder is None:
        return make()
    path = _folder / fingerprint(name, arguments, devices)
    found = _read(path, arguments, devices)
    if found is not None:
        return found
    made, from_xlas_cache = _watched(make)
    if not from_xlas_cache:  # written once more, such a one lacks functions when it is read (jax 0.10 on a CPU)
        _write(path, made)
    return made


def proven() -> None:
    """What was loaded has rendered."""
    _unproven.clear()


def distrust() -> bool:
    """Something failed before it had rendered: drop the executables that were loaded for it. False: there was none."""
    dropped = list(_unproven)
    _unproven.clear()
    for path in dropped:
        logger.warning("%s was loaded and failed: it is dropped, and compiled anew", path)
        path.unlink(missing_ok=True)
    return bool(dropped)


def _watched(make: Callable[[], Any]) -> tuple[Any, bool]:
    """What is made, and whether XLA's cache had it."""
    hits: list[str] = []
    thread = threading.get_ident()

    def listen(event: str, **_: str | int) -> None:
        if event == XLA_HIT and threading.get_ident() == thread:
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        return make(), bool(hits)
    finally:
        jax.monitoring.unregister_event_listener(listen)


def fingerprint(name: str, arguments: Any, devices: Sequence[jax.Device]) -> str:
    """64 hexadecimal digits of all that an executable depends on."""
    leaves, structure = jax.tree.flatten(arguments)
    client = devices[0].client
    facts = {
        "name": name,
        "arguments": [f"{leaf.dtype}{leaf.shape}" for leaf in leaves],
        "structure": str(structure),
        "devices": [(device.device_kind, device.id) for device in devices],
        "platform": (client.platform, client.platform_version, _cpu_features() if client.platform == "cpu" else ""),
        "versions": {package: _version(package) for package in ("jax", "jaxlib", "flax")},
        "flags": {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")},
        "precision": str(jax.config.values["jax_default_matmul_precision"]),
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "code": _code(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read(path: Path, arguments: Any, devices: Sequence[jax.Device]) -> Any:
    """The executable in a file, or None, where it is no good with a word in the log."""
    try:
        if not path.exists():
            return None
        if not _is_private(path):
            raise ValueError("others may write it")
        head, _, body = path.read_bytes().removeprefix(MAGIC).partition(b"\n")
        if head.decode() != hashlib.sha256(body).hexdigest():
            raise ValueError("its bytes are not what was written")
        payload, out_tree = pickle.loads(body)
        in_tree = jax.tree.structure((arguments, {}))
        found = serialize_executable.deserialize_and_load(
            payload, in_tree, out_tree, backend=devices[0].client, execution_devices=devices
        )
        os.utime(path)
        _unproven.append(path)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it can be compiled
        logger.warning("%s is passed over, and compiled anew: %s", path, error)
        return None
    logger.info("no need to compile: the executable is in %s", path)
    return found


def _write(path: Path, made: Any) -> None:
    """Keep an executable, in one step. Where that cannot be, it is compiled again next time."""
    try:
        payload, _, out_tree = serialize_executable.serialize(made)
        body = pickle.dumps((payload, out_tree))
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:  # of mode 0600
            file.write(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        Path(file.name).replace(path)
        _drop_the_oldest(path.parent)
    except Exception as error:  # noqa: BLE001 - a platform whose programs cannot be written, a full disk
        logger.warning("the executable is not kept: %s", error)


def _drop_the_oldest(folder: Path) -> None:
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
    for file in files[:-MOST_FILES]:
        with contextlib.suppress(OSError):
            file.unlink()


def _is_private(path: Path) -> bool:
    """Whether it is this user's, no link, and nobody else may write it. On Windows there is no telling."""
    found = path.lstat()
    return not hasattr(os, "getuid") or (
        not stat.S_ISLNK(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    )


@cache
def _code() -> str:
    """A digest of the worker's own source: a program is traced from it."""
    files = sorted(Path(__file__).resolve().parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@cache
def _cpu_features() -> str:
    """What XLA compiles for on a CPU (Linux): a folder that several hosts share may hold another's programs."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
