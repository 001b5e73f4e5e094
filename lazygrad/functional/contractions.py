"""Products that add to something, products of all pairs, distances and covariances."""

from __future__ import annotations

import math
from operator import index as whole_number
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method, operation
from lazygrad._core.tensor import Tensor, node_of, shape_of, wrap
from lazygrad._core.types import promote_types
from lazygrad.functional._operands import axis_of, floating, pair
from lazygrad.functional.elementwise import INPLACE
from lazygrad.functional.products import contract, matmul_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["addmm", "addmv", "addr", "addbmm", "baddbmm", "dot", "vdot", "outer", "ger", "kron",
           "cross", "cdist", "pdist", "vander", "cov", "corrcoef"]


# ---- beta * input + alpha * product


def _ranks(name: str, wanted: tuple[int, int], left: Node, right: Node) -> None:
    if (left.ndim, right.ndim) != wanted:
        raise fail(name, f"takes tensors of {wanted[0]} and {wanted[1]} axes, not "
                   f"{listed(left.shape)} and {listed(right.shape)}", "Use @ for other forms.")


def _plus(name: str, input: Tensor, product: Node, beta: Any, alpha: Any) -> Tensor:
    """beta * input + alpha * product, input broadcast; beta 0 leaves `input` out, NaN and all."""
    base = node_of(input)
    if base.dtype is not product.dtype:
        raise fail(name, f"input is {base.dtype.name}, the product {product.dtype.name}",
                   "Convert one with .to(...).")
    if product.dtype.is_integer and not (isinstance(beta, int) and isinstance(alpha, int)):
        raise fail(name, f"beta {beta} and alpha {alpha} for integers",
                   "They must be whole numbers.")
    if graph.broadcast_shape(name, base.shape, product.shape) != product.shape:
        raise fail(name, f"input {listed(base.shape)} does not broadcast to the product's "
                   f"{listed(product.shape)}")
    if alpha != 1:
        product = graph.mul(product, alpha)
    if beta == 0:
        return wrap(product)
    return wrap(graph.add(base if beta == 1 else graph.mul(base, beta), product))


@method
def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2), for matrices."""
    left, right = node_of(mat1), node_of(mat2)
    _ranks("addmm", (2, 2), left, right)
    return _plus("addmm", input, matmul_node(left, right, "addmm"), beta, alpha)


@method
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec)."""
    left, right = node_of(mat), node_of(vec)
    _ranks("addmv", (2, 1), left, right)
    return _plus("addmv", input, matmul_node(left, right, "addmv"), beta, alpha)


@method
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2)."""
    left, right = node_of(vec1), node_of(vec2)
    _ranks("addr", (1, 1), left, right)
    product = node_of(outer(vec1, vec2))
    base = node_of(input)
    if base.dtype is not product.dtype:
        dtype = promote_types(base.dtype, product.dtype)
        input, product = wrap(graph.cast(base, dtype)), graph.cast(product, dtype)
    return _plus("addr", input, product, beta, alpha)


def _batches(name: str, batch1: Tensor, batch2: Tensor) -> tuple[Node, Node]:
    left, right = node_of(batch1), node_of(batch2)
    _ranks(name, (3, 3), left, right)
    if left.shape[0] != right.shape[0]:
        raise fail(name, f"batch sizes {left.shape[0]} and {right.shape[0]} differ")
    return left, right


@method
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1,
            alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2), for batches of matrices."""
    left, right = _batches("baddbmm", batch1, batch2)
    return _plus("baddbmm", input, matmul_node(left, right, "baddbmm"), beta, alpha)


@method
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1,
           alpha: Any = 1) -> Tensor:
    """beta * input + alpha * the sum over a batch of batch1 @ batch2."""
    left, right = _batches("addbmm", batch1, batch2)
    if left.shape[2] != right.shape[1] or left.dtype is not right.dtype:
        matmul_node(left, right, "addbmm")  # says what does not fit
    product = contract(left, right, (), (), (0, 2), (0, 1))
    return _plus("addbmm", input, product, beta, alpha)


# ---- vectors


