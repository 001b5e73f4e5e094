"""Data types of the standard: conversion, promotion, limits, and what the namespace can do."""

from __future__ import annotations

import builtins
from typing import Any

from lazygrad._core import types
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor
from lazygrad._core.types import default
from lazygrad._core.values import CPU, Device, check_device
from lazygrad.functional._operands import result_dtype
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType

__all__ = ["astype", "can_cast", "finfo", "iinfo", "isdtype", "result_type",
           "__array_namespace_info__", "bool", "complex64", "complex128", "float32", "float64",
           "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]

bool = dtypes.bool_
complex64, complex128 = dtypes.complex64, dtypes.complex128
float32, float64 = dtypes.float32, dtypes.float64
int8, int16, int32, int64 = dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64
uint8, uint16, uint32, uint64 = dtypes.uint8, dtypes.uint16, dtypes.uint32, dtypes.uint64

_STANDARD = (bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64,
             complex64, complex128)

_KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",),
    "signed integer": ("signed",),
    "unsigned integer": ("unsigned",),
    "integral": ("signed", "unsigned"),
    "real floating": ("float",),
    "complex floating": ("complex",),
    "numeric": ("signed", "unsigned", "float", "complex"),
}


def astype(
    x: Tensor, dtype: DType, /, *, copy: builtins.bool = True, device: Any = None
) -> Tensor:
    """The array in another dtype; with `copy=False` itself where nothing changes."""
    check_device(device, "astype")
    if x.dtype.is_complex and not dtype.is_complex and dtype.kind != "bool":
        raise fail("astype", f"{x.dtype.name} does not become {dtype.name}",
                   "Take real(x) or abs(x) first.", TypeError)
    return x.to(dtype, copy=copy)


def can_cast(from_: Any, to: DType, /) -> builtins.bool:
    """Whether promotion of the two dtypes gives `to`; there is none from integers to floats."""
    dtype = from_.dtype if isinstance(from_, Tensor) else from_
    related = dtype.kind == to.kind or (dtype.is_integer and to.is_integer) or \
        (dtype.is_floating and to.is_complex)
    return related and types.PROMOTED[dtype][to] is to


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that arrays, dtypes and Python numbers promote to."""
    if not arrays_and_dtypes:
        raise fail("result_type", "needs at least one array, dtype or number")
    found: DType | None = None
    numbers = []
    for each in arrays_and_dtypes:
        dtype = each.dtype if isinstance(each, Tensor) else each
        if not isinstance(dtype, DType):
            numbers.append(dtype)
        else:
            found = dtype if found is None else types.promote_types(found, dtype)
    if found is None:
        return result_dtype(numbers)
    for number in numbers:
        promoted = types.with_scalar(found, number)
        if promoted is None:
            raise fail("result_type", f"{type(number).__name__} has no dtype", kind=TypeError)
        found = promoted
    return found


def finfo(type: Any, /) -> types.finfo:
    """Limits of a floating dtype, or of the parts of a complex one."""
    dtype = type.dtype if isinstance(type, Tensor) else type
    parts = {complex64: float32, complex128: float64}
    return types.finfo(parts.get(dtype, dtype))


def iinfo(type: Any, /) -> types.iinfo:
    """Limits of an integer dtype."""
    return types.iinfo(type.dtype if isinstance(type, Tensor) else type)


def isdtype(dtype: DType, kind: Any) -> builtins.bool:
    """Whether the dtype is `kind`: a dtype, the name of a kind, or a tuple of such."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, each) for each in kind)
    if isinstance(kind, DType):
        return dtype is kind
    if kind not in _KINDS:
        raise fail("isdtype", f"{kind!r} is no kind of dtype", f"Kinds are {list(_KINDS)}.")
    return dtype.kind in _KINDS[kind]


class __array_namespace_info__:
    """What the namespace can do: capabilities, devices and dtypes."""

    def capabilities(self) -> dict[str, Any]:
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        return CPU

    def devices(self) -> list[Device]:
        return [CPU]

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        check_device(device, "default_dtypes")
        return {"real floating": default.dtype, "complex floating": types.complex_default(),
                "integral": int64, "indexing": int64}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        check_device(device, "dtypes")
        return {each.name: each for each in _STANDARD if kind is None or isdtype(each, kind)}
