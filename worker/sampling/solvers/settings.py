"""A scheduler's configuration as a sampler reads it."""

from dataclasses import dataclass
from typing import Any

WORDS: dict[str, tuple[str, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "exp"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "timestep_type": ("discrete", "continuous"),
    "final_sigmas_type": ("zero", "sigma_min"),
}
"""What these fields may hold."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A scheduler's configuration with nothing left open. The values here are those of a class without the field."""

    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    trained_betas: tuple[float, ...] | None
    prediction_type: str
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
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
    skip_prk_steps: bool = False
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