@method
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of products of two vectors."""
    left, right = node_of(input), node_of(tensor)
    _ranks("dot", (1, 1), left, right)
    return wrap(matmul_node(left, right, "dot"))


@method
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The sum of products of two vectors, the first conjugated."""
    return dot(input.conj() if input.is_complex() else input, other)


@method
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of the elements of two vectors."""
    if input.ndim != 1 or vec2.ndim != 1:
        raise fail("outer", f"takes vectors, not {listed(input.shape)} and {listed(vec2.shape)}")
    return input.unsqueeze(1) * vec2.unsqueeze(0)


@method
def ger(input: Tensor, vec2: Tensor) -> Tensor:
    return outer(input, vec2)


@method
def kron(input: Tensor, other: Tensor) -> Tensor:
    """Every element of `input` times all of `other`, as one array of blocks."""
    ndim = max(input.ndim, other.ndim)
    left = (1,) * (ndim - input.ndim) + shape_of(input)
    right = (1,) * (ndim - other.ndim) + shape_of(other)
    blocks = input.reshape([size for each in left for size in (each, 1)]) * other.reshape(
        [size for each in right for size in (1, each)])
    return blocks.reshape([a * b for a, b in zip(left, right, strict=True)])


def cross_along(name: str, input: Tensor, other: Tensor, dim: int) -> Tensor:
    """The cross product along an axis of 3; the others broadcast."""
    if len(first := shape_of(input)) != len(second := shape_of(other)):
        raise fail(name, f"{listed(first)} and {listed(second)} have different numbers of axes")
    a, b = pair(name, input, other)
    axis = axis_of(name, dim, a.ndim)
    if not a.shape or a.shape[axis] != 3:
        raise fail(name, f"{listed(a.shape)} has no 3 elements along axis {dim}",
                   "Name the axis of size 3 with dim=.")

    def turned(node: Node, places: int) -> Node:
        return graph.concat([graph.slice_axis(node, axis, places, 3),
                             graph.slice_axis(node, axis, 0, places)], axis)

    return wrap(graph.sub(graph.mul(turned(a, 1), turned(b, 2)),
                          graph.mul(turned(a, 2), turned(b, 1))))


@method
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product of vectors of 3 along `dim` (None: the first axis of size 3)."""
    if dim is None:
        sizes = shape_of(input)
        if 3 not in sizes:
            raise fail("cross", f"no axis of {listed(sizes)} has size 3")
        dim = sizes.index(3)
    return cross_along("cross", input, other, dim)


@operation
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers of the elements of a vector, those of one element in a row."""
    if x.ndim != 1:
        raise fail("vander", f"takes a vector, not {listed(x.shape)}")
    count = len(x) if N is None else whole_number(N)
    if count < 0:
        raise fail("vander", f"N is {count}", "It must be at least 0.")
    node = node_of(x)
    if not node.dtype.is_differentiable:
        node = graph.cast(node, dtypes.int64)
    from lazygrad.functional.linalg_products import powers
    rows = powers("vander", node, count)
    return wrap(rows if increasing or count < 2 else graph.make("flip", rows, attrs=((1,),)))


# ---- distances


def _lengths(name: str, difference: Node, p: float) -> Node:
    """The p-norm over the last axis; where it is 0, its gradient is 0, too."""
    if p < 0:
        raise fail(name, f"p is {p}", "It must be at least 0; 2 is the Euclidean distance.")
    axis = (difference.ndim - 1,)
    if not difference.shape[-1]:
        return graph.reduce("sum", difference, axis)
    size = graph.unary("abs", difference)
    if p == 0:
        return graph.reduce("sum", graph.cast(graph.binary("ne", size, 0), size.dtype), axis)
    if p == 1:
        return graph.reduce("sum", size, axis)
    if math.isinf(p):
        return graph.reduce("max", size, axis)
    if p == 2:
        total = graph.reduce("sum", graph.mul(difference, difference), axis)
    else:
        # |0| ** p has an infinite slope for p < 1: nothing flows there.
        there = graph.binary("ne", size, 0)
        power = graph.binary("pow", graph.where(there, size, 1), p)
        total = graph.reduce("sum", graph.where(there, power, 0), axis)
    apart = graph.binary("ne", total, 0)
    safe = graph.where(apart, total, 1)
    root = graph.unary("sqrt", safe) if p == 2 else graph.binary("pow", safe, 1 / p)
    return graph.where(apart, root, 0)


@operation
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0,
          compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm distances of all rows of x1 (…, P, M) to all rows of x2 (…, R, M): (…, P, R).

    compute_mode: accepted; distances are always those of the differences, which is exact where
    rows are close and needs no more memory, as the differences are never stored.
    """
    a, b = node_of(x1), node_of(x2)
    for node in (a, b):
        if node.ndim < 2:
            raise fail("cdist", f"takes matrices of rows, not {listed(node.shape)}")
    if a.shape[-1] != b.shape[-1]:
        raise fail("cdist", f"rows of {a.shape[-1]} and of {b.shape[-1]} elements: "
                   f"{listed(a.shape)} and {listed(b.shape)}")
    dtype = promote_types(a.dtype, b.dtype)
    a, b = (floating(graph.cast(node, dtype)) for node in (a, b))
    left, right = graph.unsqueeze(a, a.ndim - 1), graph.unsqueeze(b, b.ndim - 2)
    return wrap(_lengths("cdist", graph.sub(left, right), p))


