"""Library calls of linear algebra that factor matrices; batches are leading axes."""

from __future__ import annotations

import numpy

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.library_call import (
    Array,
    LibraryCall,
    Options,
    Signature,
    complex_of,
    real_of,
    spelled,
)
from lazygrad_compiler.ir.library_linalg import check_matrices, per_item, square


def adjoint(a: Array) -> Array:
    return a.conj().swapaxes(-1, -2)


# ---- Cholesky


def _cholesky(a: Array) -> Array:
    return numpy.linalg.cholesky(a)


def _cholesky_with_info(a: Array) -> tuple[Array, Array]:
    """(L, info): info is the order of the first leading minor that is not positive, or 0.

    NumPy does not say which it is.  All larger ones fail, too, so it is found by halving.
    """
    factor, info = per_item(a.shape[:-2], _cholesky, a)
    for place in map(tuple, numpy.argwhere(info)):
        passes, fails = 0, a.shape[-1]
        while fails - passes > 1:
            order = (passes + fails) // 2
            try:
                _cholesky(a[place][:order, :order])
                passes = order
            except numpy.linalg.LinAlgError:
                fails = order
        info[place] = fails
    return factor, info


def _infer_square(operands: Signature, options: Options) -> Signature:
    return (square(operands, options),)


def _infer_with_info(operands: Signature, options: Options) -> Signature:
    dtype, shape = square(operands, options)
    return (dtype, shape), (dtypes.int32, shape[:-2])


# ---- QR


def _infer_qr(operands: Signature, options: Options) -> Signature:
    check_matrices(operands)
    dtype, shape = operands[0]
    *batch, m, n = shape
    k = m if options[0] == "complete" else min(m, n)
    return (dtype, (*batch, m, k)), (dtype, (*batch, k, n))


def _qr(options: Options, a: Array) -> tuple[Array, Array]:
    """options: (mode,), "reduced" or "complete"."""
    *batch, m, n = a.shape
    if a.size == 0:
        k = m if options[0] == "complete" else min(m, n)
        q = numpy.broadcast_to(numpy.eye(m, k, dtype=a.dtype), (*batch, m, k))
        return q, numpy.zeros((*batch, k, n), a.dtype)
    q, r = numpy.linalg.qr(a, mode=options[0])
    return q, r


def _infer_geqrf(operands: Signature, options: Options) -> Signature:
    check_matrices(operands)
    dtype, shape = operands[0]
    return (dtype, shape), (dtype, (*shape[:-2], min(shape[-2:])))


def _geqrf(options: Options, a: Array) -> tuple[Array, Array]:
    if a.size == 0:
        return a.copy(), numpy.zeros((*a.shape[:-2], min(a.shape[-2:])), a.dtype)
    reflectors, tau = numpy.linalg.qr(a, mode="raw")
    return reflectors.swapaxes(-1, -2), tau


# ---- singular values and eigenvalues


def _infer_svd(operands: Signature, options: Options) -> Signature:
    check_matrices(operands)
    dtype, shape = operands[0]
    *batch, m, n = shape
    k = min(m, n)
    rows, columns = (m, n) if options[0] else (k, k)
    return (
        (dtype, (*batch, m, rows)),
        (real_of(dtype), (*batch, k)),
        (dtype, (*batch, columns, n)),
    )


def _svd(options: Options, a: Array) -> tuple[Array, Array, Array]:
    """options: (full_matrices,)."""
    if a.size == 0:
        *batch, m, n = a.shape
        k = min(m, n)
        rows, columns = (m, n) if options[0] else (k, k)
        return (
            numpy.broadcast_to(numpy.eye(m, rows, dtype=a.dtype), (*batch, m, rows)),
            numpy.zeros((*batch, k), a.real.dtype),
            numpy.broadcast_to(numpy.eye(columns, n, dtype=a.dtype), (*batch, columns, n)),
        )
    u, s, vh = numpy.linalg.svd(a, full_matrices=bool(options[0]))
    return u, s, vh


def _infer_svdvals(operands: Signature, options: Options) -> Signature:
    check_matrices(operands)
    dtype, shape = operands[0]
    return ((real_of(dtype), (*shape[:-2], min(shape[-2:]))),)


def _svdvals(options: Options, a: Array) -> tuple[Array]:
    if a.size == 0:
        return (numpy.zeros((*a.shape[:-2], min(a.shape[-2:])), a.real.dtype),)
    return (numpy.linalg.svd(a, compute_uv=False),)


def _infer_eigh(operands: Signature, options: Options) -> Signature:
    dtype, shape = square(operands, options)
    return (real_of(dtype), shape[:-1]), (dtype, shape)


def _eigh(options: Options, a: Array) -> tuple[Array, Array]:
    """options: (triangle,), "L" or "U"."""
    values, vectors = numpy.linalg.eigh(a, UPLO=options[0])
    return values, vectors


def _infer_eig(operands: Signature, options: Options) -> Signature:
    dtype, shape = square(operands, options)
    return (complex_of(dtype), shape[:-1]), (complex_of(dtype), shape)


def _eig(options: Options, a: Array) -> tuple[Array, Array]:
    if not numpy.isfinite(a).all():
        raise numpy.linalg.LinAlgError("The matrix contains NaN or infinity")
    values, vectors = numpy.linalg.eig(a)
    kind = numpy.result_type(a.dtype, numpy.complex64)
    return values.astype(kind), vectors.astype(kind)


# ---- LU


