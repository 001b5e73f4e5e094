"""Products and functions of matrices and vectors (`lg.linalg`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import METHODS, fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._linalg import call, conj, matrices, matrix, result
from lazygrad.functional._operands import as_node, axis_of, pair
from lazygrad.functional.products import matmul_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["cross", "diagonal", "matmul", "matrix_exp", "matrix_power", "multi_dot", "vander",
           "vecdot"]


@operation
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product, as `lg.matmul`."""
    return wrap(matmul_node(as_node("linalg.matmul", input), as_node("linalg.matmul", other)))


@operation
def matrix_power(A: Tensor, n: int) -> Tensor:
    """A multiplied by itself n times, by squaring; the inverse's power for negative n."""
    name = "linalg.matrix_power"
    try:
        exponent = n.__index__()
    except AttributeError:
        raise fail(name, f"the exponent is a whole number, not {n!r}", kind=TypeError) from None
    node = as_node(name, A)
    if node.ndim < 2 or node.shape[-1] != node.shape[-2]:
        raise fail(name, f"takes square matrices, not {listed(node.shape)}")
    m = matrices()
    if exponent == 0:
        return wrap(m.identity(node, node.shape[-1]))
    if exponent < 0:
        node = call("linalg.inv", matrix(name, A, square=True))
        exponent = -exponent
    power: Node | None = None
    while exponent:
        if exponent & 1:
            power = node if power is None else m.product(power, node)
        exponent >>= 1
        if exponent:
            node = m.product(node, node)
    assert power is not None
    return wrap(power)


@operation
def matrix_exp(A: Tensor) -> Tensor:
    """The exponential 1 + A + A A / 2! + … of square matrices (*, n, n): scaling and squaring with
    a Padé approximant (Higham 2005).
    """
    return result("linalg.matrix_exp", matrix("linalg.matrix_exp", A, square=True))


def best_order(sizes: Sequence[int]) -> dict[tuple[int, int], int]:
    """Where to cut each run of matrices sizes[i] x sizes[i + 1] for the fewest multiplications
    (Cormen et al., section 15.2).
    """
    count = len(sizes) - 1
    cost = {(k, k): 0 for k in range(count)}
    cut: dict[tuple[int, int], int] = {}
    for length in range(1, count):
        for first in range(count - length):
            last = first + length
            options = [
                (cost[first, middle] + cost[middle + 1, last]
                 + sizes[first] * sizes[middle + 1] * sizes[last + 1], middle)
                for middle in range(first, last)
            ]
            cost[first, last], cut[first, last] = min(options)
    return cut


@operation
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of two or more matrices in the cheapest order; the first may be a row vector, the
    last a column vector.
    """
    name = "linalg.multi_dot"
    nodes = [as_node(name, tensor) for tensor in tensors]
    if len(nodes) < 2:
        raise fail(name, f"takes at least 2 matrices, not {len(nodes)}")
    row, column = nodes[0].ndim == 1, nodes[-1].ndim == 1
    if row:
        nodes[0] = graph.unsqueeze(nodes[0], 0)
    if column:
        nodes[-1] = graph.unsqueeze(nodes[-1], 1)
    for left, right in itertools.pairwise(nodes):
        if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
            raise fail(name, f"{listed(left.shape)} and {listed(right.shape)} cannot be multiplied")
    cut = best_order([node.shape[0] for node in nodes] + [nodes[-1].shape[1]])

    def multiply(first: int, last: int) -> Node:
        if first == last:
            return nodes[first]
        middle = cut[first, last]
        return matmul_node(multiply(first, middle), multiply(middle + 1, last), name)

    product = multiply(0, len(nodes) - 1)
    shape = product.shape[1 if row else 0 : 1 if column else 2]
    return wrap(graph.reshape(product, shape))


@operation
def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector product of vectors of three along an axis; the other axes broadcast."""
    name = "linalg.cross"
    a, b = as_node(name, input), as_node(name, other)
    if a.ndim != b.ndim:
        raise fail(name, f"{listed(a.shape)} and {listed(b.shape)} have different numbers of axes")
    a, b = pair(name, wrap(a), wrap(b))
    axis = axis_of(name, dim, a.ndim)
    if not a.ndim or a.shape[axis] != 3:
        raise fail(name, f"axis {dim} of {listed(a.shape)} needs 3 elements")

    def turned(node: Node, by: int) -> Node:
        first = graph.slice_axis(node, axis, by, 3)
        return graph.concat([first, graph.slice_axis(node, axis, 0, by)], axis)

    return wrap(graph.sub(graph.mul(turned(a, 1), turned(b, 2)),
                          graph.mul(turned(a, 2), turned(b, 1))))


@operation
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """sum(conj(x) * y) along an axis; the other axes broadcast."""
    name = "linalg.vecdot"
    a, b = pair(name, x, y)
    if not a.dtype.is_differentiable:
        raise fail(name, f"needs a floating or complex dtype, not {a.dtype.name}",
                   "Convert with .float().")
    axis = axis_of(name, dim, a.ndim)
    if not a.ndim:
        raise fail(name, "takes vectors, not single numbers")
    return wrap(graph.reduce("sum", graph.mul(conj(a), b), (axis,)))


@operation
def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonal of matrices, as a view; like `lg.diagonal` but of the last two axes."""
    return METHODS["diagonal"](A, offset, dim1, dim2)


@operation
def vander(x: Tensor, N: Any = None) -> Tensor:
    """The Vandermonde matrices of vectors (*, n): columns x^0, x^1, …, x^(N - 1); N is n unless
    given.
    """
    node = as_node("linalg.vander", x)
    if not node.ndim:
        raise fail("linalg.vander", "takes vectors, not a single number")
    if N is not None and N < 2:
        raise fail("linalg.vander", f"N is {N}", "It is a number of columns above 1.")
    if not node.dtype.is_differentiable:
        node = graph.cast(node, dtypes.int64)
    return wrap(powers("linalg.vander", node, node.shape[-1] if N is None else N))


def powers(name: str, node: Node, count: int) -> Node:
    """x^0 … x^(count - 1) along a new last axis: k powers times x^k are the next k."""
    if count < 0:
        raise fail(name, f"N is a number of columns, not {count}")
    # a constant of the result's shape: refuses what no memory holds before anything is built
    axis, whole = node.ndim, graph.const(0, node.dtype, (*node.shape, count))
    if not whole.size:
        return whole
    step = graph.unsqueeze(node, axis)
    made = graph.like(1, step)
    while (have := made.shape[axis]) < count:
        first = graph.slice_axis(made, axis, 0, min(have, count - have))
        made = graph.concat([made, graph.mul(first, step)], axis)
        step = graph.mul(step, step)
    return made
