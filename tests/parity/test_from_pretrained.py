"""Folders that we write load in PyTorch by the plain call, and render: no part in another dtype than the rest."""

from pathlib import Path

import numpy as np
import pytest

from promptmill.worker.checkpoints import find_model
from promptmill.worker.sdxl.tiny import write_tiny_random

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.slow


def render(folder: Path, size: int = 64) -> np.ndarray:
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(folder)
    parts = ("text_encoder", "text_encoder_2", "unet", "vae")
    assert {getattr(pipeline, part).dtype for part in parts} == {torch.float32}
    pixels: np.ndarray = pipeline(
        "a red apple", num_inference_steps=1, width=size, height=size, output_type="np"
    ).images
    return pixels


@pytest.mark.parametrize("name", ["pocket", "tiny-random"])
def test_a_built_in_model_loads_and_renders(name: str) -> None:
    assert np.isfinite(render(find_model(name))).all()


def test_an_imported_model_that_is_stored_in_half_loads_and_renders(tmp_path: Path) -> None:
    from promptmill.importing.build import import_model
    from promptmill.importing.request import ImportRequest

    source = write_tiny_random(tmp_path / "source")
    import_model(ImportRequest(source=str(source), output=tmp_path / "half", dtype="float16"))
    assert np.isfinite(render(tmp_path / "half")).all()
