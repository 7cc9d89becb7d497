"""Operations of a program, counted in what JAX traced of it: two per multiply-add of products and convolutions.

XLA's own `cost_analysis` counts the body of each loop once, whatever its trips, and nothing of cuDNN's calls. Here a
loop counts as often as it runs, and what runs on each device as often as there are devices.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def count_flops(jaxpr: Any, *, trips: float) -> float:
    """Operations of one call of a (closed) jaxpr; a loop whose length is an input, as of denoising, takes `trips`."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_of_equation(equation, trips) for equation in inner.eqns)


def _of_equation(equation: Any, trips: float) -> float:
    count = _COUNTS.get(equation.primitive.name)
    if count is not None:
        return count(equation)
    bodies = [count_flops(body, trips=trips) for body in _bodies(equation.params)]
    if equation.primitive.name == "cond":
        return max(bodies)
    return sum(bodies) * _times(equation, trips)


def _bodies(params: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters, whatever they are called there; of derivatives none is run."""
    for value in params.values():
        for one in value if isinstance(value, list | tuple) else [value]:
            if hasattr(getattr(one, "jaxpr", one), "eqns"):
                yield one


def _times(equation: Any, trips: float) -> float:
    params = equation.params
    match equation.primitive.name:
        case "scan":
            return float(params["length"])
        case "while":
            return trips
        case "shard_map":
            return float(params["mesh"].size)
        case "pallas_call":
            return float(math.prod(params["grid_mapping"].grid))
    return 1.0


def _product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * depth


def _convolution(equation: Any) -> float:
    """Zeros between the pixels of a dilated image are not multiplied."""
    kernel = equation.invars[1].aval.shape
    outputs = equation.params["dimension_numbers"].rhs_spec[0]
    zeros = math.prod(equation.params["lhs_dilation"])
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / kernel[outputs] / zeros


def _attention(equation: Any) -> float:
    """cuDNN's fused one: scores, and what they weigh; queries B T N H, keys B S N H."""
    (batch, queries, heads, size), keys = (equation.invars[index].aval.shape for index in (0, 1))
    return 4.0 * batch * queries * keys[1] * heads * size


_COUNTS: dict[str, Callable[[Any], float]] = {
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    "dot_product_attention_fwd_wrapper": _attention,
}
"""By the primitive's name. All else costs little beside these, and is not counted."""
