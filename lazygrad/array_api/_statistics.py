"""Reductions and running totals, with the standard's arguments and result dtypes.

Sums and products of unsigned integers stay unsigned (PyTorch's become int64).
"""

from __future__ import annotations

import builtins
from typing import Any

import lazygrad
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor
from lazygrad.functional._operands import axes_of, axis_of
from lazygrad_compiler.ir.dtypes import DType

__all__ = ["all", "any", "argmax", "argmin", "count_nonzero", "cumulative_prod", "cumulative_sum",
           "diff", "max", "mean", "min", "prod", "std", "sum", "var"]


def _total_dtype(x: Tensor, dtype: Any) -> DType:
    if dtype is not None:
        return dtype
    if x.dtype.kind == "unsigned":
        return lazygrad.uint64
    return x.dtype if x.dtype.is_differentiable else lazygrad.int64


def sum(x: Tensor, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    if axis == ():
        return x.to(_total_dtype(x, dtype))
    return lazygrad.sum(x, axis, keepdims, dtype=_total_dtype(x, dtype))


def prod(x: Tensor, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    result = x.to(_total_dtype(x, dtype))
    if axis == ():
        return result
    for each in reversed(axes_of("prod", axis, x.ndim)):
        result = lazygrad.prod(result, each, True, dtype=result.dtype)
    return result if keepdims else _without(x, result, axis)


def _without(x: Tensor, result: Tensor, axis: Any) -> Tensor:
    """A result of kept axes without them."""
    gone = axes_of("reduction", axis, x.ndim)
    return result.reshape([size for each, size in enumerate(x.shape) if each not in gone])


def mean(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    return x if axis == () else lazygrad.mean(x, axis, keepdims)


def max(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    return x if axis == () else lazygrad.amax(x, () if axis is None else axis, keepdims)


def min(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    return x if axis == () else lazygrad.amin(x, () if axis is None else axis, keepdims)


def std(x: Tensor, /, *, axis: Any = None, correction: float = 0.0,
        keepdims: bool = False) -> Tensor:
    """The standard deviation; `correction` is 0 by default, not 1."""
    return lazygrad.std(x, axis, correction=correction, keepdim=keepdims)


def var(x: Tensor, /, *, axis: Any = None, correction: float = 0.0,
        keepdims: bool = False) -> Tensor:
    """The variance; `correction` is 0 by default, not 1."""
    return lazygrad.var(x, axis, correction=correction, keepdim=keepdims)


def all(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    truth = x.to(lazygrad.bool)
    return truth if axis == () else lazygrad.amin(truth, () if axis is None else axis, keepdims) \
        if truth.numel() else _of_empty(True, x, axis, keepdims)


def any(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    truth = x.to(lazygrad.bool)
    return truth if axis == () else lazygrad.amax(truth, () if axis is None else axis, keepdims) \
        if truth.numel() else _of_empty(False, x, axis, keepdims)


def _of_empty(value: bool, x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    gone = axes_of("reduction", axis, x.ndim)
    shape = [1 if each in gone else size for each, size in enumerate(x.shape)
             if keepdims or each not in gone]
    return lazygrad.full(tuple(shape), value, dtype=lazygrad.bool)


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    return _position(lazygrad.argmax, x, axis, keepdims)


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    return _position(lazygrad.argmin, x, axis, keepdims)


def _position(function: Any, x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    if axis is None and keepdims:
        return function(x).reshape((1,) * x.ndim)
    return function(x, axis, keepdims)


def count_nonzero(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    return sum(x.to(lazygrad.bool), axis=axis, keepdims=keepdims)


def _cumulative(name: str, x: Tensor, axis: int | None, dtype: Any, include_initial: bool,
                initial: int) -> Tensor:
    if axis is None:
        if x.ndim != 1:
            raise fail(name, f"needs an axis for {x.ndim} axes", "Say axis=….", ValueError)
        axis = 0
    axis = axis_of(name, axis, x.ndim)
    function = lazygrad.cumsum if initial == 0 else lazygrad.cumprod
    result = function(x, axis, dtype=_total_dtype(x, dtype))
    if include_initial:
        shape = [1 if each == axis else size for each, size in enumerate(x.shape)]
        first = lazygrad.full(tuple(shape), initial, dtype=result.dtype)
        result = lazygrad.cat([first, result], axis)
    return result


def cumulative_sum(x: Tensor, /, *, axis: int | None = None, dtype: Any = None,
                   include_initial: bool = False) -> Tensor:
    """Running totals, with `include_initial` starting from 0."""
    return _cumulative("cumulative_sum", x, axis, dtype, include_initial, 0)


def cumulative_prod(x: Tensor, /, *, axis: int | None = None, dtype: Any = None,
                    include_initial: bool = False) -> Tensor:
    """Running products, with `include_initial` starting from 1."""
    return _cumulative("cumulative_prod", x, axis, dtype, include_initial, 1)


def diff(x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None,
         append: Tensor | None = None) -> Tensor:
    """Differences of neighbours, n times."""
    axis = axis_of("diff", axis, x.ndim)
    parts = [each for each in (prepend, x, append) if each is not None]
    result = lazygrad.cat(parts, axis) if len(parts) > 1 else x
    for _ in range(n):
        count = builtins.max(result.shape[axis] - 1, 0)
        after, before = (result.narrow(axis, builtins.min(start, result.shape[axis]), count)
                         for start in (1, 0))
        result = after ^ before if result.dtype is lazygrad.bool else after - before
    return result
