"""Elementwise functions of the standard: PyTorch's under the standard's names.

The one difference in meaning: 0-d arrays take part in type promotion like any other array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lazygrad
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor
from lazygrad._core.types import promote_types

UNARY = {
    "abs": "abs", "acos": "acos", "acosh": "acosh", "asin": "asin", "asinh": "asinh",
    "atan": "atan", "atanh": "atanh", "bitwise_invert": "bitwise_not", "ceil": "ceil",
    "cos": "cos", "cosh": "cosh", "exp": "exp", "expm1": "expm1", "floor": "floor",
    "imag": "imag", "isfinite": "isfinite", "isinf": "isinf", "isnan": "isnan", "log": "log",
    "log10": "log10", "log1p": "log1p", "log2": "log2", "logical_not": "logical_not",
    "negative": "neg", "positive": "positive", "reciprocal": "reciprocal", "round": "round",
    "signbit": "signbit", "sin": "sin", "sinh": "sinh", "sqrt": "sqrt", "square": "square",
    "tan": "tan", "tanh": "tanh", "trunc": "trunc",
}
"""The standard's name -> PyTorch's."""

BINARY = {
    "add": "add", "atan2": "atan2", "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or",
    "bitwise_xor": "bitwise_xor", "bitwise_left_shift": "bitwise_left_shift",
    "bitwise_right_shift": "bitwise_right_shift", "copysign": "copysign", "divide": "div",
    "equal": "eq", "floor_divide": "floor_divide", "greater": "gt", "greater_equal": "ge",
    "hypot": "hypot", "less": "lt", "less_equal": "le", "logaddexp": "logaddexp",
    "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
    "maximum": "maximum", "minimum": "minimum", "multiply": "mul", "nextafter": "nextafter",
    "not_equal": "ne", "pow": "pow", "remainder": "remainder", "subtract": "sub",
}


def promoted(name: str, x1: Any, x2: Any) -> tuple[Any, Any]:
    """Both operands, arrays of one dtype where both are arrays."""
    first, second = isinstance(x1, Tensor), isinstance(x2, Tensor)
    if not (first or second):
        raise fail(name, "takes an array, and got none", "Make one with asarray(...).", TypeError)
    if first and second and x1.dtype is not x2.dtype:
        dtype = promote_types(x1.dtype, x2.dtype)
        return x1.to(dtype), x2.to(dtype)
    return x1, x2


def _unary(name: str, theirs: str) -> Callable[..., Tensor]:
    def apply(x: Tensor, /) -> Tensor:
        if not isinstance(x, Tensor):
            raise fail(name, f"takes an array, not {type(x).__name__}",
                       "Make one with asarray(...).", TypeError)
        return getattr(lazygrad, theirs)(x)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"`lazygrad.{theirs}`."
    return apply


def _binary(name: str, theirs: str) -> Callable[..., Tensor]:
    def apply(x1: Any, x2: Any, /) -> Tensor:
        return getattr(lazygrad, theirs)(*promoted(name, x1, x2))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"`lazygrad.{theirs}`; 0-d arrays take part in promotion."
    return apply


for _name, _theirs in UNARY.items():
    globals()[_name] = _unary(_name, _theirs)
for _name, _theirs in BINARY.items():
    globals()[_name] = _binary(_name, _theirs)


def conj(x: Tensor, /) -> Tensor:
    """The complex conjugate; real arrays as they are."""
    return lazygrad.conj(x) if x.dtype.is_complex else lazygrad.positive(x)


def real(x: Tensor, /) -> Tensor:
    """The real part; real arrays as they are."""
    return lazygrad.real(x) if x.dtype.is_complex else lazygrad.positive(x)


def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1; of complex numbers x / |x|; NaN of NaN."""
    if x.dtype.is_complex:
        return lazygrad.sgn(x)
    return lazygrad.where(x != x, x, lazygrad.sign(x)) if x.dtype.is_floating else lazygrad.sign(x)


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """Values between `min` and `max` (arrays, numbers or None), in the dtype of `x`."""
    if min is None and max is None:
        return x.clone()
    low, high = (
        bound.to(x.dtype) if isinstance(bound, Tensor) else bound for bound in (min, max)
    )
    result = x
    if low is not None:
        result = lazygrad.maximum(*promoted("clip", result, low))
    if high is not None:
        result = lazygrad.minimum(*promoted("clip", result, high))
    return result.to(x.dtype)


__all__ = [*UNARY, *BINARY, "clip", "conj", "real", "sign"]
