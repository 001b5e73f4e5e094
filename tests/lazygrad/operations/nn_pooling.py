"""Pooling, adaptive pooling, unpooling, unfold and fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

F = "nn.functional."
KINDS = (*FULL_FLOATS, *COMPLEX)
SPACES = {1: (9,), 2: (7, 6), 3: (5, 4, 6)}


def _maximum(rank: int) -> Callable[[Maker], Sequence[Sample]]:
    def samples(make: Maker) -> Sequence[Sample]:
        x = make.distinct(2, 2, *SPACES[rank])
        return [
            sample(x, 2),
            sample(x, 3, 2, 1, return_indices=True),
            sample(x, 2, 1, 0, 2, return_indices=True),
            sample(x, (3,) * rank, 2, ceil_mode=True, return_indices=True),
            sample(make.distinct(2, *SPACES[rank]), 2),
        ]

    return samples


def _average(rank: int) -> Callable[[Maker], Sequence[Sample]]:
    def samples(make: Maker) -> Sequence[Sample]:
        x = make(2, 2, *SPACES[rank])
        found = [
            sample(x, 2),
            sample(x, 3, 2, 1),
            sample(x, 3, 2, 1, True, False),
            sample(x, 3, 2, 1, ceil_mode=True),
            sample(make(2, *SPACES[rank]), 2, 1),
        ]
        return found if rank == 1 else [*found, sample(x, 3, 2, 1, divisor_override=5)]

    return samples


def _adaptive(rank: int) -> Callable[[Maker], Sequence[Sample]]:
    def samples(make: Maker) -> Sequence[Sample]:
        x = make.distinct(2, 2, *SPACES[rank])
        mixed: Any = (None, 4, 3)[:rank] if rank > 1 else (4,)
        return [sample(x, 1), sample(x, 3), sample(x, mixed),
                sample(make.distinct(2, *SPACES[rank]), 2)]

    return samples


def _with_indices(samples: Callable[[Maker], Sequence[Sample]]) -> Any:
    return lambda make: [Sample(each.arguments, {"return_indices": True}) for each in samples(make)]


def _unpool(rank: int) -> Callable[..., Any]:
    """Unpooled after pooling, so that the indices are right."""

    def call(library: Any, x: Any, *settings: Any, output_size: Any = None) -> Any:
        functional = library.nn.functional
        values, places = getattr(functional, f"max_pool{rank}d")(
            x, *settings, return_indices=True)
        unpool = getattr(functional, f"max_unpool{rank}d")
        return unpool(values * 2, places, *settings, output_size=output_size)

    return call


def _unpooled(rank: int) -> Callable[[Maker], Sequence[Sample]]:
    def samples(make: Maker) -> Sequence[Sample]:
        x = make.distinct(2, 2, *(6,) * rank)
        return [sample(x, 2), sample(x, 3, 3), sample(make.distinct(2, 2, *(5,) * rank), 2, 2,
                                                      output_size=(5,) * rank)]

    return samples


def _fractional(rank: int) -> Callable[[Maker], Sequence[Sample]]:
    def samples(make: Maker) -> Sequence[Sample]:
        x = make.distinct(2, 2, *(7, 6, 8)[:rank])
        draws = numpy.random.default_rng(1).uniform(0, 1, (2, 2, rank)).astype(x.dtype)
        return [
            Sample((x, 2), {"output_size": (4, 3, 5)[:rank], "return_indices": True,
                            "_random_samples": draws}, (0,)),
            Sample((x, 3), {"output_ratio": (0.5,) * rank, "_random_samples": draws}, (0,)),
            Sample((x, 3), {"output_size": 1, "_random_samples": draws}, (0,)),
        ]

    return samples


def _wrong(make: Maker) -> tuple[ErrorInput, ...]:
    x = make(2, 2, 6, 6)
    return (
        ErrorInput(sample(x, 9), RuntimeError, "max_pool2d.*does not fit"),
        ErrorInput(sample(x, 2, padding=2), RuntimeError, "more than half"),
        ErrorInput(sample(x, 2, stride=0), RuntimeError, "at least 1"),
        ErrorInput(sample(make(6, 6), 2), RuntimeError, "takes"),
        ErrorInput(sample(x, (2, 2, 2)), RuntimeError, "kernel_size"),
    )


def _positive(make: Maker, rank: int) -> Any:
    return make(2, 2, *SPACES[rank], low=0.5)


RECORDS = [
    *(OperationRecord(f"{F}max_pool{rank}d", _maximum(rank),
                      dtypes=(*FULL_FLOATS, "float16"),
                      errors=_wrong(Maker("float32")) if rank == 2 else (), compile=rank == 2)
      for rank in (1, 2, 3)),
    *(OperationRecord(f"{F}avg_pool{rank}d", _average(rank)) for rank in (1, 2, 3)),
    *(OperationRecord(f"{F}adaptive_avg_pool{rank}d", _adaptive(rank), errors=(
        ErrorInput(sample(Maker("float32")(2), 2), RuntimeError, "takes"),))
      for rank in (1, 2, 3)),
    *(OperationRecord(f"{F}adaptive_max_pool{rank}d", _with_indices(_adaptive(rank)))
      for rank in (1, 2, 3)),
    *(OperationRecord(f"{F}lp_pool{rank}d", lambda make, rank=rank: [
        sample(_positive(make, rank), 2.0, 2), sample(_positive(make, rank), 3, 3, 2),
        sample(_positive(make, rank), float("inf"), 2)], tolerance={"float32": (1e-4, 1e-5)})
      for rank in (1, 2, 3)),
    *(OperationRecord(f"{F}max_unpool{rank}d", _unpooled(rank), call=_unpool(rank))
      for rank in (1, 2, 3)),
    *(OperationRecord(f"{F}fractional_max_pool{rank}d", _fractional(rank), errors=(
        ErrorInput(sample(Maker("float32")(2, 2, *(6,) * rank), 2), ValueError,
                   "output_size"),), accepts=("none at _random_samples",),
        note="Without samples the places are random.") for rank in (2, 3)),
    OperationRecord(f"{F}unfold", lambda make: [
        sample(make(2, 3, 5, 6), 2), sample(make(2, 3, 5, 6), (2, 3), 1, 1, 2),
        sample(make(3, 6, 6), 2, 2)], dtypes=KINDS, gradients=REAL_AND_COMPLEX),
    OperationRecord(f"{F}fold", lambda make: [
        sample(make(2, 12, 20), (5, 6), 2), sample(make(2, 18, 9), (5, 6), (2, 3), 1, 1, 2),
        sample(make(12, 16), (6, 6), 2, 2)], dtypes=KINDS, gradients=REAL_AND_COMPLEX,
        errors=(ErrorInput(sample(Maker("float32")(2, 12, 21), (5, 6), 2), RuntimeError, "fold"),)),
]
