"""What a traced program holds: its operations, those of its loops, and what a loop computes anew at each turn."""

from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal


def operations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Every operation, those of inner functions and loops among them."""
    for equation in jaxpr.eqns:
        inner = list(_inner(equation))
        if not inner:
            yield equation
        for part in inner:
            yield from operations(part)


def loops(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Every `while` that runs for a number of turns known at run time only: the one over an image's steps."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            yield equation
        else:
            for part in _inner(equation):
                yield from loops(part)


def shared_by_all_turns(loop: JaxprEqn) -> list[JaxprEqn]:
    """What the body computes from nothing that changes from one turn to the next."""
    names = ("jaxpr", "num_consts") if loop.primitive.name == "scan" else ("body_jaxpr", "body_nconsts")
    body, constants = (loop.params[name] for name in names)
    return list(_unchanging(body.jaxpr, set(body.jaxpr.invars[:constants])))


def _unchanging(jaxpr: Jaxpr, same: set[Any]) -> Iterator[JaxprEqn]:
    for equation in jaxpr.eqns:
        known = [isinstance(value, Literal) or value in same for value in equation.invars]
        if all(known):
            same.update(equation.outvars)
        inner = list(_inner(equation))
        if equation.primitive.name in ("while", "scan"):
            continue  # their values go round: only what is computed wholly from outside is the same
        if not inner and all(known):
            yield equation
        if equation.primitive.name == "cond":
            known = known[1:]  # the branches are not given which of them it is
        for part in inner:
            yield from _unchanging(part, {var for var, is_same in zip(part.invars, known, strict=False) if is_same})


def _inner(equation: JaxprEqn) -> Iterator[Jaxpr]:
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part
