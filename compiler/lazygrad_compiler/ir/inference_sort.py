"""Dtype and shape inference of the ops built on order.

All of them work along the last axis: other axes are brought there by `permute`, which is where the
kernels want them anyway, since a row then lies in one piece.
"""

from __future__ import annotations

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference import OpDef, check_shape, fail, listed
from lazygrad_compiler.ir.node import Node, Shape

LONGEST_ROW = 2**31 - 1
"""Positions within a row are 32-bit numbers inside the kernels."""


def _row_length(definition: OpDef, value: Node) -> int:
    if value.dtype.is_complex:
        raise fail(definition, f"is not defined for {value.dtype.name}: it has no order")
    if not value.ndim:
        raise fail(definition, "needs at least one axis")
    length = value.shape[-1]
    if isinstance(length, int) and length > LONGEST_ROW:
        raise fail(
            definition, f"rows of {listed(value.shape)} are longer than {LONGEST_ROW} elements"
        )
    return length


def infer_argsort(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    _row_length(definition, inputs[0])
    return dtypes.int64, inputs[0].shape


def infer_sort_values(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    value, order = inputs
    _row_length(definition, value)
    if order.dtype is not dtypes.int64 or order.shape != value.shape:
        raise fail(
            definition,
            f"takes values and their int64 order, not {value.dtype.name} {listed(value.shape)} "
            f"and {order.dtype.name} {listed(order.shape)}",
        )
    return value.dtype, value.shape


def infer_top_k(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, k = inputs[0], attrs[0]
    length = _row_length(definition, value)
    if not 0 <= k <= length:
        raise fail(definition, f"k = {k} does not lie within 0..{length}, the size of the axis")
    return dtypes.int64, (*value.shape[:-1], k)


def infer_select_rank(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    value, ranks = inputs
    if ranks.dtype is not dtypes.int64:
        raise fail(definition, f"ranks are int64, not {ranks.dtype.name}")
    length = _row_length(definition, value)
    if ranks.ndim != value.ndim or ranks.shape[:-1] != value.shape[:-1]:
        raise fail(
            definition,
            f"ranks {listed(ranks.shape)} do not fit {listed(value.shape)}: all axes but the last "
            "have to be the same",
        )
    if length == 0 and ranks.size:
        raise fail(definition, f"of no elements is not defined: {listed(value.shape)}")
    return dtypes.int64, ranks.shape


def infer_searchsorted(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    rows, values = inputs
    _row_length(definition, rows)
    if rows.dtype is not values.dtype:
        raise fail(definition, f"dtypes differ: {rows.dtype.name} and {values.dtype.name}")
    if attrs[0] not in ("left", "right"):
        raise fail(definition, f"side is 'left' or 'right', not {attrs[0]!r}")
    if rows.ndim > 1 and (rows.ndim != values.ndim or rows.shape[:-1] != values.shape[:-1]):
        raise fail(
            definition,
            f"values {listed(values.shape)} do not fit rows {listed(rows.shape)}: all axes but the "
            "last have to be the same, or the row has to be a single one",
        )
    check_shape(definition, values.shape)
    return dtypes.int64, values.shape
