"""The program as XLA compiles it for a TPU. That needs no TPU: libtpu is the compiler, in a folder of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LIBRARY = "LIBTPU_FOR_TESTS"
"""Not TPU_LIBRARY_PATH, by which JAX would look for a TPU in every other test."""
COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"


def compiled(program: str, folder: Path) -> str:
    """Its HLO for v5e."""
    library = os.environ.get(LIBRARY)
    if not library:
        if os.environ.get("CI"):
            pytest.fail(f"CI has no {LIBRARY}")
        pytest.skip(f"no {LIBRARY}: pip install --no-deps --target FOLDER libtpu, and name its libtpu.so")
    command = [sys.executable, "-m", "tests.worker.tpu_programs", program, str(folder)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_LIBRARY_PATH": library}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return (folder / f"{program}.hlo").read_text()


def test_chips_of_a_host_never_wait_for_one_another(tmp_path: Path) -> None:
    text = compiled("whole", tmp_path)
    assert "num_partitions=4" in text
    assert not re.search(COLLECTIVES, text)


def test_large_attention_is_one_kernel_and_holds_no_scores(tmp_path: Path) -> None:
    text = compiled("attention", tmp_path)
    assert len(re.findall(r'custom_call_target="tpu_custom_call"', text)) == 1
    assert "4096,4096]" not in text