def _infer_lu(operands: Signature, options: Options) -> Signature:
    check_matrices(operands)
    dtype, shape = operands[0]
    batch, k = shape[:-2], min(shape[-2:])
    return (
        (dtype, shape),
        (dtypes.int32, (*batch, k)),
        (dtypes.int32, batch),
        (dtypes.int64, (*batch, shape[-2])),
    )


def _lu(options: Options, a: Array) -> tuple[Array, Array, Array, Array]:
    """(L and U in one matrix, pivots as LAPACK numbers them, the first zero pivot or 0, the rows'
    order).  options: (pivoting, whether a zero pivot is an error).

    Gaussian elimination by columns, the whole batch at once, the largest element of each column
    as pivot.  The order p is such that A[p] = L U.
    """
    lu = a.reshape(-1, *a.shape[-2:]).copy()
    count, m, n = lu.shape
    k = min(m, n)
    pivots = numpy.zeros((count, k), numpy.int32)
    info = numpy.zeros(count, numpy.int32)
    order = numpy.broadcast_to(numpy.arange(m), (count, m)).copy()
    items = numpy.arange(count)
    for column in range(k):
        chosen = numpy.full(count, column)
        if options[0] and count:
            size = numpy.abs(lu[:, column:, column].real) + numpy.abs(lu[:, column:, column].imag)
            chosen = column + size.argmax(1)
        pivots[:, column] = chosen + 1
        for rows in (lu, order):
            here = rows[:, column].copy()
            rows[:, column] = rows[items, chosen]
            rows[items, chosen] = here
        pivot = lu[:, column, column]
        zero = pivot == 0
        info[zero & (info == 0)] = column + 1
        lu[:, column + 1 :, column] /= numpy.where(zero, 1, pivot)[:, None]
        lu[:, column + 1 :, column + 1 :] -= (
            lu[:, column + 1 :, column, None] * lu[:, column, None, column + 1 :]
        )
    if options[1] and info.any():
        raise numpy.linalg.LinAlgError(f"U has a zero on its diagonal, at {info[info > 0][0]}")
    batch = a.shape[:-2]
    return (
        lu.reshape(a.shape),
        pivots.reshape(*batch, k),
        info.reshape(batch),
        order.reshape(*batch, m),
    )


def _infer_order(operands: Signature, options: Options) -> Signature:
    dtype, shape = operands[0]
    if dtype.kind != "signed" or not shape:
        raise ValueError(f"takes the pivots of linalg.lu_factor, not {dtype.name} {spelled(shape)}")
    return ((dtypes.int64, (*shape[:-1], options[0])),)


def _order_of_pivots(options: Options, pivots: Array) -> tuple[Array]:
    """The order of the rows that pivots make.  options: (number of rows,)."""
    flat = pivots.reshape(-1, pivots.shape[-1])
    order = numpy.broadcast_to(numpy.arange(options[0]), (len(flat), options[0])).copy()
    items = numpy.arange(len(flat))
    if flat.size and not (flat.min() >= 1 and flat.max() <= options[0]):
        raise numpy.linalg.LinAlgError(f"a pivot does not lie in 1..{options[0]}")
    for column in range(flat.shape[1]):
        chosen = flat[:, column].astype(int) - 1
        here = order[:, column].copy()
        order[:, column] = order[items, chosen]
        order[items, chosen] = here
    return (order.reshape(*pivots.shape[:-1], options[0]),)


POSITIVE = "linalg.cholesky_ex reports instead of raising; adding a small multiple of the " \
    "identity helps against rounding."
CONVERGENCE = "Does the matrix contain NaN or infinity?"

CALLS: dict[str, LibraryCall] = {
    call.name: call
    for call in (
        LibraryCall(
            "linalg.cholesky",
            _infer_square,
            lambda options, a: (_cholesky(a),),
            "lower triangular L with A = L L^H",
            (2,),
            POSITIVE,
        ),
        LibraryCall(
            "linalg.cholesky_ex",
            _infer_with_info,
            lambda options, a: _cholesky_with_info(a),
            "(L with A = L L^H, the order of the first minor that is not positive or 0)",
            (2,),
        ),
        LibraryCall(
            "linalg.qr", _infer_qr, _qr, "(Q, R); options (mode,): reduced, complete", (2,)
        ),
        LibraryCall("linalg.geqrf", _infer_geqrf, _geqrf, "QR as Householder reflectors", (2,)),
        LibraryCall(
            "linalg.svd",
            _infer_svd,
            _svd,
            "(U, S, V^H); options (full matrices,)",
            (2,),
            CONVERGENCE,
        ),
        LibraryCall(
            "linalg.svdvals", _infer_svdvals, _svdvals, "singular values", (2,), CONVERGENCE
        ),
        LibraryCall(
            "linalg.eigh",
            _infer_eigh,
            _eigh,
            "(eigenvalues, eigenvectors) of Hermitian matrices; options (triangle read,)",
            (2,),
            CONVERGENCE,
        ),
        LibraryCall(
            "linalg.eig",
            _infer_eig,
            _eig,
            "(eigenvalues, eigenvectors), complex",
            (2,),
        ),
        LibraryCall(
            "linalg.lu_factor",
            _infer_lu,
            _lu,
            "(LU, pivots, info, order of rows); options (pivoting, zero pivot is an error)",
            (2,),
            "linalg.lu_factor_ex reports instead of raising.",
        ),
        LibraryCall(
            "linalg.order_of_pivots",
            _infer_order,
            _order_of_pivots,
            "the order of rows that pivots make; options (rows,)",
            (1,),
        ),
    )
}
