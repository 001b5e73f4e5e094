"""Running totals, differences, the trapezoidal rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from .record import (
    ALL,
    COMPLEX,
    FLOATS,
    FULL_FLOATS,
    REAL_AND_COMPLEX,
    REALS,
    ErrorInput,
    Maker,
    OperationRecord,
    Sample,
    sample,
)

BAD_AXIS = ErrorInput(sample(numpy.ones((2, 3)), 2), IndexError, "dim 2")


def _along(make: Maker) -> Sequence[Sample]:
    return [sample(make(7), 0), sample(make(3, 5), 1), sample(make(4, 3), 0),
            sample(make(2, 3, 2), -2), sample(make(), 0), sample(make(0), 0),
            sample(make(2, 0), 0), sample(make(1, 1), 1)]


def _products(make: Maker) -> Sequence[Sample]:
    """With none, one, two and three zeros in a line."""
    values = make(4, 6, low=0.5, high=2.0)
    if make.dtype != "bool":
        for row, places in enumerate([(), (2,), (1, 4), (0, 3, 5)]):
            values[row, list(places)] = 0
    return [sample(values, 1), sample(values, 0), sample(make(5), 0)]


def _distinct(make: Maker) -> Sequence[Sample]:
    ties = make(4, 9, low=0, high=2)
    if make.dtype not in ("bool",):
        ties = numpy.round(ties.astype("float64")).astype(ties.dtype)
    return [sample(make.distinct(3, 5) if make.dtype != "bool" else make(3, 5), 1),
            sample(ties, 1), sample(ties, 0), sample(make(), 0), sample(make(0, 2), 0)]


def _specials(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 8), 1)]


def _with_dtype(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 5), 1, dtype="float64"), sample(make(3, 5), 0, dtype="int32")]


def _infinite(make: Maker) -> Sequence[Sample]:
    """No huge numbers that cancel: what is left of them depends on the order of adding."""
    values = make(3, 20)
    values[0, [7, 12]] = [numpy.inf, -numpy.inf]
    values[1, 3] = numpy.nan
    values[2, :5] = -0.0
    return [sample(values, 1), sample(values, 0)]


def _differences(make: Maker) -> Sequence[Sample]:
    x = make(4, 5)
    return [sample(x), sample(x, 2, 0), sample(x, 0), sample(make(6), 7),
            sample(x, 1, -1, make(4, 2), make(4, 1)), sample(x, 1, 0, None, make(1, 5))]


def _areas(make: Maker) -> Sequence[Sample]:
    y = make(3, 5)
    return [sample(y), sample(y, dx=0.5), sample(y, dim=0), sample(y, make(5)),
            sample(y, make(3, 5)), sample(y, make(3), dim=0), sample(make(1))]


RECORDS = [
    OperationRecord(
        "cumsum", _along, dtypes=(*REALS, *COMPLEX), gradients=REAL_AND_COMPLEX,
        method=True, inplace=True, out=True, compile=True,
        errors=(BAD_AXIS, ErrorInput(sample(numpy.ones(3), 0.5), (TypeError,), "dim")),
    ),
    OperationRecord(
        "cumprod", _products, dtypes=(*FULL_FLOATS, "int64", "int32", "uint8", *COMPLEX),
        gradients=REAL_AND_COMPLEX, method=True, inplace=True, out=True,
        errors=(BAD_AXIS,),
    ),
    OperationRecord("cumsum", _along, dtypes=("bool",), gradients=(), method=True, variant="bool"),
    OperationRecord("cumsum", _infinite, dtypes=FLOATS, gradients=(), variant="infinite"),
    OperationRecord("cumsum", _with_dtype, gradients=(), variant="dtype"),
    OperationRecord("cumprod", _with_dtype, gradients=(), variant="dtype"),
    OperationRecord("cummax", _distinct, dtypes=(*REALS, "bool"), method=True,
                    errors=(BAD_AXIS,)),
    OperationRecord("cummin", _distinct, dtypes=(*REALS, "bool"), method=True,
                    errors=(BAD_AXIS,)),
    OperationRecord("cummax", _specials, gradients=(), special=True, variant="special"),
    OperationRecord("cummin", _specials, gradients=(), special=True, variant="special"),
    OperationRecord(
        "logcumsumexp", _along, dtypes=(*FLOATS, *COMPLEX), gradients=REAL_AND_COMPLEX,
        method=True, out=True, special=True,
        errors=(BAD_AXIS, ErrorInput(sample(numpy.ones(3, "int64"), 0),
                                     (RuntimeError,), "floating")),
    ),
    OperationRecord(
        "diff", _differences, dtypes=ALL, gradients=REAL_AND_COMPLEX, method=True,
        errors=(ErrorInput(sample(numpy.float64(3.0)), (RuntimeError,), "axis"),
                ErrorInput(sample(numpy.ones(3), -1), (RuntimeError,), "-1 times"),
                ErrorInput(sample(numpy.ones((2, 3)), 1, -1, numpy.ones(3)), (RuntimeError,),
                           "axes of the input")),
    ),
    *(
        OperationRecord(
            name, _areas, dtypes=("float32", "float64", "int64", "complex64"),
            gradients=REAL_AND_COMPLEX,
            errors=(ErrorInput(sample(numpy.ones((2, 3)), numpy.ones(2)), (RuntimeError,),
                               "one x for each y"),),
            accepts=("dtype uint8 at 0",),
            note="Sums of uint8 neighbours do not wrap around, as some of PyTorch's do.",
        )
        for name in ("trapezoid", "trapz", "cumulative_trapezoid")
    ),
]
