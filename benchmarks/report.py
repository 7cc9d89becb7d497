"""What every benchmark says about itself: the machine, the versions, the commit; and where its tables go."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]


def circumstances(packages: tuple[str, ...], *, device: str = "") -> str:
    """One line: the machine, the versions, the commit, and how busy the machine was."""
    cores = f"{os.cpu_count()} cores ({cpu_model()}), {memory_gb():.0f} GB, load {os.getloadavg()[0]:.1f}"
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    what = f"{device}; " if device else ""
    return f"{what}{cores}; Python {platform.python_version()}, {versions}; commit {commit()}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def cpu_model() -> str:
    """The processor as Linux names it; elsewhere its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory_gb() -> float:
    """Of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def commit() -> str:
    """The commit's short name; with changes outside docs/, it says so. A copy without git is unknown."""
    name = _git("rev-parse", "--short", "HEAD")
    return f"{name}{' with changes' if _git('status', '--porcelain', '-uno', ':!docs') else ''}" if name else "unknown"


def _git(*args: str) -> str:
    try:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(path: Path, name: str, text: str) -> None:
    """Put `text` between the markers of section `name` in a Markdown file; at its end where there are none."""
    start, end = f"<!-- {name}: written by a script -->", f"<!-- end of {name} -->"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    before, found, rest = old.partition(start)
    after = rest.partition(end)[2] if found else "\n"
    before = before if found else old and f"{old.rstrip()}\n\n"
    path.write_text(f"{before}{start}\n{text.strip()}\n{end}{after}", encoding="utf-8")