@operation
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of all pairs of rows of a matrix, in the order (0,1), (0,2), …"""
    if input.ndim != 2:
        raise fail("pdist", f"takes a matrix of rows, not {listed(input.shape)}")
    from lazygrad.functional.joining import triu_indices
    first, second = triu_indices(len(input), len(input), 1)
    node = floating(node_of(input))
    rows = wrap(node)
    return wrap(_lengths("pdist", node_of(rows[first] - rows[second]), p))


# ---- statistics


def _weights(name: str, weights: Tensor, count: int) -> Tensor:
    if weights.ndim > 1 or weights.numel() != count:
        raise fail(name, f"weights {listed(weights.shape)} for {count} observations",
                   "Give a vector with one for each.")
    return weights.reshape(-1)


@method
def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None,
        aweights: Tensor | None = None) -> Tensor:
    """The covariances of variables, one a row, of which each column is an observation.

    fweights: how often each observation counts.  aweights: its weight.  correction: taken off the
    number of observations.
    """
    correction = whole_number(correction)
    if input.ndim > 2:
        raise fail("cov", f"takes at most 2 axes, not {listed(input.shape)}")
    rows = wrap(floating(node_of(input))).reshape(1, -1) if input.ndim < 2 \
        else wrap(floating(node_of(input)))
    count = rows.shape[1]
    weights: Any = None
    if fweights is not None:
        if not fweights.dtype.is_integer:
            raise fail("cov", f"fweights are integers, not {fweights.dtype.name}")
        weights = _weights("cov", fweights, count)
    if aweights is not None:
        other = _weights("cov", aweights, count)
        weights = other if weights is None else weights * other
    if weights is None:
        total: Any = count
        centre = rows.mean(1, True)
        norm: Any = max(count - correction, 0)
        norm = wrap(graph.const(norm, rows.dtype))
        weighted = rows - centre
    else:
        total = weights.sum()
        centre = (rows * weights).sum(1, True) / total
        if aweights is None:
            norm = total - correction
        elif correction:
            norm = total - correction * (weights * aweights.reshape(-1)).sum() / total
        else:
            norm = total
        norm = norm.clamp(min=0)
        weighted = (rows - centre) * weights
    apart = rows - centre
    other_side = apart.conj() if rows.is_complex() else apart
    return (weighted @ other_side.mT).squeeze() / norm


@method
def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of variables, one a row."""
    covariance = cov(input)
    if covariance.ndim == 0:
        return covariance / covariance
    deviation = covariance.diagonal()
    deviation = (deviation.real if covariance.is_complex() else deviation).sqrt()
    result = covariance / deviation.unsqueeze(1) / deviation.unsqueeze(0)
    return result if covariance.is_complex() else result.clamp(-1, 1)


INPLACE += ["addmm", "addmv", "addr", "addbmm", "baddbmm"]
