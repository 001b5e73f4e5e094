"""Products with few results over a long k, as gradients of weights are, become several: slices of k
side by side as a batch, and their sum.

Without this a few blocks would have all the work and most multiprocessors none.  How k is cut
depends on the shape alone.  Slices of 16-bit floats are summed in float32: the operands are
widened, which the tensor cores' template looks through, and the sum is rounded once, as it is
without slices.
"""

from __future__ import annotations

import math

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node, rebuild, topological

TILE = 128 * 128
BLOCKS = 128
"""Tiles of results from which on there is work for all."""
SHORTEST = 1024
"""Depth that a slice has at least."""
MOST = 32


def slices_of(dot: Node) -> int:
    """Into how many slices of one length k is cut; 1: it is not."""
    left, (_, _, left_contract, _) = dot.inputs[0], dot.attrs
    if len(left_contract) != 1 or not dot.dtype.is_floating:
        return 1
    depth = left.shape[left_contract[0]]
    blocks = max(-(-dot.size // TILE), 1)
    most = min(MOST, BLOCKS // blocks, depth // SHORTEST)
    return next((count for count in range(most, 1, -1) if depth % count == 0), 1)


def split_products(graph: Graph) -> Graph:
    result: dict[Node, Node] = {}
    for current in topological(graph.outputs):
        made = rebuild(current, [result[value] for value in current.inputs])
        result[current] = split(made) if made.op == "dot" else made
    return Graph(tuple(result[output] for output in graph.outputs))


def split(dot: Node) -> Node:
    """The dot as the sum of its slices, where it is worth cutting."""
    count = slices_of(dot)
    if count == 1:
        return dot
    where = dot.location
    left_batch, right_batch, (left_k,), (right_k,) = dot.attrs
    narrow = dot.dtype.bits == 16

    def cut(value: Node, k: int) -> Node:
        if narrow:
            value = node("cast", value, dtype=dtypes.float32, location=where)
        depth = value.shape[k]
        shape = (*value.shape[:k], count, depth // count, *value.shape[k + 1 :])
        return node("reshape", value, shape=shape, location=where)

    def moved(axes: tuple[int, ...], k: int) -> tuple[int, ...]:
        return tuple(axis + (axis > k) for axis in axes)

    left, right = cut(dot.inputs[0], left_k), cut(dot.inputs[1], right_k)
    parts = node(
        "dot",
        left,
        right,
        left_batch=(left_k, *moved(left_batch, left_k)),
        right_batch=(right_k, *moved(right_batch, right_k)),
        left_contract=(left_k + 1,),
        right_contract=(right_k + 1,),
        location=where,
    )
    total = node("sum", parts, axes=(0,), location=where)
    if narrow:
        total = node("cast", total, dtype=dot.dtype, location=where)
    assert total.shape == dot.shape and math.prod(total.shape) == dot.size
    return total
