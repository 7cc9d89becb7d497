"""What a scheduler_config.json means to one sampler: the file's fields, and that sampler's own defaults.

A folder's file may be of any scheduler class. diffusers' `from_config` gives a class those fields that its
constructor knows, drops the others and fills in what is missing from the class's own defaults, which differ:
DDIM clips latents unless told not to, LCM has other betas. Each file of `solvers/` has the defaults of its classes
and the plans of its samplers, and is found here: a new one needs no entry.
"""

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from promptmill.worker.errors import ConfigError
from promptmill.worker.sampling import solvers
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.defaults import Defaults
from promptmill.worker.sampling.solvers.plan import Plans
from promptmill.worker.sampling.solvers.settings import Settings


def _found() -> tuple[Plans, Defaults]:
    """`PLANS` and `DEFAULTS` of every file in `solvers/`."""
    plans: Plans = {}
    defaults: Defaults = {}
    for file in pkgutil.iter_modules(solvers.__path__, f"{solvers.__name__}."):
        module = import_module(file.name)
        plans |= getattr(module, "PLANS", {})
        defaults |= getattr(module, "DEFAULTS", {})
    return plans, defaults


PLANS, DEFAULTS = _found()


def resolve(config: SchedulerConfig, scheduler: str, asked: Mapping[str, Any]) -> Settings:
    """The settings of diffusers' class `scheduler`: `asked` over the file's fields over the class's defaults."""
    defaults = DEFAULTS[scheduler]
    given = {name: value for name, value in config.given.items() if name in defaults}
    settings = Settings(**{**defaults, **given, **asked})
    _check(settings, scheduler)
    return settings


def _check(settings: Settings, scheduler: str) -> None:
    schedules = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    used = [name for name in schedules if getattr(settings, name)]
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
