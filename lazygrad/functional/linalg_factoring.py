"""Factorizations of matrices (`lg.linalg`), through LAPACK."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._linalg import (
    call,
    matrices,
    matrix,
    result,
    same_batch,
    same_dtype,
)
from lazygrad.functional._operands import as_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["cholesky", "cholesky_ex", "eig", "eigh", "eigvals", "eigvalsh",
           "householder_product", "ldl_factor", "ldl_factor_ex", "ldl_solve", "lu", "lu_factor",
           "lu_factor_ex", "lu_solve", "qr", "svd", "svdvals"]

cholesky_ex_result = namedtuple("linalg_cholesky_ex",  # type: ignore[name-match]
                                ["L", "info"])
qr_result = namedtuple("linalg_qr", ["Q", "R"])  # type: ignore[name-match]
svd_result = namedtuple("linalg_svd", ["U", "S", "Vh"])  # type: ignore[name-match]
eig_result = namedtuple("linalg_eig",  # type: ignore[name-match]
                        ["eigenvalues", "eigenvectors"])
eigh_result = namedtuple("linalg_eigh",  # type: ignore[name-match]
                         ["eigenvalues", "eigenvectors"])
lu_result = namedtuple("linalg_lu", ["P", "L", "U"])  # type: ignore[name-match]
lu_factor_result = namedtuple("linalg_lu_factor",  # type: ignore[name-match]
                              ["LU", "pivots"])
lu_factor_ex_result = namedtuple("linalg_lu_factor_ex",  # type: ignore[name-match]
                                 ["LU", "pivots", "info"])
ldl_factor_result = namedtuple("linalg_ldl_factor",  # type: ignore[name-match]
                               ["LD", "pivots"])
ldl_factor_ex_result = namedtuple("linalg_ldl_factor_ex",  # type: ignore[name-match]
                                  ["LD", "pivots", "info"])


def nothing(dtype: DType) -> Tensor:
    """The empty tensor that stands for a result not asked for."""
    return wrap(graph.const(0, dtype, (0,)))


# ---- Cholesky


def cholesky_node(name: str, node: Node, upper: bool) -> Node:
    """L with A = L L^H from the lower triangle of A, or its adjoint from the upper one."""
    m = matrices()
    return m.adjoint(call(name, m.adjoint(node))) if upper else call(name, node)


@operation
def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """L, lower triangular with positive diagonal, with A = L L^H; with `upper`, its adjoint.

    A (*, n, n) is Hermitian, positive definite; only one triangle is read.  LinAlgError, when the
    values are looked at, where it is not positive definite.
    """
    node = matrix("linalg.cholesky", A, square=True)
    return wrap(cholesky_node("linalg.cholesky", node, upper))


@operation
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """(L, info): info is 0, or where A is not positive definite the order of its first leading
    minor that is not; L is NaN there.
    """
    node = matrix("linalg.cholesky_ex", A, square=True)
    name = "linalg.cholesky" if check_errors else "linalg.cholesky_ex"
    read = matrices().adjoint(node) if upper else node
    return cholesky_ex_result(wrap(cholesky_node(name, node, upper)),
                              result("linalg.cholesky_ex", read, part=1))


# ---- QR


@operation
def qr(A: Tensor, mode: str = "reduced") -> Any:
    """(Q, R) of matrices (*, m, n): Q has orthonormal columns, R is upper triangular, A = Q R.

    mode: "reduced", "complete" (Q is square), or "r" (Q is not computed but empty).  Gradients
    exist but for complete with m > n.
    """
    node = matrix("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise fail("linalg.qr", f"there is no mode {mode!r}", "Use 'reduced', 'complete' or 'r'.")
    options = ("reduced" if mode == "r" else mode,)
    q = nothing(node.dtype) if mode == "r" else result("linalg.qr", node, options=options)
    return qr_result(q, result("linalg.qr", node, options=options, part=1))


@operation
def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of H1 H2 … Hk, where Hi = 1 - tau_i v_i v_i^H and v_i is column i of
    A (*, m, n) below the diagonal, with 1 on it and 0 above.
    """
    name = "linalg.householder_product"
    a, factors = matrix(name, A), as_node(name, tau)
    vectors, middle = reflectors(name, a, factors)
    m = matrices()
    identity = m.at.slice_axis(m.identity(a, a.shape[-2]), a.ndim - 1, 0, a.shape[-1])
    turned = m.at.slice_axis(m.adjoint(vectors), a.ndim - 1, 0, a.shape[-1])
    return wrap(graph.sub(identity, m.product(vectors, middle, turned)))


