"""`scheduler_config.json`, of whichever scheduler class."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from promptmill.producer.families.samplers import SCHEDULERS
from promptmill.worker.checkpoint.json_config import JsonConfig, names


@dataclass(frozen=True)
class SchedulerConfig(JsonConfig):
    """The noise schedule that the model was trained with, and how its authors sample.

    The folder may name any of diffusers' scheduler classes. None is a field that the file leaves open: each sampler
    has its own defaults, and reads only the fields that its class knows (`solvers/settings.py`).
    """

    num_train_timesteps: int | None = None
    beta_start: float | None = None
    beta_end: float | None = None
    beta_schedule: str | None = None
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str | None = None
    timestep_spacing: str | None = None
    timestep_type: str | None = None
    steps_offset: int | None = None
    interpolation_type: str | None = None
    rescale_betas_zero_snr: bool | None = None
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    use_beta_sigmas: bool | None = None
    use_lu_lambdas: bool | None = None
    use_flow_sigmas: bool | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str | None = None
    lambda_min_clipped: float | None = None
    clip_sample: bool | None = None
    clip_sample_range: float | None = None
    thresholding: bool | None = None
    set_alpha_to_one: bool | None = None
    skip_prk_steps: bool | None = None
    original_inference_steps: int | None = None
    timestep_scaling: float | None = None
    solver_order: int | None = None
    solver_type: str | None = None
    lower_order_final: bool | None = None
    euler_at_final: bool | None = None
    variance_type: str | None = None
    predict_x0: bool | None = None
    disable_corrector: tuple[int, ...] | None = None
    solver_p: Any = None

    # Of samplers that are not here, or decided by the sampler's name (algorithm_type), or of what is refused where
    # it is on: dynamic thresholding and flow matching.
    WITHOUT_EFFECT: ClassVar = names(
        """algorithm_type dynamic_thresholding_ratio sample_max_value use_dynamic_shifting time_shift_type
        shift_terminal flow_shift predictor_order corrector_order tau_func"""
    )

    @classmethod
    def _given(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The fields that diffusers' `from_config` would give to a scheduler of ours.

        Left out are those that diffusers wrote down but was not told; the fields of a class that is not implemented,
        for which another stands in; and an unbounded log of the signal-to-noise ratio, which diffusers saves as the
        number that JSON does not have.
        """
        left_out = set(values.get("_use_default_values") or ())
        if values.get("_class_name", "") not in ("", *SCHEDULERS):
            left_out |= values.keys() - {field.name for field in dataclasses.fields(cls)}
        if values.get("lambda_min_clipped") == -math.inf:
            left_out.add("lambda_min_clipped")
        return {name: value for name, value in values.items() if name not in left_out}

    def __post_init__(self) -> None:
        self._check("beta_schedule", (None, "linear", "scaled_linear", "squaredcos_cap_v2", "exp"))
        self._check("prediction_type", (None, "epsilon", "v_prediction", "sample"))
        self._check("interpolation_type", (None, "linear", "log_linear"))
        self._check("timestep_spacing", (None, "linspace", "leading", "trailing"))
        self._check("timestep_type", (None, "discrete", "continuous"))
        self._check("final_sigmas_type", (None, "zero", "sigma_min"))
