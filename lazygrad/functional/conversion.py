"""Conversions of dtype, and copies."""

from __future__ import annotations

from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import METHODS, fail, method
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad._core.types import as_dtype
from lazygrad_compiler.ir import dtypes

__all__ = ["clone"]


@method
def to(input: Tensor, *arguments: Any, dtype: Any = None, device: Any = None,
       non_blocking: bool = False, copy: bool = False, memory_format: Any = None) -> Tensor:
    """The tensor in another dtype; itself where nothing changes."""
    from lazygrad._core.values import Device, check_device
    flags = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            dtype = argument.dtype
        elif isinstance(argument, bool):
            flags.append(argument)
        elif isinstance(argument, (str, Device)):
            device = argument
        elif argument is not None:
            dtype = argument
    if len(flags) > 1:  # non_blocking, copy
        copy = flags[1]
    check_device(device, "to")
    target = input.dtype if dtype is None else as_dtype(dtype)
    if target is input.dtype:
        return wrap(node_of(input)) if copy else input
    return wrap(graph.cast(node_of(input), target))


def _converter(name: str, target: Any) -> None:
    def convert(input: Tensor, memory_format: Any = None) -> Tensor:
        return to(input, target)
    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"The tensor as {target.name}."
    method(convert)


for _name, _target in [
    ("float", dtypes.float32),
    ("double", dtypes.float64),
    ("half", dtypes.float16),
    ("bfloat16", dtypes.bfloat16),
    ("long", dtypes.int64),
    ("int", dtypes.int32),
    ("short", dtypes.int16),
    ("char", dtypes.int8),
    ("byte", dtypes.uint8),
    ("bool", dtypes.bool_),
    ("cfloat", dtypes.complex64),
    ("cdouble", dtypes.complex128),
]:
    _converter(_name, _target)


@method
def type_as(input: Tensor, other: Tensor) -> Tensor:
    return to(input, other.dtype)


@method
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A tensor of its own with the same value and history."""
    return wrap(node_of(input))


@method
def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor laid out row by row; itself if it is already."""
    return input if input.is_contiguous() else wrap(node_of(input))


METHODS["cpu"] = lambda self: self


@method
def to_device(input: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """The tensor on a device, by the array API standard; there is only the CPU."""
    return to(input, device=device)


def _array_namespace(self: Tensor, *, api_version: str | None = None) -> Any:
    """The array API standard's functions: `lazygrad.array_api`."""
    from lazygrad import array_api
    if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
        raise fail("__array_namespace__", f"there is no version {api_version!r}",
                   "The newest is '2024.12'.", ValueError)
    return array_api


METHODS["__array_namespace__"] = _array_namespace
