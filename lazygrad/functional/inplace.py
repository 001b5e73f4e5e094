"""Whole tensors overwritten: copy_, fill_, zero_."""

from __future__ import annotations

from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import method
from lazygrad._core.tensor import Tensor, node_of, shape_of, write
from lazygrad.functional._operands import as_node


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
def fill_diagonal_(self: Tensor, fill_value: Any) -> Tensor:
    """One number along the main diagonal of a matrix."""
    shape = shape_of(self)
    same = graph.make("eq", graph.iota(0, shape), graph.iota(1, shape))
    return write(self, "fill_diagonal_", graph.where(same, fill_value, node_of(self)))
