"""The samplers of a job: `SAMPLERS`, the one table that checks, presets, names in other tools and workers go by.

A new sampler is one row here and its arithmetic in `worker/sampling/solvers/`, where `PLANS` and `DEFAULTS` of each
file are found by the row's name and class.
"""

from dataclasses import dataclass

MAX_EVALUATIONS = 1000
"""Of the model, for one image: the length of every program's tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """One row of `SAMPLERS`."""

    scheduler: str
    """The class of diffusers that it equals."""
    algorithm_type: str | None = None
    """Of a class that is several samplers, which."""
    takes: frozenset[str] = frozenset()
    """Which of a job's settings it has a use for, of those that not every sampler has."""
    stochastic: bool = False
    """Whether each step draws noise. One that takes eta draws only where that is not 0."""
    evaluations: int = 1
    """Of the model, per step; 2 but for the last step (diffusers' `order`)."""
    warm_up: int = 0
    """Evaluations beyond those, of the first steps; at most, where the model's folder decides."""
    a1111: str
    """Its name in A1111's parameters."""
    kohya: tuple[str, ...] = ()
    """Its names in kohya's option lines."""

    @property
    def max_steps(self) -> int:
        return (MAX_EVALUATIONS - self.warm_up + self.evaluations - 1) // self.evaluations

    def evaluations_in(self, steps: int) -> int:
        """Of the model, for one image; at most, as `warm_up` is."""
        return steps * self.evaluations - (self.evaluations - 1) + self.warm_up

    def draws_noise(self, eta: float) -> bool:
        """Whether every step of a job draws noise."""
        return self.stochastic or ("eta" in self.takes and eta > 0)


def _takes(names: str) -> frozenset[str]:
    return frozenset(names.split())


SAMPLERS: dict[str, Sampler] = {
    "euler": Sampler(
        scheduler="EulerDiscreteScheduler",
        takes=_takes("timestep_spacing sigma_schedule timesteps sigmas"),
        a1111="Euler",
        kohya=("euler", "k_euler"),
    ),
    "euler_a": Sampler(
        scheduler="EulerAncestralDiscreteScheduler",
        takes=_takes("timestep_spacing"),
        stochastic=True,
        a1111="Euler a",
        kohya=("euler_a", "k_euler_a"),
    ),
    "ddim": Sampler(scheduler="DDIMScheduler", takes=_takes("timestep_spacing eta"), a1111="DDIM", kohya=("ddim",)),
    "dpm++_2m": Sampler(
        scheduler="DPMSolverMultistepScheduler",
        algorithm_type="dpmsolver++",
        takes=_takes("timestep_spacing sigma_schedule timesteps"),
        a1111="DPM++ 2M",
        kohya=("dpmsolver++",),
    ),
    "dpm++_2m_sde": Sampler(
        scheduler="DPMSolverMultistepScheduler",
        algorithm_type="sde-dpmsolver++",
        takes=_takes("timestep_spacing sigma_schedule timesteps"),
        stochastic=True,
        a1111="DPM++ 2M SDE",
    ),
    "dpm++_2s": Sampler(
        scheduler="DPMSolverSinglestepScheduler",
        algorithm_type="dpmsolver++",
        takes=_takes("sigma_schedule timesteps"),
        a1111="DPM++ 2S",
        kohya=("dpmsingle",),
    ),
    "unipc": Sampler(
        scheduler="UniPCMultistepScheduler", takes=_takes("timestep_spacing sigma_schedule"), a1111="UniPC"
    ),
    "lcm": Sampler(scheduler="LCMScheduler", takes=_takes("timesteps"), stochastic=True, a1111="LCM"),
    "tcd": Sampler(scheduler="TCDScheduler", takes=_takes("timesteps eta"), a1111="TCD"),
    "heun": Sampler(
        scheduler="HeunDiscreteScheduler",
        takes=_takes("timestep_spacing sigma_schedule timesteps"),
        evaluations=2,
        a1111="Heun",
        kohya=("heun",),
    ),
    "dpm2": Sampler(
        scheduler="KDPM2DiscreteScheduler",
        takes=_takes("timestep_spacing sigma_schedule"),
        evaluations=2,
        a1111="DPM2",
        kohya=("dpm_2", "k_dpm_2"),
    ),
    "dpm2_a": Sampler(
        scheduler="KDPM2AncestralDiscreteScheduler",
        takes=_takes("timestep_spacing sigma_schedule"),
        stochastic=True,
        evaluations=2,
        a1111="DPM2 a",
        kohya=("dpm_2_a", "k_dpm_2_a"),
    ),
    "deis": Sampler(scheduler="DEISMultistepScheduler", takes=_takes("timestep_spacing sigma_schedule"), a1111="DEIS"),
    "pndm": Sampler(
        scheduler="PNDMScheduler",
        takes=_takes("timestep_spacing"),
        warm_up=9,
        a1111="PLMS",
        kohya=("pndm",),
    ),
    "lms": Sampler(
        scheduler="LMSDiscreteScheduler",
        takes=_takes("timestep_spacing sigma_schedule"),
        a1111="LMS",
        kohya=("lms", "k_lms"),
    ),
    "ddpm": Sampler(
        scheduler="DDPMScheduler", takes=_takes("timestep_spacing timesteps"), stochastic=True, a1111="DDPM"
    ),
}

SCHEDULERS = frozenset(row.scheduler for row in SAMPLERS.values())
"""The classes of diffusers that are implemented."""

TIMESTEP_SPACINGS = ("leading", "linspace", "trailing")
SIGMA_SCHEDULES = ("uniform", "karras", "exponential", "beta")


TAKEN_BY: dict[str, tuple[str, ...]] = {
    setting: tuple(name for name, row in SAMPLERS.items() if setting in row.takes)
    for setting in ("timestep_spacing", "sigma_schedule", "timesteps", "sigmas", "eta")
}
"""Settings that not every sampler has, and those that do, as in diffusers."""


def sampler_of_scheduler(scheduler: str, algorithm_type: str) -> str | None:
    """The sampler that diffusers' class is, by its algorithm where it has several; None where none is."""
    for name, row in SAMPLERS.items():
        if row.scheduler == scheduler and row.algorithm_type in (None, algorithm_type):
            return name
    return None
