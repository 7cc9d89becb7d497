"""A model's name leads to a folder, or to an error that says what was tried."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from worker.sdxl import checkpoints
from worker.sdxl.checkpoints import find_model
from worker.sdxl.errors import ModelNotFoundError


def test_a_folder_is_itself(tiny_folder: Path) -> None:
    assert find_model(str(tiny_folder)) == tiny_folder


def test_tiny_random_is_written_once_into_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = find_model("tiny-random")
    written = (folder / "model_index.json").stat().st_mtime_ns
    assert folder.parent == tmp_path / "promptmill" and folder.parent.stat().st_mode & 0o077 == 0
    assert find_model("tiny-random") == folder
    assert (folder / "model_index.json").stat().st_mtime_ns == written


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=f"{tmp_path}: has no model_index.json"):
        find_model(str(tmp_path))


def test_a_single_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "sdxl.safetensors"
    file.touch()
    with pytest.raises(ModelNotFoundError, match="is a single file; `promptmill import-model`"):
        find_model(str(file))


def test_a_model_that_the_hub_does_not_give_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(checkpoints, "snapshot_download", unreachable)
    with pytest.raises(ModelNotFoundError, match=r"some/model: is neither .* no connection"):
        find_model("some/model")


def test_a_name_that_cannot_be_a_hub_id_is_refused_without_asking() -> None:
    with pytest.raises(ModelNotFoundError, match="not/a/folder: is neither"):
        find_model("not/a/folder")


def test_only_what_rendering_reads_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **settings: Any) -> str:
        asked.update(settings, name=name)
        return str(tmp_path)

    monkeypatch.setattr(checkpoints, "snapshot_download", download)
    assert find_model("owner/model") == tmp_path
    files = {
        "model_index.json": True,
        "unet/config.json": True,
        "unet/diffusion_pytorch_model.fp16.safetensors": True,
        "tokenizer_2/merges.txt": True,
        "unet/diffusion_pytorch_model.bin": False,
        "unet/model.onnx": False,
        "sd_xl_base_1.0.safetensors": False,
        "vae_1_0/config.json": False,
    }
    for name, wanted in files.items():
        assert any(fnmatch(name, pattern) for pattern in asked["allow_patterns"]) == wanted, name
