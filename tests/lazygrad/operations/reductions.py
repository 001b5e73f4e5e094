"""Reductions: totals, extremes, truth, spread, norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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

INF = float("inf")
NORMS = ("fro", 0, 1, 2, 3, 0.5, 1.5, -1, INF, -INF)
BAD_AXIS = ErrorInput(sample(numpy.ones((2, 3)), 2), IndexError, "dim 2")
TWICE = ErrorInput(sample(numpy.ones((2, 3)), (0, 0)), (RuntimeError,), "twice")
WHOLE = ErrorInput(sample(numpy.ones((2, 3), "int64")), (RuntimeError,), "floating")


def _axes(make: Maker) -> Sequence[Sample]:
    x = make(3, 4, 5)
    return [sample(x), sample(x, 1), sample(x, (0, 2)), sample(x, [-1], True),
            sample(x, (0, 1, 2), keepdim=True), sample(make()), sample(make(), 0),
            sample(make(3, 0)), sample(make(3, 0), 1), sample(make(3, 0), 0)]


def _some_axes(make: Maker) -> Sequence[Sample]:
    """Without reductions of nothing."""
    x = make(3, 4, 5)
    return [sample(x), sample(x, 1), sample(x, (0, 2)), sample(x, (-1,), True), sample(make()),
            sample(make(3, 0), 0)]


def _one_axis(make: Maker) -> Sequence[Sample]:
    x = make.distinct(3, 4, 5)
    return [sample(x), sample(x, 1), sample(x, -1, True), sample(x, 0, keepdim=True),
            sample(make.distinct(1).reshape(()), 0), sample(make(3, 0), 0)]


def _ties(make: Maker) -> Sequence[Sample]:
    values = make.index(3, 4, 6).astype("float64")
    values = values.astype(make.distinct(1).dtype)
    return [sample(values, 1), sample(values, 0), sample(values)]


def _products(make: Maker) -> Sequence[Sample]:
    values = make(4, 5, low=0.5, high=2)
    for row, places in enumerate([(), (2,), (1, 4), (0, 1, 2)]):
        values[row, list(places)] = 0
    return [sample(values, 1), sample(values, 0, True), sample(values), sample(make()),
            sample(make(2, 0), 1), sample(make(0))]


def _with_dtype(make: Maker) -> Sequence[Sample]:
    x = make(3, 4)
    return [sample(x, dtype="float64"), sample(x, 1, dtype="float32"),
            sample(x, 0, True, dtype="float64")]


def _with_nan(make: Maker) -> Sequence[Sample]:
    x = make(4, 6)
    if make.dtype in FLOATS:
        x[0] = numpy.nan
        x[1:3, 2] = numpy.nan
    return [sample(x), sample(x, 1), sample(x, (0, 1), True), sample(x, 0), sample(make(2, 0), 1)]


def _spread(make: Maker) -> Sequence[Sample]:
    x = make(3, 4, 5)
    return [sample(x), sample(x, 1), sample(x, (0, 2), keepdim=True), sample(x, False),
            sample(x, 1, False), sample(x, 1, True, True), sample(x, dim=-1, correction=0),
            sample(x, dim=(0, 1), correction=2), sample(make(4), 0, correction=0.5),
            sample(numpy.full_like(make(3), 2.0), 0)]


def _no_spread(make: Maker) -> Sequence[Sample]:
    """One element, and none."""
    return [sample(make(1)), sample(make(3, 1), 1), sample(make()), sample(make(2, 0), 1)]


def _no_freedom(make: Maker) -> Sequence[Sample]:
    """A correction of as many as there are, or more: infinite, whose gradient says nothing."""
    return [sample(make(3), 0, correction=3), sample(make(4), 0, correction=9)]


def _norms(p: Any) -> Callable[[Maker], Sequence[Sample]]:
    def samples(make: Maker) -> Sequence[Sample]:
        x = make.distinct(3, 4) if make.dtype in FLOATS else make(3, 4)
        found = [sample(x, p), sample(x, p, 1), sample(x, p, (0, 1), True)]
        return found if p in (INF, -INF, -1) else [*found, sample(make(2, 0), p, 1)]

    return samples


def _zeros(p: Any) -> Callable[[Maker], Sequence[Sample]]:
    def samples(make: Maker) -> Sequence[Sample]:
        x = make(3, 5)
        x[0] = 0
        x[1, 2] = 0
        return [sample(x, p, 1)]

    return samples


def _distances(make: Maker) -> Sequence[Sample]:
    x, y = make(3, 4), make(3, 4)
    return [sample(x, y), sample(x, y, 1), sample(x, y, 3), sample(x, make(4), INF),
            sample(make(0), make(0))]


def _renormed(make: Maker) -> Sequence[Sample]:
    x = make(3, 4)
    return [sample(x, 2, 0, 1.5), sample(x, 1, 1, 2), sample(x, INF, 0, 1.0),
            sample(make(2, 3, 4), 2.5, -1, 0.5), sample(x, 2, 0, 0)]


def _logarithms(make: Maker) -> Sequence[Sample]:
    x = make(3, 4, 5)
    far = make(2, 3)
    far[0] += 80 if make.dtype != "float16" else 8
    return [sample(x, 1), sample(x, (0, 2)), sample(x, -1, True), sample(far, 1), sample(make(), 0),
            sample(make(3, 0), 0)]


def _truths(make: Maker) -> Sequence[Sample]:
    x = make(3, 4)
    x[:, 1] = 0
    ones = numpy.ones_like(make(2, 3))
    return [sample(x), sample(x, 0), sample(x, 1, True), sample(ones), sample(ones, (0, 1)),
            sample(make(0)), sample(make(2, 0), 1), sample(make())]


def _counted(make: Maker) -> Sequence[Sample]:
    x = make(3, 4)
    x[:, 1] = 0
    return [sample(x), sample(x, 0), sample(x, (0, 1)), sample(make(0))]


def _specials(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 6), 1), sample(make(12))]


def _special_ends(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 6), dim=1), sample(make(12))]


def _both_ends(make: Maker) -> Sequence[Sample]:
    x = make.distinct(3, 4)
    ties = numpy.asarray(make.index(3, 4, 6)).astype(x.dtype)
    return [sample(x), sample(x, dim=1), sample(x, dim=0, keepdim=True), sample(ties, dim=1)]


def _pairs(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4), make(4)), sample(make(3, 1), make(1, 4))]


def _empty(name: str) -> tuple[ErrorInput, ...]:
    return (BAD_AXIS, ErrorInput(sample(numpy.ones((2, 0)), 1), (IndexError,), "no elements"),
            ErrorInput(sample(numpy.ones(0)), (IndexError,), "no elements"))


NO_ORDER = ErrorInput(sample(numpy.ones(3, "complex128")), (RuntimeError,), "no order")

RECORDS = [
    OperationRecord("sum", _axes, dtypes=ALL, gradients=REAL_AND_COMPLEX, method=True,
                    out=False, errors=(BAD_AXIS, TWICE), compile=True),
    OperationRecord("sum", _with_dtype, dtypes=(*REALS, "bool"), gradients=(), method=True,
                    variant="dtype"),
    OperationRecord("nansum", _with_nan, dtypes=(*REALS, "bool"), method=True,
                    errors=(BAD_AXIS,)),
    OperationRecord("mean", _axes, dtypes=(*FLOATS, *COMPLEX), gradients=REAL_AND_COMPLEX,
                    method=True, errors=(BAD_AXIS, WHOLE)),
    OperationRecord("mean", _with_dtype, dtypes=REALS, gradients=(), method=True, variant="dtype"),
    OperationRecord("nanmean", _with_nan, dtypes=FLOATS, method=True, gradients=(),
                    errors=(BAD_AXIS,)),
    OperationRecord("prod", _products, dtypes=ALL, gradients=REAL_AND_COMPLEX, method=True,
                    errors=(BAD_AXIS,)),
    OperationRecord("prod", _with_dtype, dtypes=REALS, gradients=(), variant="dtype",
                    call=lambda library, x, dim=0, keepdim=False, dtype=None: library.prod(
                        x, dim, keepdim, dtype=dtype)),
    *(
        record
        for name in ("max", "min")
        for record in (
            OperationRecord(name, _one_axis, dtypes=REALS, method=True,
                            errors=(*_empty(name), NO_ORDER)),
            OperationRecord(name, _ties, dtypes=FULL_FLOATS, method=True, variant="ties"),
            OperationRecord(name, _specials, gradients=(), special=True, variant="special"),
            OperationRecord(name, _pairs, dtypes=(*REALS, "bool"), method=True, variant="pair"),
            OperationRecord(f"a{name}", _some_axes, dtypes=(*REALS, "bool"), method=True,
                            special=True, errors=(*_empty(name), NO_ORDER)),
            OperationRecord(f"a{name}", _ties, dtypes=FULL_FLOATS, method=True, variant="ties"),
            OperationRecord(f"arg{name}", _one_axis, dtypes=REALS, gradients=(), method=True,
                            special=True, errors=(*_empty(name), NO_ORDER)),
            OperationRecord(f"arg{name}", _ties, gradients=(), method=True, variant="ties"),
        )
    ),
    OperationRecord("aminmax", _both_ends, dtypes=REALS, method=True, errors=(NO_ORDER,)),
    OperationRecord("aminmax", _special_ends, gradients=(), special=True, variant="special"),
    *(
        OperationRecord(name, _truths, dtypes=ALL, gradients=(), method=True, special=True,
                        errors=(BAD_AXIS,))
        for name in ("all", "any")
    ),
    OperationRecord("count_nonzero", _counted, dtypes=ALL, gradients=(), method=True,
                    errors=(BAD_AXIS,)),
    *(
        OperationRecord(name, _spread, dtypes=(*FLOATS, *COMPLEX),
                        gradients=REAL_AND_COMPLEX, method="mean" not in name,
                        errors=(BAD_AXIS, WHOLE))
        for name in ("var", "std", "var_mean", "std_mean")
    ),
    *(
        record
        for name in ("var", "std", "var_mean")
        for record in (
            OperationRecord(name, _no_spread, dtypes=FULL_FLOATS, second=False, variant="of one"),
            OperationRecord(name, _no_freedom, dtypes=FULL_FLOATS, gradients=(),
                            variant="no freedom", accepts=("dtype complex64",),
                            note="Over no degrees of freedom it is inf, as for real numbers; "
                                 "PyTorch's is NaN for complex ones."),
        )
    ),
    OperationRecord("logsumexp", _logarithms, dtypes=(*FLOATS, *COMPLEX), method=True,
                    gradients=REAL_AND_COMPLEX,
                    special=True, errors=(BAD_AXIS,), accepts=("arguments empty at 1",),
                    note="No axes mean all, as in sum; PyTorch fails inside."),
    OperationRecord("logsumexp", lambda make: [sample(make(3, 4), 1)], dtypes=("int64",),
                    gradients=(), variant="integers"),
    *(
        OperationRecord("norm", _norms(p), dtypes=(*FLOATS, *COMPLEX), method=True,
                        gradients=REAL_AND_COMPLEX, variant=str(p),
                        tolerance={"float16": (5e-3, 5e-3)})
        for p in NORMS
    ),
    *(
        OperationRecord("norm", _zeros(p), dtypes=(*FLOATS, *COMPLEX), method=True,
                        gradients=REAL_AND_COMPLEX, second=False, variant=f"{p} of zeros",
                        note="Second derivatives at norms of 0 are 0, PyTorch's are NaN.")
        for p in NORMS
    ),
    OperationRecord("norm", lambda make: [sample(make(3, 4), "nuc"), sample(make(2, 3, 4), "nuc",
                                                                           (1, 2))],
                    variant="nuc", gradients=REAL_AND_COMPLEX,
                    errors=(WHOLE, ErrorInput(sample(numpy.ones(3), "old"), (RuntimeError,),
                                              "no norm"))),
    OperationRecord("dist", _distances, dtypes=(*FLOATS, *COMPLEX), method=True,
                    gradients=REAL_AND_COMPLEX,
                    errors=(ErrorInput(sample(numpy.ones(3), numpy.ones(4)), (RuntimeError,),
                                       "broadcast"),)),
    OperationRecord("dist", lambda make: [sample(make(3, 4), make(3, 4), 0)], gradients=(),
                    variant="0"),
    OperationRecord("dist", lambda make: [sample(numpy.ones_like(make(3)), numpy.ones_like(make(3)))
                                          ], second=False, variant="of equals"),
    OperationRecord(
        "renorm", _renormed, dtypes=(*FLOATS, *COMPLEX), method=True, inplace=True,
        gradients=REAL_AND_COMPLEX,
        errors=(ErrorInput(sample(numpy.ones(3), 2, 0, 1), (RuntimeError,), "two axes"),
                ErrorInput(sample(numpy.ones((2, 3)), 0, 0, 1), (RuntimeError,), "positive"),
                ErrorInput(sample(numpy.ones((2, 3)), 2, 0, -1), (RuntimeError,), "maxnorm")),
    ),
]
