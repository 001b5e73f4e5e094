"""The step of a view that reads the bits as elements of another size.

No op of the IR does this; it is a few of them, so the step has a definition of its own, `RECAST`,
which views apply by `recast` and undo by `recast` back to the dtype before.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad._core import graph
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Location, Node, build
from lazygrad_compiler.ir.ops import OpDef


@dataclass(frozen=True, slots=True)
class _Definition:
    name: str


RECAST = _Definition("recast")
"""attrs: (dtype,)."""

_UNSIGNED: dict[int, DType] = {1: dtypes.uint8, 2: dtypes.uint16, 4: dtypes.uint32,
                               8: dtypes.uint64}


def recast(node: Node, target: DType) -> Node:
    """The bits of a node as another dtype; the last axis gets longer or shorter."""
    node = graph.stop_gradient(node)
    if target.itemsize == node.dtype.itemsize:
        return graph.make("bitcast", node, attrs=(target,))
    return _narrower(node, target) if target.itemsize < node.dtype.itemsize \
        else _wider(node, target)


def take_step(definition: OpDef | _Definition, node: Node, attrs: tuple,
              location: Location) -> Node:
    """A node one step of a view further."""
    if isinstance(definition, _Definition):
        return recast(node, attrs[0])
    return build(definition, (node,), attrs, location)


def _narrower(node: Node, target: DType) -> Node:
    """Elements split into several, low bytes first, along the last axis."""
    wide, narrow = node.dtype.itemsize, target.itemsize
    parts = wide // narrow
    bits = graph.make("bitcast", node, attrs=(_UNSIGNED[wide],))
    spread = graph.broadcast(graph.unsqueeze(bits, bits.ndim), (*bits.shape, parts))
    shift = graph.iota(spread.ndim - 1, spread.shape, _UNSIGNED[wide])
    shift = graph.mul(shift, 8 * narrow)
    pieces = graph.cast(graph.make("shr", spread, shift), _UNSIGNED[narrow])
    pieces = graph.reshape(pieces, (*bits.shape[:-1], bits.shape[-1] * parts))
    return graph.make("bitcast", pieces, attrs=(target,))


def _wider(node: Node, target: DType) -> Node:
    """Neighbours along the last axis put together, low bytes first."""
    narrow, wide = node.dtype.itemsize, target.itemsize
    parts = wide // narrow
    bits = graph.cast(graph.make("bitcast", node, attrs=(_UNSIGNED[narrow],)), _UNSIGNED[wide])
    bits = graph.reshape(bits, (*bits.shape[:-1], bits.shape[-1] // parts, parts))
    shift = graph.mul(graph.iota(bits.ndim - 1, bits.shape, _UNSIGNED[wide]), 8 * narrow)
    joined = graph.reduce("sum", graph.make("shl", bits, shift), (bits.ndim - 1,))
    return graph.make("bitcast", joined, attrs=(target,))
