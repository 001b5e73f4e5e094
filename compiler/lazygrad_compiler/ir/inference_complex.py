"""Dtype and shape inference of the ops that take complex numbers apart and put them together."""

from __future__ import annotations

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference import OpDef, elementwise, fail, listed
from lazygrad_compiler.ir.node import Node, Shape

PART: dict[DType, DType] = {
    dtypes.complex64: dtypes.float32,
    dtypes.complex128: dtypes.float64,
}
"""The dtype of the parts of a complex dtype."""

WHOLE: dict[DType, DType] = {part: whole for whole, part in PART.items()}
"""The complex dtype of parts."""

_real_size = elementwise("unsigned signed float")


def infer_size(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    """|x|: the dtype of x, or that of its parts."""
    (value,) = inputs
    if value.dtype.is_complex:
        return PART[value.dtype], value.shape
    return _real_size(definition, inputs, attrs)


def _complex_dtype(definition: OpDef, value: Node) -> DType:
    if not value.dtype.is_complex:
        raise fail(definition, f"takes complex numbers, not {value.dtype.name}")
    return PART[value.dtype]


def _part_dtype(definition: OpDef, value: Node) -> DType:
    whole = WHOLE.get(value.dtype)
    if whole is None:
        raise fail(definition, f"takes float32 or float64 parts, not {value.dtype.name}")
    return whole


def infer_part(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    return _complex_dtype(definition, inputs[0]), inputs[0].shape


def infer_complex(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    real, imaginary = inputs
    if real.dtype is not imaginary.dtype or real.shape != imaginary.shape:
        raise fail(
            definition,
            f"parts differ: {real.dtype.name} {listed(real.shape)} and "
            f"{imaginary.dtype.name} {listed(imaginary.shape)}",
        )
    return _part_dtype(definition, real), real.shape


def infer_view_as_real(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    return _complex_dtype(definition, inputs[0]), (*inputs[0].shape, 2)


def infer_view_as_complex(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    (value,) = inputs
    if value.shape[-1:] != (2,):
        raise fail(definition, f"needs a last axis of size 2, not {listed(value.shape)}")
    return _part_dtype(definition, value), value.shape[:-1]
