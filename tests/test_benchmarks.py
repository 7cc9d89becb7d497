"""The benchmarks that want a big machine run here with the tiny model, so that on the day they are one command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from benchmarks.random_sdxl import write_random_sdxl
from benchmarks.report import write_section
from tests.dataset.galleries import chromium
from tests.fake_gcs import free_port

ROOT = Path(__file__).parents[1]


def run(module: str, *arguments: object) -> str:
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, env=environ, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def rows(markdown: str) -> list[list[str]]:
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return [line for line in lines if "---" not in line]


def test_image_formats_are_measured() -> None:
    found = rows(run("image_formats", "--images", 1, "--side", 64))
    assert [row[0] for row in found[1:4]] == ["png, lossless", "webp, lossless", "jxl, lossless"]
    assert [row[-1] for row in found[1:4]] == ["the same"] * 3 and len(found) == 8


@pytest.mark.slow
def test_a_random_model_is_the_same_in_one_file_and_in_shards(tmp_path: Path) -> None:
    one = write_random_sdxl(tmp_path / "one", tiny=True) / "unet"
    three = write_random_sdxl(tmp_path / "three", tiny=True, shards=3) / "unet"
    weight_map = json.loads((three / "diffusion_pytorch_model.safetensors.index.json").read_text())["weight_map"]
    with safe_open(one / "diffusion_pytorch_model.safetensors", framework="np") as whole:
        assert set(whole.keys()) == set(weight_map) and len(set(weight_map.values())) == 3
        for key, name in list(weight_map.items())[::20]:
            with safe_open(three / name, framework="np") as shard:
                assert np.array_equal(whole.get_tensor(key), shard.get_tensor(key))


def test_a_section_is_written_into_its_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n")
    write_section(page, "one", "first")
    write_section(page, "two", "second")
    write_section(page, "one", "third")
    text = page.read_text()
    assert "first" not in text and text.index("# Title") < text.index("third") < text.index("second")


@pytest.mark.slow
def test_the_decoder_is_measured(tmp_path: Path) -> None:
    run("decoder", "--narrow", 8, "--sizes", 64, "--repeats", 1, "--write", tmp_path / "p.md")
    errors, memory, batches = (
        [row for row in rows((tmp_path / "p.md").read_text()) if len(row) == length][1:] for length in (6, 4, 5)
    )
    assert [row[1] for row in errors][3::4] == ["... but both: ours"] * 2
    assert all(float(ours[2]) < float(all_half[2]) for all_half, ours in zip(errors[0::4], errors[3::4], strict=True))
    assert [row[1] for row in memory] == ["cpu", "cpu", "tpu", "tpu"]
    assert [row[1] for row in batches] == ["1", "2", "4"]


@pytest.mark.slow
def test_full_size_runs_with_the_tiny_model(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("torch")
    run("full_size", "--tiny", "--folder", tmp_path / "m", "--size", 64, "--repeats", 1, "--write", tmp_path / "p.md")
    calls = [row for row in rows((tmp_path / "p.md").read_text()) if len(row) == 8][1:]
    assert [row[0] for row in calls] == ["text_encoder", "text_encoder_2", "unet", "vae"]
    assert all(float(row[3]) < 2e-5 for row in calls), calls


@pytest.mark.slow
def test_the_whole_model_is_loaded_in_one_process(tmp_path: Path) -> None:
    text = run("full_size", "--tiny", "--folder", tmp_path / "m", "--whole", "--dtypes", "float32", "bfloat16")
    assert [row[:2] for row in rows(text)[1:]] == [["all four", "float32"], ["all four", "bfloat16"]]


@pytest.mark.slow
def test_against_pytorch_runs_with_the_tiny_model_and_goes_on_where_it_was_cut_short(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("torch")
    asked = ["--tiny", "--folder", tmp_path / "m", "--results", tmp_path / "r.json", "--steps", 3, "--repeats", 2]
    asked += ["--batches", 2, "--sides", "ours", "eager"]
    assert "not measured" in run("against_pytorch", *asked, "--limit-s", 0)
    run("against_pytorch", *asked, "--only", "ours")
    ours = json.loads((tmp_path / "r.json").read_text())
    assert len(ours) == 1
    markdown = run("against_pytorch", *asked, "--write", tmp_path / "p.md")
    assert ours.items() <= json.loads((tmp_path / "r.json").read_text()).items()
    parity = [row for row in rows(markdown) if len(row) == 4][1:]
    assert float(parity[0][2]) < 2e-5 and float(parity[0][3]) > 45
    timed = {row[0]: row for row in rows(markdown) if len(row) == 10}
    assert float(timed["PyTorch eager"][3]) > 0 and timed["torch.compile"][2] == "not measured"


@pytest.mark.slow
@pytest.mark.parametrize(("what", "more"), [("unet", ["--in-turn"]), ("vae", []), ("image", ["--steps", 2])])
def test_sides_are_compared_by_turns_on_the_same_weights(tmp_path: Path, what: str, more: list[str]) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("torch")
    asked = ["--what", what, "--sizes", 64, "--model", "tiny", "--folder", tmp_path / "m", "--rounds", 1, *more]
    head, ours, eager, fused = rows(run("side_by_side", *asked, "--sides", "ours", "eager", "fused"))
    assert [row[2] for row in (ours, eager, fused)] == ["ours", "PyTorch eager", "PyTorch, channels last, fused QKV"]
    assert head[6] == "error to eager" and float(eager[4]) == 1
    assert float(ours[6]) < (0.01 if what == "image" else 2e-5)
    assert float(ours[4]) > 0 and abs(float(fused[6])) < 0.01


@pytest.mark.slow
def test_an_interval_of_guidance_saves_passes_and_changes_the_image() -> None:
    found = rows(run("interval", "--model", "tiny-random", "--images", 2, "--steps", 5, "--rounds", 1))[1:]
    assert [row[2] for row in found] == ["10", "9", "8", "9", "8", "8"]
    assert found[0][3] == "inf" and all(0 < float(row[3]) < 60 for row in found[1:])


@pytest.mark.slow
def test_a_cache_saves_whole_evaluations_and_changes_the_image() -> None:
    asked = ["--model", "tiny-random", "--images", 2, "--steps", 4, 5, "--intervals", 2, 4, "--rounds", 1]
    found = rows(run("deepcache", *asked))[1:]
    assert [row[:3] for row in found] == [
        ["4", "1", "4"],
        ["4", "2", "2"],
        ["4", "4", "1"],
        ["5", "1", "5"],
        ["5", "2", "3"],
        ["5", "4", "2"],
    ]
    assert all((row[3] == "inf") == (row[1] == "1") for row in found)


@pytest.mark.slow
def test_formats_of_a_quantised_unet_are_measured_beside_the_whole_one() -> None:
    asked = ["--model", "tiny-random", "--images", 1, "--steps", 2, "--rounds", 1]
    whole, int8, float8 = rows(run("quantize", *asked))[1:]
    assert [row[0] for row in (whole, int8, float8)] == ["none", "int8", "float8"]
    assert max(float(int8[1]), float(float8[1])) < 0.5 * float(whole[1])
    assert 20 < float(float8[7]) < float(int8[7]) < 60


def test_submission_is_measured_phase_by_phase_beside_its_peer(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    said = rows(run("submit", "--sizes", 20_000, "--celery", 20, "--write", page))
    assert [line[:2] for line in said] == [
        ["file", "jobs"],
        [".txt", "20,000"],
        [".jsonl", "20,000"],
        ["peer", "jobs"],
        ["Celery, apply_async in a loop", "20"],
    ]
    assert all(float(cell.replace(",", "")) > 0 for line in said[1:3] for cell in line[2:])
    assert float(said[4][3]) > 500 > float(said[1][7]), "bytes of Redis a job: the peer's, and ours"
    assert "apply_async" in page.read_text()


@pytest.mark.slow
def test_the_structure_is_drawn_of_an_old_commit_and_of_this_one() -> None:
    text = run("rooms", "HEAD")
    folders = {row[0]: row[1:] for row in rows(text)}
    assert int(folders["`worker/sdxl/`"][1].replace(",", "")) < 1800
    assert "  worker/sdxl --> worker/nn\n" in text and "  producer --> worker" not in text


@pytest.mark.slow
def test_packing_is_measured_beside_tar() -> None:
    pytest.importorskip("pyarrow")
    text = run("pack", "--images", 20, "--side", 64, "--many", 30, "--rows", 40, "--ways", "webdataset", "parquet")
    ways = [row for row in rows(text) if len(row) == 7]
    tars = ["tar", "tar, sha256sum of it", "tar, sha256sum of it and of each image"]
    assert [row[0] for row in ways[1:]] == [*tars, "webdataset", "parquet"]
    assert [row[:2] for row in rows(text) if len(row) == 4][1:] == [
        ["pack", "30"],
        ["manifest alone, no images", "40"],
    ]


@pytest.mark.slow
def test_a_gallery_is_written_opened_and_scrolled() -> None:
    numbers = {row[0]: row[1] for row in rows(run("gallery", "--images", 300, "--chromium", chromium()))}
    assert numbers["images"] == "300" and float(numbers["files"]) == 8
    assert all(float(value.replace(",", "")) >= 0 for value in numbers.values())


@pytest.mark.slow
def test_cold_start_is_told_by_part_and_the_second_process_compiles_nothing() -> None:
    said = {row[0]: row[1:] for row in rows(run("cold_start", "--model", "tiny-random", "--runs", 1))}
    assert int(said["compilations"][0]) > 0 and int(said["compilations"][2]) == 0
    assert float(said["all, to the first image"][0]) > float(said["weights, from files to devices"][0]) > 0
    assert float(said["`promptmill worker --model` ready to claim"][2]) > 0


@pytest.mark.slow
def test_the_device_is_seen_waiting_or_busy_and_each_stage_costs_something() -> None:
    (row,) = [line for line in rows(run("device_busy", "--cases", "0.1:4:64", "--seconds", 1)) if line[0] == "0.1:4:64"]
    assert row[1:4] == ["40", "40", "40"] and 0 < float(row[4].rstrip("%")) <= 100
    assert all(float(cell) > 0 for cell in row[5:])


@pytest.mark.slow
def test_flower_is_given_many_jobs_and_asked_for_pages(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    said = run("flower", "--jobs", 200, "--port", free_port(), "--write", page)
    told = {row[1]: row[2:] for row in rows(said) if row[0] == "200"}
    assert len(told["first page, ms"]) == 2 and all(float(cell.split()[0]) > 0 for cell in told["memory, MB"])
    assert "| 200 | by any column, ms | " in page.read_text()
