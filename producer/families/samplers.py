"""The samplers of a job, and what each takes. Names only: promptmill.worker.sampling.samplers holds the arithmetic."""

SAMPLERS = ("euler", "euler_a", "ddim", "dpm++_2m", "dpm++_2m_sde", "unipc", "lcm", "tcd", "heun")
"""What a job's `sampler` may be (a test compares with the worker's)."""

NOISY_SAMPLERS = ("euler_a", "dpm++_2m_sde", "lcm")
"""Those that draw noise at each step; those that take `eta` do where it is not 0."""

TAKEN_BY = {
    "timestep_spacing": ("euler", "euler_a", "ddim", "dpm++_2m", "dpm++_2m_sde", "unipc", "heun"),
    "sigma_schedule": ("euler", "dpm++_2m", "dpm++_2m_sde", "unipc", "heun"),
    "timesteps": ("euler", "dpm++_2m", "dpm++_2m_sde", "lcm", "tcd", "heun"),
    "sigmas": ("euler",),
    "eta": ("ddim", "tcd"),
}
"""Settings that not every sampler has, and those that do, as in diffusers."""

TIMESTEP_SPACINGS = ("leading", "linspace", "trailing")
SIGMA_SCHEDULES = ("uniform", "karras", "exponential", "beta")

MAX_HEUN_STEPS = 500  # each but the last asks the model twice, and a program's tables end at 1000
