"""The program as XLA compiles it for a TPU. That needs no TPU: libtpu is the compiler, in a folder of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.tpu_programs import BIG, DTYPES, KINDS, LARGE, SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LIBRARY = "LIBTPU_FOR_TESTS"
"""Not TPU_LIBRARY_PATH, by which JAX would look for a TPU in every other test."""
COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
KERNEL = 'custom_call_target="tpu_custom_call"'


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the HLO of each program, for v5e."""
    folder = tmp_path_factory.mktemp("tpu")
    run("tests.worker.tpu_programs", str(folder))
    return folder


def run(module: str, *arguments: str) -> str:
    """What a process prints that finds libtpu."""
    library = os.environ.get(LIBRARY)
    if not library:
        if os.environ.get("CI"):
            pytest.fail(f"CI has no {LIBRARY}")
        pytest.skip(f"no {LIBRARY}: pip install --no-deps --target FOLDER libtpu, and name its libtpu.so")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_LIBRARY_PATH": library}
    ran = subprocess.run([sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("name", [*KINDS, *DTYPES])
def test_chips_of_a_host_never_wait_for_one_another(compiled: Path, name: str) -> None:
    text = (compiled / f"{name}.hlo").read_text()
    assert "num_partitions=4" in text
    assert not re.search(COLLECTIVES, text)


def test_large_attention_is_one_kernel_and_holds_no_scores(compiled: Path) -> None:
    text = (compiled / f"{LARGE}.hlo").read_text()
    assert text.count(KERNEL) == 1
    assert "4096,4096]" not in text


def test_a_whole_program_has_the_kernel_where_there_are_tokens_enough(compiled: Path) -> None:
    assert KERNEL in (compiled / f"{BIG}.hlo").read_text()
    assert KERNEL not in (compiled / "guided.hlo").read_text()


def test_small_attention_is_left_to_xla(compiled: Path) -> None:
    assert KERNEL not in (compiled / f"{SMALL}.hlo").read_text()


def test_every_part_of_an_image_has_a_predicted_time() -> None:
    printed = run("benchmarks.ahead", "--chips", "v5e", "--model", "tiny", "--size", "64")
    parts = re.findall(r"\| v5e \| (\w+) \| 1 \| .* \| ([\d.]+) \| \d+% \|", printed)
    assert [part for part, _ in parts] == ["text", "unet", "vae"]
    assert all(float(milliseconds) > 0 for _, milliseconds in parts)


def test_large_blocks_are_why_the_kernel_is_taken() -> None:
    printed = run("benchmarks.tpu_attention", "--chips", "v5e", "--tokens", "1024")
    (row,) = re.findall(r"\| v5e \| 1024 \| 20 \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", printed)
    by_xla, in_our_blocks, in_blocks_of_128 = map(float, row)
    assert 0 < in_our_blocks < by_xla < in_blocks_of_128
