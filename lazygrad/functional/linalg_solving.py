"""Systems of linear equations, inverses and determinants (`lg.linalg`), through LAPACK."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._linalg import (
    call,
    check_dtype,
    epsilon,
    limits,
    matrices,
    matrix,
    real_dtype,
    result,
    right_hand_side,
    same_batch,
    same_dtype,
    without_column,
)
from lazygrad.functional._operands import as_node, axis_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["det", "inv", "inv_ex", "lstsq", "pinv", "slogdet", "solve", "solve_ex",
           "solve_triangular", "tensorinv", "tensorsolve"]

inv_ex_result = namedtuple("linalg_inv_ex",  # type: ignore[name-match]
                           ["inverse", "info"])
solve_ex_result = namedtuple("linalg_solve_ex",  # type: ignore[name-match]
                             ["result", "info"])
slogdet_result = namedtuple("linalg_slogdet",  # type: ignore[name-match]
                            ["sign", "logabsdet"])
lstsq_result = namedtuple("linalg_lstsq",  # type: ignore[name-match]
                          ["solution", "residuals", "rank", "singular_values"])


@operation
def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices (*, n, n).

    LinAlgError, when the values are looked at, where a matrix is singular.
    """
    return result("linalg.inv", matrix("linalg.inv", A, square=True))


@operation
def inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    """(inverse, info): info is 1 where a matrix is singular, and its inverse NaN; 0 elsewhere."""
    node = matrix("linalg.inv_ex", A, square=True)
    name = "linalg.inv" if check_errors else "linalg.inv_ex"
    return inv_ex_result(result(name, node), result("linalg.inv_ex", node, part=1))


@operation
def det(A: Tensor) -> Tensor:
    """The determinant of square matrices (*, n, n).  Singular ones have a gradient, too."""
    return result("linalg.det", matrix("linalg.det", A, square=True))


@operation
def slogdet(A: Tensor) -> Any:
    """(sign, logabsdet) of square matrices: the determinant is sign * exp(logabsdet)."""
    node = matrix("linalg.slogdet", A, square=True)
    return slogdet_result(*(result("linalg.slogdet", node, part=part) for part in (0, 1)))


# ---- solving


def _system(name: str, A: Any, B: Any, left: bool) -> tuple[Node, Node, bool]:
    """A and B of A X = B, batches broadcast; for X A = B both transposed.  And whether B was
    vectors.
    """
    a, b = matrix(name, A, square=True), as_node(name, B)
    same_dtype(name, a, b)
    if not b.shape:
        raise fail(name, "the right-hand side is a single number, not a vector or a matrix")
    if left:
        b, vectors = right_hand_side(name, a, b, a.shape[-1])
    else:
        vectors = b.ndim == 1
        b = graph.unsqueeze(b, 0) if vectors else b
        if b.shape[-1] != a.shape[-1]:
            raise fail(name, f"{listed(a.shape)} and {listed(b.shape)} do not fit: with left=False "
                       f"the right-hand side needs {a.shape[-1]} columns")
        m = matrices()
        a, b = m.transpose(a), m.transpose(b)
    a, b = same_batch(name, a, b)
    return a, b, vectors


def _solved(node: Node, left: bool, vectors: bool) -> Tensor:
    if vectors:
        return wrap(without_column(node))
    return wrap(node if left else matrices().transpose(node))


