"""Whole tensors overwritten: copy_, fill_, zero_."""

from __future__ import annotations

from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method
from lazygrad._core.tensor import Tensor, node_of, shape_of, write
from lazygrad.functional._operands import as_node
from lazygrad_compiler.ir.ops import listed


def overwrite(tensor: Tensor, name: str, node: Any) -> Tensor:
    """Writes a node converted to the tensor's dtype."""
    return write(tensor, name, graph.cast(node, tensor.dtype))


@method
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Takes over another tensor's values, converted and broadcast."""
    return overwrite(self, "copy_", as_node("copy_", src))


@method
def fill_(self: Tensor, value: Any) -> Tensor:
    """One number in every place."""
    node = node_of(value) if isinstance(value, Tensor) else graph.const(value, self.dtype)
    return overwrite(self, "fill_", node)


@method
def zero_(self: Tensor) -> Tensor:
    """Zero in every place."""
    return write(self, "zero_", graph.const(0, self.dtype, shape_of(self)))


@method
def set_(self: Tensor, source: Tensor) -> Tensor:
    """Becomes another handle on the memory of `source`."""
    self._cell, self._view, self._detached = source._cell, source._view, source._detached
    return self


@method
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """One number along the main diagonal; with `wrap`, of a matrix higher than wide, a new diagonal
    starts one row below where the last one ended.
    """
    shape = shape_of(self)
    if len(shape) < 2:
        raise fail("fill_diagonal_", f"needs at least 2 axes, not {listed(shape)}")
    if len(shape) > 2 and len(set(shape)) > 1:
        raise fail("fill_diagonal_", f"the axes of {listed(shape)} differ in size",
                   "From 3 axes on, all must have the same size.")
    row = graph.iota(0, shape)
    if wrap and len(shape) == 2 and shape[0] > shape[1]:
        row = graph.binary("rem", row, shape[1] + 1)
    same = graph.make("eq", row, graph.iota(1, shape))
    for axis in range(2, len(shape)):
        same = graph.make("and", same, graph.make("eq", row, graph.iota(axis, shape)))
    return write(self, "fill_diagonal_", graph.where(same, fill_value, node_of(self)))