def reflectors(name: str, a: Node, tau: Node) -> tuple[Node, Node]:
    """(V, T) with H1 H2 … Hk = 1 - V T V^H: the compact form of Schreiber and Van Loan (1989).

    T^-1 = diag(1 / tau) + triu(V^H V, 1) (Puglisi 1992), so T solves
    (1 + diag(tau) triu(V^H V, 1)) T = diag(tau), which holds for tau = 0, too.
    """
    same_dtype(name, a, tau)
    rows, columns = a.shape[-2:]
    if rows < columns:
        raise fail(name, f"{listed(a.shape)} has more columns than rows")
    if tau.shape[:-1] != a.shape[:-2] or not tau.shape or tau.shape[-1] > columns:
        raise fail(name, f"tau {listed(tau.shape)} does not fit {listed(a.shape)}: it needs the "
                   f"same batch and at most {columns} factors")
    m = matrices()
    count = tau.shape[-1]
    v = m.lower(m.block(a, (0, rows), (0, count)), strict=True)
    v = graph.add(v, m.at.slice_axis(m.identity(a, rows), a.ndim - 1, 0, count))
    overlaps = m.of_rows(m.upper(m.product(m.adjoint(v), v), strict=True), tau)
    middle = call("linalg.solve_triangular", overlaps, m.diagonal_matrix(tau), options=(1, 1))
    return v, middle


# ---- singular values and eigenvalues


@operation
def svd(A: Tensor, full_matrices: bool = True, *, driver: Any = None) -> Any:
    """(U, S, Vh) of matrices (*, m, n): A = U diag(S) Vh, singular values falling.

    full_matrices: U and Vh are square.  Gradients are finite where the singular values differ and
    exist for the first min(m, n) columns of U and rows of Vh.
    """
    node = matrix("linalg.svd", A)
    options = (int(full_matrices),)
    return svd_result(*(result("linalg.svd", node, options=options, part=part)
                        for part in range(3)))


@operation
def svdvals(A: Tensor, *, driver: Any = None) -> Tensor:
    """The singular values of matrices (*, m, n), falling."""
    return result("linalg.svdvals", matrix("linalg.svdvals", A))


@operation
def eig(A: Tensor) -> Any:
    """(eigenvalues, eigenvectors) of square matrices, complex; the vectors are columns of length 1.

    Gradients are finite where the eigenvalues differ.
    """
    node = matrix("linalg.eig", A, square=True)
    return eig_result(*(result("linalg.eig", node, part=part) for part in (0, 1)))


@operation
def eigvals(A: Tensor) -> Tensor:
    """The eigenvalues of square matrices, complex, in no particular order."""
    return result("linalg.eig", matrix("linalg.eigvals", A, square=True))


def _hermitian(name: str, A: Any, UPLO: str) -> tuple[Node, tuple]:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise fail(name, f"UPLO is 'L' or 'U', not {UPLO!r}")
    return matrix(name, A, square=True), (UPLO.upper(),)


@operation
def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """(eigenvalues, eigenvectors) of Hermitian matrices: real, rising; orthonormal columns.

    UPLO: which triangle is read.  Gradients are finite where the eigenvalues differ.
    """
    node, options = _hermitian("linalg.eigh", A, UPLO)
    return eigh_result(*(result("linalg.eigh", node, options=options, part=part)
                         for part in (0, 1)))


