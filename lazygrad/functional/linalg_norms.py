"""Norms of vectors and matrices, and what is measured with them: condition and rank."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad._core.types import as_dtype
from lazygrad.functional._linalg import (
    call,
    check_dtype,
    limits,
    magnitude,
    matrix,
    real_dtype,
)
from lazygrad.functional._operands import as_node, axes_of, axis_of
from lazygrad.functional.norms import norm_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["cond", "matrix_norm", "matrix_rank", "norm", "vector_norm"]


def _floating(name: str, value: Any, dtype: Any) -> Node:
    node = as_node(name, value)
    if not node.dtype.is_differentiable:
        raise fail(name, f"needs a floating or complex dtype, not {node.dtype.name}",
                   "Convert with .float().")
    if dtype is not None:
        target = as_dtype(dtype)
        if target.is_complex != node.dtype.is_complex or not target.is_differentiable:
            raise fail(name, f"dtype={target.name} does not fit {node.dtype.name}",
                       "Give a floating dtype for real numbers, a complex one for complex numbers.")
        node = graph.cast(node, target)
    return node


def _vector_node(node: Node, ord: float, axes: tuple[int, ...], keepdim: bool) -> Node:
    if node.dtype.is_complex:
        node = magnitude(node)
    return norm_node(node, ord, axes, keepdim)


@operation
def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *,
                dtype: Any = None) -> Tensor:
    """(sum |x|^ord)^(1/ord) over all values or along axes; ord inf: the largest, -inf: the
    smallest, 0: how many are not 0.
    """
    name = "linalg.vector_norm"
    node = _floating(name, x, dtype)
    if isinstance(ord, bool) or not isinstance(ord, (int, float)):
        raise fail(name, f"ord is a number, not {ord!r}", kind=TypeError)
    axes = axes_of(name, dim, node.ndim)
    if (ord < 0 or ord == math.inf) and any(node.shape[axis] == 0 for axis in axes):
        raise fail(name, f"the norm of order {ord} of no values is not defined "
                   f"({listed(node.shape)})")
    return wrap(_vector_node(node, ord, axes, keepdim))


MATRIX_ORDERS = ("fro", "nuc", math.inf, -math.inf, 1, -1, 2, -2)


def matrix_norm_node(name: str, node: Node, ord: Any, axes: tuple[int, int], keepdim: bool) -> Node:
    """A norm of matrices: by singular values (nuc, 2, -2), sums of columns or rows, or of all."""
    if ord not in MATRIX_ORDERS:
        raise fail(name, f"there is no matrix norm of order {ord!r}",
                   "Use 'fro', 'nuc', inf, -inf, 1, -1, 2 or -2.")
    rows, columns = axes
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(node.shape))
    if ord == "fro":
        return _vector_node(node, 2, tuple(sorted(axes)), keepdim)
    if ord in ("nuc", 2, -2):
        check_dtype(name, node)
        rest = [axis for axis in range(node.ndim) if axis not in axes]
        values = call("linalg.svdvals", graph.permute(node, [*rest, rows, columns]))
        last = (values.ndim - 1,)
        if ord != "nuc" and not values.shape[-1]:
            raise fail(name, f"{listed(node.shape)} has no singular values")
        kind = {"nuc": "sum", 2: "max", -2: "min"}[ord]
        result = graph.reduce(kind, values, last)
        return graph.reshape(result, kept) if keepdim else result
    first, second = (rows, columns) if abs(ord) == 1 else (columns, rows)
    if not node.shape[second]:
        raise fail(name, f"the norm of order {ord} is not defined for {listed(node.shape)}")
    sums = graph.reduce("sum", magnitude(node), (first,), True)
    result = graph.reduce("max" if ord > 0 else "min", sums, (second,), True)
    shape = kept if keepdim else tuple(s for k, s in enumerate(node.shape) if k not in axes)
    return graph.reshape(result, shape)


def _pair_of_axes(name: str, dim: Any, node: Node) -> tuple[int, int]:
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise fail(name, f"dim is a pair of axes, not {dim!r}")
    if node.ndim < 2:
        raise fail(name, f"takes matrices, that is, at least 2 axes, not {listed(node.shape)}")
    rows, columns = (axis_of(name, each, node.ndim) for each in dim)
    if rows == columns:
        raise fail(name, f"dim {tuple(dim)} names an axis twice")
    return rows, columns


@operation
def matrix_norm(A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *,
                dtype: Any = None) -> Tensor:
    """A norm of matrices: 'fro' (Frobenius), 'nuc' (sum of singular values), 2 and -2 (largest
    and smallest one), 1 and -1 (largest and smallest sum of a column), inf and -inf (of a row).
    """
    name = "linalg.matrix_norm"
    node = _floating(name, A, dtype)
    return wrap(matrix_norm_node(name, node, ord, _pair_of_axes(name, dim, node), keepdim))


@operation
def norm(input: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *,
         dtype: Any = None) -> Tensor:
    """A vector or matrix norm: of matrices where two axes and an order are given (or, without
    axes, for a matrix), else of vectors; without an order the 2-norm of all values.
    """
    name = "linalg.norm"
    node = _floating(name, input, dtype)
    if ord is None:
        return wrap(_vector_node(node, 2, axes_of(name, dim, node.ndim), keepdim))
    if dim is None:
        if node.ndim not in (1, 2):
            raise fail(name, f"with an order and no dim it takes 1 or 2 axes, not "
                       f"{listed(node.shape)}")
        dim = 0 if node.ndim == 1 else (0, 1)
    if isinstance(dim, (tuple, list)) and len(dim) > 2:
        raise fail(name, f"with an order dim is one axis or two, not {dim!r}",
                   "Of more axes: linalg.vector_norm.")
    if isinstance(dim, (tuple, list)) and len(dim) == 2:
        return wrap(matrix_norm_node(name, node, ord, _pair_of_axes(name, dim, node), keepdim))
    return vector_norm(wrap(node), ord, dim, keepdim)


@operation
def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number |A| |A^-1| of matrices in the p-norm (2 unless given); inf where A is
    singular.
    """
    name = "linalg.cond"
    node = matrix(name, A, square=p not in (None, 2, -2))
    if p in (None, 2, -2):
        values = call("linalg.svdvals", node)
        if not values.shape[-1]:
            return wrap(graph.const(0, values.dtype, values.shape[:-1]))
        largest = graph.slice_axis(values, values.ndim - 1, 0, 1)
        smallest = graph.slice_axis(values, values.ndim - 1, values.shape[-1] - 1, values.shape[-1])
        ratio = graph.div(smallest, largest) if p == -2 else graph.div(largest, smallest)
        return wrap(graph.reshape(ratio, values.shape[:-1]))
    axes = (node.ndim - 2, node.ndim - 1)
    inverse = call("linalg.inv_ex", node)
    product = graph.mul(matrix_norm_node(name, node, p, axes, False),
                        matrix_norm_node(name, inverse, p, axes, False))
    singular = graph.binary("ne", call("linalg.inv_ex", node, part=1), 0)
    return wrap(graph.where(singular, math.inf, product))


@operation
def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None,
                rtol: Any = None) -> Tensor:
    """How many singular values are above max(atol, rtol * largest), as int64.

    rtol defaults to the precision times the larger size, 0 where atol is given.  tol is the former
    name of atol.  hermitian: by the eigenvalues, from the lower triangle.
    """
    name = "linalg.matrix_rank"
    node = matrix(name, A, square=hermitian)
    batch = node.shape[:-2]
    if not node.shape[-1] or not node.shape[-2]:
        return wrap(graph.const(0, dtypes.int64, batch))
    if tol is not None and atol is None and rtol is None:
        atol, rtol = tol, 0.0
    absolute, relative = limits(name, node, atol, rtol)
    values = graph.unary("abs", call("linalg.eigh", node, options=("L",))) if hermitian \
        else call("linalg.svdvals", node)
    assert values.dtype is real_dtype(node.dtype)
    largest = graph.reduce("max", values, (values.ndim - 1,))
    bound = graph.binary("maximum", absolute, graph.mul(relative, largest))
    above = graph.make("lt", graph.broadcast(graph.unsqueeze(bound, bound.ndim), values.shape),
                       values)
    return wrap(graph.reduce("sum", graph.cast(above, dtypes.int64), (values.ndim - 1,)))
