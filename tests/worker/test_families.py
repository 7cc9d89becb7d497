"""A model folder finds its family's code; one of no family is refused on either side with the same names."""

import json
from pathlib import Path

import pytest

from promptmill.producer.errors import ModelNameError
from promptmill.producer.families.families import FAMILIES, PIPELINES
from promptmill.producer.models import model_defaults
from promptmill.worker.checkpoints import find_model
from promptmill.worker.errors import ConfigError
from promptmill.worker.families import family_of
from promptmill.worker.sdxl import program
from promptmill.worker.sdxl.tiny import write_tiny_random


def test_a_folder_finds_the_code_of_its_family() -> None:
    assert family_of(find_model("tiny-random")) is program


@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_has_its_code(name: str, tmp_path: Path) -> None:
    for pipeline in FAMILIES[name].pipelines:
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        family = family_of(tmp_path)
        assert callable(family.Model.check) and callable(family.Model.load) and callable(family.compile_shape)


def test_a_pipeline_of_no_family_is_refused_by_both_sides(tmp_path: Path) -> None:
    folder = write_tiny_random(tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionPipeline"}))
    for refused, look in ((ConfigError, family_of), (ModelNameError, lambda folder: model_defaults(str(folder)))):
        with pytest.raises(refused, match="_class_name") as caught:
            look(folder)
        assert all(word in str(caught.value) for word in ("'StableDiffusionPipeline'", *PIPELINES))
