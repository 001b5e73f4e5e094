"""Normalisation over batches, instances, groups and features; distances and angles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
LOOSE = {"float32": (2e-4, 2e-5), "complex64": (2e-4, 2e-5)}
MAKE = Maker("float32")


def _batch(make: Maker) -> Sequence[Sample]:
    mean, spread = make(3), make(3, low=0.5)
    first = (0, 3, 4)
    return [
        Sample((make(4, 3, 2), mean, spread, make(3), make(3)), {"training": True}, first),
        Sample((make(4, 3, 2, 2), mean, spread, make(3), make(3), False, 0.1, 1e-3), {}, first),
        Sample((make(4, 3), None, None), {"training": True}),
        Sample((make(4, 3), None, None, make(3)), {"training": True}),
    ]


def _statistics(name: str) -> Any:
    """The running statistics after a call; they are given away as copies first."""

    def call(library: Any, x: Any, mean: Any, spread: Any) -> Any:
        mean, spread = mean.clone(), spread.clone()
        settings: dict[str, Any] = {"momentum": 0.3}
        if name == "batch_norm":
            settings["training"] = True
        result = getattr(library.nn.functional, name)(x, mean, spread, **settings)
        return result, mean, spread

    return call


RECORDS = [
    OperationRecord(f"{F}batch_norm", _batch, tolerance=LOOSE, errors=(
        ErrorInput(sample(MAKE(3), None, None), RuntimeError, "takes"),
        ErrorInput(sample(MAKE(2, 3), None, None), RuntimeError, "running_mean"),
        ErrorInput(sample(MAKE(2, 3), MAKE(2), MAKE(2)), RuntimeError, "running statistics"),
        ErrorInput(sample(MAKE(1, 3), None, None, training=True), ValueError, "more than one"),
        ErrorInput(sample(MAKE(4, 3), None, None, MAKE(2), training=True), RuntimeError,
                   "weight"))),
    *(OperationRecord(F + name, lambda make: [
        sample(make(4, 3, 5), make(3), make(3, low=0.5))], variant="statistics", gradients=(),
        tolerance=LOOSE, call=_statistics(name), accepts=("dtype uint8 at [12]",),
        note="Statistics in uint8 overflow; what is left of them is not defined.")
      for name in ("batch_norm", "instance_norm")),
    OperationRecord(f"{F}instance_norm", lambda make: [
        Sample((make(2, 3, 5), None, None, make(3), make(3)), {}),
        Sample((make(2, 3, 2, 3), make(3), make(3, low=0.5)), {"use_input_stats": False}, (0,)),
        sample(make(2, 3, 4))], tolerance=LOOSE, errors=(
            ErrorInput(sample(MAKE(2, 3, 1)), ValueError, "more than one"),)),
    OperationRecord(f"{F}layer_norm", lambda make: [
        sample(make(3, 4), (4,)), sample(make(2, 3, 4), (3, 4), make(3, 4), make(3, 4), 1e-3)],
        tolerance=LOOSE, compile=True, errors=(
            ErrorInput(sample(MAKE(3, 4), (3,)), RuntimeError, "normalized_shape"),)),
    OperationRecord(f"{F}rms_norm", lambda make: [
        sample(make(3, 4), (4,)), sample(make(2, 3, 4), (3, 4), make(3, 4), 1e-3)],
        dtypes=KINDS, gradients=REAL_AND_COMPLEX, tolerance=LOOSE),
    OperationRecord(f"{F}group_norm", lambda make: [
        sample(make(2, 4, 3), 2), sample(make(2, 6, 2, 2), 3, make(6), make(6), 1e-3)],
        tolerance=LOOSE, errors=(
            ErrorInput(sample(MAKE(2, 4, 3), 3), RuntimeError, "groups"),)),
    OperationRecord(f"{F}local_response_norm", lambda make: [
        sample(make(2, 5, 3), 3), sample(make(2, 4, 2, 2), 2, 0.1, 0.5, 2.0)], tolerance=LOOSE),
    OperationRecord(f"{F}normalize", lambda make: [
        sample(make(3, 4)), sample(make(3, 4), 1.0, 0), sample(make(2, 3, 4), 3.0, 2)],
        dtypes=KINDS, gradients=REAL_AND_COMPLEX, tolerance=LOOSE),
    OperationRecord(f"{F}cosine_similarity", lambda make: [
        sample(make(3, 4), make(3, 4)), sample(make(2, 3, 4), make(3, 1), 0),
        sample(make(4), make(3, 4), -1)], tolerance=LOOSE),
    OperationRecord(f"{F}pairwise_distance", lambda make: [
        sample(make(3, 4), make(3, 4)), sample(make(3, 4), make(4), 1.0, 1e-3, True),
        sample(make(3, 4), make(3, 4), 3.0)], dtypes=KINDS,
        gradients=REAL_AND_COMPLEX, tolerance=LOOSE),
]
