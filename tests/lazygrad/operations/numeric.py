"""Numerical gradients, segments, windows of signal processing, places of a fixed number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

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


def _grids(make: Maker) -> Sequence[Sample]:
    x = make(4, 5)
    coordinates = [numpy.cumsum(make(size, low=0.5, high=1.5)).astype(x.dtype) for size in (4, 5)]
    return [sample(x), sample(x, spacing=0.5, edge_order=2), sample(x, dim=1),
            Sample((x,), {"spacing": coordinates}, differentiable=(0,)),
            Sample((x,), {"spacing": coordinates, "edge_order": 2}, differentiable=(0,)),
            sample(x, spacing=[2.0, 0.25]), sample(make(2), edge_order=1)]


def _segments(reduce: str) -> Any:
    def make_samples(make: Maker) -> Sequence[Sample]:
        lengths = numpy.array([[2, 3], [4, 1]])
        return [sample(make(7, 2), reduce, lengths=numpy.array([2, 1, 4])),
                sample(make(2, 5, 2), reduce, lengths=lengths, axis=1),
                sample(make(7), reduce, lengths=numpy.array([2, 0, 5]), initial=0.5),
                sample(make(7), reduce, offsets=numpy.array([0, 3, 7]))]
    return make_samples


def _masks(make: Maker) -> Sequence[Sample]:
    mask = make.mask(3, 4)
    return [sample(mask, size=size, fill_value=-7) for size in (0, 3, 20)]


WINDOWS: dict[str, dict[str, Any]] = {
    "bartlett": {}, "blackman": {}, "cosine": {}, "exponential": {"tau": 2.0},
    "gaussian": {"std": 2.0}, "general_cosine": {"a": [0.4, 0.3, 0.2, 0.1]},
    "general_hamming": {"alpha": 0.6}, "hamming": {}, "hann": {}, "kaiser": {"beta": 5.0},
    "nuttall": {},
}


def _windows(library: Any, size: int) -> list[Any]:
    """All windows in one program."""
    found = []
    for name, keywords in WINDOWS.items():
        function = getattr(library.signal.windows, name)
        found += [function(size, sym=sym, dtype=library.float64, **keywords)
                  for sym in (True, False)]
    return found


RECORDS = [
    OperationRecord(
        "gradient", _grids, dtypes=(*FULL_FLOATS, *COMPLEX), gradients=REAL_AND_COMPLEX,
        errors=(ErrorInput(sample(numpy.ones(3), edge_order=3), RuntimeError, "edge_order"),
                ErrorInput(sample(numpy.ones(2), edge_order=2), RuntimeError, "too few"),
                ErrorInput(sample(numpy.ones((3, 3)), spacing=[1.0]), RuntimeError, "spacings")),
    ),
    *(OperationRecord(
        "segment_reduce", _segments(reduce), dtypes=("float64",), variant=reduce,
        errors=(ErrorInput(sample(numpy.ones(3), reduce), RuntimeError, "either lengths"),
                ErrorInput(sample(numpy.ones(3), reduce, lengths=numpy.array([1, 1])), IndexError,
                           "out of range"),
                ErrorInput(sample(numpy.ones(3), "median", lengths=numpy.array([3])), RuntimeError,
                           "no reduction")),
    ) for reduce in ("sum", "mean", "max", "min", "prod")),
    OperationRecord("nonzero_static", _masks, dtypes=("bool",), gradients=(), method=True,
                    errors=(ErrorInput(sample(numpy.ones(3), size=-1), RuntimeError, "size"),)),
    OperationRecord("signal.windows.hann", lambda make: [sample(size) for size in (1, 2, 7)],
                    dtypes=("float64",), gradients=(), call=_windows),
]
