"""Records: reading and writing at positions held in tensors, and through every kind of index."""

from __future__ import annotations

from typing import Any

import numpy

from .record import REAL_AND_COMPLEX, ErrorInput, Maker, OperationRecord, Sample, sample

VALUES = ("float32", "int64", "bool", "complex64", "bfloat16")
ADDING = ("float32", "int32", "complex64", "bfloat16")
ORDERED = ("float32", "int64", "float16")

ROWS = numpy.array([[1, 0, 2], [0, 2, 1]])
TWICE = numpy.array([1, 1])
X = numpy.arange(12.0, dtype=numpy.float32).reshape(3, 4)


def wrong(error: Any, match: str, *arguments: Any, **keywords: Any) -> ErrorInput:
    return ErrorInput(sample(X, *arguments, **keywords), error, match)


OUT_OF_RANGE = wrong(IndexError, "index 7 is out of range", 0, numpy.array([[7]]))
NEGATIVE = wrong(IndexError, r"index -1 .* run from 0 to 2", 0, numpy.array([[-1]]))
NEGATIVE_ROW = wrong(IndexError, r"index -1 .* run from 0 to 2", 0, numpy.array([-1]),
                     X[:1])


def _with_source(*keywords_each: dict[str, Any]) -> Any:
    """scatter and its kin: an index with places hit twice, and a source larger than it."""
    def samples(make: Maker) -> list[Sample]:
        index = numpy.array([[1, 1, 0, 2], [1, 0, 0, 1]])
        return [sample(make(3, 4, low=1), 0, index, make(2, 4, low=1), **keywords)
                for keywords in keywords_each or ({},)]
    return samples


def _reduce(name: str, reduce: str, rows: bool) -> OperationRecord:
    def samples(make: Maker) -> list[Sample]:
        index = TWICE if rows else numpy.array([[1, 1, 0, 2], [1, 0, 0, 1]])
        return [sample(make.distinct(3, 4), 0, index, make.distinct(2, 4) * make.distinct(2, 4),
                       reduce, include_self=own) for own in (True, False)]
    return OperationRecord(name, samples, dtypes=ORDERED, variant=reduce, method=True,
                           inplace=True,
                           tolerance={"float16": (2e-2, 2e-2)}, compile=reduce == "mean",
                           errors=(wrong(RuntimeError, "reduce is 'x'", 0,
                                         TWICE if rows else ROWS, X[:2] if rows else X, "x"),))


_INDICES: list[Any] = [
    0, -1, slice(None, None, 2), slice(5, 2), None, ..., (1, 2), (slice(None), 1),
    (..., slice(1, 3)), (None, 0, ...), numpy.array([0, 2]), (numpy.array([0, 2]), 1),
    (slice(None), numpy.array([[3, 0], [-2, 1]])), (numpy.array([0, 1]), numpy.array([1, 2])),
    (numpy.array([[0], [2]]), numpy.array([1, 3])), [0, 2], [[0, 1], [1, 2]], True, False,
    numpy.array([True, False, True]), (slice(1), numpy.array([True, False, True, False])),
    numpy.array(True), (0, numpy.array([1, 1])), numpy.array(1), (numpy.array(1), None),
    numpy.array([2, 0], "int32"), numpy.array([1, 0, 1], "uint8"),
]


def _read(make: Maker) -> list[Sample]:
    return [sample(make(3, 4), index) for index in _INDICES] + [
        sample(make(2, 3, 4), index) for index in (
            (numpy.array([0, 1]), slice(None), numpy.array([3, 0])),
            (slice(None), numpy.array([0, 2]), None, numpy.array([1])),
            (0, ..., numpy.array([1, 2])))]


def _assign(library: Any, x: Any, index: Any, value: Any) -> Any:
    """Written through a view of a copy, so that the view and its base both show it."""
    base = x * 1
    base.transpose(0, 1).transpose(0, 1)[index] = value
    return base


def _written(make: Maker) -> list[Sample]:
    """All but those that write one place twice, or that PyTorch reads but does not write."""
    left_out = (numpy.array([1, 0, 1], "uint8"), (0, numpy.array([1, 1])))
    return [sample(make(3, 4), index, make()) for index in _INDICES
            if repr(index) not in map(repr, left_out)]


