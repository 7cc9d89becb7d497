"""A model's name leads to a folder, or to an error that says what was tried."""

from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from promptmill.worker import checkpoints
from promptmill.worker.checkpoints import find_model
from promptmill.worker.errors import ModelNotFoundError


def test_a_folder_is_itself(tiny_folder: Path) -> None:
    assert find_model(str(tiny_folder)) == tiny_folder


def test_tiny_random_is_written_once_into_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checkpoints.cache_folder.cache_clear()  # what a test before this one found
    monkeypatch.setattr(checkpoints, "cache_folder", checkpoints.cache_folder.__wrapped__)
    folder = find_model("tiny-random")
    written = (folder / "model_index.json").stat().st_mtime_ns
    assert folder.parent == tmp_path / "promptmill" and folder.parent.stat().st_mode & 0o077 == 0
    assert find_model("tiny-random") == folder
    assert (folder / "model_index.json").stat().st_mtime_ns == written


def test_tiny_random_is_written_by_several_at_once_and_is_there_whole(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "cache_folder", lambda: tmp_path)
    with ThreadPoolExecutor(4) as threads:
        (folder,) = set(threads.map(find_model, ["tiny-random"] * 4))
    assert list(tmp_path.iterdir()) == [folder]
    expected = [path for path in sorted(tiny_folder.rglob("*")) if path.is_file()]
    assert [(folder / path.relative_to(tiny_folder)).read_bytes() for path in expected] == [
        path.read_bytes() for path in expected
    ]


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=f"{tmp_path} is not a model folder: it has no model_index.json"):
        find_model(str(tmp_path))


def test_a_single_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "sdxl.safetensors"
    file.touch()
    with pytest.raises(ModelNotFoundError, match="is a file, but a model is a folder"):
        find_model(str(file))


def test_a_model_that_the_hub_does_not_give_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", unreachable)
    with pytest.raises(ModelNotFoundError, match=r"some/model: is neither .* no connection"):
        find_model("some/model")


def test_a_name_that_cannot_be_a_hub_id_is_refused_without_asking() -> None:
    with pytest.raises(ModelNotFoundError, match="no model 'not/a/folder': expected pocket, tiny-random, a folder"):
        find_model("not/a/folder")


REPOSITORY = {  # as SDXL's own: what is there, and whether rendering reads it
    "model_index.json": True,
    "unet/config.json": True,
    "unet/diffusion_pytorch_model.safetensors": True,
    "unet/diffusion_pytorch_model.fp16.safetensors": False,
    "vae/diffusion_pytorch_model.fp16.safetensors": True,  # its only one
    "text_encoder/model-00001-of-00002.safetensors": True,
    "text_encoder/model.safetensors.index.json": True,
    "tokenizer_2/merges.txt": True,
    "unet/diffusion_pytorch_model.bin": False,
    "unet/model.onnx": False,
    "sd_xl_base_1.0.safetensors": False,
    "vae_1_0/config.json": False,
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the hub was asked for; it gives an empty folder."""
    asked: dict[str, Any] = {}

    def download(name: str, **settings: Any) -> str:
        asked.update(settings, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: list(REPOSITORY))
    return asked


def test_only_what_rendering_reads_is_asked_of_the_hub(asked: dict[str, Any], tmp_path: Path) -> None:
    assert find_model("owner/model") == tmp_path
    assert (asked["name"], asked["revision"]) == ("owner/model", None)
    assert set(asked["allow_patterns"]) == {name for name, wanted in REPOSITORY.items() if wanted}


def test_a_revision_may_be_named(asked: dict[str, Any]) -> None:
    find_model("owner/model@v1.0")
    assert (asked["name"], asked["revision"]) == ("owner/model", "v1.0")


def test_without_a_network_the_earlier_download_serves(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> list[str]:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", unreachable)
    find_model("owner/model")
    for name in REPOSITORY:
        wanted = any(fnmatch(name, pattern) for pattern in asked["allow_patterns"])
        assert wanted == (REPOSITORY[name] or "fp16" in name), name
