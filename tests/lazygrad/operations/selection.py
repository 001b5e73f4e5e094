"""Results whose size depends on values (nonzero, masks) and counting (bincount, histograms)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from .record import (
    FULL_FLOATS,
    INTEGERS,
    REAL_AND_COMPLEX,
    ErrorInput,
    Maker,
    OperationRecord,
    Sample,
    sample,
)

KINDS = ("float32", "bfloat16", "int64", "uint8", "bool", "complex64")
"""One dtype of each size and kind: places do not depend on it, and each takes compiles of its own.
"""


def _sparse(make: Maker, *shape: int) -> numpy.ndarray:
    values = make(*shape)
    values[numpy.asarray(make.mask(*shape))] = 0
    return values


def _places(make: Maker) -> Sequence[Sample]:
    values = [_sparse(make, 7), _sparse(make, 4, 5), _sparse(make, 2, 3, 4), make(), make(0, 3),
              numpy.zeros_like(make(5)), _sparse(make, 200)]
    return [sample(each) for each in values]


def _places_by_axis(make: Maker) -> Sequence[Sample]:
    return [sample(each.arguments[0], as_tuple=True) for each in _places(make)]


def _masked(make: Maker) -> Sequence[Sample]:
    x = make(3, 4)
    return [sample(x, make.mask(3, 4)), sample(x, make.mask(4)), sample(make(4), make.mask(3, 4)),
            sample(x, make.mask(3, 1)), sample(make(70), make.mask(70)),
            sample(x, numpy.zeros((3, 4), bool)), sample(make(), numpy.array(True)),
            sample(make(0), numpy.zeros(0, bool))]


def _scattered(make: Maker) -> Sequence[Sample]:
    x = make(3, 4)
    return [sample(x, make.mask(3, 4), make(12)), sample(x, make.mask(4), make(3, 5)),
            sample(x, numpy.ones((3, 4), bool), make(2, 6)),
            sample(x, numpy.zeros((3, 4), bool), make(0)),
            sample(make(80), make.mask(80), make(80))]


def _indexed(library: Any, value: Any, mask: Any) -> Any:
    return value[mask], value[mask].sum()


def _rows(library: Any, value: Any, mask: Any) -> Any:
    return value[mask], value[:, mask[0, 0]], value[mask[0]] if value.shape[0] == 3 else ()


def _index_samples(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4), make.mask(3, 4)), sample(make(3, 4, 2), make.mask(3, 4)),
            sample(make(3, 4), make.mask(3)), sample(make(0), numpy.zeros(0, bool))]


def _assigned(library: Any, value: Any, mask: Any, numbers: Any) -> Any:
    changed = value.clone()
    changed[mask] = numbers[: int(mask.sum())]
    other = value.clone()
    other[mask] = 3
    return changed, other


def _assign_samples(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4), make.mask(3, 4), make(12)),
            sample(make(50), make.mask(50), make(50))]


def _counted(make: Maker) -> Sequence[Sample]:
    numbers = make.index(9, 40, dtype=make.dtype)
    return [sample(numbers), sample(numbers, minlength=20),
            sample(numbers, make(40, dtype="float32")),
            sample(numbers, make(40, dtype="float64"), 3), sample(numbers[:0], minlength=3),
            sample(numbers, make(40, dtype="int64"))]


def _counts(make: Maker) -> Sequence[Sample]:
    x = make(4, 50)
    beyond = x.copy()
    beyond[0, :3] = [numpy.nan, numpy.inf, -numpy.inf]
    return [sample(x), sample(x, 10), sample(x, 7, -1, 1), sample(beyond, 9, -1, 1),
            sample(make(0), 4), sample(numpy.full_like(x, 1.5), 5), sample(x, 3, 1, 1)]


def _histograms(make: Maker) -> Sequence[Sample]:
    x = make(60)
    edges = numpy.array([-1.5, -1.0, 0.25, 1.0]).astype(x.dtype)
    return [sample(x, 7), sample(x, 7, range=(-1.0, 1.0)), sample(x, 7, density=True),
            sample(x, 7, weight=make(60)), sample(x, edges), sample(x, edges, density=True),
            sample(make(4, 5), 3), sample(numpy.full_like(x, 2.0), 4), sample(make(0), 3)]


def _points(make: Maker) -> Sequence[Sample]:
    p = make(40, 2)
    return [sample(p, 4), sample(p, [3, 5]), sample(p, [3, 2], range=[-1.0, 1.0, -2.0, 2.0]),
            sample(p, [3, 2], density=True), sample(make(4, 5, 3), 2, weight=make(4, 5))]


def plain_program(name: str) -> Any:
    """The result as a plain tuple: PyTorch's is a structure of its own."""
    def call(library: Any, *arguments: Any, **keywords: Any) -> Any:
        counts, edges = getattr(library, name)(*arguments, **keywords)
        return counts, edges if hasattr(edges, "shape") else tuple(edges)
    return call


