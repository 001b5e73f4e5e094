"""Linear algebra under the names of `torch` and of Tensor methods.

Some of them differ from their namesakes in `lg.linalg`: in the order of arguments, in what they
return, in which triangle they mean.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import lazygrad.functional.linalg_factoring as linalg_factoring
import lazygrad.functional.linalg_norms as linalg_norms
import lazygrad.functional.linalg_products as linalg_products
import lazygrad.functional.linalg_solving as linalg_solving
from lazygrad._core import graph
from lazygrad._core.context import METHODS, fail, method, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._linalg import (
    call,
    matrices,
    matrix,
    result,
    same_batch,
    same_dtype,
)
from lazygrad.functional._operands import as_node
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["cholesky", "cholesky_inverse", "cholesky_solve", "det", "frobenius_norm", "geqrf",
           "inverse", "logdet", "lu", "lu_solve", "lu_unpack", "matrix_exp", "matrix_power",
           "nuclear_norm", "orgqr", "ormqr", "pca_lowrank", "pinverse", "qr", "slogdet", "svd",
           "svd_lowrank", "triangular_solve"]

slogdet_result = namedtuple("slogdet",  # type: ignore[name-match]
                            ["sign", "logabsdet"])
qr_result = namedtuple("qr", ["Q", "R"])  # type: ignore[name-match]
svd_result = namedtuple("svd", ["U", "S", "V"])  # type: ignore[name-match]
geqrf_result = namedtuple("geqrf", ["a", "tau"])  # type: ignore[name-match]
lu_result = namedtuple("lu", ["LU", "pivots", "info"])  # type: ignore[name-match]
lu_unpack_result = namedtuple("lu_unpack", ["P", "L", "U"])  # type: ignore[name-match]
triangular_solve_result = namedtuple("triangular_solve",  # type: ignore[name-match]
                                     ["solution", "cloned_coefficient"])


# ---- the same under another name


det = linalg_solving.det
matrix_exp = linalg_products.matrix_exp
matrix_power = linalg_products.matrix_power
METHODS.update(det=det, matrix_exp=matrix_exp, matrix_power=matrix_power)


@method
def inverse(input: Tensor) -> Tensor:
    """`linalg.inv`."""
    return linalg_solving.inv(input)


@method
def slogdet(input: Tensor) -> Any:
    """(sign, logabsdet), as `linalg.slogdet`."""
    return slogdet_result(*linalg_solving.slogdet(input))


@method
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """`linalg.pinv` with another default tolerance."""
    return linalg_solving.pinv(input, rcond)


@operation
def nuclear_norm(input: Tensor, dim: Any = (-2, -1), keepdim: bool = False) -> Tensor:
    """The sum of the singular values."""
    return linalg_norms.matrix_norm(input, "nuc", dim, keepdim)


@operation
def frobenius_norm(input: Tensor, dim: Any = (-2, -1), keepdim: bool = False) -> Tensor:
    """The root of the sum of squares over some axes."""
    return linalg_norms.norm(input, None, dim, keepdim)


# ---- determinants


@method
def logdet(input: Tensor) -> Tensor:
    """log(det): -inf where the determinant is 0, NaN where it is negative."""
    node = matrix("logdet", input, square=True)
    sign, size = (call("linalg.slogdet", node, part=part) for part in (0, 1))
    return wrap(graph.add(graph.unary("log", sign), graph.cast(size, sign.dtype)))


# ---- factorizations


@method
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """L with A = L L^H; with `upper`, U with A = U^H U, from the upper triangle."""
    node = matrix("cholesky", input, square=True)
    return wrap(linalg_factoring.cholesky_node("linalg.cholesky", node, upper))


@method
def qr(input: Tensor, some: bool = True) -> Any:
    """(Q, R); unless `some`, Q is square."""
    return qr_result(*linalg_factoring.qr(input, "reduced" if some else "complete"))


@method
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """(U, S, V) with A = U diag(S) V^H; unless `some`, U and V are square; unless `compute_uv`,
    they are zeros.
    """
    node = matrix("svd", input)
    m = matrices()
    if not compute_uv:
        zeros = (m.at.const(0, node.dtype, (*node.shape[:-2], size, size))
                 for size in node.shape[-2:])
        u, v = map(wrap, zeros)
        return svd_result(u, result("linalg.svdvals", node), v)
    options = (int(not some),)
    left, values, right = (call("linalg.svd", node, options=options, part=k) for k in range(3))
    return svd_result(wrap(left), wrap(values), wrap(m.adjoint(right)))


@method
def geqrf(input: Tensor) -> Any:
    """(a, tau): R in and above the diagonal of a, below it the Householder vectors of Q, with
    factors tau.  Without gradients.
    """
    node = matrix("geqrf", input)
    return geqrf_result(*(result("linalg.geqrf", node, part=part) for part in (0, 1)))


@method
def orgqr(input: Tensor, input2: Tensor) -> Tensor:
    """`linalg.householder_product`."""
    return linalg_factoring.householder_product(input, input2)


@method
def ormqr(input: Tensor, input2: Tensor, input3: Tensor, left: bool = True,
          transpose: bool = False) -> Tensor:
    """Q C for the Q of `geqrf` (input, input2) and C = input3; C Q where not left; Q^H for Q with
    `transpose`.
    """
    a, tau, c = matrix("ormqr", input), as_node("ormqr", input2), matrix("ormqr", input3)
    v, middle = linalg_factoring.reflectors("ormqr", a, tau)
    same_dtype("ormqr", a, c)
    m = matrices()
    if c.shape[:-2] != a.shape[:-2]:
        raise fail("ormqr", f"{listed(a.shape)} and {listed(c.shape)} have different batches")
    if c.shape[-2 if left else -1] != a.shape[-2]:
        raise fail("ormqr", f"Q has {a.shape[-2]} rows, which does not fit {listed(c.shape)}")
    v, middle, c = same_batch("ormqr", v, middle, c)
    middle = m.adjoint(middle) if transpose else middle
    if left:
        return wrap(graph.sub(c, m.product(v, m.product(middle, m.product(m.adjoint(v), c)))))
    return wrap(graph.sub(c, m.product(m.product(m.product(c, v), middle), m.adjoint(v))))


@method
def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> Any:
    """(LU, pivots), and info with `get_infos`: `linalg.lu_factor`, of singular matrices, too."""
    node = matrix("lu", A)
    options = (int(pivot), 0)
    parts = [result("linalg.lu_factor", node, options=options, part=part) for part in range(3)]
    return lu_result(*parts) if get_infos else tuple(parts[:2])


@operation
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True,
              unpack_pivots: bool = True) -> Any:
    """(P, L, U) with A = P L U, from `linalg.lu_factor` of A; what is not unpacked is empty."""
    node = matrix("lu_unpack", LU_data)
    empty = linalg_factoring.nothing(node.dtype)
    lower = upper = p = empty
    if unpack_data:
        lower, upper = map(wrap, linalg_factoring.triangles(node))
    if unpack_pivots:
        pivots = as_node("lu_unpack", LU_pivots)
        order = linalg_factoring.row_order("lu_unpack", pivots, node.shape[-2])
        p = wrap(linalg_factoring.permutation(order, node.dtype))
    return lu_unpack_result(p, lower, upper)


# ---- solving


@method
def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """X with A X = b, from `linalg.lu_factor` of A."""
    return linalg_factoring.lu_solve(LU_data, LU_pivots, b)


@method
def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X with A X = B for A = L L^H (with `upper`, L^H L for upper triangular L)."""
    b, factor = matrix("cholesky_solve", B), matrix("cholesky_solve", L, square=True)
    same_dtype("cholesky_solve", b, factor)
    return wrap(_from_cholesky("cholesky_solve", factor, b, upper))


