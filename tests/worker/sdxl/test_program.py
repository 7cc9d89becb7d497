"""A program renders each job as if it were alone, and compiles once."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmill.worker.errors import RequestError
from promptmill.worker.nn import convolution
from promptmill.worker.program import ImageRequest, fetch
from promptmill.worker.sampling.samplers import make_table
from promptmill.worker.sdxl import requests
from promptmill.worker.sdxl.program import Model, Program
from promptmill.worker.sdxl.requests import PlainRequest

pytestmark = pytest.mark.slow

CAT = PlainRequest("a cat in the rain", 64, 64, seed=7, num_inference_steps=3, guidance_scale=5.0)
DOG = PlainRequest("a red dog", 64, 64, seed=8, num_inference_steps=6, guidance_scale=9.0, negative_prompt="fog")
FOX = PlainRequest("a fox at night", 64, 64, seed=9, num_inference_steps=1, guidance_scale=2.0)


def render(program: Program, requests: Sequence[ImageRequest]) -> np.ndarray:
    images = fetch(program.run(program.prepare(requests)), len(requests))
    assert images.finite.all() and not images.plain.any()
    return images.pixels


@contextmanager
def counted_compilations() -> Iterator[list[str]]:
    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_image_is_neither_flat_nor_saturated(program: Program) -> None:
    (pixels,) = render(program, [CAT])
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    assert (pixels.std(axis=(0, 1)) > 20).all()
    assert np.isin(pixels, (0, 255)).mean() < 0.5


def test_winograds_convolutions_give_the_same_image(
    program: Program, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "WINOGRAD_CHANNELS", 8)
    monkeypatch.setattr(convolution, "WINOGRAD_UPSAMPLING_CHANNELS", 8)
    by_winograd = Model.load(tiny_folder, devices=jax.local_devices()[:1]).compile(width=64, height=64, guided=True)
    assert by_winograd.compiled_text().count("convolution(") < program.compiled_text().count("convolution(")
    (expected,), (pixels,) = render(program, [CAT]), render(by_winograd, [CAT])
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_a_batch_is_one_image_a_device_times_the_per_device_batch(program: Program, program_of_three: Program) -> None:
    assert program.batch == program.model.device_count == jax.local_device_count() == 8
    assert program_of_three.batch == 3


def test_pixels_do_not_depend_on_place_or_neighbours_across_devices(program: Program) -> None:
    (alone,) = render(program, [CAT])
    crowd = [DOG, FOX, CAT, DOG, DOG, FOX, FOX, CAT]
    images = render(program, crowd)
    assert np.array_equal(images[2], alone) and np.array_equal(images[7], alone)


def test_pixels_do_not_depend_on_place_or_neighbours_on_one_device(program_of_three: Program) -> None:
    (alone,) = render(program_of_three, [CAT])
    for batch in ([CAT, DOG], [DOG, CAT], [DOG, FOX, CAT], [FOX, CAT, CAT]):
        assert np.array_equal(render(program_of_three, batch)[batch.index(CAT)], alone)


def test_a_job_with_fewer_steps_than_its_neighbour_stops_at_its_own(program_of_three: Program) -> None:
    longer = dataclasses.replace(CAT, num_inference_steps=4)
    short, long = render(program_of_three, [CAT, longer])
    assert not np.array_equal(short, long)
    assert np.array_equal(render(program_of_three, [CAT])[0], short)


def test_a_short_batch_is_padded_and_nothing_that_is_traced_recompiles(program: Program) -> None:
    render(program, [CAT])
    with counted_compilations() as compiled:
        render(program, [DOG, CAT])
        render(program, [dataclasses.replace(CAT, seed=2**63, num_inference_steps=11, guidance_scale=3.5)] * 8)
        render(program, [dataclasses.replace(CAT, original_size=(100, 200), negative_prompt="")])
    assert compiled == []


def test_compilations_are_counted_at_all() -> None:
    with counted_compilations() as compiled:
        jax.jit(lambda x: x * 3 + 1).lower(jnp.zeros(5)).compile()
    assert compiled


def test_no_device_waits_for_another(program: Program) -> None:
    text = program.compiled_text()
    assert "while" in text
    for collective in ("all-reduce", "all-gather", "collective-permute", "all-to-all", "reduce-scatter"):
        assert collective not in text, collective


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"prompt": "a dog in the rain"},
        {"prompt_2": "a dog in the rain"},
        {"negative_prompt": ""},
        {"negative_prompt": "fog"},
        {"num_inference_steps": 4},
        {"guidance_scale": 5.5},
        {"original_size": (500, 64)},
        {"target_size": (64, 500)},
        {"crops_coords_top_left": (0, 100)},
        {"negative_original_size": (900, 64), "negative_target_size": (64, 64)},
        {"sampler": "dpm++_2m"},
        {"sampler": "heun"},
        {"timestep_spacing": "trailing"},
        {"sigma_schedule": "karras"},
        {"timesteps": (901, 401, 1)},
        {"sigmas": (14.0, 3.0, 0.5)},
        {"guidance_rescale": 0.7},
        {"clip_skip": 1},
        {"denoising_end": 0.6},
    ],
    ids=lambda change: "+".join(change),
)
def test_every_setting_changes_the_image(program: Program, change: dict[str, object]) -> None:
    plain, changed = render(program, [CAT, dataclasses.replace(CAT, **change)])  # type: ignore[arg-type]
    assert not np.array_equal(plain, changed)


def test_a_negative_prompt_for_the_second_encoder_alone_counts(program: Program) -> None:
    plain = dataclasses.replace(CAT, negative_prompt="fog")
    first, second = render(program, [plain, dataclasses.replace(plain, negative_prompt_2="snow")])
    assert not np.array_equal(first, second)


def test_without_a_negative_prompt_its_text_for_the_second_encoder_does_not_count(program: Program) -> None:
    """diffusers zeroes the whole negative pass when `negative_prompt` is None."""
    first, second = render(program, [CAT, dataclasses.replace(CAT, negative_prompt_2="snow")])
    assert np.array_equal(first, second)


def test_one_image_that_is_not_finite_harms_only_itself(program_of_three: Program) -> None:
    prepared = program_of_three.prepare([CAT, DOG, FOX])
    whole = fetch(program_of_three.run(prepared), 3)
    noise = prepared.inputs.noise.copy()
    noise[1] = np.nan
    broken = fetch(program_of_three.run(dataclasses.replace(prepared, inputs=prepared.inputs._replace(noise=noise))), 3)
    assert broken.finite.tolist() == [True, False, True]
    assert np.array_equal(broken.pixels[[0, 2]], whole.pixels[[0, 2]])


def test_an_image_of_one_colour_is_told(program_of_three: Program) -> None:
    """A decoder whose last weights are zeros gives its last bias everywhere."""
    broken, model = copy.copy(program_of_three), program_of_three.model
    vae = nnx.merge(model.graphs["vae"], jax.tree.map(jnp.copy, model.weights["vae"]))
    vae.decoder.conv_out.kernel[...] = jnp.zeros_like(vae.decoder.conv_out.kernel[...])
    broken.model = dataclasses.replace(model, weights={**model.weights, "vae": nnx.state(vae)})
    images = fetch(broken.run(broken.prepare([CAT, DOG])), 2)
    assert images.plain.all() and images.finite.all()
    assert not fetch(program_of_three.run(program_of_three.prepare([CAT, DOG])), 2).plain.any()


def test_inputs_can_be_run_again(program: Program) -> None:
    prepared = program.prepare([CAT, DOG])
    first, second = fetch(program.run(prepared), 2).pixels, fetch(program.run(prepared), 2).pixels
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 72}, r"request 1 of the batch: width x height is 72 x 64, but .* renders 64 x 64"),
        ({"guidance_scale": 1.0}, r"request 1 of the batch: guidance_scale is 1.0, .* with guidance"),
        ({"num_inference_steps": 0}, r"num_inference_steps.* 0"),
        ({"num_inference_steps": 1001}, r"num_inference_steps.* 1001"),
        ({"sampler": "euler_a"}, r"request 1 of the batch: sampler euler_a draws noise .* this program draws none"),
        ({"prompt_windows": 2}, r"prompt_windows is 2, but this program takes 1"),
        ({"clip_skip": 9}, r"clip_skip must be from 0 to \d, got 9"),
        ({"sampler": "magic"}, r"magic"),
    ],
)
def test_a_request_of_another_shape_is_refused(program: Program, change: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        program.prepare([CAT, dataclasses.replace(CAT, **change)])  # type: ignore[arg-type]


def test_a_stochastic_program_renders_what_a_plain_one_does_and_draws_at_each_step(tiny_folder: Path) -> None:
    model = Model.load(tiny_folder, devices=jax.local_devices()[:1])
    plain, stochastic = (
        model.compile(width=64, height=64, guided=True, stochastic=stochastic) for stochastic in (False, True)
    )
    assert np.array_equal(render(plain, [CAT]), render(stochastic, [CAT]))
    ancestral, again = (render(stochastic, [dataclasses.replace(CAT, sampler="euler_a")]) for _ in range(2))
    assert np.array_equal(ancestral, again)
    assert not np.array_equal(ancestral, render(stochastic, [CAT]))


def test_room_for_a_longer_prompt_leaves_a_short_one_alone(program: Program, model: Model) -> None:
    roomy = model.compile(width=64, height=64, guided=True, prompt_windows=2)
    short, long = CAT, dataclasses.replace(CAT, prompt="a cat in the rain " * 30, prompt_windows=2)
    (one,), (two, cut_less) = render(program, [short]), render(roomy, [short, long])
    assert np.abs(one.astype(int) - two).max() <= 2
    (nothing,) = roomy.prepare([dataclasses.replace(long, prompt="cat " * 100)]).cuts
    (cut,) = program.prepare([dataclasses.replace(long, prompt="cat " * 100, prompt_windows=1)]).cuts
    assert nothing == {} and set(cut) == {"prompt"}
    assert "cat " * 75 + cut["prompt"] == "cat " * 100
    assert not np.array_equal(cut_less, two)


@pytest.mark.parametrize("count", [0, 9])
def test_a_batch_is_neither_empty_nor_too_large(program: Program, count: int) -> None:
    with pytest.raises(RequestError, match=rf"1 to 8 requests, got {count}"):
        program.prepare([CAT] * count)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"width": 60, "height": 64}, "width must be a positive multiple of 8, got 60"),
        ({"width": 64, "height": 0}, "height must be a positive multiple of 8, got 0"),
        ({"width": 64, "height": 64, "prompt_windows": 0}, "prompt_windows must be at least 1, got 0"),
        ({"width": 64, "height": 64, "per_device_batch": 0}, "per_device_batch must be at least 1, got 0"),
    ],
)
def test_a_shape_that_cannot_be_compiled_is_refused(model: Model, shape: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        model.compile(guided=True, **shape)


def test_the_longest_schedule_runs(program: Program) -> None:
    """Its sigmas fill the tables to the last index."""
    inputs = program.prepare([dataclasses.replace(CAT, num_inference_steps=1000)]).inputs
    assert inputs.evaluations[0] == 1000 == inputs.tables.timesteps.shape[1]


def test_bfloat16_is_what_is_computed_in_but_by_a_vae_that_must_not(model: Model, tiny_folder: Path) -> None:
    half = Model.load(tiny_folder, devices=jax.local_devices()[:1], dtype=jnp.bfloat16)
    dtypes = {name: {leaf.dtype.name for leaf in jax.tree.leaves(part)} for name, part in half.weights.items()}
    assert dtypes["unet"] == dtypes["text_encoder"] == dtypes["text_encoder_2"] == {"bfloat16"}
    assert dtypes["vae"] == {"float32"}  # force_upcast
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 900, (2, 77)))
    coarse, fine = (
        nnx.merge(each.graphs["text_encoder_2"], each.weights["text_encoder_2"])(ids)[1] for each in (half, model)
    )
    assert coarse.dtype == jnp.bfloat16
    np.testing.assert_allclose(coarse.astype(jnp.float32), fine, atol=0.1)


def test_jobs_of_equal_settings_share_one_table(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's jobs differ in prompt and seed: their table is made once, and not a millisecond each."""
    made: list[object] = []

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        return make_table(*arguments)

    monkeypatch.setattr(requests, "make_table", counted)
    requests._tables.cache_clear()
    two = [dataclasses.replace(CAT, num_inference_steps=17, seed=seed) for seed in (1, 2)]
    both = program.prepare(two).inputs.tables
    assert len(made) == 1
    np.testing.assert_array_equal(both.update[0], both.update[1])
    program.prepare([dataclasses.replace(CAT, num_inference_steps=18)])
    assert len(made) == 2
