"""Records: tensors made from numbers, counting, and data."""

from __future__ import annotations

from typing import Any

import numpy

from .record import ErrorInput, OperationRecord, Sample, sample

FLOAT32 = ("float32",)


def made(name: str, *samples: Sample, **more: Any) -> OperationRecord:
    """Nothing to differentiate and no tensor to start from: values once are enough."""
    return OperationRecord(name, lambda make: samples,
                           **{"dtypes": FLOAT32, "gradients": (), **more})


def wrong(error: Any, match: str, *arguments: Any, **keywords: Any) -> ErrorInput:
    return ErrorInput(sample(*arguments, **keywords), error, match)


RECORDS = [
    made("arange", sample(5), sample(1, 6), sample(0, 1, 0.25), sample(5, 0, -1), sample(0, 1, 0.1),
         sample(1.5), sample(3, 3), sample(5, dtype="bfloat16"), sample(2.5, dtype="int64"),
         errors=(wrong(RuntimeError, "step is 0", 0, 3, 0), wrong(RuntimeError, "lead", 3, 0),
                 wrong((RuntimeError, MemoryError), "", 2**62))),
    made("range", sample(0, 3), sample(1, 2, 0.5)),
    made("linspace", sample(0, 1, 5), sample(-3, 3, 7), sample(0, 1, 1), sample(0, 1, 0),
         sample(0, 1, 101), sample(3, 10, 4, dtype="int64"), sample(0, 1, 3, dtype="complex64"),
         errors=(wrong((RuntimeError, ValueError), "", 0, 1, -1),)),
    made("logspace", sample(0, 2, 5), sample(0, 3, 4, base=2), sample(1, 0, 3, dtype="float64")),
    *(made(name, sample(2, 3), sample((2,)), sample([2, 0]), sample(()), sample(2, dtype="int8"),
           errors=(wrong(RuntimeError, "at least 0", -1), wrong(TypeError, "whole numbers", 2.5),
                   wrong(RuntimeError, "more than memory", 2**40, 2**40)))
      for name in ("zeros", "ones")),
    made("full", sample((2,), 3), sample((2, 2), 1.5), sample((2,), True), sample((), 1j),
         sample((2,), 3.5, dtype="int64"), errors=(wrong(TypeError, "number", (2,), "a"),)),
    made("eye", sample(3), sample(2, 4), sample(0), sample(2, dtype="bool"),
         errors=(wrong(RuntimeError, "", -1),)),
    made("tril_indices", sample(3, 3), sample(3, 4, 1), sample(4, 3, -1), sample(0, 3),
         sample(2, 2, dtype="int32"), errors=(wrong(RuntimeError, "at least 0", -1, 2),)),
    made("triu_indices", sample(3, 3), sample(3, 4, 1), sample(4, 3, -1), sample(2, 2, 5)),
    *(OperationRecord(name, lambda make: [sample(make(2, 3)), sample(make(2), dtype="int64")],
                      dtypes=("float32", "int64", "bool", "complex64"), gradients=())
      for name in ("zeros_like", "ones_like")),
    OperationRecord("full_like", lambda make: [sample(make(2, 3), 2), sample(make(2), True)],
                    dtypes=("float32", "int64"), gradients=()),
    OperationRecord("Tensor.new_zeros", lambda make: [sample(make(2), 2, 3), sample(make(2), (2,))],
                    dtypes=("float32", "int8"), gradients=()),
    OperationRecord("Tensor.new_ones", lambda make: [sample(make(2), 2, dtype="float64")],
                    dtypes=("float32", "int8"), gradients=()),
    OperationRecord("Tensor.new_full", lambda make: [sample(make(2), (2,), 3)],
                    dtypes=("float32", "int8"), gradients=()),
    OperationRecord("Tensor.new_tensor", lambda make: [sample(make(2), [1, 2])],
                    dtypes=("float32", "int8"), gradients=()),
    made("tensor", sample(1), sample(1.5), sample(True), sample([1, 2]), sample([1, 2.5]),
         sample([[True], [False]]), sample([1, 1j]), sample([]), sample([[], []]),
         sample([1.9, -1.9], dtype="int8"), sample([-1], dtype="uint8"),
         sample([numpy.array(1.0), 2]),
         errors=(wrong(RuntimeError, "different lengths", [[1, 2], [3]]),
                 wrong(TypeError, "numbers of", "abc"), wrong(TypeError, "numbers of", ["a"]),
                 wrong(TypeError, "numbers of", [None]),
                 wrong(OverflowError, "int64", [2**63]), wrong(OverflowError, "int32", 2**40,
                                                               dtype="int32"),
                 wrong(ValueError, "NaN", [float("nan")], dtype="int32"),
                 wrong(TypeError, "complex", 1j, dtype="float64"))),
    made("as_tensor", sample([1, 2]), sample(2.5, dtype="float64")),
    made("asarray", sample([1, 2]), sample([1.0], dtype="float64", copy=True)),
    made("scalar_tensor", sample(3), sample(2, dtype="int64")),
    made("frombuffer", sample(bytearray(b"\x01\x00\x02\x00"), dtype="int16"),
         sample(bytearray(8), dtype="uint8", offset=2, count=3),
         errors=(wrong(RuntimeError, "whole number", bytearray(3), dtype="int16"),
                 wrong(RuntimeError, "there must be", b"", dtype="uint8"))),
    made("empty_strided", sample((2, 3), (1, 2)), sample((2, 2), (3, 1)),
         call=lambda library, *arguments: (
             library.empty_strided(*arguments).stride(),
             library.empty_strided(*arguments).fill_(2.0))),
    made("empty_permuted", sample((2, 3, 4), (1, 2, 0)),
         call=lambda library, *arguments: library.empty_permuted(*arguments).stride()),
]
