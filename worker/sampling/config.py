"""`scheduler_config.json`, of whichever scheduler class."""

import math
from typing import Any, ClassVar, get_type_hints

from promptmill.producer.families.samplers import SCHEDULERS
from promptmill.worker.checkpoint.json_config import JsonConfig, names, unexpected
from promptmill.worker.sampling.solvers.settings import WORDS, Settings


class SchedulerConfig(JsonConfig):
    """The noise schedule that the model was trained with, and how its authors sample.

    The folder may name any of diffusers' scheduler classes. `given` are those fields of `solvers/settings.py` that the
    file names; what it leaves open, each sampler fills in with its own class's defaults (`schedulers.py`).
    """

    def __init__(self, **given: Any) -> None:
        self.given = {name: value for name, value in given.items() if value is not None}
        for name, expected in WORDS.items():
            if self.given.get(name, expected[0]) not in expected:
                raise unexpected(None, name, self.given[name], expected)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SchedulerConfig) and self.given == other.given

    def __hash__(self) -> int:
        return hash(frozenset(self.given.items()))

    def __repr__(self) -> str:
        return f"SchedulerConfig({', '.join(f'{name}={value!r}' for name, value in self.given.items())})"

    # Of samplers that are not here, or decided by the sampler's name (algorithm_type), or of what is refused where
    # it is on: dynamic thresholding and flow matching.
    WITHOUT_EFFECT: ClassVar = names(
        """algorithm_type dynamic_thresholding_ratio sample_max_value use_dynamic_shifting time_shift_type
        shift_terminal flow_shift predictor_order corrector_order tau_func"""
    )

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """Any field may be left open."""
        return {name: hint | None for name, hint in get_type_hints(Settings).items()}

    @classmethod
    def _given(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The fields that diffusers' `from_config` would give to a scheduler of ours.

        Left out are those that diffusers wrote down but was not told; the fields of a class that is not implemented,
        for which another stands in; and an unbounded log of the signal-to-noise ratio, which diffusers saves as the
        number that JSON does not have.
        """
        left_out = set(values.get("_use_default_values") or ())
        if values.get("_class_name", "") not in ("", *SCHEDULERS):
            left_out |= values.keys() - cls.hints().keys()
        if values.get("lambda_min_clipped") == -math.inf:
            left_out.add("lambda_min_clipped")
        return {name: value for name, value in values.items() if name not in left_out}
