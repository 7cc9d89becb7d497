"""The noise levels of DPM++ and UniPC: sigmas as Euler has them, but latents that keep a deviation of one."""

import numpy as np

from promptmill.worker.errors import ConfigError
from promptmill.worker.sampling.solvers.plan import Plan, Step
from promptmill.worker.sampling.solvers.settings import Settings


class Levels:
    """Each evaluation's, and last the end's: alpha and sigma with squares that sum to 1, and lambda, the log of
    their ratio, which is the time that these solvers go by."""

    def __init__(self, noise: np.ndarray) -> None:
        ratio = noise.astype(np.float32).astype(np.float64)
        self.alphas: np.ndarray = 1 / np.sqrt(ratio**2 + 1)
        self.sigmas: np.ndarray = ratio * self.alphas
        self.lambdas: np.ndarray = np.log(self.alphas) - np.log(self.sigmas)

    def plan(self, timesteps: np.ndarray, step: Step) -> Plan:
        return Plan(
            # Whole ones: diffusers cuts the fraction off.
            timesteps=np.trunc(timesteps).astype(np.float32),
            alphas=self.alphas[:-1],
            sigmas=self.sigmas[:-1],
            initial_scale=1.0,
            step=step,
        )


def check_multistep(settings: Settings) -> None:
    if settings.solver_order not in (1, 2, 3):
        raise ConfigError(f"solver_order is {settings.solver_order}, expected 1, 2 or 3")
    if settings.use_flow_sigmas:
        raise ConfigError("use_flow_sigmas is true, but flow matching is not implemented")