@operation
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B (X A = B where not left) for square A (*, n, n) and B (*, n, k) or (*, n).

    LinAlgError, when the values are looked at, where a matrix is singular.
    """
    a, b, vectors = _system("linalg.solve", A, B, left)
    return _solved(call("linalg.solve", a, b), left, vectors)


@operation
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """(result, info) of `solve`: info is 1 where A is singular, and the result there NaN."""
    a, b, vectors = _system("linalg.solve_ex", A, B, left)
    name = "linalg.solve" if check_errors else "linalg.solve_ex"
    solved = _solved(call(name, a, b), left, vectors)
    return solve_ex_result(solved, wrap(_first_of_each(
        call("linalg.solve_ex", a, b, part=1), as_node(name, A).shape[:-2])))


def _first_of_each(info: Node, batch: tuple[int, ...]) -> Node:
    """What is known of each item of a batch that was broadcast: one of its copies."""
    added = info.ndim - len(batch)
    for axis, size in enumerate(info.shape):
        if size and (axis < added or batch[axis - added] == 1):
            info = graph.slice_axis(info, axis, 0, 1)
    return graph.reshape(info, batch) if math.prod(batch) == info.size else info


def triangular_solution(
    name: str, a: Node, b: Node, upper: bool, left: bool = True, unitriangular: bool = False
) -> Node:
    """X with A X = B or X A = B, by substitution."""
    m = matrices()
    if a.shape[-1] != b.shape[-2 if left else -1]:
        raise fail(name, f"{listed(a.shape)} and {listed(b.shape)} do not fit: B needs "
                   f"{a.shape[-1]} {'rows' if left else 'columns'}")
    a, b = same_batch(name, a, b)
    if not left:
        a, b, upper = m.transpose(a), m.transpose(b), not upper
    options = (int(upper), int(unitriangular))
    solved = call("linalg.solve_triangular", a, b, options=options)
    return solved if left else m.transpose(solved)


@operation
def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True,
                     unitriangular: bool = False) -> Tensor:
    """X with A X = B (X A = B where not left) for triangular A; the other triangle is not read.

    unitriangular: the diagonal counts as ones.  Zeros on it give infinities and NaN, no error.
    """
    a, b = matrix("linalg.solve_triangular", A, square=True), matrix("linalg.solve_triangular", B)
    same_dtype("linalg.solve_triangular", a, b)
    return wrap(triangular_solution("linalg.solve_triangular", a, b, upper, left, unitriangular))


# ---- least squares


DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


@operation
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """(solution, residuals, rank, singular_values): X of least |A X - B|, and of least norm
    among those, for A (*, m, n) and B (*, m, k) or (*, m).

    Singular values up to rcond times the largest count as zeros (default: the precision times
    the larger size).  All drivers compute through the SVD; they decide, as in PyTorch, what is
    given besides the solution: "gelsy" (the default) the rank, "gelsd" and "gelss" residuals (for
    m > n) and singular values, too.  What is not given is an empty tensor.
    """
    name = "linalg.lstsq"
    driver = driver or "gelsy"
    if driver not in DRIVERS:
        raise fail(name, f"there is no driver {driver!r}", f"Use one of {', '.join(DRIVERS)}.")
    a, b = matrix(name, A), as_node(name, B)
    same_dtype(name, a, b)
    if b.ndim not in (a.ndim - 1, a.ndim):
        raise fail(name, f"{listed(a.shape)} and {listed(b.shape)} do not fit: B has as many axes "
                   "as A, or one less")
    vectors = b.ndim < a.ndim
    if b.shape[-1 if vectors else -2] != a.shape[-2]:
        raise fail(name, f"{listed(a.shape)} and {listed(b.shape)} do not fit: B needs "
                   f"{a.shape[-2]} rows")
    b = graph.unsqueeze(b, b.ndim) if vectors else b
    own = a.shape[:-2]
    a, b = same_batch(name, a, b)
    rows, columns = a.shape[-2:]
    options = (float(epsilon(a.dtype) * max(rows, columns) if rcond is None else rcond),)
    solution = call("linalg.lstsq", a, b, options=options)
    real = real_dtype(a.dtype)
    residuals = graph.const(0, real, (0,))
    if driver in ("gels", "gelsd", "gelss") and rows > columns:
        m = matrices()
        rest = graph.sub(m.product(a, solution), b)
        squares = m.real(graph.mul(m.at.conj(rest), rest))
        residuals = graph.reduce("sum", squares, (squares.ndim - 2,))
    rank = graph.const(0, dtypes.int64, (0,)) if driver == "gels" \
        else _first_of_each(call("linalg.lstsq", a, b, options=options, part=1), own)
    values = graph.const(0, real, (0,))
    if driver in ("gelsd", "gelss"):
        values = _first_of_each(call("linalg.lstsq", a, b, options=options, part=2),
                                (*own, min(rows, columns)))
    return lstsq_result(wrap(without_column(solution) if vectors else solution),
                        *map(wrap, (residuals, rank, values)))


@operation
def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None,
         rtol: Any = None) -> Tensor:
    """The pseudo-inverse (Moore and Penrose) of matrices (*, m, n), from the SVD.

    Singular values up to max(atol, rtol * largest) count as zeros; each is a number or a tensor of
    the batch's shape; rtol defaults to the precision times the larger size, 0 where atol is given.
    rcond is the former name of rtol.  The result is the same whether `hermitian` is set.
    """
    node = matrix("linalg.pinv", A, square=hermitian)
    bounds = limits("linalg.pinv", node, atol, rcond if rtol is None else rtol)
    return result("linalg.pinv", node, *bounds)


# ---- tensors as matrices


@operation
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse for tensordot over `ind` axes: tensordot(tensorinv(A), A, ind) is an identity."""
    node = as_node("linalg.tensorinv", A)
    check_dtype("linalg.tensorinv", node)
    if ind <= 0:
        raise fail("linalg.tensorinv", f"ind is a number of axes above 0, not {ind}")
    if ind > node.ndim:
        raise fail("linalg.tensorinv", f"ind is {ind}, and {listed(node.shape)} has fewer axes")
    first, last = node.shape[:ind], node.shape[ind:]
    if math.prod(first) != math.prod(last):
        raise fail("linalg.tensorinv", f"{listed(first)} and {listed(last)} have different numbers "
                   "of elements", "The first `ind` axes must have as many as the rest.")
    size = math.prod(first)
    inverse = call("linalg.inv", graph.reshape(node, (size, size)))
    return wrap(graph.reshape(inverse, (*last, *first)))


@operation
def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B.  dims: axes of A that are moved to the end first."""
    name = "linalg.tensorsolve"
    a, b = as_node(name, A), as_node(name, B)
    check_dtype(name, a)
    same_dtype(name, a, b)
    if dims is not None:
        moved = [axis_of(name, dim, a.ndim) for dim in dims]
        a = graph.permute(a, [axis for axis in range(a.ndim) if axis not in moved] + moved)
    unknown = a.shape[b.ndim:]
    if a.shape[:b.ndim] != b.shape or math.prod(unknown) != b.size:
        raise fail(name, f"{listed(a.shape)} and {listed(b.shape)} do not fit: A must begin with "
                   f"the shape of B and have {b.size} elements in the axes after it")
    square = graph.reshape(a, (b.size, b.size))
    solved = call("linalg.solve", square, graph.reshape(b, (b.size, 1)))
    return wrap(graph.reshape(solved, unknown))
