"""Each sampler against diffusers' scheduler, whole trajectories, over everything that either can be told.

Errors are of each step's latents: at most 1e-4 of them, and of what diffusers' own float32 loses from the largest
latents before, which a zero terminal SNR makes 4096.
"""

import inspect
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import diffusers
import torch

from promptmill.producer.families.samplers import SAMPLERS
from promptmill.worker.errors import ModelError, RequestError
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.samplers import Table, draws_noise, make_table
from promptmill.worker.sampling.schedulers import DEFAULTS
from promptmill.worker.sampling.solvers.plan import Sampling
from tests.parity import linear, schedulers
from tests.parity.linear import NOISE, SHAPE
from tests.parity.sampler_mistakes import SAMPLER_MISTAKES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]

Fields = dict[str, Any]

IMAGE = np.random.default_rng(4).standard_normal(SHAPE).astype(np.float32)
SDXL: Fields = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}
SPACINGS = ("leading", "linspace", "trailing")
SIGMA_SCHEDULES = ("uniform", "karras", "exponential", "beta")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
STEP_COUNTS = (1, 2, 4, 7, 25)

WHAT_WE_REFUSE_AND_DIFFUSERS_DOES_NOT = (
    "thresholding is true",
    "use_flow_sigmas is true",
    "solver_order is",
    "evaluations of the model, expected 1000 at most",
    "takes no ",
    "timesteps must lie from 0",
    "num_inference_steps must be between",
    "no step is left",
)
"""What is not linear, not SDXL's, too long, or would have no effect."""

FLOAT32_NAN = ("squaredcos_cap_v2", "sigma_min", "eta=1.0")
"""Where diffusers' float32 takes the root of a number rounded below zero or divides by a step rounded to zero."""


FLOAT32_CANCELS = {
    ("'dpm2_a'", "{'beta_schedule': 'squaredcos_cap_v2'}"): 0.05,
    ("'dpm2_a', steps=2,", "'timestep_spacing': 'linspace'"): 0.002,
    ("'dpm2_a', steps=2,", "'timestep_type': 'continuous'"): 0.002,
}
"""Where ancestral noise takes nearly all of a long step, and how far off that leaves either side, as its last bits are.

From sigma 20,291 to 15.4 it takes all but 0.01168. Of that, two squares of 237 in float32 leave 0.01105 to diffusers
and 0.01172 to us; and the midpoint is at its root. From 14.6 to 0.0292 it takes all but 0.0000576: a last bit is 0.4%
of the midpoint, and processors differ in that bit.
"""


def config_of(values: Mapping[str, Any], folder: Path) -> SchedulerConfig:
    path = folder / "scheduler_config.json"
    path.write_text(json.dumps(values))
    return SchedulerConfig.from_file(path)


