"""Library calls of linear algebra that solve and invert; batches are leading axes."""

from __future__ import annotations

import math

import numpy

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.library_call import (
    Array,
    LibraryCall,
    Options,
    Signature,
    real_of,
    spelled,
)
from lazygrad_compiler.ir.node import Shape

LAPACK_DTYPES = frozenset({"float32", "float64", "complex64", "complex128"})


def check_matrices(operands: Signature, squares: tuple[int, ...] = ()) -> None:
    """LAPACK dtypes, all alike; at least two axes; the numbered operands square."""
    for number, (dtype, shape) in enumerate(operands):
        if dtype.name not in LAPACK_DTYPES:
            raise ValueError(
                f"is not defined for {dtype.name}; convert to float32, float64 or complex"
            )
        if dtype is not operands[0][0]:
            raise ValueError(f"dtypes differ: {operands[0][0].name} and {dtype.name}")
        if len(shape) < 2:
            raise ValueError(f"takes matrices, that is, at least 2 axes, not {spelled(shape)}")
        if number in squares and shape[-1] != shape[-2]:
            raise ValueError(f"takes square matrices, not {spelled(shape)}")


def square(operands: Signature, options: Options) -> tuple[DType, Shape]:
    check_matrices(operands, (0,))
    return operands[0]


def _one_square(operands: Signature, options: Options) -> Signature:
    return (square(operands, options),)


# ---- determinants


def _infer_det(operands: Signature, options: Options) -> Signature:
    dtype, shape = square(operands, options)
    return ((dtype, shape[:-2]),)


def _infer_slogdet(operands: Signature, options: Options) -> Signature:
    dtype, shape = square(operands, options)
    return (dtype, shape[:-2]), (real_of(dtype), shape[:-2])


def _cofactor(options: Options, a: Array) -> tuple[Array]:
    """The cofactors: the derivative of the determinant.  Through the SVD A = U S V^H, which stays
    defined where A is singular: U, det(U V^H) prod(s_j, j != i), V^H, all conjugated.
    """
    if a.size == 0:
        return (numpy.zeros_like(a),)
    u, s, vh = numpy.linalg.svd(a)
    n = a.shape[-1]
    others = numpy.ones_like(s)
    for left_out in range(n):
        kept = [k for k in range(n) if k != left_out]
        others[..., left_out] = s[..., kept].prod(-1)
    sign = numpy.linalg.det(u) * numpy.linalg.det(vh)
    adjoint = (u * others[..., None, :]) @ vh
    return ((sign[..., None, None] * adjoint.conj()).astype(a.dtype),)


# ---- inverses and solutions


def _inverse(a: Array) -> Array:
    return numpy.linalg.inv(a)


def _inv_ex(options: Options, a: Array) -> tuple[Array, Array]:
    return per_item(a.shape[:-2], lambda one: numpy.linalg.inv(one), a)


def per_item(batch: tuple[int, ...], compute, *arrays: Array) -> tuple[Array, Array]:  # type: ignore[no-untyped-def]
    """(result, info): all at once, or item by item where one fails; that one is NaN, its info 1."""
    info = numpy.zeros(batch, numpy.int32)
    try:
        return compute(*arrays), info
    except numpy.linalg.LinAlgError:
        result = None
        for place in numpy.ndindex(*batch):
            try:
                made = compute(*(array[place] for array in arrays))
            except numpy.linalg.LinAlgError:
                info[place] = 1
                continue
            if result is None:
                result = numpy.full((*batch, *made.shape), numpy.nan, made.dtype)
            result[place] = made
        if result is None:
            last = arrays[-1]
            result = numpy.full((*batch, *last.shape[len(batch):]), numpy.nan, last.dtype)
        return result, info


def _infer_inv_ex(operands: Signature, options: Options) -> Signature:
    dtype, shape = square(operands, options)
    return (dtype, shape), (dtypes.int32, shape[:-2])


def solution(operands: Signature, options: Options) -> tuple[DType, Shape]:
    """The second operand's dtype and shape, once it is seen to fit the first."""
    check_matrices(operands, (0,))
    (_, a), (dtype, b) = operands
    if a[:-2] != b[:-2] or a[-1] != b[-2]:
        raise ValueError(f"{spelled(a)} and {spelled(b)} do not fit: the right-hand side needs "
                         f"{a[-1]} rows and the same batch")
    return dtype, b


