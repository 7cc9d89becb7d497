"""The built-in model is whole, and the same everywhere."""

import hashlib
from pathlib import Path

from promptmill.worker.sdxl.tiny import write_tiny_random


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_another_seed_gives_other_weights_only(tmp_path: Path, tiny_folder: Path) -> None:
    other, this = digest(write_tiny_random(tmp_path / "tiny", seed=1)), digest(tiny_folder)
    assert other.keys() == this.keys()
    assert {Path(name).suffix for name in this if this[name] != other[name]} == {".safetensors"}


def test_it_is_small(tiny_folder: Path) -> None:
    assert sum(path.stat().st_size for path in tiny_folder.rglob("*") if path.is_file()) < 8_000_000
