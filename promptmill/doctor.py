"""What `promptmill doctor` looks at on a host, one function per part. Each finding says what to do about it.

A part that hangs or dies, as a driver may, is run in a process of its own.
"""

import json
import os
import platform
import shutil
import stat
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import redis
from redis.exceptions import NoPermissionError

from promptmill.producer.broker import connect, eviction
from promptmill.producer.broker_url import without_password
from promptmill.producer.errors import PromptmillError
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import OutputUnavailable, OutputUrlError, Put
from promptmill.producer.queue.keys import PROBED
from promptmill.producer.scratch import user_cache
from promptmill.producer.words import count

DEVICES_TIMEOUT_S = 120.0
REDIS_TIMEOUT_S = 1.5  # for an answer, four times: one that hangs is told within seconds
PINGS = 20
SLOW_PING_S = 0.02  # a batch asks Redis a few times
CLOCK_APART_S = 2.0
OLDEST_REDIS = (6, 2)  # XAUTOCLAIM
MEMORY_BYTES = 16e9  # SDXL's weights are 7 GB in half precision, and pass through the host's memory
DISK_BYTES = 20e9  # a model's files are 7 GB, a thousand images of 1024x1024 pixels 1.6 GB
PROBE = "promptmill-doctor.txt"
PROBE_TEXT = b"promptmill doctor wrote this to see whether it may. Nothing needs it.\n"

PACKAGES = ("jax", "flax", "celery", "redis", "tokenizers", "google-cloud-storage", "pillow")

ASK_JAX = """
import json, jax
devices = jax.local_devices()
stats = devices[0].memory_stats() or {}
print(json.dumps({"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices),
                  "memory": stats.get("bytes_limit"), "version": getattr(devices[0].client, "platform_version", "")}))
"""

ACCELERATORS = {
    "cuda": ("/dev/nvidia0", "an NVIDIA GPU"),
    "tpu": ("/dev/accel0", "a TPU"),
}
"""By promptmill's extra: a device file of an accelerator, and its name."""

REFUSED: Sequence[tuple[type[redis.ResponseError], str]] = (
    (redis.ReadOnlyError, "name the primary with --broker, or its sentinels (sentinel://...)"),
    (redis.OutOfMemoryError, "raise maxmemory, or `promptmill purge` runs that are over"),
    (NoPermissionError, "give this user what deploy/redis-users.acl does"),
    (redis.ResponseError, "its own log says more"),
)
"""What to do where Redis refuses to be read or written, by redis-py's error."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What to look at beside the host itself."""

    broker: str
    broker_is_given: bool
    output: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """`state` is ok, warning or wrong. `advice` says what to do."""

    part: str
    state: Literal["ok", "warning", "wrong"]
    found: str
    advice: str = ""


def examine(subject: Subject) -> Iterator[Finding]:
    """Every part in turn."""
    for look in LOOKS:
        yield from look(subject)


def _versions(subject: Subject) -> Iterator[Finding]:
    found = {name: _version(name) for name in PACKAGES}
    missing = [name for name, one in found.items() if one is None]
    text = f"promptmill {version('promptmill')}, Python {platform.python_version()}"
    text += "".join(f", {name} {one}" for name, one in found.items() if one)
    if missing:
        advice = "a host that renders needs them: pip install 'promptmill[worker]' (or [tpu], [cuda])"
        yield Finding("versions", "warning", f"{text}; not here: {', '.join(missing)}", advice)
    else:
        yield Finding("versions", "ok", text)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices(subject: Subject) -> Iterator[Finding]:
    if _version("jax") is None:
        return
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", ASK_JAX], capture_output=True, text=True, timeout=DEVICES_TIMEOUT_S, check=True
        )
        told: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        advice = "the driver or another process holds them: look at nvidia-smi, or restart the TPU VM"
        yield Finding("devices", "wrong", f"JAX did not find them within {DEVICES_TIMEOUT_S:.0f} s", advice)
        return
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no word").splitlines()[-1]
        yield Finding("devices", "wrong", f"JAX finds none: {last}", "see JAX_PLATFORMS, and JAX's installation guide")
        return
    memory = f", {told['memory'] / 1e9:.1f} GB each" if told["memory"] else ""
    driver = f" ({told['version'].splitlines()[0]})" if told["version"] else ""
    text = f"{told['count']} x {told['kind']}{memory}{driver}"
    for extra, (file, name) in ACCELERATORS.items():
        if told["platform"] == "cpu" and Path(file).exists():
            yield Finding("devices", "wrong", f"{text}, but {name} is here", f"pip install 'promptmill[{extra}]'")
            return
    yield Finding("devices", "ok", text)


def _memory(subject: Subject) -> Iterator[Finding]:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text, cores = f"{size / 1e9:.0f} GB of memory", f"{count(os.cpu_count() or 1, 'core')}"
    if size < MEMORY_BYTES:
        yield Finding("host", "warning", f"{text}, {cores}", "SDXL at full size wants 16 GB; small models do with less")
    else:
        yield Finding("host", "ok", f"{text}, {cores}")


