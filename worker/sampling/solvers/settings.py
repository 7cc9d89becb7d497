"""What a scheduler_config.json means to one sampler: the file's fields, and that sampler's own defaults.

A folder's file may be of any scheduler class. diffusers' `from_config` gives a class those fields that its
constructor knows, drops the others and fills in what is missing from the class's own defaults, which differ:
DDIM clips latents unless told not to, LCM has other betas (`worker/sampling/defaults.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptmill.worker.errors import ConfigError
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.defaults import DEFAULTS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A scheduler's configuration with nothing left open. The values here are those of a class without the field."""

    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    trained_betas: tuple[float, ...] | None
    prediction_type: str
    timestep_spacing: str
    steps_offset: int
    rescale_betas_zero_snr: bool = False
    interpolation_type: str = "linear"
    timestep_type: str = "discrete"
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_lu_lambdas: bool = False
    use_flow_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str = "zero"
    lambda_min_clipped: float = -float("inf")
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    thresholding: bool = False
    set_alpha_to_one: bool = True
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    solver_order: int = 1
    solver_type: str = ""
    lower_order_final: bool = True
    euler_at_final: bool = False
    variance_type: str | None = None
    predict_x0: bool = True
    disable_corrector: tuple[int, ...] = ()
    solver_p: Any = None

    @property
    def sigma_schedule(self) -> str:
        """How sigmas are spread: "uniform" where they follow the timesteps."""
        named = {
            "karras": self.use_karras_sigmas,
            "lu": self.use_lu_lambdas,
            "exponential": self.use_exponential_sigmas,
            "beta": self.use_beta_sigmas,
        }
        # In diffusers' order: Lu's is not among those that exclude one another.
        return next((name for name, used in named.items() if used), "uniform")


def resolve(config: SchedulerConfig, scheduler: str, asked: Mapping[str, Any]) -> Settings:
    """The settings of diffusers' class `scheduler`: `asked` over the file's fields over the class's defaults."""
    defaults = DEFAULTS[scheduler]
    given = {name: getattr(config, name) for name in defaults if getattr(config, name) is not None}
    settings = Settings(**{**defaults, **given, **asked})
    _check(settings, scheduler)
    return settings


def _check(settings: Settings, scheduler: str) -> None:
    spreads = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    used = [name for name in spreads if getattr(settings, name)]
    if len(used) > 1:
        raise ConfigError(f"{' and '.join(used)} are true, expected one at most")
    if settings.thresholding:
        raise ConfigError("thresholding is true, but dynamic thresholding is not implemented")
    if settings.beta_schedule == "exp" and scheduler != "HeunDiscreteScheduler":
        raise ConfigError(f"beta_schedule is 'exp', which {scheduler} does not know")
    if settings.trained_betas is not None and len(settings.trained_betas) != settings.num_train_timesteps:
        raise ConfigError(
            f"trained_betas has {len(settings.trained_betas)} values, expected {settings.num_train_timesteps}"
        )
