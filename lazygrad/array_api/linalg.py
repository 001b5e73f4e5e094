"""The standard's `linalg` extension, and the matrix functions of its main namespace."""

from __future__ import annotations

from typing import Any, NamedTuple

import lazygrad
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor
from lazygrad.array_api._elementwise import conj, promoted
from lazygrad.array_api._manipulation import broadcast_shapes
from lazygrad.array_api._statistics import sum as _sum
from lazygrad.functional._operands import axis_of

__all__ = ["cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul",
           "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose", "outer", "pinv", "qr",
           "slogdet", "solve", "svd", "svdvals", "tensordot", "trace", "vecdot", "vector_norm"]


class EighResult(NamedTuple):
    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    Q: Tensor
    R: Tensor


class SlogdetResult(NamedTuple):
    sign: Tensor
    logabsdet: Tensor


class SVDResult(NamedTuple):
    U: Tensor
    S: Tensor
    Vh: Tensor


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    return lazygrad.matmul(*promoted("matmul", x1, x2))


def matrix_transpose(x: Tensor, /) -> Tensor:
    """The last two axes exchanged."""
    if x.ndim < 2:
        raise fail("matrix_transpose", f"needs a matrix, not {x.ndim} axes", kind=ValueError)
    return x.mT


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: Any = 2) -> Tensor:
    return lazygrad.tensordot(*promoted("tensordot", x1, x2), dims=axes)


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Sum of conj(x1) * x2 along an axis (counted after broadcasting)."""
    a, b = promoted("vecdot", x1, x2)
    if a.shape[axis] != b.shape[axis]:
        raise fail("vecdot", f"axes of sizes {a.shape[axis]} and {b.shape[axis]}",
                   "Vectors are of one length.", ValueError)
    return lazygrad.sum(conj(a) * b, axis, dtype=a.dtype)


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    return lazygrad.linalg.cholesky(x, upper=upper)


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    return lazygrad.linalg.cross(*promoted("cross", x1, x2), dim=axis)


def det(x: Tensor, /) -> Tensor:
    return lazygrad.linalg.det(x)


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonals of the last two axes."""
    return lazygrad.diagonal(x, offset, -2, -1)


def eigh(x: Tensor, /) -> EighResult:
    return EighResult(*lazygrad.linalg.eigh(x))


def eigvalsh(x: Tensor, /) -> Tensor:
    return lazygrad.linalg.eigvalsh(x)


def inv(x: Tensor, /) -> Tensor:
    return lazygrad.linalg.inv(x)


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    return lazygrad.linalg.matrix_norm(x, ord, keepdim=keepdims)


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    return lazygrad.linalg.matrix_power(x, n)


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    return lazygrad.linalg.matrix_rank(x, rtol=rtol)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    return lazygrad.outer(*promoted("outer", x1, x2))


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    return lazygrad.linalg.pinv(x, rtol=rtol)


def qr(x: Tensor, /, *, mode: str = "reduced") -> QRResult:
    return QRResult(*lazygrad.linalg.qr(x, mode=mode))


def slogdet(x: Tensor, /) -> SlogdetResult:
    return SlogdetResult(*lazygrad.linalg.slogdet(x))


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """x with x1 @ x = x2; x2 is a vector if and only if it has one axis."""
    a, b = promoted("solve", x1, x2)
    if b.ndim == 1:
        return lazygrad.linalg.solve(a, b.unsqueeze(1)).squeeze(-1)
    shape = broadcast_shapes(a.shape[:-2], b.shape[:-2]) if a.ndim > 2 or b.ndim > 2 \
        else ()
    return lazygrad.linalg.solve(a.expand(*shape, *a.shape[-2:]), b.expand(*shape, *b.shape[-2:]))


def svd(x: Tensor, /, *, full_matrices: bool = True) -> SVDResult:
    return SVDResult(*lazygrad.linalg.svd(x, full_matrices=full_matrices))


def svdvals(x: Tensor, /) -> Tensor:
    return lazygrad.linalg.svdvals(x)


def trace(x: Tensor, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sums of the diagonals of the last two axes."""
    return _sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def vector_norm(x: Tensor, /, *, axis: Any = None, keepdims: bool = False,
                ord: Any = 2) -> Tensor:
    if axis is not None and not isinstance(axis, int):
        axis = tuple(axis_of("vector_norm", each, x.ndim) for each in axis)
    return lazygrad.linalg.vector_norm(x, ord, axis, keepdims)
