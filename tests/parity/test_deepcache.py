"""`cache_interval` against the PyPI package DeepCache around diffusers' pipelines."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("DeepCache")

from DeepCache import DeepCacheSDHelper

from promptmill.worker.checkpoints import find_model
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest
from promptmill.worker.sdxl.tiny import write_tiny_random
from tests.parity import cases, images, measure, ours, theirs
from tests.parity.refiner import write_refiner

# diffusers' schedulers convert arrays in a way that NumPy 2 warns of.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")]

EVERY_3 = replace(images.IMAGES["negative prompt"], cache_interval=3, num_inference_steps=8)
REQUESTS: dict[str, PlainRequest] = {
    "euler": EVERY_3,
    "every second": replace(EVERY_3, cache_interval=2),
    "the first alone": replace(EVERY_3, cache_interval=8),
    "no guidance": replace(EVERY_3, guidance_scale=1.0),
    "guidance rescale": replace(EVERY_3, guidance_rescale=0.7),
    "euler_a": replace(EVERY_3, sampler="euler_a"),
    "ddim, eta 0.5": replace(EVERY_3, sampler="ddim", eta=0.5),
    "dpm++_2m": replace(EVERY_3, sampler="dpm++_2m"),
    "heun": replace(EVERY_3, sampler="heun", cache_interval=2),
    "dpm2": replace(EVERY_3, sampler="dpm2"),
    "pndm": replace(EVERY_3, sampler="pndm"),
}
REFINED = {name: replace(images.REFINED[name], cache_interval=3) for name in ("ensemble of experts", "image to image")}


class Helper(DeepCacheSDHelper):
    """The package's, but it counts evaluations.

    It looks for an evaluation's timestep among the scheduler's, so that one which stands there twice counts once.
    With Heun's sampler all but the first stand at odd indices: an interval of 2 would refresh nothing ever after.
    """

    def wrap_unet_forward(self) -> None:
        forward, evaluations = self.pipe.unet.forward, itertools.count()
        self.function_dict["unet_forward"] = forward

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.cur_timestep = next(evaluations)
            return forward(*args, **kwargs)

        self.pipe.unet.forward = counted


@contextlib.contextmanager
def cached(helper: Any, *pipelines: Any, interval: int) -> Iterator[None]:
    """The pipelines with the package's cache around their UNets, at its default branch."""
    helpers = [helper(pipeline) for pipeline in pipelines]
    for each in helpers:
        each.set_params(cache_interval=interval)
        each.enable()
    yield
    for each in helpers:
        each.disable()


def expected(request: PlainRequest, *pipelines: Any, helper: Any = Helper) -> np.ndarray:
    assert request.cache_interval is not None
    render: Any = theirs.refined if len(pipelines) == 2 else theirs.image
    with cached(helper, *pipelines, interval=request.cache_interval):
        return render(*pipelines, request)


def check(got: np.ndarray, request: PlainRequest, *pipelines: Any, helper: Any = Helper) -> None:
    """The same image as theirs, which is not that of the whole UNet."""
    theirs_cached = expected(request, *pipelines, helper=helper)
    apart = np.abs(got.astype(int) - theirs_cached)
    print(f"| {request.sampler} | {cases.psnr(got, theirs_cached):.1f} | {apart.max()} |")
    assert cases.psnr(got, theirs_cached) >= measure.PSNR_LIMIT and apart.max() <= 1
    whole = replace(request, cache_interval=1)
    assert cases.psnr(got, expected(whole, *pipelines, helper=helper)) < measure.PSNR_LIMIT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_random(tmp_path_factory.mktemp("deepcache") / "base", seed=3)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    return theirs.load(folder)


@pytest.fixture(scope="module")
def program_for(folder: Path) -> Any:
    return ours.programs(Model.load(folder, devices=jax.local_devices()[:1]))


@pytest.mark.parametrize("name", REQUESTS)
def test_cached_images_agree(program_for: Any, pipeline: Any, name: str) -> None:
    request = REQUESTS[name]
    check(ours.image(program_for(request), request), request, pipeline)


@pytest.mark.parametrize("name", ["euler", "no guidance", "euler_a", "dpm2"])
def test_the_packages_own_count_is_ours_where_no_timestep_stands_twice(pipeline: Any, name: str) -> None:
    own = expected(REQUESTS[name], pipeline, helper=DeepCacheSDHelper)
    assert np.array_equal(own, expected(REQUESTS[name], pipeline))


def test_the_packages_own_count_refreshes_nothing_at_every_second_of_heuns(pipeline: Any) -> None:
    second, last = REQUESTS["heun"], replace(REQUESTS["heun"], cache_interval=1000)
    own = expected(second, pipeline, helper=DeepCacheSDHelper)
    assert np.array_equal(own, expected(last, pipeline))


def test_images_of_the_trained_model_agree() -> None:
    folder = find_model("pocket")
    request = PlainRequest("a red circle", 64, 64, seed=3, num_inference_steps=9, guidance_scale=3.5, cache_interval=3)
    program = ours.programs(Model.load(folder, devices=jax.local_devices()[:1]))(request)
    check(ours.image(program, request), request, theirs.load(folder))


@pytest.mark.parametrize("name", REFINED)
def test_each_stage_counts_from_its_own_first_evaluation(folder: Path, tmp_path: Path, name: str) -> None:
    folders = folder, write_refiner(tmp_path / "refiner", folder)
    request = REFINED[name]
    program = ours.programs(*(Model.load(each, devices=jax.local_devices()[:1]) for each in folders))(request)
    check(ours.image(program, request), request, *(theirs.load(each) for each in folders))
