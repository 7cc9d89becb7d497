"""The shapes and dtypes in annotations, checked at each call: in tests.

Annotations without an array are mypy's, and are passed over here: that costs no time, a Protocol needs no
`runtime_checkable`, and a test may hand in a stand-in.
"""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray, install_import_hook


def check_arrays(package: str) -> None:
    """Have all functions of the package, which is not yet imported, refuse arrays that are not as annotated."""
    install_import_hook(package, f"{__name__}.{checked.__name__}")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; its arguments and its answer are checked where they are annotated as arrays."""
    hints = function.__annotations__
    arrays = {name: hint if _has_array(hint) else Any for name, hint in hints.items()}
    if all(hint is Any for hint in arrays.values()):
        return function
    function.__annotations__ = arrays
    return beartype(function)


def _has_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    parts = hint if isinstance(hint, list) else get_args(hint)
    return any(_has_array(part) for part in parts)
