"""What the defaults of diffusers' scheduler classes have in common (version 0.42.1); `DEFAULTS` of each solver's file
has the rest, for the fields that its class reads."""

from typing import Any

Defaults = dict[str, dict[str, Any]]
"""By the class's name, its constructor's defaults."""

BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
SIGMA_SCHEDULE: dict[str, Any] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    # Not in every constructor that reads them: fields that `from_config` does not know are kept with the rest.
    "sigma_min": None,
    "sigma_max": None,
}
ZERO_SNR: dict[str, Any] = {"rescale_betas_zero_snr": False}
CLIPPED: dict[str, Any] = {"clip_sample": False, "clip_sample_range": 1.0}
MULTISTEP: dict[str, Any] = {
    **BETAS,
    **SIGMA_SCHEDULE,
    **ZERO_SNR,
    "thresholding": False,
    "solver_order": 2,
    "lower_order_final": True,
    "use_flow_sigmas": False,
    "final_sigmas_type": "zero",
}
CONSISTENCY: dict[str, Any] = {
    **BETAS,
    **ZERO_SNR,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    "timestep_spacing": "leading",
}