@operation
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of Hermitian matrices, real, rising."""
    node, options = _hermitian("linalg.eigvalsh", A, UPLO)
    return result("linalg.eigh", node, options=options)


# ---- LU


@operation
def lu_factor(A: Tensor, *, pivot: bool = True) -> Any:
    """(LU, pivots): L below the diagonal (ones on it), U from the diagonal up, and for each column
    the row, counted from 1, that was exchanged with it.

    LinAlgError, when the values are looked at, where U has a zero on its diagonal.
    """
    node = matrix("linalg.lu_factor", A)
    options = (int(pivot), 1)
    return lu_factor_result(*(result("linalg.lu_factor", node, options=options, part=part)
                              for part in (0, 1)))


@operation
def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """(LU, pivots, info): info is the first column with a zero pivot, counted from 1, or 0."""
    node = matrix("linalg.lu_factor_ex", A)
    options = (int(pivot), int(check_errors))
    return lu_factor_ex_result(*(result("linalg.lu_factor", node, options=options, part=part)
                                 for part in range(3)))


@operation
def lu(A: Tensor, *, pivot: bool = True) -> Any:
    """(P, L, U) of matrices (*, m, n): A = P L U with a permutation, a unit lower and an upper
    triangular matrix.  Without pivoting P is empty.
    """
    node = matrix("linalg.lu", A)
    options = (int(pivot), 0)
    lower, upper = triangles(call("linalg.lu_factor", node, options=options))
    if not pivot:
        return lu_result(nothing(node.dtype), wrap(lower), wrap(upper))
    order = call("linalg.lu_factor", node, options=options, part=3)
    return lu_result(wrap(permutation(order, node.dtype)), wrap(lower), wrap(upper))


def triangles(both: Node) -> tuple[Node, Node]:
    """(L, U) of the two in one matrix."""
    m = matrices()
    rows, columns = both.shape[-2:]
    count = min(rows, columns)
    lower = m.lower(m.block(both, (0, rows), (0, count)), strict=True)
    identity = m.at.slice_axis(m.identity(both, rows), both.ndim - 1, 0, count)
    return graph.add(lower, identity), m.upper(m.block(both, (0, count), (0, columns)))


def permutation(order: Node, dtype: DType) -> Node:
    """The matrix P with A = P A[order]."""
    shape = (*order.shape, order.shape[-1])
    columns = graph.broadcast(graph.unsqueeze(order, order.ndim - 1), shape)
    rows = graph.iota(len(shape) - 2, shape, dtypes.int64)
    return graph.cast(graph.make("eq", rows, columns), dtype)


def row_order(name: str, pivots: Node, rows: int) -> Node:
    """The order of the rows that pivots make, for A[order] = L U."""
    if pivots.dtype is not dtypes.int32:
        raise fail(name, f"pivots are int32, as linalg.lu_factor gives them, not "
                   f"{pivots.dtype.name}")
    return call("linalg.order_of_pivots", pivots, options=(rows,))


def solve_factored(name: str, both: Node, pivots: Node, b: Node, adjoint: bool) -> Node:
    """X with A X = B or A^H X = B, from the LU factorization of A."""
    m = matrices()
    size = both.shape[-1]
    p = permutation(row_order(name, pivots, size), both.dtype)
    if p.shape[:-2] != both.shape[:-2]:
        raise fail(name, f"pivots {listed(pivots.shape)} do not fit LU {listed(both.shape)}")
    both, p, b = same_batch(name, both, p, b)
    if adjoint:
        turned = m.adjoint(both)
        x = call("linalg.solve_triangular", turned, b, options=(0, 0))
        return m.product(p, call("linalg.solve_triangular", turned, x, options=(1, 1)))
    x = call("linalg.solve_triangular", both, m.product(m.transpose(p), b), options=(0, 1))
    return call("linalg.solve_triangular", both, x, options=(1, 0))


@operation
def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True,
             adjoint: bool = False) -> Tensor:
    """X with A X = B (X A = B where not left; A^H for A with `adjoint`), from `lu_factor` of A."""
    name = "linalg.lu_solve"
    both, b = matrix(name, LU, square=True), matrix(name, B)
    same_dtype(name, both, b)
    if b.shape[-2 if left else -1] != both.shape[-1]:
        raise fail(name, f"LU {listed(both.shape)} and B {listed(b.shape)} do not fit")
    order = as_node(name, pivots)
    if left:
        return wrap(solve_factored(name, both, order, b, adjoint))
    m = matrices()
    return wrap(m.adjoint(solve_factored(name, both, order, m.adjoint(b), not adjoint)))


# ---- LDL


def _ldl(name: str, A: Any, hermitian: bool, part: int) -> Tensor:
    node = matrix(name, A, square=True)
    return result("linalg.ldl_factor", node, options=(int(hermitian),), part=part)


@operation
def ldl_factor(A: Tensor, *, hermitian: bool = False) -> Any:
    """(LD, pivots) of symmetric (or Hermitian) matrices, definite or not, in LAPACK's compact form
    (Bunch and Kaufman 1977); the lower triangle is read.  Without gradients.
    """
    return ldl_factor_result(*(_ldl("linalg.ldl_factor", A, hermitian, part) for part in (0, 1)))


@operation
def ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False) -> Any:
    """(LD, pivots, info): info is the first zero block of D, counted from 1, or 0."""
    return ldl_factor_ex_result(*(_ldl("linalg.ldl_factor_ex", A, hermitian, part)
                                  for part in range(3)))


@operation
def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """X with A X = B, from `ldl_factor` of A.  Without gradients."""
    name = "linalg.ldl_solve"
    ld, order, b = matrix(name, LD, square=True), as_node(name, pivots), matrix(name, B)
    same_dtype(name, ld, b)
    if order.dtype is not dtypes.int32 or order.shape != ld.shape[:-1] \
            or b.shape[-2] != ld.shape[-1]:
        raise fail(name, f"LD {listed(ld.shape)}, pivots {order.dtype.name} {listed(order.shape)} "
                   f"and B {listed(b.shape)} do not fit")
    batch = graph.broadcast_shape(name, ld.shape[:-2], b.shape[:-2])
    ld = graph.broadcast(ld, (*batch, *ld.shape[-2:]))
    order = graph.broadcast(order, (*batch, order.shape[-1]))
    b = graph.broadcast(b, (*batch, *b.shape[-2:]))
    return result("linalg.ldl_solve", ld, order, b, options=(int(hermitian),))