def _redis(subject: Subject) -> Iterator[Finding]:
    try:
        client = connect(subject.broker, timeout_s=REDIS_TIMEOUT_S)
        server: Any = client.info()
        client.set(PROBED, 1, px=1)
    except redis.ResponseError as error:
        advice = next(advice for kind, advice in REFUSED if isinstance(error, kind))
        yield Finding("Redis", "wrong", f"{without_password(subject.broker)} takes no jobs: {error}", advice)
        return
    except (PromptmillError, redis.RedisError) as error:
        yield _no_redis(subject, str(error))
        return
    release = str(server["redis_version"])
    text = f"{release} at {without_password(subject.broker)}, {server.get('used_memory_human')} used"
    if tuple(map(int, release.split(".")[:2])) < OLDEST_REDIS:
        yield Finding("Redis", "wrong", text, "promptmill needs 6.2 or later")
    elif server.get("role") == "slave":  # one that takes writes of its own, which its primary never hears of
        yield Finding("Redis", "wrong", f"{text}, a replica", REFUSED[0][1])
    elif warning := eviction(client):
        yield Finding("Redis", "wrong", text, warning)
    elif not server.get("aof_enabled"):
        yield Finding(
            "Redis", "warning", f"{text}, not appended to disk", "redis-server --appendonly yes: a restart loses jobs"
        )
    else:
        yield Finding("Redis", "ok", f"{text}, nothing is evicted, appended to disk")
    yield from _ways_to_redis(client)


def _no_redis(subject: Subject, problem: str) -> Finding:
    if subject.broker_is_given:
        return Finding("Redis", "wrong", problem, "start it, or open the way to it")
    advice = "a farm needs one: docs/farm.md, or --broker; `promptmill render` starts its own"
    return Finding("Redis", "warning", problem.partition(". ")[0], advice)


def _ways_to_redis(client: Any) -> Iterator[Finding]:
    took = []
    for _ in range(PINGS):
        began = time.perf_counter()
        client.ping()
        took.append(time.perf_counter() - began)
    ping_s = statistics.median(took)
    state: Literal["ok", "warning"] = "ok" if ping_s < SLOW_PING_S else "warning"
    advice = "" if state == "ok" else "keep Redis in the workers' zone: each batch asks it a few times"
    yield Finding("Redis, way there", state, f"{1000 * ping_s:.1f} ms there and back", advice)
    seconds, microseconds = client.time()
    apart = time.time() - seconds - microseconds / 1e6
    if abs(apart) > CLOCK_APART_S:
        yield Finding(
            "clock", "warning", f"{apart:+.1f} s from that of Redis", "have NTP set it: logs and images bear its time"
        )
    else:
        yield Finding("clock", "ok", f"{apart:+.2f} s from that of Redis")


def _output(subject: Subject) -> Iterator[Finding]:
    if subject.output is None:
        return
    try:
        output = open_output(subject.output)
        output.reach()
        output.check()
        first = output.put_once(PROBE, PROBE_TEXT, content_type="text/plain")
        again = output.put_once(PROBE, PROBE_TEXT, content_type="text/plain")
        whole = output.get(PROBE) == PROBE_TEXT and PROBE in output.list(PROBE)
    except PromptmillError as error:
        yield Finding("output", "wrong", str(error), _advice_for(subject.output, error))
        return
    if again is not Put.ADOPTED or not whole:
        yield Finding("output", "wrong", f"{output.url} does not keep what is written to it", "choose another storage")
    else:
        written = "written once" if first is Put.CREATED else "there from before"
        yield Finding("output", "ok", f"{output.url}: listed, read, and {PROBE} {written}")


def _advice_for(url: str, error: PromptmillError) -> str:
    if isinstance(error, OutputUrlError):
        return "give a folder, or gs://bucket/prefix"
    if not url.startswith("gs://"):
        return "choose a folder that this user may write into, on a disk with room"
    if isinstance(error, OutputUnavailable):
        return "open the way from this host to storage.googleapis.com"
    return "a bucket wants roles/storage.objectUser for the worker's account (SECURITY.md)"


def _caches(subject: Subject) -> Iterator[Finding]:
    try:
        yield _cache(user_cache())
    except (OSError, RuntimeError) as error:  # the user has no home, or it is another's
        yield Finding("cache", "warning", str(error), "name a folder of this user's in XDG_CACHE_HOME")


def _cache(folder: Path) -> Finding:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    text = f"{folder}, {free / 1e9:.0f} GB free"
    if not os.access(there, os.W_OK):
        return Finding("cache", "warning", f"{folder} cannot be written", "programs are compiled anew at each start")
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o022:
        return Finding("cache", "warning", f"others may write in {folder}", f"it is not used so: chmod 700 {folder}")
    if free < DISK_BYTES:
        return Finding("cache", "warning", text, "a model and its programs want 10 GB")
    return Finding("cache", "ok", text)


LOOKS: Sequence[Callable[[Subject], Iterator[Finding]]] = (_versions, _devices, _memory, _redis, _output, _caches)