RECORDS = [
    OperationRecord("Tensor.__getitem__", _read, dtypes=("float32", "int64", "complex64"),
                    gradients=REAL_AND_COMPLEX,
                    errors=(wrong(IndexError, "out of range", 3), wrong(IndexError, "2 axes",
                                                                        (0, 0, 0)),
                            wrong(RuntimeError, "flip", slice(None, None, -1)),
                            wrong(IndexError, "no index", "a"), wrong(IndexError, "integers",
                                                                      numpy.array([0.5])),
                            wrong(IndexError, "mask", numpy.array([True, False])),
                            wrong(IndexError, "index -4", numpy.array([-4])))),
    OperationRecord("Tensor.__setitem__", _written, dtypes=("float32", "int64", "complex64"),
                    call=_assign, gradients=REAL_AND_COMPLEX,
                    errors=(wrong(RuntimeError, "do not broadcast", 0, numpy.ones(3)),
                            wrong(RuntimeError, "flip", slice(None, None, -1), 0))),
    OperationRecord("gather", lambda make: [
        sample(make(3, 4), 0, ROWS), sample(make(3, 4), 1, ROWS),
        sample(make(), 0, numpy.array(0))],
                    dtypes=VALUES, gradients=REAL_AND_COMPLEX, method=True, out=True, compile=True,
                    errors=(OUT_OF_RANGE, NEGATIVE, wrong(IndexError, "integers", 0,
                                                          numpy.ones((1, 1))),
                            wrong(RuntimeError, "does not fit", 0, numpy.zeros((1, 5), int)))),
    OperationRecord("take", lambda make: [sample(make(3, 4), numpy.array([[0, -1], [5, 5]]))],
                    dtypes=VALUES, gradients=REAL_AND_COMPLEX, method=True, out=True),
    OperationRecord("take_along_dim", lambda make: [
        sample(make(3, 4), numpy.array([[1], [0], [3]]), 1), sample(make(3, 4), ROWS)],
        dtypes=VALUES, gradients=REAL_AND_COMPLEX, method=True, out=True),
    OperationRecord("index_select", lambda make: [sample(make(3, 4), 1, numpy.array([3, 0, 0]))],
                    dtypes=VALUES, gradients=REAL_AND_COMPLEX, method=True, out=True,
                    errors=(wrong(IndexError, "vector", 0, ROWS),
                            wrong(IndexError, "run from 0", 0, numpy.array([-1])))),
    OperationRecord("scatter", lambda make: [
        sample(make(3, 4), 1, ROWS, make(2, 3)), sample(make(3, 4), 0, numpy.array([[2, 0]]), 1)],
        dtypes=VALUES, gradients=REAL_AND_COMPLEX, method=True, inplace=True, out=True,
        errors=(wrong(IndexError, "run from 0 to 2", 0, numpy.array([[-1]]), 1.0),
                wrong(RuntimeError, "smaller than the index", 0, ROWS, X[:1]),
                wrong(RuntimeError, "src float64", 0, ROWS, X.astype("float64")),
                wrong(RuntimeError, "reduce is 'x'", 0, ROWS, X, reduce="x"))),
    OperationRecord("scatter_add", _with_source(), dtypes=ADDING, gradients=REAL_AND_COMPLEX,
                    method=True, inplace=True, out=True),
    *(_reduce("scatter_reduce", reduce, False)
      for reduce in ("sum", "prod", "mean", "amax", "amin")),
    *(_reduce("index_reduce", reduce, True) for reduce in ("prod", "mean", "amax", "amin")),
    OperationRecord("index_add", lambda make: [sample(make(3, 4), 0, TWICE, make(2, 4)),
                                               sample(make(3, 4), 1, TWICE, make(3, 2), alpha=2)],
                    dtypes=ADDING, gradients=REAL_AND_COMPLEX, method=True, inplace=True, out=True,
                    errors=(NEGATIVE_ROW, wrong(IndexError, "one row for each", 0, TWICE, X))),
    OperationRecord("index_copy", lambda make: [sample(make(3, 4), 0, numpy.array([2, 0]),
                                                       make(2, 4))],
                    dtypes=VALUES, gradients=REAL_AND_COMPLEX, method=True, inplace=True,
                    out=True, errors=(NEGATIVE_ROW,)),
    OperationRecord("index_fill", lambda make: [sample(make(3, 4), 0, numpy.array([-1, 0]), 1),
                                                sample(make(3, 4), 1, TWICE, make())],
                    dtypes=VALUES, gradients=REAL_AND_COMPLEX, method=True, inplace=True,
                    errors=(wrong(RuntimeError, "one number", 0, TWICE, X[0]),)),
    OperationRecord("index_put", lambda make: [
        sample(make(3, 4), (numpy.array([0, 2]), numpy.array([1, -1])), make(2)),
        sample(make(3, 4), (numpy.array([True, False, True]),), make(4))],
        dtypes=VALUES, gradients=REAL_AND_COMPLEX, method=True, inplace=True,
        accepts=("rank up at 2",),
        note="Leading axes of size 1 of the values are dropped, as in x[index] = values."),
    OperationRecord("index_put", lambda make: [
        sample(make(3, 4), (TWICE,), make(4), accumulate=True)], variant="accumulate",
        dtypes=ADDING, gradients=REAL_AND_COMPLEX, method=True, inplace=True),
    OperationRecord("Tensor.put", lambda make: [
        sample(make(3, 4), numpy.array([[0, -1]]), make(1, 2)),
        sample(make(3, 4), TWICE, make(2), accumulate=True)],
        dtypes=("float32", "int64", "complex64"), gradients=REAL_AND_COMPLEX,
        inplace=True, errors=(wrong(IndexError, "values for", TWICE, X),)),
    OperationRecord("masked_fill", lambda make: [
        sample(make(3, 4), make.mask(3, 4), 1), sample(make(3, 4), make.mask(4), make())],
        dtypes=VALUES, gradients=REAL_AND_COMPLEX, method=True, inplace=True,
        accepts=("rank up at 2",),
        note="The value broadcasts; PyTorch takes one number only."),
    OperationRecord("nn.functional.one_hot", lambda make: [
        sample(numpy.array([[1, 0], [2, 2]])), sample(numpy.array([1, 0]), 4),
        sample(numpy.array(1), 2)], dtypes=("float32",), gradients=(),
        errors=(ErrorInput(sample(numpy.array([-1]), 3), IndexError, "index -1"),
                ErrorInput(sample(numpy.array([-1])), RuntimeError, "class -1"),
                ErrorInput(sample(numpy.array([3]), 3), IndexError, "index 3"),
                ErrorInput(sample(numpy.array([1.0]), 3), RuntimeError, "int64"))),
]