RECORDS = [
    OperationRecord("nonzero", _places, dtypes=KINDS, gradients=(), method=True),
    OperationRecord("nonzero", _places_by_axis, gradients=(), method=True, variant="as_tuple"),
    OperationRecord("argwhere", _places, dtypes=("float32", "bool"), gradients=(), method=True),
    OperationRecord(
        "masked_select", _masked, dtypes=KINDS, gradients=REAL_AND_COMPLEX, method=True,
        errors=(ErrorInput(sample(numpy.ones((2, 3)), numpy.ones(2, bool)), (RuntimeError,),
                           "broadcast"),
                ErrorInput(sample(numpy.ones(3), numpy.ones(3)), (RuntimeError,), "bool")),
    ),
    OperationRecord(
        "masked_scatter", _scattered, dtypes=KINDS, gradients=REAL_AND_COMPLEX,
        method=True, inplace=True,
        errors=(ErrorInput(sample(numpy.ones(3), numpy.ones(3, bool), numpy.ones(3, "float32")),
                           (RuntimeError,), "source float32"),),
    ),
    OperationRecord("Tensor.__getitem__", _index_samples, dtypes=KINDS,
                    gradients=REAL_AND_COMPLEX, call=_indexed, variant="mask"),
    OperationRecord("Tensor.__setitem__", _assign_samples, dtypes=KINDS,
                    gradients=REAL_AND_COMPLEX, call=_assigned, variant="mask"),
    OperationRecord(
        "bincount", _counted, dtypes=INTEGERS, gradients=(), method=True,
        errors=(ErrorInput(sample(numpy.ones((2, 3), "int64")), (RuntimeError,), "one axis"),
                ErrorInput(sample(numpy.ones(3)), (RuntimeError,), "whole numbers"),
                ErrorInput(sample(numpy.array([1, -2])), (RuntimeError,), "there is -2"),
                ErrorInput(sample(numpy.array([1, 2]), numpy.ones(3)), (RuntimeError,), "weights"),
                ErrorInput(sample(numpy.array([1, 2]), minlength=-1), (RuntimeError,),
                           "minlength")),
    ),
    OperationRecord(
        "histc", _counts, dtypes=FULL_FLOATS, gradients=(), method=True, out=True,
        errors=(ErrorInput(sample(numpy.ones(3), 0), (RuntimeError,), "bins"),
                ErrorInput(sample(numpy.ones(3), 5, 2, 1), (RuntimeError,), "range"),
                ErrorInput(sample(numpy.ones(3), 5, 0, float("inf")), (RuntimeError,), "finite")),
    ),
    OperationRecord(
        "histogram", _histograms, dtypes=FULL_FLOATS, gradients=(), method=True,
        call=plain_program("histogram"), tolerance={"float32": (1e-5, 1e-6)},
        errors=(ErrorInput(sample(numpy.ones(3), 0), (RuntimeError,), "bins"),
                ErrorInput(sample(numpy.ones(3), 3, weight=numpy.ones(2)), (RuntimeError,),
                           "weights")),
    ),
    OperationRecord("histogramdd", _points, dtypes=FULL_FLOATS, gradients=(),
                    call=plain_program("histogramdd"), tolerance={"float32": (1e-5, 1e-6)}),
]
