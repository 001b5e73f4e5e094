"""Conversions of dtype, and copies."""

from __future__ import annotations

from typing import Any

from lazygrad._core import graph, placement
from lazygrad._core.context import METHODS, fail, method
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad._core.types import as_dtype
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType

__all__ = ["clone"]


@method
def to(input: Tensor, *arguments: Any, dtype: Any = None, device: Any = None,
       non_blocking: bool = False, copy: bool = False, memory_format: Any = None) -> Tensor:
    """The tensor in another dtype or on another device; itself where nothing changes.

    A copy to another device is recorded like any operation, and gradients follow it back.
    """
    from lazygrad._core.values import Device
    flags = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            dtype, device = argument.dtype, argument.device
        elif isinstance(argument, bool):
            flags.append(argument)
        elif isinstance(argument, (str, int, Device)):
            device = argument
        elif argument is not None:
            dtype = argument
    if len(flags) > 1:  # non_blocking, copy
        copy = flags[1]
    target = input.dtype if dtype is None else as_dtype(dtype)
    if device is not None:
        place = placement.label(device, "to")
        if place != placement.label_of(input):
            return _on_device(input, place, target)
    if target is input.dtype:
        return wrap(node_of(input)) if copy else input
    return wrap(graph.cast(node_of(input), target))


def _on_device(input: Tensor, place: str, target: DType) -> Tensor:
    """A copy on another device.  What gets smaller by a conversion is converted before."""
    node = node_of(input)
    if target.itemsize < node.dtype.itemsize:
        node = graph.cast(node, target)
    return wrap(graph.cast(placement.moved(node, place), target))


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
    return to(input, other)


@method
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A tensor of its own with the same value and history."""
    return wrap(node_of(input))


@method
def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor laid out row by row; itself if it is already."""
    return input if input.is_contiguous() else wrap(node_of(input))


def cpu(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor on the CPU; itself where it is there."""
    return to(input, "cpu") if input.is_cuda else input


METHODS["cpu"] = cpu


@method
def cuda(input: Tensor, device: Any = None, non_blocking: bool = False,
         memory_format: Any = None) -> Tensor:
    """The tensor on a CUDA device, the current one unless named; itself where it is there."""
    return to(input, "cuda" if device is None else device)


@method
def to_device(input: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """The tensor on a device, by the array API standard."""
    return to(input, device=device)


def _array_namespace(self: Tensor, *, api_version: str | None = None) -> Any:
    """The array API standard's functions: `lazygrad.array_api`."""
    from lazygrad import array_api
    if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
        raise fail("__array_namespace__", f"there is no version {api_version!r}",
                   "The newest is '2024.12'.", ValueError)
    return array_api


METHODS["__array_namespace__"] = _array_namespace
