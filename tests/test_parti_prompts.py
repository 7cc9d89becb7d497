"""1,632 prompts from a CSV to a dataset that others read: render, pack, verify, load_dataset, with the pocket model.

The prompts are PartiPrompts where PARTI_PROMPTS names its file (google-research/parti; not ours to ship), else made up,
with what formats trip over.
"""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.producer.prompts.formats import in_format
from tests.producer.prompts.test_same_plan import PARTI, parti, prompts

JOBS = 1632
ASKED = ("--model", "pocket", "--steps", "1", "--guidance", "1", "--output", "out", "--run", "parti")


def promptmill(folder: Path, *words: str) -> str:
    """What the command says on stdout; it has to succeed."""
    command = [sys.executable, "-m", "promptmill", *words]
    environ = {**os.environ, "XLA_FLAGS": "", "PROMPTMILL_PER_DEVICE_BATCH": "32"}
    ran = subprocess.run(command, cwd=folder, env=environ, check=False, capture_output=True, text=True, timeout=1500)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_prompts_of_a_csv_become_a_dataset_that_load_dataset_reads(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    rows = list(parti()) if PARTI.is_file() else prompts()
    (tmp_path / "prompts.csv").write_bytes(in_format(".csv", rows))
    told = list(csv.DictReader(io.StringIO(in_format(".csv", rows).decode("utf-8-sig"))))
    promptmill(tmp_path, "render", "prompts.csv", *ASKED)
    promptmill(tmp_path, "pack", "out/parti", "--split", "train=0.98,val=0.02", "--shard-size", "500")
    assert promptmill(tmp_path, "verify", "out/parti") == ""

    manifest = pq.read_table(tmp_path / "out/parti/manifest.parquet").to_pylist()
    assert [row["prompt"] for row in manifest] == [row["prompt"].strip() for row in told]
    assert {row["state"] for row in manifest} == {"done"} and len(manifest) == JOBS
    assert [json.loads(row["labels"]) for row in manifest] == [
        {name: value for name, value in row.items() if name != "prompt" and value} for row in told
    ]
    loaded = datasets.load_dataset(str(tmp_path / "out/parti"), cache_dir=str(tmp_path / "cache"))
    samples = {sample["json"]["index"]: sample for split in loaded.values() for sample in split}
    assert set(loaded) == {"train", "val"} and sorted(samples) == list(range(JOBS))
    assert 0.9 < len(loaded["train"]) / JOBS < 1
    for row in manifest[:: JOBS // 50]:
        with Image.open(tmp_path / "out/parti" / row["path"]) as image:
            np.testing.assert_array_equal(np.asarray(samples[row["index"]]["png"]), np.asarray(image))
        assert samples[row["index"]]["txt"] == row["prompt"]
