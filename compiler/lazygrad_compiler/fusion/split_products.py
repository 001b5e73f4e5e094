"""Products with few results over a long k, as gradients of weights are, become several: slices of k
side by side as a batch, and their sum.

Without this a few tasks (of a GPU: blocks) would have all the work and the others none, or many
would pack the same panels.  How k is cut depends on the shape alone, not on the threads at hand.
Slices of 16-bit floats are summed in float32: the operands are widened, which packing and the
tensor cores' template look through, and the sum is rounded once, as it is without slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node, rebuild, topological


@dataclass(frozen=True, slots=True)
class Slicing:
    """tile: results that one task computes.  tasks: from how many on there is work for all.
    shortest: depth that a slice has at least.  most: slices of one product.
    """

    tile: int
    tasks: int
    shortest: int
    most: int

    def slices(self, dot: Node) -> int:
        """Into how many slices of one length k is cut, along `outermost`; 1: it is not."""
        left, contract = dot.inputs[0], dot.attrs[2]
        depth = math.prod(left.shape[axis] for axis in contract)
        if not dot.dtype.is_floating or not dot.size or depth < 2 * self.shortest:
            return 1
        tasks = -(-dot.size // self.tile)
        most = min(self.most, self.tasks // tasks, depth // self.shortest)
        length = left.shape[contract[outermost(dot)]]
        return next((count for count in range(most, 1, -1) if length % count == 0), 1)


def outermost(dot: Node) -> int:
    """Which of the axes that are summed over is cut: the first that is longer than one, so that
    what lies together in rows (those of an image, say) stays in one slice.
    """
    left, contract = dot.inputs[0], dot.attrs[2]
    return next((which for which, axis in enumerate(contract) if left.shape[axis] > 1), 0)


def split_products(slicing: Slicing) -> Callable[[Graph], Graph]:
    """The pass that cuts products so."""

    def run(graph: Graph) -> Graph:
        result: dict[Node, Node] = {}
        for current in topological(graph.outputs):
            made = rebuild(current, [result[value] for value in current.inputs])
            result[current] = split(made, slicing.slices(made)) if made.op == "dot" else made
        return Graph(tuple(result[output] for output in graph.outputs))

    return run


def split(dot: Node, count: int) -> Node:
    """The dot as the sum of `count` slices."""
    if count == 1:
        return dot
    where = dot.location
    left_batch, right_batch, left_contract, right_contract = dot.attrs
    which = outermost(dot)
    left_k, right_k = left_contract[which], right_contract[which]
    narrow = dot.dtype.bits == 16

    def cut(value: Node, k: int) -> Node:
        if narrow:
            value = node("cast", value, dtype=dtypes.float32, location=where)
        depth = value.shape[k]
        shape = (*value.shape[:k], count, depth // count, *value.shape[k + 1 :])
        return node("reshape", value, shape=shape, location=where)

    def moved(axes: tuple[int, ...], k: int) -> tuple[int, ...]:
        return tuple(axis + (axis >= k) for axis in axes)

    parts = node(
        "dot",
        cut(dot.inputs[0], left_k),
        cut(dot.inputs[1], right_k),
        left_batch=(left_k, *moved(left_batch, left_k)),
        right_batch=(right_k, *moved(right_batch, right_k)),
        left_contract=moved(left_contract, left_k),
        right_contract=moved(right_contract, right_k),
        location=where,
    )
    total = node("sum", parts, axes=(0,), location=where)
    if narrow:
        total = node("cast", total, dtype=dot.dtype, location=where)
    assert total.shape == dot.shape and total.dtype is dot.dtype
    return total
