"""Making arrays, with the standard's arguments."""

from __future__ import annotations

import math
from typing import Any

import lazygrad
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor
from lazygrad._core.values import check_device
from lazygrad.functional._operands import result_dtype

__all__ = ["arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like",
           "linspace", "meshgrid", "ones", "ones_like", "tril", "triu", "zeros", "zeros_like"]


def _sizes(shape: Any) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None,
           device: Any = None) -> Tensor:
    """Numbers from start to before stop; none where the step leads away from it."""
    if stop is None:
        start, stop = 0, start
    if step and (stop - start) * step < 0:
        stop = start
    return lazygrad.arange(start, stop, step, dtype=dtype, device=device)


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None,
            copy: bool | None = None) -> Tensor:
    """Numbers, nested sequences, buffers and arrays as an array.

    copy: True always copies, None where needed, False raises ValueError where it would be needed.
    """
    check_device(device, "asarray")
    if isinstance(obj, Tensor):
        changes = dtype is not None and dtype is not obj.dtype
        if copy is False and changes:
            raise fail("asarray", f"{obj.dtype.name} as {dtype.name} needs a copy",
                       "Leave out copy=False.", ValueError)
        result = obj.to(dtype) if changes else obj
        return result.clone() if copy and not changes else result
    if copy is False and not hasattr(obj, "__array__"):
        raise fail("asarray", f"a {type(obj).__name__} becomes an array by a copy only",
                   "Leave out copy=False.", ValueError)
    return lazygrad.asarray(obj, dtype=dtype, copy=copy is not False)


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    return lazygrad.empty(_sizes(shape), dtype=dtype, device=device)


def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    return lazygrad.zeros(_sizes(shape), dtype=dtype, device=device)


def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    return lazygrad.ones(_sizes(shape), dtype=dtype, device=device)


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    return lazygrad.full(_sizes(shape), fill_value, dtype=dtype, device=device)


def empty_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    return lazygrad.empty_like(x, dtype=dtype, device=device)


def zeros_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    return lazygrad.zeros_like(x, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    return lazygrad.ones_like(x, dtype=dtype, device=device)


def full_like(x: Tensor, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    return lazygrad.full_like(x, fill_value, dtype=dtype, device=device)


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None,
        device: Any = None) -> Tensor:
    """Ones on the k-th diagonal."""
    check_device(device, "eye")
    columns = n_rows if n_cols is None else n_cols
    distance = lazygrad.arange(columns) - lazygrad.arange(n_rows).unsqueeze(1)
    return (distance == k).to(lazygrad.get_default_dtype() if dtype is None else dtype)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """An array over the memory of another library's array."""
    check_device(device, "from_dlpack")
    result = lazygrad.from_dlpack(x)
    return result.clone() if copy else result


def linspace(start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None,
             endpoint: bool = True) -> Tensor:
    """`num` numbers, evenly spaced, from start to stop, with it or (endpoint=False) without."""
    check_device(device, "linspace")
    if num < 0:
        raise fail("linspace", f"num is {num}", "It has to be 0 or more.", ValueError)
    if dtype is None:
        dtype = result_dtype([start, stop, 1.0])
    wide = lazygrad.complex128 if dtype.is_complex else lazygrad.float64
    parts = num - 1 if endpoint else num
    steps = lazygrad.arange(num, dtype=lazygrad.float64).to(wide)
    result = steps * ((stop - start) / parts if parts else math.nan) + start if num > 1 \
        else lazygrad.full((num,), start, dtype=wide)
    if endpoint and num > 1:
        result = lazygrad.where(lazygrad.arange(num) == num - 1, stop, result)
    return result.to(dtype)


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinates as full grids; "xy" (the default here) exchanges the first two axes."""
    return tuple(lazygrad.meshgrid(*arrays, indexing=indexing))


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The lower triangle of the last two axes."""
    return lazygrad.tril(x, k)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The upper triangle of the last two axes."""
    return lazygrad.triu(x, k)
