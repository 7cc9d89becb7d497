"""A pocket model that was never trained: the same files, random weights, float32."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tools.pocket.export import export
from tools.pocket.nets import first_weights, network_builders, write_configs
from tools.pocket.tokenizer import write_tokenizers


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pocket")
    config = write_configs(folder, write_tokenizers(folder))
    weights = {name: first_weights(build, 7) for name, build in network_builders(config).items()}
    export(folder, weights, dtype=np.float32)
    yield folder