def _infer_solve(operands: Signature, options: Options) -> Signature:
    return (solution(operands, options),)


def _infer_solve_ex(operands: Signature, options: Options) -> Signature:
    dtype, shape = solution(operands, options)
    return (dtype, shape), (dtypes.int32, shape[:-2])


LEAF = 16
"""Triangular systems of this size or less are solved row by row."""


def back_substitute(a: Array, b: Array, unit: bool) -> Array:
    """X with A X = B for an upper triangular A; what is below the diagonal is not read.

    Halves: X2 from the lower right block, then X1 from the upper left one with A12 X2 subtracted,
    so that nearly all the work is products of matrices.  Zeros on the diagonal give infinities
    and NaN.
    """
    n = a.shape[-1]
    if n <= LEAF:
        x = b.copy()
        for row in range(n - 1, -1, -1):
            if row + 1 < n:
                x[..., row, :] -= (a[..., row : row + 1, row + 1 :] @ x[..., row + 1 :, :])[
                    ..., 0, :
                ]
            if not unit:
                x[..., row, :] /= a[..., row, row, None]
        return x
    half = n // 2
    lower = back_substitute(a[..., half:, half:], b[..., half:, :], unit)
    rest = b[..., :half, :] - a[..., :half, half:] @ lower
    upper = back_substitute(a[..., :half, :half], rest, unit)
    return numpy.concatenate([upper, lower], axis=-2)


def solve_triangular(options: Options, a: Array, b: Array) -> tuple[Array]:
    """options: (upper, unit diagonal)."""
    upper, unit = options
    if upper:
        return (back_substitute(a, b, unit),)
    turned = back_substitute(a[..., ::-1, ::-1], b[..., ::-1, :], unit)
    return (turned[..., ::-1, :],)


def _infer_lstsq(operands: Signature, options: Options) -> Signature:
    """The least solution, rank, singular values of each system."""
    check_matrices(operands)
    (dtype, a), (_, b) = operands
    if a[:-2] != b[:-2] or a[-2] != b[-2]:
        raise ValueError(f"{spelled(a)} and {spelled(b)} do not fit: both need as many rows and "
                         "the same batch")
    values = min(a[-2:])
    return (
        (dtype, (*a[:-2], a[-1], b[-1])),
        (dtypes.int64, a[:-2]),
        (real_of(dtype), (*a[:-2], values)),
    )


