"""Mixed precision: `autocast` runs products in a 16-bit dtype, `GradScaler` keeps gradients in
range.

Within `autocast`, what multiplies matrices takes its float32 operands in bfloat16 (or float16), and
losses take theirs in float32 (`_core/autocast.py`), as PyTorch does on the CPU.  The casts are
recorded like any other, so gradients come back in the parameters' dtype.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lazygrad._core.context import fail, now
from lazygrad._core.grad_scaler import GradScaler
from lazygrad._core.nests import replace
from lazygrad._core.placement import is_there
from lazygrad._core.tensor import Tensor
from lazygrad._core.values import device
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "get_autocast_dtype",
           "is_autocast_available", "is_autocast_enabled"]


class autocast:
    """A context manager and decorator.

    device_type: "cpu" or "cuda"; a device that is not there switches it off.  What is computed
    within is cast wherever it lives.  dtype: bfloat16 (default; float16 on CUDA) or float16.
    enabled=False switches it off within.  cache_enabled changes nothing: equal casts are one node
    of the graph.
    """

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True,
                 cache_enabled: bool | None = None) -> None:
        self.device = device(device_type).type
        self._there = is_there(self.device)
        usual = dtypes.float16 if self.device == "cuda" else dtypes.bfloat16
        self.fast_dtype: DType = usual if dtype is None else dtype
        if enabled and self._there and self.fast_dtype not in (
                dtypes.bfloat16, dtypes.float16):
            raise fail("autocast", f"{self.fast_dtype} is not a dtype to run products in",
                       "It is bfloat16 or float16.")
        self._enabled = bool(enabled)
        self._before: list[DType | None] = []

    def __enter__(self) -> autocast:
        self._before.append(now.autocast)
        if self._there:
            now.autocast = self.fast_dtype if self._enabled else None
        return self

    def __exit__(self, *_: object) -> None:
        now.autocast = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            with self:
                return function(*arguments, **keywords)
        return call


def is_autocast_enabled(device_type: str = "cpu") -> bool:
    return is_there(device(device_type).type) and now.autocast is not None


def get_autocast_dtype(device_type: str = "cpu") -> DType:
    """The dtype that products run in; where autocast is off, the one that it would take."""
    return now.autocast or dtypes.bfloat16


def is_autocast_available(device_type: str) -> bool:
    return is_there(device(device_type).type)


def custom_fwd(fwd: Any = None, *, device_type: str = "cpu", cast_inputs: Any = None) -> Any:
    """Marks the forward of a custom Function; with cast_inputs its floating tensors are converted
    and autocast is off within.
    """
    if fwd is None:
        return lambda function: custom_fwd(
            function, device_type=device_type, cast_inputs=cast_inputs)
    if cast_inputs is None:
        return fwd

    def convert(tensor: Tensor) -> Tensor:
        return tensor.to(cast_inputs) if tensor.dtype.is_floating else tensor

    @functools.wraps(fwd)
    def call(*arguments: Any, **keywords: Any) -> Any:
        if now.autocast is None:
            return fwd(*arguments, **keywords)
        with autocast("cpu", enabled=False):
            return fwd(*replace(arguments, convert), **replace(keywords, convert))
    return call


def custom_bwd(bwd: Any = None, *, device_type: str = "cpu") -> Any:
    """Marks the backward of a custom Function; nothing is left to do: dtypes are those recorded."""
    return (lambda function: function) if bwd is None else bwd
