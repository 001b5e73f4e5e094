"""Lookups in tables: embedding and embedding_bag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from .record import COMPLEX, ErrorInput, Maker, OperationRecord, Sample, sample

F = "nn.functional."
MAKE = Maker("float32")


def _bags(make: Maker) -> Sequence[Sample]:
    table, flat, offsets = make(6, 3), make.index(6, 7), numpy.array([0, 2, 2, 5])
    ended = numpy.array([0, 3, 7])
    return [
        sample(make.index(6, 2, 4), table, mode=mode) for mode in ("sum", "mean", "max")
    ] + [
        sample(flat, table, offsets, mode=mode, padding_idx=1) for mode in ("sum", "mean", "max")
    ] + [
        sample(flat, table, offsets, mode="sum", per_sample_weights=make(7)),
        sample(flat, table, ended, include_last_offset=True),
    ]


def _limited(library: Any, places: Any, table: Any, limit: float) -> Any:
    """The rows, and the table whose rows were scaled in place."""
    copy = table.clone()
    rows = library.nn.functional.embedding(places, copy, max_norm=limit)
    return rows, copy


RECORDS = [
    OperationRecord(f"{F}embedding", lambda make: [
        sample(make.index(5, 2, 3), make(5, 4)),
        sample(make.index(5, 6), make(5, 4), padding_idx=2),
        sample(make.index(5, 6), make(5, 4), padding_idx=-1),
        sample(make.index(3, 6), make(5, 4), scale_grad_by_freq=True),
        sample(make.index(5, dtype="int32"), make(5, 4))], errors=(
            ErrorInput(sample(MAKE(3), MAKE(5, 4)), (IndexError, RuntimeError), "integers"),
            ErrorInput(sample(numpy.array([1]), MAKE(5)), ValueError, "weight"),
            ErrorInput(sample(numpy.array([1]), MAKE(5, 4), 5), RuntimeError, "padding_idx"),
            ErrorInput(sample(numpy.array([5]), MAKE(5, 4)), IndexError, "5"))),
    OperationRecord(f"{F}embedding", lambda make: [sample(make.index(5, 2, 3), make(5, 4))],
                    dtypes=COMPLEX, gradients=("complex128",), variant="complex"),
    OperationRecord(f"{F}embedding", lambda make: [
        sample(make.index(4, 6), make(6, 3), 0.7)], gradients=(), variant="max_norm",
        call=_limited),
    OperationRecord(f"{F}embedding_bag", _bags, tolerance={"float32": (1e-5, 1e-6)},
                    errors=(
        ErrorInput(sample(numpy.array([1]), MAKE(5, 4)), ValueError, "offsets"),
        ErrorInput(sample(numpy.array([[1]]), MAKE(5, 4), numpy.array([0])), ValueError, "offsets"),
        ErrorInput(sample(numpy.array([[1]]), MAKE(5, 4), mode="some"), ValueError, "mode"),
        ErrorInput(sample(numpy.array([1, 2]), MAKE(5, 4), numpy.array([1])), RuntimeError,
                   "offset")),
                    accepts=("sizes empty last at 0",),
                    note="Bags without numbers are zeros, as those that offsets make; PyTorch "
                         "fails inside."),
]