def _lstsq(options: Options, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """options: (rcond,); singular values up to rcond times the largest count as 0."""
    (rcond,) = options
    inverse, rank, s = pseudo_inverse(a, 0.0, rcond)
    return inverse @ b, rank, s


def pseudo_inverse(
    a: Array, atol: float | Array, rtol: float | Array
) -> tuple[Array, Array, Array]:
    """(inverse, rank, singular values): those up to max(atol, rtol * largest) count as 0."""
    if a.size == 0:
        shape = (*a.shape[:-2], a.shape[-1], a.shape[-2])
        return (
            numpy.zeros(shape, a.dtype),
            numpy.zeros(a.shape[:-2], numpy.int64),
            numpy.zeros((*a.shape[:-2], min(a.shape[-2:])), a.real.dtype),
        )
    u, s, vh = numpy.linalg.svd(a, full_matrices=False)
    limit = numpy.maximum(atol, rtol * s[..., 0])[..., None]
    kept = s > limit
    turned = numpy.where(kept, 1 / numpy.where(kept, s, 1), 0).astype(s.dtype)
    inverse = (vh.conj().swapaxes(-1, -2) * turned[..., None, :]) @ u.conj().swapaxes(-1, -2)
    return inverse, kept.sum(-1), s


def _infer_pinv(operands: Signature, options: Options) -> Signature:
    dtype, shape = operands[0]
    check_matrices(operands[:1])
    for _, limits in operands[1:]:
        if limits != shape[:-2]:
            raise ValueError(f"tolerances of {spelled(limits)} do not fit {spelled(shape)}")
    return ((dtype, (*shape[:-2], shape[-1], shape[-2])),)


def _pinv(options: Options, a: Array, atol: Array, rtol: Array) -> tuple[Array]:
    return (pseudo_inverse(a, atol, rtol)[0],)


# ---- the matrix exponential


def _matrix_exp(options: Options, a: Array) -> tuple[Array]:
    """Scaling and squaring with the Padé approximant of degree 13 (Higham 2005); each item of the
    batch is scaled by its own norm.

    The coefficients are those of the diagonal Padé approximant: (26 - k)! 13! / (26! k! (13 - k)!).
    """
    if a.size == 0:
        return (a.copy(),)
    kind = a.dtype
    norm = numpy.abs(a).sum(-2).max(-1)
    usable = numpy.where(numpy.isfinite(norm), norm, 0)
    squarings = numpy.maximum(0, numpy.frexp(usable / 5.0)[1]).astype(int)
    squarings = numpy.minimum(squarings, 1100)
    x = a / numpy.exp2(squarings.astype(norm.dtype))[..., None, None]
    identity = numpy.eye(a.shape[-1], dtype=kind)
    factorial = math.factorial
    c = [
        factorial(26 - k) * factorial(13) / (factorial(26) * factorial(k) * factorial(13 - k))
        for k in range(14)
    ]
    c = [kind.type(value) for value in c]  # keeps single precision single
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    odd = x @ (
        x6 @ (c[13] * x6 + c[11] * x4 + c[9] * x2)
        + c[7] * x6 + c[5] * x4 + c[3] * x2 + c[1] * identity
    )
    even = (
        x6 @ (c[12] * x6 + c[10] * x4 + c[8] * x2)
        + c[6] * x6 + c[4] * x4 + c[2] * x2 + c[0] * identity
    )
    bad = ~numpy.isfinite(norm)
    if bad.any():
        even[bad], odd[bad] = identity, 0
    result = numpy.linalg.solve(even - odd, even + odd)
    for done in range(int(squarings.max(initial=0))):
        more = squarings > done
        result[more] = result[more] @ result[more]
    result[bad] = numpy.nan
    return (result.astype(kind, copy=False),)


SINGULAR = "linalg.pinv and linalg.lstsq take singular matrices, too."

CALLS: dict[str, LibraryCall] = {
    call.name: call
    for call in (
        LibraryCall(
            "linalg.inv",
            _one_square,
            lambda options, a: (_inverse(a),),
            "inverses",
            (2,),
            SINGULAR,
        ),
        LibraryCall(
            "linalg.inv_ex", _infer_inv_ex, _inv_ex, "inverses; 1 where there is none", (2,)
        ),
        LibraryCall(
            "linalg.solve",
            _infer_solve,
            lambda options, a, b: (numpy.linalg.solve(a, b),),
            "X with A X = B",
            (2, 2),
            SINGULAR,
        ),
        LibraryCall(
            "linalg.solve_ex",
            _infer_solve_ex,
            lambda options, a, b: per_item(a.shape[:-2], numpy.linalg.solve, a, b),
            "X with A X = B; 1 where there is none",
            (2, 2),
        ),
        LibraryCall(
            "linalg.solve_triangular",
            _infer_solve,
            solve_triangular,
            "X with A X = B for triangular A; options (upper, unit diagonal)",
            (2, 2),
        ),
        LibraryCall(
            "linalg.det",
            _infer_det,
            lambda options, a: (numpy.asarray(numpy.linalg.det(a)),),
            "determinants",
            (2,),
        ),
        LibraryCall(
            "linalg.slogdet",
            _infer_slogdet,
            lambda options, a: tuple(map(numpy.asarray, numpy.linalg.slogdet(a))),
            "(sign, log |det|)",
            (2,),
        ),
        LibraryCall("linalg.cofactor", _one_square, _cofactor, "d det(A) / d A", (2,)),
        LibraryCall(
            "linalg.lstsq",
            _infer_lstsq,
            _lstsq,
            "(least X with A X near B, rank, singular values); options (rcond,)",
            (2, 2),
        ),
        LibraryCall(
            "linalg.pinv",
            _infer_pinv,
            _pinv,
            "pseudo-inverses, given absolute and relative tolerances",
            (2, 0, 0),
        ),
        LibraryCall("linalg.matrix_exp", _one_square, _matrix_exp, "exponentials", (2,)),
    )
}
