"""`promptmill import-model` at the command line: what is refused before anything is opened, and one import."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from promptmill.importing.errors import CheckpointError
from promptmill.importing.files import read_header
from promptmill.importing.request import Embedding, Lora
from promptmill.verbs.import_model import parse_embedding, parse_lora

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "diffusers", "transformers", "numpy", "safetensors", "huggingface_hub")
WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {blocked!r}:
            raise ModuleNotFoundError(f'{{name}} is not here', name=name)
sys.meta_path.insert(0, Blocker())
sys.argv[1:] = {words!r}
from promptmill.cli import main
main()
"""


def without_heavy(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(blocked=HEAVY, words=list(words))
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here, env=environment)


@pytest.mark.parametrize(
    "words",
    [
        ["model.ckpt", "out"],
        ["model", "out", "--lora", "style.pt:0.5"],
        ["model", "out", "--vae", "org/name/vae.bin"],
        ["model", "out", "--unet", "unet.pth"],
        ["model", "out", "--embedding", "word.PT:<word>"],
    ],
    ids=lambda words: words[-1],
)
def test_pickles_are_refused_with_the_reason_and_unopened(here: Path, words: list[str]):
    ran = without_heavy(here, "import-model", *words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "is a pickle, and opening a pickle runs whatever code its author put in" in ran.stderr
    assert list(here.iterdir()) == [here / "cats.txt"]


def test_without_pytorch_it_says_what_to_install(here: Path):
    ran = without_heavy(here, "import-model", "org/name", "out")
    assert ran.returncode == 2
    assert "is not installed here: pip install 'promptmill[import]'" in ran.stderr
    assert "pytorch.org" in ran.stderr


def test_a_folder_that_is_there_is_left_alone(here: Path, promptmill):
    (here / "out").mkdir()
    ran = promptmill("import-model", "org/name", "out")
    assert (ran.code, ran.err) == (2, "Error: out: already exists; name a new folder\n")


def test_an_unknown_preset_is_answered_with_those_there_are(promptmill):
    ran = promptmill("import-model", "org/name", "out", "--preset", "lightning")
    assert ran.code == 2
    assert "no preset 'lightning'; there are base, turbo, lightning-1" in ran.err


def test_the_settings_file_is_not_for_it(here: Path, promptmill):
    """A worker's `dtype` there must not decide what a model is stored in."""
    (here / "promptmill.toml").write_text('[import-model]\ndtype = "fp16"\n')
    ran = promptmill("status")
    assert ran.code == 2
    assert "[import-model] has no settings, flags alone" in ran.err


@pytest.mark.parametrize(
    ("text", "lora"),
    [
        ("style.safetensors", Lora("style.safetensors", 1.0)),
        ("style.safetensors:0.7", Lora("style.safetensors", 0.7)),
        ("a:b.safetensors:-1", Lora("a:b.safetensors", -1.0)),
        ("a:b.safetensors", Lora("a:b.safetensors", 1.0)),
        ("style.safetensors:nan", Lora("style.safetensors:nan", 1.0)),
        ("org/name/x.safetensors:1e-1", Lora("org/name/x.safetensors", 0.1)),
    ],
)
def test_a_lora_has_its_weight_after_the_colon(text: str, lora: Lora):
    assert parse_lora(text) == lora


def test_an_embedding_has_its_word_after_the_colon(here: Path):
    assert parse_embedding("x.safetensors") == Embedding("x.safetensors", None)
    assert parse_embedding("x.safetensors:<mine>") == Embedding("x.safetensors", "<mine>")
    (here / "a:b").touch()
    assert parse_embedding("a:b") == Embedding("a:b", None)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 8, b"\x05" + b"\x00" * 7 + b"{bad}", b"\xff" * 20, b"PK\x03\x04" * 9]
)
def test_what_is_no_safetensors_file_is_said_so(tmp_path: Path, content: bytes):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: is not a \.safetensors file"):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.slow
def test_an_import_is_recognised_recorded_and_rendered_with_its_preset(here: Path, promptmill):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from safetensors.numpy import load_file, save_file

    from promptmill.producer.models import model_defaults
    from promptmill.worker.sdxl.tiny import write_tiny_random

    write_tiny_random(here / "base")
    (unet,) = (here / "base" / "unet").glob("*.safetensors")
    save_file(load_file(unet), here / "sdxl_lightning_4step_unet.safetensors")
    ran = promptmill(
        "import-model", "base", "out", "--unet", "sdxl_lightning_4step_unet.safetensors", "--dtype", "fp16", "--json"
    )
    assert ran.code == 0, ran.err
    record = json.loads(ran.out)
    assert (record["folder"], record["preset"], record["dtype"]) == ("out", "lightning-4", "float16")
    assert record["source"]["folder"] == "base"
    assert record["unet"]["file"] == "sdxl_lightning_4step_unet.safetensors"
    assert "it is rendered as lightning-4 unless flags say otherwise" in ran.err
    defaults = model_defaults(str(here / "out"))
    assert (defaults.sampler, defaults.own_spacing, defaults.num_inference_steps) == ("euler", "trailing", 4)

    again = promptmill("import-model", "out", "again")
    assert (again.code, again.out) == (0, "again\n")
    assert model_defaults(str(here / "again")).preset == "lightning-4"


def write_hub_repository(home: Path, name: str, folder: Path) -> None:
    """A repository as huggingface_hub keeps what it has downloaded."""
    index = home / "hub" / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, index / "snapshots" / COMMIT)
    (index / "refs").mkdir()
    (index / "refs" / "main").write_text(COMMIT)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def offline(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(here / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "promptmill", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment)


@pytest.mark.slow
def test_models_and_files_of_the_hub_are_taken_from_what_was_downloaded_and_else_refused(here: Path):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from promptmill.worker.sdxl.tiny import write_tiny_random

    write_hub_repository(here / "home", "org/tiny", write_tiny_random(here / "tiny"))
    (here / "unets").mkdir()
    shutil.copy(next((here / "tiny" / "unet").glob("*.safetensors")), here / "unets" / "dmd2_sdxl_4step.safetensors")
    write_hub_repository(here / "home", "org/unets", here / "unets")
    ran = offline(here, "import-model", "org/tiny", "out", "--unet", "org/unets/dmd2_sdxl_4step.safetensors", "--json")
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    assert record["source"] == {"hub": "org/tiny", "revision": COMMIT}
    assert record["unet"]["file"] == "org/unets/dmd2_sdxl_4step.safetensors"
    assert record["preset"] == "dmd2-4"
    scheduler = json.loads((here / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["_class_name"] == "LCMScheduler"

    ran = offline(here, "import-model", "org/other", "out-2")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "org/other: is neither a file, nor a folder, nor a model found on the hub" in ran.stderr
    assert "Traceback" not in ran.stderr
