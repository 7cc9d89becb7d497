"""The defaults of diffusers' scheduler classes, version 0.42.1, for the fields that each class reads."""

from typing import Any

_BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
_SPREADS: dict[str, Any] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    # Not in every constructor that reads them: fields that `from_config` does not know are kept with the rest.
    "sigma_min": None,
    "sigma_max": None,
}
_ZERO_SNR: dict[str, Any] = {"rescale_betas_zero_snr": False}
_CLIPPED: dict[str, Any] = {"clip_sample": False, "clip_sample_range": 1.0}
_MULTISTEP: dict[str, Any] = {
    **_BETAS,
    **_SPREADS,
    **_ZERO_SNR,
    "thresholding": False,
    "solver_order": 2,
    "lower_order_final": True,
    "use_flow_sigmas": False,
    "final_sigmas_type": "zero",
}
_CONSISTENCY: dict[str, Any] = {
    **_BETAS,
    **_ZERO_SNR,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    "timestep_spacing": "leading",
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "EulerDiscreteScheduler": {
        **_BETAS,
        **_SPREADS,
        **_ZERO_SNR,
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": {**_BETAS, **_ZERO_SNR},
    "DDIMScheduler": {
        **_BETAS,
        **_ZERO_SNR,
        **_CLIPPED,
        "clip_sample": True,
        "set_alpha_to_one": True,
        "thresholding": False,
        "timestep_spacing": "leading",
    },
    "DPMSolverMultistepScheduler": {
        **_MULTISTEP,
        "solver_type": "midpoint",
        "euler_at_final": False,
        "use_lu_lambdas": False,
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
    },
    "UniPCMultistepScheduler": {
        **_MULTISTEP,
        "solver_type": "bh2",
        "predict_x0": True,
        "disable_corrector": (),
        "solver_p": None,
    },
    "LCMScheduler": {**_CONSISTENCY, **_CLIPPED, "thresholding": False, "timestep_scaling": 10.0},
    # Its constructor takes clipping and thresholding too, and never reads them.
    "TCDScheduler": _CONSISTENCY,
    "HeunDiscreteScheduler": {**_BETAS, **_SPREADS, **_CLIPPED, "beta_start": 0.00085, "beta_end": 0.012},
}