class Comparison:
    """Counts what agreed, and collects what did not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agreed = self.refused = 0
        self.worst = 0.0
        self.failures: list[str] = []

    def compare(self, sampling: Sampling, values: Fields, asked: Fields | None = None) -> None:
        """From noise alone. `asked` is what diffusers' from_config is told in the words of `sampling`."""
        refusal = theirs = None
        try:
            theirs = schedulers.trajectory(schedulers.build(sampling.sampler, values, asked), sampling, NOISE)
        except (
            ValueError,
            NotImplementedError,
            IndexError,
            RuntimeError,
            AssertionError,
            TypeError,
            NameError,
        ) as error:
            refusal = repr(error)
        try:
            table = make_table(config_of(values, self.folder), sampling)
        except ModelError as error:
            self.check_refusal(str(error), refusal, theirs, f"{sampling} {values}")
        else:
            stochastic = draws_noise(sampling.sampler, sampling.eta)
            ours = linear.visited(table, NOISE, schedulers.draws(0, SHAPE) if stochastic else None)
            self.check(ours, theirs, refusal, f"{sampling} {values}")

    def check_refusal(self, ours: str, theirs: str | None, trajectory: np.ndarray | None, case: str) -> None:
        self.refused += 1
        allowed = any(words in ours for words in WHAT_WE_REFUSE_AND_DIFFUSERS_DOES_NOT)
        if theirs is None and trajectory is not None and not allowed and np.isfinite(trajectory).all():
            self.failures.append(f"{case}: we refuse ({ours}), diffusers does not")

    def check(self, ours: np.ndarray, theirs: np.ndarray | None, refusal: str | None, case: str) -> None:
        if theirs is None:
            self.failures.append(f"{case}: diffusers refuses ({refusal}), we do not")
        elif not np.isfinite(theirs).all():
            if not any(word in case for word in FLOAT32_NAN):
                self.failures.append(f"{case}: diffusers' latents are not finite, ours are")
        elif ours.shape != theirs.shape:
            self.failures.append(f"{case}: {len(ours) - 1} evaluations, diffusers makes {len(theirs) - 1}")
        else:
            error, self.agreed = relative_error(ours, theirs), self.agreed + 1
            lost = max(
                (bound for words, bound in FLOAT32_CANCELS.items() if all(word in case for word in words)), default=0.0
            )
            if not lost:
                self.worst = max(self.worst, error)
            if not error < (lost or 1e-4):
                self.failures.append(f"{case}: off by {error:.1e}")

    def finish(self, at_least: int) -> None:
        print(f"{self.agreed} trajectories agree within {self.worst:.1e}; {self.refused} were refused")
        assert not self.failures, "\n".join([f"{len(self.failures)} failures", *self.failures[:10]])
        assert self.agreed >= at_least


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest over all steps; and that of the whole, which is never more than the largest."""
    difference, size = (
        np.linalg.norm(array.reshape(len(array), -1).astype(np.float64), axis=1) for array in (ours - theirs, theirs)
    )
    lost = 3e-7 * np.maximum.accumulate(size)
    return float((np.maximum(difference - lost, 0) / np.maximum(size, 1e-12)).max())


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return Comparison(tmp_path)


def etas(sampler: str) -> tuple[float, ...]:
    return (0.0, 0.3, 1.0) if "eta" in SAMPLERS[sampler].takes else (0.0,)


def all_of(**choices: Any) -> Iterator[Fields]:
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_spacing_sigma_schedule_and_prediction_agrees(sampler: str, comparison: Comparison) -> None:
    """As a model's own file says them."""
    cases = all_of(timestep_spacing=SPACINGS, prediction_type=PREDICTIONS, rescale_betas_zero_snr=(False, True))
    sigma_schedules = SIGMA_SCHEDULES if "use_karras_sigmas" in DEFAULTS_OF[sampler] else SIGMA_SCHEDULES[:2]  # dropped
    skips = (False, True) if "skip_prk_steps" in DEFAULTS_OF[sampler] else (False,)
    for case, sigma_schedule, skip, steps in itertools.product(cases, sigma_schedules, skips, STEP_COUNTS):
        values = {**SDXL, **case, **({} if sigma_schedule == "uniform" else {f"use_{sigma_schedule}_sigmas": True})}
        values |= {"skip_prk_steps": True} if skip else {}
        for eta in etas(sampler)[:2]:
            comparison.compare(Sampling(sampler=sampler, steps=steps, eta=eta), values)
    comparison.finish(at_least=120)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_jobs_own_spacing_and_sigma_schedule_agree(sampler: str, comparison: Comparison) -> None:
    """Said by the job over a file that says otherwise; refused where the sampler has no use for them."""
    own = {**SDXL, "use_exponential_sigmas": True, "timestep_spacing": "trailing"}
    for spacing, sigma_schedule, steps in itertools.product((None, *SPACINGS), (None, *SIGMA_SCHEDULES), (2, 7)):
        asked: Fields = {} if spacing is None else {"timestep_spacing": spacing}
        if sigma_schedule is not None:
            asked |= {f"use_{name}_sigmas": name == sigma_schedule for name in SIGMA_SCHEDULES[1:]}
        sampling = Sampling(sampler=sampler, steps=steps, timestep_spacing=spacing, sigma_schedule=sigma_schedule)
        comparison.compare(sampling, own, {name: asked[name] for name in asked.keys() & DEFAULTS_OF[sampler].keys()})
    comparison.finish(at_least=4)


DEFAULTS_OF = {name: DEFAULTS[row.scheduler] for name, row in SAMPLERS.items()}

