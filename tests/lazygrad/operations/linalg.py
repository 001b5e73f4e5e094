"""Records of linear algebra: `linalg.*` and the names of `torch.*`.

Matrices are kept well away from singular ones.  Where a result is unique only up to signs or
phases (singular vectors, eigenvectors), what is compared does not depend on them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from lazygrad_runtime.library_calls import LinAlgError

from .record import (
    COMPLEX,
    FULL_FLOATS,
    REAL_AND_COMPLEX,
    ErrorInput,
    Maker,
    OperationRecord,
    Sample,
    sample,
)

DTYPES = (*FULL_FLOATS, *COMPLEX)
GRADIENTS = REAL_AND_COMPLEX
SINGLE = {"float32": (2e-3, 2e-4), "complex64": (2e-3, 2e-4)}
SECOND = {**SINGLE, "float64": (1e-7, 1e-8), "complex128": (1e-7, 1e-8)}


def regular(make: Maker, *shape: int) -> numpy.ndarray:
    """Square matrices with eigenvalues about 2."""
    return make(*shape, low=-0.5, high=0.5) + 2 * numpy.eye(shape[-1], dtype=make.dtype)


def separated(make: Maker, *shape: int) -> numpy.ndarray:
    """Matrices whose singular values differ: small ones on a diagonal 1, 2, 3, …"""
    rows, columns = shape[-2:]
    diagonal = numpy.eye(rows, columns) * numpy.arange(1, rows + 1)[:, None]
    return (make(*shape, low=-0.2, high=0.2) + diagonal).astype(make.dtype)


def positive(make: Maker, *shape: int) -> numpy.ndarray:
    """Hermitian, positive definite matrices."""
    a = make(*shape, low=-0.5, high=0.5)
    return (a @ a.conj().swapaxes(-1, -2) + numpy.eye(shape[-1])).astype(make.dtype)


def hermitian(a: Any) -> Any:
    """The Hermitian part: so that derivatives say the same whichever triangle is read."""
    return (a + a.mH) / 2


def square_samples(make: Maker) -> list[Sample]:
    return [sample(regular(make, 3, 3)), sample(regular(make, 2, 2, 2, 2))]


def separated_samples(make: Maker) -> list[Sample]:
    return [sample(separated(make, 3, 3)), sample(separated(make, 2, 4, 2)),
            sample(separated(make, 2, 4))]


def separated_squares(make: Maker) -> list[Sample]:
    return [sample(separated(make, 3, 3)), sample(separated(make, 2, 2, 2))]


def positive_samples(make: Maker) -> list[Sample]:
    return [sample(positive(make, 3, 3)), sample(positive(make, 2, 2, 2))]


def systems(make: Maker) -> list[Sample]:
    return [
        sample(regular(make, 3, 3), make(3, 2)),
        sample(regular(make, 3, 3), make(3)),
        sample(regular(make, 2, 1, 3, 3), make(2, 3, 1)),
        sample(regular(make, 3, 3), make(2, 3), left=False),
    ]


def triangular_systems(make: Maker) -> list[Sample]:
    return [
        sample(regular(make, 3, 3), make(3, 2), upper=True),
        sample(regular(make, 2, 3, 3), make(3, 2), upper=False, unitriangular=True),
        sample(regular(make, 3, 3), make(2, 3), upper=False, left=False),
        sample(regular(make, 19, 19), make(19, 1), upper=True),
    ]


def least_squares(make: Maker) -> list[Sample]:
    return [
        sample(separated(make, 5, 3), make(5, 2)),
        sample(separated(make, 2, 4, 2), make(2, 4, 1)),
        sample(separated(make, 2, 4), make(2, 1)),
    ]


def floating(*samples: Any) -> Any:
    """Samples as a function of the maker: each entry gives the arguments."""
    return lambda make: [entry(make) for entry in samples]


def absolute(results: Any) -> list[Any]:
    return [abs(each) for each in results]


def determined(factors: Any) -> list[Any]:
    """What is unique of a complete QR: further columns of Q are any basis of what is left."""
    q, r = factors
    return [tuple(q.shape), q[..., : min(r.shape[-2:])], r]


def error(match: str, *arguments: Any, kind: Any = RuntimeError, **keywords: Any) -> ErrorInput:
    return ErrorInput(sample(*arguments, **keywords), kind, match)


FLAT = numpy.ones((2, 3))
ZEROS = numpy.zeros((2, 2, 2))
NOT_SQUARE = error("square", FLAT)
NO_MATRIX = error("at least 2 axes", numpy.ones(3))
INTEGERS = error("int64", numpy.ones((2, 2), numpy.int64))
HALF = error("float16", numpy.ones((2, 2), numpy.float16))
SQUARE_ERRORS = (NOT_SQUARE, NO_MATRIX, INTEGERS, HALF)


def record(name: str, samples: Any, **keywords: Any) -> OperationRecord:
    settings = {"dtypes": DTYPES, "gradients": GRADIENTS, "tolerance": SECOND, **keywords}
    return OperationRecord(name, samples, **settings)


SOLVING = [
    record("linalg.inv", square_samples, out=True, compile=True,
           errors=(*SQUARE_ERRORS, error("Singular.*item 0", ZEROS, kind=LinAlgError))),
    record("linalg.inv_ex", square_samples, out=True),
    record("linalg.det", floating(
        lambda make: sample(regular(make, 3, 3)), lambda make: sample(make(2, 1, 1)),
        lambda make: sample(make(0, 0))), errors=SQUARE_ERRORS),
    record("linalg.det", floating(
        lambda make: sample(numpy.array([[1, 2], [2, 4]], make.dtype)),
        lambda make: sample(numpy.array([[1, 2, 3], [0, 1, 1], [1, 2, 3]], make.dtype))),
        variant="singular", second=False, gradients=("float64",), dtypes=("float64",),
        reference=lambda a: numpy.asarray(numpy.linalg.det(a)),
        note="PyTorch's gradient is 0 at every singular matrix; that of rank n - 1 is not"),
    record("linalg.slogdet", square_samples, out=True, errors=SQUARE_ERRORS),
    record("linalg.solve", systems, out=True, errors=(
        error("square", FLAT, numpy.ones(2)), error("rows", numpy.eye(3), numpy.ones((2, 2))),
        error("dtypes differ", numpy.eye(2), numpy.ones((2, 2), numpy.float32)),
        error("broadcast", numpy.ones((2, 3, 3)), numpy.ones((4, 3, 1))),
        error("Singular", ZEROS, numpy.ones((2, 2, 1)), kind=LinAlgError))),
    record("linalg.solve_ex", systems),
    record("linalg.solve_triangular", triangular_systems, errors=(
        error("rows", numpy.eye(3), numpy.ones((2, 2)), upper=True),)),
    record("linalg.lstsq", least_squares,
           call=lambda lib, *a, **k: lib.linalg.lstsq(*a, **k)[0], errors=(
        error("driver", FLAT, numpy.ones((2, 1)), driver="none"),
        error("rows", FLAT, numpy.ones((3, 1))))),
    record("linalg.lstsq", least_squares, variant="gelsd", gradients=(),
           call=lambda lib, *a: lib.linalg.lstsq(*a, driver="gelsd")),
    record("linalg.lstsq", least_squares, variant="rank", gradients=(),
           call=lambda lib, *a: lib.linalg.lstsq(*a)[1:], accepts=("sizes empty last at 1",),
           note="The rank is that of A, also for no right-hand sides; PyTorch's is 0."),
    record("linalg.pinv", separated_samples, out=True, errors=(NO_MATRIX, INTEGERS)),
    record("linalg.pinv", floating(
        lambda make: sample(separated(make, 4, 3), atol=2.5),
        lambda make: sample(separated(make, 2, 3, 3), rtol=numpy.array([0.1, 0.5])),
        lambda make: sample(numpy.array([[1, 2], [2, 4], [0, 0]], make.dtype))),
        variant="tolerances", gradients=()),
    record("linalg.tensorinv", floating(
        lambda make: sample(regular(make, 6, 6).reshape(2, 3, 6), ind=2),
        lambda make: sample(regular(make, 4, 4).reshape(4, 2, 2), ind=1)),
        errors=(error("elements", FLAT, ind=1), error("above 0", FLAT, ind=0))),
    record("linalg.tensorsolve", floating(
        lambda make: sample(regular(make, 6, 6).reshape(2, 3, 6), make(2, 3)),
        lambda make: sample(regular(make, 4, 4).reshape(2, 4, 2), make(4), dims=(0, 2))),
        errors=(error("fit", FLAT, numpy.ones(3)),)),
    record("inverse", square_samples, method=True),
    record("det", square_samples, method=True, gradients=()),
    record("slogdet", square_samples, method=True, gradients=()),
    record("logdet", positive_samples, method=True),
    record("pinverse", separated_samples, method=True, gradients=()),
]

FACTORING = [
    record("linalg.cholesky", positive_samples,
           call=lambda lib, a, **k: lib.linalg.cholesky(hermitian(a), **k),
           errors=(error("not positive definite.*item 0", -ZEROS, kind=LinAlgError),)),
    record("linalg.cholesky", positive_samples, variant="upper",
           call=lambda lib, a: lib.linalg.cholesky(hermitian(a), upper=True)),
    record("linalg.cholesky_ex", positive_samples,
           call=lambda lib, a: lib.linalg.cholesky_ex(hermitian(a)),
           accepts=("dtype bool", "sizes less 2", "sizes more 0"),
           note="Of a matrix that is not positive definite L is NaN; PyTorch leaves what it had."),
    record("linalg.qr", separated_samples, out=True, errors=(
        NO_MATRIX, INTEGERS, error("mode", FLAT, "full"))),
    record("linalg.qr", separated_samples, variant="other modes", gradients=(),
           call=lambda lib, a: (determined(lib.linalg.qr(a, "complete")), lib.linalg.qr(a, "r"))),
    record("linalg.householder_product", samples=floating(
        lambda make: sample(make(4, 3), make(3)), lambda make: sample(make(2, 3, 3), make(2, 2))),
        errors=(error("more columns", FLAT, numpy.ones(2)),
                error("tau", numpy.ones((3, 2)), numpy.ones(3)))),
    record("linalg.svd", separated_samples,
           call=lambda lib, a: absolute(lib.linalg.svd(a, full_matrices=False)),
           errors=(NO_MATRIX, INTEGERS)),
    record("linalg.svd", separated_samples, variant="full", gradients=(),
           call=lambda lib, a: [part.shape for part in lib.linalg.svd(a)]),
    record("linalg.svdvals", separated_samples, out=True),
    record("linalg.eigh", separated_squares, errors=(error("UPLO", numpy.eye(2), "X"),),
           call=lambda lib, a, *more: absolute(lib.linalg.eigh(hermitian(a), *more)),
           accepts=("dtype bool",), note="The matrix of ones has no unique eigenvectors."),
    record("linalg.eigh", separated_squares, variant="upper", gradients=(),
           call=lambda lib, a: absolute(lib.linalg.eigh(a, UPLO="U"))),
    record("linalg.eigvalsh", separated_squares,
           call=lambda lib, a: lib.linalg.eigvalsh(hermitian(a))),
    record("linalg.eig", separated_squares, errors=(NOT_SQUARE, INTEGERS),
           call=lambda lib, a: (lib.linalg.eig(a)[0], abs(lib.linalg.eig(a)[1]))),
    record("linalg.eigvals", separated_squares),
    record("linalg.lu", separated_samples, errors=(NO_MATRIX, INTEGERS)),
    record("linalg.lu_factor", separated_samples, errors=(
        error("zero on its diagonal", ZEROS, kind=LinAlgError),)),
    record("linalg.lu_factor_ex", separated_samples, gradients=()),
    record("linalg.lu_solve", systems,
           call=lambda lib, a, b, **k: lib.linalg.lu_solve(
        *lib.linalg.lu_factor(a), b if b.ndim > 1 else b[:, None], **k)),
    record("linalg.lu_solve", floating(lambda make: sample(regular(make, 3, 3), make(2, 3, 2))),
           variant="adjoint", call=lambda lib, a, b: lib.linalg.lu_solve(
               *lib.linalg.lu_factor(a), b, adjoint=True)),
    record("linalg.ldl_factor", floating(lambda make: sample(make(2, 5, 5))), gradients=(),
           call=lambda lib, a: (lib.linalg.ldl_factor(hermitian(a), hermitian=True),
                                lib.linalg.ldl_factor_ex(a + a.mT))),
    record("linalg.ldl_solve", floating(lambda make: sample(make(5, 5), make(2, 5, 1))),
           gradients=(), call=lambda lib, a, b: lib.linalg.ldl_solve(
               *[each.expand(2, *each.shape) for each in lib.linalg.ldl_factor(a + a.mT)], b)),
]

NORMS = [
    record("linalg.vector_norm", floating(
        lambda make: sample(make(2, 3)), lambda make: sample(make(2, 3), 3.5, dim=1),
        lambda make: sample(make(2, 3), math.inf, dim=(0,), keepdim=True),
        lambda make: sample(make(2, 3), -math.inf, dim=1), lambda make: sample(make(2, 3), 1)),
        errors=(error("int64", numpy.ones(3, numpy.int64)), error("no values", numpy.ones(0), -1),
                error("dim", numpy.ones(3), 2, 1, kind=IndexError))),
    record("linalg.vector_norm", floating(
        lambda make: sample(make(2, 3), 0), lambda make: sample(make(0), 2)),
        variant="flat", gradients=()),
    record("linalg.matrix_norm", floating(*(
        lambda make, order=order: sample(separated(make, 2, 3, 2), order)
        for order in ("fro", "nuc", 2, -2, 1, -1, math.inf, -math.inf))),
        errors=(error("order", FLAT, 3), error("pair", FLAT, 1, 0), NO_MATRIX,
                error("twice", FLAT, 1, (1, -1)))),
    record("linalg.matrix_norm", floating(
        lambda make: sample(separated(make, 3, 2)[:, None], 2, dim=(2, 0), keepdim=True),
        lambda make: sample(make(3, 2, 2), 1, dim=(1, 0)),
        lambda make: sample(make(3, 2, 2), "nuc", dim=(0, 2))), variant="axes"),
    record("linalg.norm", floating(
        lambda make: sample(make(2, 3)), lambda make: sample(make(2, 3), "nuc"),
        lambda make: sample(make(3), 3), lambda make: sample(make(2, 3, 2), None, (0, 2)),
        lambda make: sample(make(2, 3, 2), 1, (0, 2)), lambda make: sample(make(2, 3), 2, 1)),
        errors=(error("1 or 2 axes", numpy.ones((1, 1, 1)), 2),)),
    record("linalg.cond", separated_squares, errors=(error("square", FLAT, 1),)),
    record("linalg.cond", floating(
        *(lambda make, p=p: sample(separated(make, 2, 2), p) for p in ("fro", 1, -math.inf)),
        lambda make: sample(separated(make, 3, 2), -2)), variant="other norms", gradients=()),
    record("linalg.matrix_rank", floating(
        lambda make: sample(separated(make, 2, 3, 2)), lambda make: sample(make(2, 0)),
        lambda make: sample(numpy.array([[1, 2], [2, 4]], make.dtype)),
        lambda make: sample(separated(make, 3, 3), atol=2.5),
        lambda make: sample(separated(make, 3, 3), rtol=0.5)), gradients=()),
    record("linalg.matrix_rank", positive_samples, variant="hermitian", gradients=(),
           call=lambda lib, a: lib.linalg.matrix_rank(a, hermitian=True, atol=1.1)),
    record("nuclear_norm", floating(lambda make: sample(separated(make, 3, 2))), gradients=()),
    record("frobenius_norm", floating(lambda make: sample(make(2, 3), (0, 1)),
                                      lambda make: sample(make(2, 3), (0, 1), True)),
           gradients=(), accepts=("arguments missing",),
           note="dim is the last two axes unless given, as in nuclear_norm."),
]

PRODUCTS = [
    record("linalg.matmul", floating(lambda make: sample(make(2, 3), make(2, 3, 2)))),
    record("linalg.matrix_power", floating(*(
        lambda make, n=n: sample(regular(make, 2, 2, 2), n) for n in (0, 1, 5, -2))),
        errors=(error("square", FLAT, 2), error("whole", numpy.eye(2), 0.5, kind=TypeError))),
    record("linalg.matrix_exp", floating(
        lambda make: sample(make(3, 3)), lambda make: sample(make(2, 2, 2) * 8),
        lambda make: sample(make(0, 0))), errors=SQUARE_ERRORS),
    record("linalg.multi_dot", floating(
        lambda make: sample([make(2, 3), make(3, 4), make(4, 1), make(1, 3)]),
        lambda make: sample([make(3), make(3, 2), make(2)])),
        errors=(error("at least 2", [FLAT]), error("multiplied", [FLAT, FLAT]))),
    record("linalg.cross", floating(
        lambda make: sample(make(2, 3), make(1, 3)),
        lambda make: sample(make(3, 2), make(3, 2), dim=0)),
        errors=(error("3 elements", numpy.ones((3, 2)), numpy.ones((3, 2))),)),
    record("linalg.vecdot", floating(
        lambda make: sample(make(2, 3), make(3)), lambda make: sample(make(2, 3), make(2, 1), dim=0)
    )),
    record("linalg.diagonal", floating(
        lambda make: sample(make(2, 3, 4)), lambda make: sample(make(2, 3, 4), offset=1, dim1=0))),
    record("linalg.vander", floating(
        lambda make: sample(make(2, 3)), lambda make: sample(make(3), N=5)),
        dtypes=(*DTYPES, "int64")),
    record("matrix_power", floating(lambda make: sample(regular(make, 2, 2), 3)), method=True,
           gradients=()),
    record("matrix_exp", floating(lambda make: sample(make(2, 2))), method=True, gradients=()),
]

FORMER = [
    record("cholesky", positive_samples, method=True, gradients=()),
    record("cholesky_inverse", positive_samples, method=True, gradients=()),
    record("cholesky_inverse", positive_samples, variant="of a triangle",
           call=lambda lib, a: lib.cholesky_inverse(lib.tril(a)),
           note="for the other triangle, which is not read, PyTorch gives gradients, too"),
    record("cholesky_solve", floating(
        lambda make: sample(make(3, 2), regular(make, 3, 3)),
        lambda make: sample(make(2, 3, 1), regular(make, 3, 3), upper=True)), method=True,
        gradients=()),
    record("cholesky_solve", floating(
        lambda make: sample(make(3, 2), regular(make, 3, 3)),
        lambda make: sample(make(2, 3, 1), regular(make, 3, 3), True)), variant="of a triangle",
        call=lambda lib, b, a, upper=False: lib.cholesky_solve(
            b, lib.triu(a) if upper else lib.tril(a), upper)),
    record("qr", separated_samples, method=True, gradients=()),
    record("qr", separated_samples, variant="some", gradients=(),
           call=lambda lib, a: determined(lib.qr(a, some=False))),
    record("svd", separated_samples, gradients=(), call=lambda lib, a: absolute(
        [*lib.svd(a), lib.svd(a, some=False)[1], *lib.svd(a, compute_uv=False)])),
    record("geqrf", separated_samples, method=True, gradients=()),
    record("orgqr", floating(lambda make: sample(make(4, 3), make(3))), method=True,
           gradients=()),
    record("ormqr", floating(
        lambda make: sample(separated(make, 4, 3), make(4, 2)),
        lambda make: sample(separated(make, 4, 3), make(4, 2), transpose=True),
        lambda make: sample(separated(make, 4, 3), make(2, 4), left=False)), gradients=(),
        call=lambda lib, a, c, **k: lib.ormqr(*lib.geqrf(a), c, **k)),
    record("lu", separated_samples, gradients=(),
           call=lambda lib, a: (lib.lu(a), lib.lu(a, get_infos=True))),
    record("lu_unpack", separated_samples, call=lambda lib, a: lib.lu_unpack(*lib.lu(a)),
           gradients=()),
    record("lu_solve", floating(lambda make: sample(make(3, 2), regular(make, 3, 3))),
           call=lambda lib, b, a: lib.lu_solve(b, *lib.lu(a)), gradients=()),
    record("triangular_solve", floating(
        lambda make: sample(make(3, 2), regular(make, 3, 3)),
        lambda make: sample(make(3, 2), regular(make, 2, 3, 3), False, True, True)),
        method=True, gradients=()),
]

RECORDS = [*SOLVING, *FACTORING, *NORMS, *PRODUCTS, *FORMER]
