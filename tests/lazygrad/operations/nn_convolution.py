"""Convolutions, transposed convolutions, linear maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

F = "nn.functional."
KINDS = (*FULL_FLOATS, *COMPLEX)
TOLERANCE = {"float32": (1e-4, 1e-5), "complex64": (1e-4, 2e-5)}


def _conv(rank: int) -> Callable[[Maker], Sequence[Sample]]:
    """Plain, strided and padded, dilated and grouped, without a batch, padding by name."""

    def samples(make: Maker) -> Sequence[Sample]:
        space, kernel = (6, 5, 4)[:rank], (3, 2, 2)[:rank]
        x, weight, bias = make(2, 4, *space), make(4, 4, *kernel), make(4)
        return [
            sample(x, weight, bias),
            sample(x, weight, None, 2, 1),
            sample(x, make(6, 2, *kernel), make(6), 1, (1,) * rank, 2, 2),
            sample(make(4, *space), weight, bias, padding="same"),
            sample(x, weight, padding="valid"),
        ]

    return samples


def _transposed(rank: int) -> Callable[[Maker], Sequence[Sample]]:
    def samples(make: Maker) -> Sequence[Sample]:
        space, kernel = (3, 4, 2)[:rank], (3, 2, 2)[:rank]
        x = make(2, 4, *space)
        return [
            sample(x, make(4, 3, *kernel), make(3)),
            sample(x, make(4, 3, *kernel), None, 2, 1, 1),
            sample(x, make(4, 2, *kernel), make(4), 2, 0, 1, 2, 2),
            sample(make(4, *space), make(4, 3, *kernel)),
        ]

    return samples


def _wrong(make: Maker) -> tuple[ErrorInput, ...]:
    x, weight = make(2, 4, 6, 6), make(4, 4, 3, 3)
    return (
        ErrorInput(sample(make(2, 3, 6, 6), weight), RuntimeError, r"conv2d.*4 channels"),
        ErrorInput(sample(x, make(4, 3, 3, 3), groups=3), RuntimeError, "groups"),
        ErrorInput(sample(x, weight, make(5)), RuntimeError, "bias"),
        ErrorInput(sample(x, weight, stride=0), RuntimeError, "stride"),
        ErrorInput(sample(x, weight, padding="some"), RuntimeError, "padding"),
        ErrorInput(sample(x, weight, padding="same", stride=2), RuntimeError, "stride"),
        ErrorInput(sample(make(6, 6), weight), RuntimeError, "takes an input"),
        ErrorInput(sample(x, make(4, 4, 9, 9)), RuntimeError, "conv2d"),
    )


def _wrong_transposed(make: Maker) -> tuple[ErrorInput, ...]:
    x, weight = make(2, 4, 6, 6), make(4, 3, 3, 3)
    return (
        ErrorInput(sample(x, weight, output_padding=1), RuntimeError, "output_padding"),
        ErrorInput(sample(make(2, 3, 6, 6), weight), RuntimeError, "conv_transpose2d.*channels"),
    )


RECORDS = [
    *(OperationRecord(f"{F}conv{rank}d", _conv(rank), dtypes=KINDS, gradients=REAL_AND_COMPLEX,
                      tolerance=TOLERANCE,
                      errors=_wrong(Maker("float32")) if rank == 2 else (), compile=rank == 2)
      for rank in (1, 2, 3)),
    *(OperationRecord(f"{F}conv_transpose{rank}d", _transposed(rank), dtypes=KINDS,
                      gradients=REAL_AND_COMPLEX, tolerance=TOLERANCE,
                      errors=_wrong_transposed(Maker("float32")) if rank == 2 else ())
      for rank in (1, 2, 3)),
    OperationRecord(f"{F}conv_tbc", lambda make: [
        sample(make(6, 2, 3), make(3, 3, 4), make(4)), sample(make(6, 2, 3), make(3, 3, 4),
                                                              make(4), 1)],
        dtypes=KINDS, gradients=REAL_AND_COMPLEX, tolerance=TOLERANCE),
    OperationRecord(f"{F}linear", lambda make: [
        sample(make(3, 4), make(5, 4), make(5)), sample(make(2, 3, 4), make(5, 4)),
        sample(make(4), make(5, 4), make(5)), sample(make(4), make(4))], dtypes=KINDS,
        gradients=REAL_AND_COMPLEX, tolerance=TOLERANCE),
    OperationRecord(f"{F}bilinear", lambda make: [
        sample(make(3, 4), make(3, 2), make(5, 4, 2), make(5)),
        sample(make(2, 3, 4), make(2, 3, 2), make(5, 4, 2))], dtypes=KINDS,
        gradients=REAL_AND_COMPLEX, tolerance=TOLERANCE),
]
