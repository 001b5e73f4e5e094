"""Complex numbers: their own operations, and those that take any numbers in complex dtypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .record import COMPLEX, FULL_FLOATS, ErrorInput, Maker, OperationRecord, Sample, sample

LOOSE = {"complex64": (1e-4, 1e-5), "complex128": (1e-9, 1e-10)}
EITHER = (*COMPLEX, *FULL_FLOATS)
REFUSED = (TypeError, RuntimeError)


def one(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4)), sample(make()), sample(make(0, 2)), sample(make(2, 3, 5))]


def away_from_zero(make: Maker) -> Sequence[Sample]:
    x = make(3, 4)
    return [sample(x + numpy.sign(x) * 0.3), sample(make(5, low=0.5, high=2.0))]


def two(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4), make(3, 4)), sample(make(3, 4), make(4)), sample(make(2, 1), make())]


def with_real(make: Maker) -> Sequence[Sample]:
    part = "float64" if make.dtype == "complex128" else "float32"
    return [sample(make(3, 4), make(4, dtype=part)), sample(make(3, dtype=part), make(3))]


def parts(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4), make(3, 4)), sample(make(3, 4), make(4)), sample(make(), make())]


def pairs(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4, 2)), sample(make(2))]


def some(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4)), sample(make()), sample(make(2, 3, 5))]


def sizes_and_angles(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4, low=0.2), make(3, 4)), sample(make(3, 4, low=0.2), make(4))]


def factors(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4), make(4), make(3, 1, low=1, high=3)),
            sample(make(3), make(3), make(3, low=1, high=3), value=2)]


def powers(make: Maker) -> Sequence[Sample]:
    x = make(4, low=0.3, high=2.0)
    return [sample(x, make(4)), *(sample(x, exponent) for exponent in (2, 3, -1, 0.5, 0, 1.5, 1j))]


def along(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4), 1), sample(make(3, 4), 0), sample(make(2, 3, 2), -2)]


def matrices(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4), make(4, 2)), sample(make(2, 3, 4), make(2, 4, 5)),
            sample(make(4), make(4)), sample(make(2, 3, 4), make(4))]


def error(*arguments: Any, match: str = "", **keywords: Any) -> ErrorInput:
    return ErrorInput(Sample(arguments, keywords), REFUSED, match)


Z = numpy.array([1 + 2j, 3 - 1j], numpy.complex64)
X = numpy.ones((2, 2), numpy.float32)


def plain(name: str, samples: Callable[[Maker], Sequence[Sample]] = one,
          **settings: Any) -> OperationRecord:
    settings = {"dtypes": COMPLEX, "gradients": ("complex128",), "tolerance": LOOSE} | settings
    return OperationRecord(name, samples, variant="complex", **settings)


RECORDS = [
    plain("real", dtypes=EITHER, gradients=("complex128", "float64"), view=True),
    plain("imag", view=True, errors=(error(X, match="imag"),)),
    plain("conj", dtypes=EITHER, view=True, method=True),
    plain("conj_physical", dtypes=EITHER, method=True, inplace=True),
    plain("resolve_conj", method=True),
    plain("is_conj", gradients=(), second=False, method=True),
    plain("view_as_real", some, view=True, errors=(error(X, match="complex"),)),
    plain("view_as_complex", pairs, dtypes=FULL_FLOATS, gradients=("float64",), view=True,
          call=lambda library, x: library.view_as_complex(x.contiguous()),
          errors=(error(numpy.ones(3), match="size 2"), error(Z, match="float"))),
    plain("complex", parts, dtypes=FULL_FLOATS, gradients=("float64",),
          errors=(error(X, X.astype(numpy.float64), match="complex"), error(Z, Z))),
    plain("polar", sizes_and_angles, dtypes=FULL_FLOATS, gradients=("float64",),
          errors=(error(Z, Z),)),
    plain("angle", away_from_zero, dtypes=EITHER, gradients=("complex128",), method=True),
    plain("abs", away_from_zero, method=True),
    plain("sgn", away_from_zero, dtypes=EITHER, method=True, inplace=True),
    plain("isreal", dtypes=EITHER, gradients=(), method=True),
    plain("adjoint", lambda make: [sample(make(3, 4)), sample(make(2, 3, 4))], method=True,
          errors=(error(Z, match="adjoint"),)),
    *(plain(name, method=True) for name in ("neg", "negative", "square", "reciprocal", "positive",
                                            "absolute")),
    *(plain(name, method=True) for name in ("exp", "exp2", "expm1", "sin", "cos", "sinh", "cosh",
                                            "tanh", "tan", "asinh", "atan", "sigmoid", "arcsinh",
                                            "arctan")),
    *(plain(name) for name in ("special.expit", "special.exp2", "special.expm1",
                               "nn.functional.sigmoid", "nn.functional.tanh",
                               "nn.functional.tanhshrink")),
    *(plain(name, away_from_zero) for name in ("sinc", "special.sinc", "special.log1p",
                                               "nn.functional.softsign")),
    *(plain(name, away_from_zero, method=True)
      for name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "asin", "acos", "acosh",
                   "atanh", "arcsin", "arccos", "arctanh", "arccosh")),
    *(plain(name, two, method=True, inplace=False) for name in (
        "add", "sub", "mul", "div", "true_divide", "logaddexp", "multiply", "divide", "subtract")),
    plain("rsub", two), plain("ldexp", two),
    *(plain(name, factors, method=True, inplace=True) for name in ("addcmul", "addcdiv")),
    *(OperationRecord(name, with_real, COMPLEX, ("complex128",), variant="complex with real",
                      tolerance=LOOSE) for name in ("add", "mul", "div")),
    *(plain(name, two, gradients=(), method=True) for name in ("eq", "ne", "isclose")),
    plain("pow", powers, method=True, accepts=("dtype u?int.* at 0",),
          note="0 to a complex power of negative real part is infinite or NaN; PyTorch has the "
               "parts differ."),
    plain("float_power", powers, method=True, dtypes=("complex128",),
          accepts=("dtype u?int.* at 0",), note="As pow."),
    plain("sum"), plain("mean"), plain("prod", along, method=True),
    plain("var", along), plain("std", along), plain("cumsum", along), plain("cumprod", along),
    plain("matmul", matrices, method=True),
    plain("isfinite", gradients=()), plain("isinf", gradients=()), plain("isnan", gradients=()),
    plain("nan_to_num", gradients=()),
]