FILES: dict[str, Fields] = {
    "nothing given": {},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "cosine, Karras": {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True},
    "falling exponential": {"beta_schedule": "exp"},
    "betas themselves": {"trained_betas": np.linspace(0.001, 0.02, 1000).tolist()},
    "no Runge-Kutta": {**SDXL, "skip_prk_steps": True},
    "no Runge-Kutta, last alpha of 1": {**SDXL, "skip_prk_steps": True, "set_alpha_to_one": True},
    "short training": {**SDXL, "num_train_timesteps": 100},
    "no offset": {**SDXL, "steps_offset": 0, "timestep_spacing": "leading"},
    "last alpha of training": {**SDXL, "set_alpha_to_one": False, "steps_offset": 0},
    "clipping": {**SDXL, "clip_sample": True, "clip_sample_range": 2.0},
    "thresholding": {**SDXL, "thresholding": True},
    "ends at sigma_min": {**SDXL, "final_sigmas_type": "sigma_min"},
    "bounds, Karras": {**SDXL, "use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0},
    "bounds, exponential": {**SDXL, "use_exponential_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0},
    "bounds, beta": {**SDXL, "use_beta_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0},
    "two sigma schedules": {**SDXL, "use_karras_sigmas": True, "use_beta_sigmas": True},
    "Lu": {**SDXL, "use_lu_lambdas": True},
    "Lu and beta": {**SDXL, "use_lu_lambdas": True, "use_beta_sigmas": True},
    "clipped lambdas": {**SDXL, "lambda_min_clipped": -2.0},
    "clipped lambdas, trailing": {**SDXL, "lambda_min_clipped": -2.0, "timestep_spacing": "trailing"},
    "log-linear": {**SDXL, "interpolation_type": "log_linear"},
    "continuous": {**SDXL, "timestep_type": "continuous", "prediction_type": "v_prediction"},
    "continuous, epsilon": {**SDXL, "timestep_type": "continuous"},
    "distilled otherwise": {**SDXL, "original_inference_steps": 100, "timestep_scaling": 3.0},
    "flow matching": {**SDXL, "use_flow_sigmas": True},
    "order 0": {**SDXL, "solver_order": 0},
    "order 4": {**SDXL, "solver_order": 4},
    "of UniPC": {**SDXL, "solver_type": "bh1"},
    "of DEIS": {**SDXL, "solver_type": "logrho"},
    "of nobody": {**SDXL, "solver_type": "magic"},
    "learned variance": {**SDXL, "variance_type": "learned"},
    "fixed variance": {**SDXL, "variance_type": "fixed_small"},
    "written, not told": {
        **SDXL,
        "_class_name": "DDIMScheduler",
        "clip_sample": True,
        "_use_default_values": ["clip_sample", "beta_start"],
    },
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_other_field_of_a_file_means_the_same(sampler: str, comparison: Comparison) -> None:
    for values, steps, eta in itertools.product(FILES.values(), STEP_COUNTS, etas(sampler)):
        comparison.compare(Sampling(sampler=sampler, steps=steps, eta=eta), values)
    comparison.finish(at_least=90)


SOLVERS: dict[str, Fields] = {
    "dpm++_2m": {"solver_type": ("midpoint", "heun"), "euler_at_final": (False, True)},
    "dpm++_2m_sde": {"solver_type": ("midpoint", "heun"), "euler_at_final": (False, True)},
    "dpm++_2s": {"solver_type": ("midpoint", "heun")},
    "deis": {},
    "unipc": {"solver_type": ("bh1", "bh2"), "predict_x0": (True, False), "disable_corrector": ([], [1])},
}


@pytest.mark.parametrize("sampler", SOLVERS)
def test_every_order_and_kind_of_a_solver_agrees(sampler: str, comparison: Comparison) -> None:
    cases = all_of(
        solver_order=(1, 2, 3),
        lower_order_final=(True, False),
        final_sigmas_type=("zero", "sigma_min"),
        prediction_type=("epsilon", "v_prediction"),
        use_karras_sigmas=(False, True),
        **SOLVERS[sampler],
    )
    for case, steps in itertools.product(cases, (1, 4, 7, 9, 16)):
        comparison.compare(Sampling(sampler=sampler, steps=steps), {**SDXL, **case})
    comparison.finish(at_least=200)


TIMESTEPS = ((999,), (999, 750, 500, 250), (799, 599, 399, 199, 19), (500, 500, 100), (100, 900))
SIGMAS = ((14.6, 0.0), (10.0, 5.0, 1.0, 0.3, 0.0), (6.0, 2.0, 0.5), (80.0, 3.0, 0.0), (3.0, 0.0, 0.0), (3.0,))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_explicit_timesteps_and_sigmas_agree(sampler: str, comparison: Comparison) -> None:
    """Or are refused, by samplers that take none and where a sigma schedule makes its own."""
    files = [SDXL, {**SDXL, "use_karras_sigmas": True}, {**SDXL, "timestep_type": "continuous"}]
    for values in (*files, {**files[2], "prediction_type": "v_prediction"}):
        for timesteps in TIMESTEPS:
            comparison.compare(Sampling(sampler=sampler, timesteps=timesteps), values)
        for sigmas in SIGMAS:
            comparison.compare(Sampling(sampler=sampler, sigmas=sigmas), values)
        comparison.compare(Sampling(sampler=sampler, timesteps=TIMESTEPS[1], sigmas=SIGMAS[1]), values)
    comparison.finish(at_least=6 if "timesteps" in SAMPLERS[sampler].takes else 0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_many_steps_agree(sampler: str, comparison: Comparison) -> None:
    for spacing, steps in itertools.product(SPACINGS, (50, 75, 333, 501, 999, 1000)):
        comparison.compare(Sampling(sampler=sampler, steps=steps), {**SDXL, "timestep_spacing": spacing})
    comparison.finish(at_least=3)


@pytest.mark.parametrize(("steps", "lost"), [(25, 1e-6), (333, 5e-5), (999, 2e-4)])
def test_deis_keeps_what_diffusers_float32_loses(
    steps: int, lost: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are differences of nearly equal integrals. Ours are made in float64, and there both agree."""
    sampling = Sampling(sampler="deis", steps=steps)
    exact = schedulers.trajectory(schedulers.build("deis", SDXL), sampling, NOISE)
    monkeypatch.setattr(schedulers, "IN_FLOAT64", ())
    rounded = schedulers.trajectory(schedulers.build("deis", SDXL), sampling, NOISE)
    assert relative_error(rounded, exact) > lost
    assert relative_error(linear.visited(make_table(config_of(SDXL, tmp_path), sampling), NOISE), exact) < 5e-6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_end_before_the_end_agrees(sampler: str, comparison: Comparison) -> None:
    for spacing, steps, end in itertools.product(SPACINGS, (4, 7, 10), (0.05, 0.4, 0.5, 0.8, 0.99)):
        sampling = Sampling(sampler=sampler, steps=steps, denoising_end=end, eta=etas(sampler)[-1])
        comparison.compare(sampling, {**SDXL, "timestep_spacing": spacing})
    comparison.finish(at_least=30)


STARTS: list[dict[str, Any]] = [
    *({"denoising_start": start} for start in (0.1, 0.3, 0.5, 0.8)),
    *({"strength": strength} for strength in (0.3, 0.5, 0.85, 1.0)),
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_starts_from_an_image_agree(sampler: str, comparison: Comparison) -> None:
    """As the img2img pipeline begins: with noise added for a strength, without where a base model went before."""
    for spacing, steps, start in itertools.product(SPACINGS, (4, 7, 10), STARTS):
        values = {**SDXL, "timestep_spacing": spacing}
        sampling = Sampling(sampler=sampler, steps=steps, eta=etas(sampler)[-1], **start)
        theirs = schedulers.trajectory_of_image(schedulers.build(sampler, values), sampling, IMAGE, NOISE)
        if len(theirs) == 1:
            with pytest.raises(RequestError, match="no step is left"):
                make_table(config_of(values, comparison.folder), sampling)
            continue
        table = make_table(config_of(values, comparison.folder), sampling)
        comparison.check(_from_image(table, sampling), theirs, None, f"{sampling} {values}")
    comparison.finish(at_least=60)


def _from_image(table: Table, sampling: Sampling) -> np.ndarray:
    drawn = schedulers.draws(0, SHAPE) if draws_noise(sampling.sampler, sampling.eta) else None
    return linear.visited_from(table, table.start[0] * IMAGE + table.start[1] * NOISE, drawn)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_explicit_steps_and_a_strength_agree(sampler: str, comparison: Comparison) -> None:
    if "timesteps" not in SAMPLERS[sampler].takes:
        return
    sampling = Sampling(sampler=sampler, timesteps=(999, 799, 599, 399, 199), strength=0.6)
    theirs = schedulers.trajectory_of_image(schedulers.build(sampler, SDXL), sampling, IMAGE, NOISE)
    table = make_table(config_of(SDXL, comparison.folder), sampling)
    comparison.check(_from_image(table, sampling), theirs, None, f"{sampling}")
    comparison.finish(at_least=1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_is_drawn_just_where_diffusers_draws(
    sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the end of the way, after which nothing is drawn."""
    for eta in etas(sampler):
        scheduler = schedulers.build(sampler, SDXL)
        counts: list[int] = []
        step = scheduler.step

        def counted(*args: Any, generator: Any = None, step: Any = step, counts: Any = counts, **kwargs: Any) -> Any:
            before = None if generator is None else generator.get_state()
            options = {} if generator is None else {"generator": generator}
            result = step(*args, **options, **kwargs)
            counts.append(0 if before is None else int(not torch.equal(before, generator.get_state())))
            return result

        counted.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
        monkeypatch.setattr(scheduler, "step", counted)
        sampling = Sampling(sampler=sampler, steps=7, eta=eta)
        schedulers.trajectory(scheduler, sampling, NOISE)
        table = make_table(config_of(SDXL, tmp_path), sampling)
        assert counts[:-1] == table.draws[:-1].tolist()
        assert any(counts) == draws_noise(sampler, eta)


UNREAD = {
    "LCMScheduler": {"set_alpha_to_one"},
    "TCDScheduler": {"clip_sample", "clip_sample_range", "thresholding", "set_alpha_to_one", "timestep_scaling"},
}
"""Fields of these classes' constructors that nothing they compute depends on: no step ends below timestep 0."""


@pytest.mark.parametrize("scheduler", DEFAULTS)
def test_defaults_are_those_of_the_classes(scheduler: str) -> None:
    """And no field that a class knows is forgotten, but for those without effect or in a sampler's name."""
    known = {
        name: () if parameter.default == [] else parameter.default
        for name, parameter in inspect.signature(getattr(diffusers, scheduler).__init__).parameters.items()
        if name != "self"
    }
    ours = DEFAULTS[scheduler]
    shared = ours.keys() & known.keys()
    assert {name: ours[name] for name in shared} == {name: known[name] for name in shared}
    assert ours.keys() - known.keys() <= {"sigma_min", "sigma_max"}
    assert known.keys() - ours.keys() - SchedulerConfig.WITHOUT_EFFECT == UNREAD.get(scheduler, set())


def test_every_field_of_diffusers_classes_can_be_read() -> None:
    """A file that any of these classes wrote loads, whatever sampler is then asked for."""
    known = SchedulerConfig.hints().keys() | SchedulerConfig.WITHOUT_EFFECT
    for row in SAMPLERS.values():
        assert {name for name in schedulers.build("euler", {}).config if not name.startswith("_")} <= known
        scheduler = getattr(diffusers, row.scheduler)()
        assert {name for name in scheduler.config if not name.startswith("_")} <= known


@pytest.mark.parametrize("name", SAMPLER_MISTAKES)
def test_a_planted_mistake_is_seen(name: str, comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, module, attribute, wrong = SAMPLER_MISTAKES[name]
    if isinstance(module, dict):
        monkeypatch.setitem(module, attribute, wrong)
    else:
        monkeypatch.setattr(module, attribute, wrong)
    kind = "v_prediction" if name.startswith("v ") else "epsilon"
    values = {**SDXL, "timestep_spacing": "leading", "prediction_type": kind}
    if name.startswith("Karras"):
        values["use_karras_sigmas"] = True
    for steps in STEP_COUNTS[1:]:
        comparison.compare(Sampling(sampler=sampler, steps=steps), values)
    with pytest.raises(AssertionError):
        comparison.finish(at_least=0)
