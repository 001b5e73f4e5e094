"""Dtype and shape inference of scans: running totals along one axis, and compaction of a mask."""

from __future__ import annotations

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference import OpDef, fail, listed
from lazygrad_compiler.ir.node import Node, Shape

SCAN_COMBINES: dict[str, frozenset[str]] = {
    "add": frozenset({"unsigned", "signed", "float", "complex"}),
    "mul": frozenset({"unsigned", "signed", "float", "complex"}),
    "max": frozenset({"bool", "unsigned", "signed", "float"}),
    "min": frozenset({"bool", "unsigned", "signed", "float"}),
    "logaddexp": frozenset({"float"}),
}
"""How a scan may combine its elements, and the kinds of dtypes that it can do so with."""


def infer_scan(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    value, (axis, combine, reverse) = inputs[0], attrs
    if not isinstance(axis, int) or not 0 <= axis < value.ndim:
        raise fail(definition, f"axis {axis} does not exist in {listed(value.shape)}")
    kinds = SCAN_COMBINES.get(combine)
    if kinds is None:
        raise fail(definition, f"combines by {', '.join(SCAN_COMBINES)}, not {combine!r}")
    if not isinstance(reverse, bool):
        raise fail(definition, f"reverse is True or False, not {reverse!r}")
    if value.dtype.kind not in kinds:
        raise fail(definition, f"by {combine} is not defined for {value.dtype.name}")
    return value.dtype, value.shape


def infer_compact(definition: OpDef, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    (mask,), (count,) = inputs, attrs
    if mask.dtype is not dtypes.bool_ or mask.ndim != 1:
        raise fail(
            definition, f"takes bool of one axis, not {mask.dtype.name} {listed(mask.shape)}"
        )
    if not isinstance(count, int) or not 0 <= count <= mask.size:
        raise fail(definition, f"{count!r} of {mask.size} elements cannot hold")
    return dtypes.int64, (count,)
