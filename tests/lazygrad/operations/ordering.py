"""Sorting, ranks, quantiles, distinct values, and looking up in what is sorted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from .record import (
    FLOATS,
    FULL_FLOATS,
    INTEGERS,
    REALS,
    ErrorInput,
    Maker,
    OperationRecord,
    Sample,
    sample,
)

BAD = (RuntimeError, ValueError, IndexError, TypeError)
LINE = numpy.array([2.0, 0.0, 1.0])


def _scalar(make: Maker) -> numpy.ndarray:
    return numpy.asarray(make.distinct())


def _sorts(make: Maker) -> Sequence[Sample]:
    return [sample(make.distinct(3, 7)), sample(make.distinct(2, 5, 3), dim=1, descending=True),
            sample(make.distinct(4, 3), 0), sample(make.distinct(1, 1)), sample(_scalar(make)),
            sample(make.distinct(0, 3), -1), sample(make.distinct(11, 3), dim=0)]


def _stable(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 9, low=-1, high=2), stable=True),
            sample(make(5, 2, low=-1, high=2), stable=True, dim=0, descending=True)]


def _topk(make: Maker) -> Sequence[Sample]:
    return [sample(make.distinct(3, 7), 3), sample(make.distinct(2, 5, 3), 2, 1, False),
            sample(make.distinct(2, 9), 9, sorted=True), sample(make.distinct(4, 3), 0, dim=0),
            sample(_scalar(make), 1)]


def _kth(make: Maker) -> Sequence[Sample]:
    return [sample(make.distinct(3, 7), 3), sample(make.distinct(2, 5, 3), 5, 1, True),
            sample(make.distinct(4, 2), 1, dim=0), sample(_scalar(make), 1)]


def _medians(make: Maker) -> Sequence[Sample]:
    return [sample(make.distinct(3, 7), 1), sample(make.distinct(3, 8), -1, True),
            sample(make.distinct(5, 2, 2), 0), sample(_scalar(make), 0)]


def _medians_of_all(make: Maker) -> Sequence[Sample]:
    return [sample(make.distinct(3, 4)), sample(make.distinct(5)), sample(_scalar(make))]


def _medians_with_nan(make: Maker) -> Sequence[Sample]:
    values = make.distinct(3, 6)
    values[0, 1:4] = numpy.nan
    return [sample(values, 1), sample(values, 0, True)]


def _only_values(name: str) -> Any:
    """Where several positions are right."""

    def call(library: Any, *arguments: Any, **keywords: Any) -> Any:
        return getattr(library, name)(*arguments, **keywords)[0]

    return call


def _found_at(name: str) -> Any:
    """The values, and those at the positions given: which of several equal ones is not specified.

    (The method and `out` variants, which take the name, are compared position by position.)
    """

    def call(library: Any, input: Any, k: Any, dim: int = -1, *more: Any, **keywords: Any) -> Any:
        values, indices = getattr(library, name)(input, k, dim, *more, **keywords)
        places = indices if indices.ndim == input.ndim else indices.unsqueeze(dim)
        return values, library.gather(input, dim, places)

    return call


def _position_is_right(library: Any, input: Any, dim: int, keepdim: bool = False) -> Any:
    """The value of `mode`, and the one found at the position that it gives."""
    values, indices = library.mode(input, dim, True)
    return values, library.gather(input, dim, indices), library.mode(input, dim, keepdim)[0]


def _modes(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 9, low=-2, high=3).astype(make.dtype).round(), 1),
            sample(make(4, 2, low=0, high=2).round(), 0, True)]


def _integer_modes(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 9, low=-2, high=3), 1), sample(make(6, 2, low=0, high=2), 0, True)]


def _quantiles(make: Maker) -> Sequence[Sample]:
    few = numpy.array([0.0, 0.35, 1.0], make.dtype)
    many = numpy.linspace(0, 1, 7).astype(make.dtype)
    return [
        sample(make.distinct(3, 7), 0.3, 1),
        Sample((make.distinct(3, 7), few), {"dim": 0, "keepdim": True}, (0,)),
        Sample((make.distinct(3, 4), many), {}, (0,)),
        *(sample(make.distinct(2, 6), 0.7, -1, interpolation=how)
          for how in ("lower", "higher", "midpoint", "nearest")),
        sample(make.distinct(1), 0.5),
    ]


def _quantiles_with_nan(make: Maker) -> Sequence[Sample]:
    values = make.distinct(3, 6)
    values[0, 1:4] = numpy.nan
    values[1] = numpy.nan
    few = numpy.array([0.0, 0.5, 0.9], make.dtype)
    return [sample(values, 0.3, 1), sample(values, few, 0), sample(values, 0.4)]


def _lookups(make: Maker) -> Sequence[Sample]:
    line = numpy.sort(make(9, low=-4, high=5).astype("float32")).astype(make.dtype)
    rows = numpy.sort(make(2, 5, low=-2, high=3).astype("float32"), -1).astype(make.dtype)
    order = numpy.array([3, 0, 2, 1])
    return [
        sample(line, make(2, 3)), sample(line, make(4), right=True),
        sample(rows, make(2, 3), side="right", out_int32=True), sample(line, 1),
        sample(rows, rows), sample(line[order].copy(), make(5), sorter=numpy.argsort(order)),
        sample(line[:0], make(3)),
    ]


def _buckets(make: Maker) -> Sequence[Sample]:
    line = numpy.sort(make(6, low=-2, high=3).astype("float32")).astype(make.dtype)
    return [sample(make(2, 3), line), sample(make(5), line, right=True, out_int32=True)]


def _members(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4, low=-3, high=4), make(5, low=-3, high=4)),
            sample(make(30, low=-9, high=9), make(20, low=-9, high=9), invert=True),
            sample(make(3), 1), sample(make(3), make(0))]


def _unique(make: Maker) -> Sequence[Sample]:
    values = make(4, 6, low=-2, high=3)
    return [sample(values), sample(values, return_inverse=True),
            sample(values, True, True, True), sample(make(0)), sample(numpy.asarray(make())),
            sample(make(9, low=0, high=3), return_counts=True)]


def _unique_slices(make: Maker) -> Sequence[Sample]:
    rows = make(8, 3, low=0, high=2)
    return [sample(rows, True, True, True, 0), sample(rows, dim=1, return_counts=True),
            sample(make(2, 5, 2, low=0, high=2), dim=1, return_inverse=True)]


def _consecutive(make: Maker) -> Sequence[Sample]:
    return [sample(make(12, low=0, high=2), return_inverse=True, return_counts=True),
            sample(make(3, 4, low=0, high=2)),
            sample(make(9, 2, low=0, high=2), return_inverse=True, return_counts=True, dim=0)]


RECORDS = [
    OperationRecord(
        "sort", _sorts, REALS, method=True, out=True, compile=True,
        errors=(
            ErrorInput(sample(LINE, 1), IndexError, "dim 1"),
            ErrorInput(sample(LINE * 1j), TypeError, "no order"),
        ),
    ),
    OperationRecord("sort", _stable, (*REALS, "bool"), variant="stable", special=True),
    OperationRecord("argsort", _sorts, REALS, gradients=(), method=True,
                    errors=(ErrorInput(sample(LINE, -2), IndexError, "dim -2"),)),
    OperationRecord("argsort", _stable, (*REALS, "bool"), gradients=(), variant="stable",
                    special=True),
    OperationRecord("msort", lambda make: [sample(make.distinct(5, 3)), sample(make.distinct(4))],
                    REALS, method=True, out=True),
    OperationRecord(
        "topk", _topk, REALS, method=True, out=True, compile=True, call=_found_at("topk"),
        errors=(
            ErrorInput(sample(LINE, 4), BAD, "k = 4"),
            ErrorInput(sample(LINE, -1), BAD, "k = -1"),
            ErrorInput(sample(LINE, 1.5), TypeError, "whole number"),
            ErrorInput(sample(LINE, 1, 3), IndexError, "dim 3"),
        ),
    ),
    OperationRecord(
        "topk",
        lambda make: [sample(make(4, 12), 5), sample(make(40), 20, largest=False)],
        FLOATS, gradients=(), special=True, call=_only_values("topk"), variant="values",
    ),
    OperationRecord(
        "kthvalue", _kth, REALS, method=True, out=True, call=_found_at("kthvalue"),
        errors=(
            ErrorInput(sample(LINE, 0), BAD, "k = 0"),
            ErrorInput(sample(LINE, 4), BAD, "k = 4"),
            ErrorInput(sample(numpy.zeros((3, 0)), 1), IndexError, "no elements"),
        ),
    ),
    OperationRecord(
        "median", _medians, REALS, method=True, out=True,
        errors=(ErrorInput(sample(numpy.zeros((3, 0)), 1), IndexError, "no elements"),),
    ),
    OperationRecord("median", _medians_of_all, REALS, method=True, variant="all", special=True),
    OperationRecord(
        "median", lambda make: [sample(numpy.array([1, 2, 2, 0, 2, 5, 1], make.dtype))],
        FULL_FLOATS, variant="ties",
        note="the gradient is shared by the elements that equal the median",
    ),
    OperationRecord("median", lambda make: _medians_with_nan(make)[:1], FULL_FLOATS,
                    variant="nan", gradients=()),
    OperationRecord("nanmedian", _medians, REALS, method=True, out=True),
    OperationRecord("nanmedian", _medians_of_all, REALS, method=True, variant="all"),
    OperationRecord("nanmedian", _medians_with_nan, FULL_FLOATS, variant="nan"),
    OperationRecord("mode", _modes, FULL_FLOATS, call=_position_is_right,
                    note="which of several positions is given is not specified"),
    OperationRecord("mode", _integer_modes, INTEGERS, gradients=(), call=_position_is_right,
                    variant="integers",
                    errors=(ErrorInput(sample(numpy.zeros(0), 0), IndexError, "no elements"),)),
    OperationRecord(
        "quantile", _quantiles, FULL_FLOATS, method=True, out=True,
        errors=(
            ErrorInput(sample(LINE, 1.5), BAD, "fraction"),
            ErrorInput(sample(LINE, numpy.array([0.5, -0.1])), BAD, "fraction"),
            ErrorInput(sample(LINE.astype("int64"), 0.5), BAD, "float32 or float64"),
            ErrorInput(sample(LINE, 0.5, interpolation="cubic"), BAD, "interpolation"),
            ErrorInput(sample(LINE[:0], 0.5), BAD, "no elements"),
            ErrorInput(sample(LINE, numpy.array([0.5], "float32")), BAD, "Convert"),
        ),
    ),
    OperationRecord("quantile", _quantiles_with_nan, FULL_FLOATS, gradients=(), variant="nan"),
    OperationRecord("nanquantile", _quantiles, FULL_FLOATS, method=True, out=True),
    OperationRecord("nanquantile", _quantiles_with_nan, FULL_FLOATS, gradients=(), variant="nan"),
    OperationRecord(
        "searchsorted", _lookups, REALS, gradients=(), out=True,
        errors=(
            ErrorInput(sample(numpy.zeros((2, 3)), numpy.zeros((3, 3))), BAD, "do not fit"),
            ErrorInput(sample(LINE, LINE, side="left", right=True), BAD, "contradict"),
            ErrorInput(sample(LINE, LINE, side="middle"), BAD, "side"),
            ErrorInput(sample(LINE, LINE, sorter=numpy.zeros(2, "int64")), BAD, "sorter"),
        ),
    ),
    OperationRecord(
        "bucketize", _buckets, REALS, gradients=(), out=True,
        errors=(ErrorInput(sample(LINE, numpy.zeros((2, 2))), BAD, "one axis"),),
    ),
    OperationRecord("isin", _members, (*FULL_FLOATS, *INTEGERS), gradients=(), out=True),
    OperationRecord(
        "unique", _unique, (*FULL_FLOATS, *INTEGERS, "bool"), gradients=(), method=True,
        errors=(ErrorInput(sample(LINE * 1j), TypeError, "no order"),),
    ),
    OperationRecord(
        "unique", lambda make: [sample(make(4, 6)), sample(make(15), return_counts=True)],
        FULL_FLOATS, gradients=(), special=True, variant="special",
        note="which of several NaN an element is, is not specified: no inverse here",
    ),
    OperationRecord(
        "unique", _unique_slices, (*FULL_FLOATS, "int64", "bool"), gradients=(), variant="dim",
        errors=(
            ErrorInput(sample(LINE, dim=1), IndexError, "dim 1"),
            ErrorInput(sample(numpy.zeros((2, 0)), dim=0), BAD, "no elements"),
        ),
    ),
    OperationRecord("unique_consecutive", _consecutive, (*FULL_FLOATS, "int64", "bool"),
                    gradients=(), method=True),
]
