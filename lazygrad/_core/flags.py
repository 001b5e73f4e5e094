"""Flags are True or False: `strict`.

`x.sum(0, 1)` means two axes to many who write it, and `keepdim` to Python.  PyTorch refuses a
number where its native functions take a flag, and so does every function here that has a flag of
one of these names; the check runs once for a signature where calls are folded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy

from lazygrad._core.keywords import Parameters

Function = TypeVar("Function", bound=Callable[..., Any])

FLAGS = frozenset((
    "accumulate", "check_errors", "descending", "full_matrices", "hermitian", "include_self",
    "keepdim", "largest", "return_counts", "return_inverse", "sorted", "stable", "unbiased",
    "upper"))
"""Parameters that PyTorch takes no number for, in any of its functions."""

_BOOLS = (bool, numpy.bool_, type(None))


def strict(function: Function, parameters: Parameters | None) -> Function:
    """The function, which refuses flags that are neither True nor False (None is left to it)."""
    named = {name for name, kind in getattr(function, "__annotations__", {}).items()
             if name in FLAGS and str(kind).startswith("bool")}
    if parameters is None or not named:
        return function
    places = [(place, name) for place, name in enumerate(parameters.placed) if name in named]

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        for place, name in places:
            if place < len(arguments) and not isinstance(arguments[place], _BOOLS):
                raise _refused(parameters.function, name, arguments[place])
        for name in named.intersection(keywords):
            if not isinstance(keywords[name], _BOOLS):
                raise _refused(parameters.function, name, keywords[name])
        return function(*arguments, **keywords)

    return call  # type: ignore[return-value]


def _refused(function: str, name: str, value: Any) -> Exception:
    from lazygrad._core.context import fail
    shown = repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
    hint = "Several axes are one argument: dim=(0, 1)." if name == "keepdim" else ""
    return fail(function, f"{name} is True or False, not {shown}", hint, TypeError)