def _from_cholesky(name: str, factor: Node, b: Node, upper: bool) -> Node:
    m = matrices()
    lower = m.adjoint(factor) if upper else factor
    first = linalg_solving.triangular_solution(name, lower, b, upper=False)
    return linalg_solving.triangular_solution(name, m.adjoint(lower), first, upper=True)


@method
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A = L L^H (with `upper`, of L^H L for upper triangular L)."""
    factor = matrix("cholesky_inverse", L, square=True)
    identity = matrices().identity(factor, factor.shape[-1])
    return wrap(_from_cholesky("cholesky_inverse", factor, identity, upper))


@method
def triangular_solve(b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,
                     unitriangular: bool = False) -> Any:
    """(solution, cloned_coefficient): X with A X = b for triangular A, A^T X = b with `transpose`;
    and A.
    """
    right, factor = matrix("triangular_solve", b), matrix("triangular_solve", A, square=True)
    same_dtype("triangular_solve", right, factor)
    read, side = (matrices().transpose(factor), not upper) if transpose else (factor, upper)
    solved = linalg_solving.triangular_solution(
        "triangular_solve", read, right, side, unitriangular=unitriangular)
    batch = solved.shape[:-2]
    copy = graph.broadcast(factor, (*batch, *factor.shape[-2:]))
    return triangular_solve_result(wrap(solved), wrap(copy))


# ---- low rank

_MOST_ITERATIONS = 1000


@operation
def svd_lowrank(A: Tensor, q: int = 6, niter: int = 2, M: Tensor | None = None) -> Any:
    """(U, S, V): about the first q singular values and vectors of A, or of A - M, from a random
    subspace refined niter times (Halko, Martinsson and Tropp 2009, algorithms 4.4 and 5.1).
    """
    node = matrix("svd_lowrank", A)
    if M is not None:
        node = graph.sub(node, graph.broadcast(as_node("svd_lowrank", M), node.shape))
    rows, columns = node.shape[-2:]
    if not 0 <= niter <= _MOST_ITERATIONS:
        raise fail("svd_lowrank", f"niter is {niter}", f"It lies in 0..{_MOST_ITERATIONS}: each "
                   "iteration is recorded.")
    if not 0 <= q <= min(rows, columns):
        raise fail("svd_lowrank", f"q is a number from 0 to {min(rows, columns)}, not {q}")
    from lazygrad.functional.random import randn
    m = matrices()
    basis = graph.cast(node_of(randn(columns, q)), node.dtype)
    turned = m.adjoint(node)

    def orthonormal(value: Node) -> Node:
        return call("linalg.qr", value, options=("reduced",))

    basis = graph.broadcast(basis, (*node.shape[:-2], columns, q))
    basis = orthonormal(m.product(node, basis))
    for _ in range(niter):
        basis = orthonormal(m.product(node, orthonormal(m.product(turned, basis))))
    u, s, vh = (call("linalg.svd", m.product(m.adjoint(basis), node), options=(0,), part=part)
                for part in range(3))
    return wrap(m.product(basis, u)), wrap(s), wrap(m.adjoint(vh))


@operation
def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> Any:
    """(U, S, V) of `svd_lowrank`, of A with the mean of each column taken off if `center`."""
    node = matrix("pca_lowrank", A)
    q = min(6, *node.shape[-2:]) if q is None else q
    if center:
        node = graph.sub(node, graph.mean(node, (node.ndim - 2,), True))
    return svd_lowrank(wrap(node), q, niter)
