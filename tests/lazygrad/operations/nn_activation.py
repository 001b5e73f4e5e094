"""Activations and softmaxes; in-place ones too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .record import FLOATS, FULL_FLOATS, ErrorInput, Maker, OperationRecord, Sample, sample

F = "nn.functional."
LOOSE = {"float16": (3e-3, 3e-3), "bfloat16": (2e-2, 2e-2), "float64": (1e-7, 1e-8)}


def _with(*settings: dict[str, Any]) -> Callable[[Maker], Sequence[Sample]]:
    """One sample with no settings, and one with each of the given."""

    def samples(make: Maker) -> Sequence[Sample]:
        return [sample(make(3, 4, low=-4, high=4), **each) for each in ({}, *settings)]

    return samples


ELEMENTWISE: list[tuple[str, tuple[dict[str, Any], ...]]] = [
    ("relu6", ({"inplace": False},)),
    ("elu", ({"alpha": 0.5},)),
    ("selu", ()),
    ("celu", ({"alpha": 0.5},)),
    ("gelu", ({"approximate": "tanh"},)),
    ("silu", ()),
    ("mish", ()),
    ("hardtanh", ({"min_val": -0.5, "max_val": 2.0},)),
    ("hardswish", ()),
    ("hardsigmoid", ()),
    ("leaky_relu", ({"negative_slope": 0.2},)),
    ("logsigmoid", ()),
    ("softsign", ()),
    ("softplus", ({"beta": 2.0, "threshold": 3.0},)),
    ("softshrink", ({"lambd": 0.3},)),
    ("hardshrink", ({"lambd": 0.3},)),
    ("tanhshrink", ()),
    ("sigmoid", ()),
    ("tanh", ()),
    ("relu", ()),
]

INPLACE = ("relu_", "elu_", "selu_", "celu_", "hardtanh_", "leaky_relu_")


def _written(name: str) -> Callable[..., Any]:
    """The in-place function on a copy, and the copy itself."""

    def call(library: Any, x: Any, *settings: Any) -> Any:
        copy = x * 1
        result = getattr(library.nn.functional, name)(copy, *settings)
        return result, copy

    return call


def _argument(name: str) -> Callable[..., Any]:
    """The function with inplace=True on a copy, and the copy itself."""

    def call(library: Any, x: Any) -> Any:
        copy = x * 1
        return getattr(library.nn.functional, name)(copy, inplace=True), copy

    return call


def _softmax(make: Maker) -> Sequence[Sample]:
    return [sample(make(3, 4), 1), sample(make(2, 3, 4), 0), sample(make(4), -1),
            sample(make(), 0)]


MAKE = Maker("float32")

RECORDS = [
    # PyTorch's vectorised gelu of infinity is NaN, its scalar one infinity; its hardsigmoid knows
    # 1 / 6 in float32 only.
    *(OperationRecord(F + name, _with(*settings), dtypes=FLOATS, special=name != "gelu",
                      tolerance=LOOSE)
      for name, settings in ELEMENTWISE),
    *(OperationRecord(F + name, lambda make: [sample(make(3, 4))], call=_written(name), variant="")
      for name in INPLACE),
    OperationRecord(f"{F}threshold_", lambda make: [sample(make(3, 4), 0.5, 7.0)],
                    call=_written("threshold_")),
    *(OperationRecord(F + name, lambda make: [sample(make(3, 4))], call=_argument(name),
                      tolerance=LOOSE, variant="inplace")
      for name in ("relu", "relu6", "silu", "mish", "hardswish", "hardsigmoid", "elu")),
    OperationRecord(f"{F}threshold", lambda make: [sample(make(3, 4), 0.5, 7.0)],
                    dtypes=(*FLOATS, "int64"), special=True),
    OperationRecord(f"{F}prelu", lambda make: [
        sample(make(2, 3, 4), make(3)), sample(make(2, 3), make(1)), sample(make(4), make(1))],
        errors=(
            ErrorInput(sample(MAKE(2, 3, 4), MAKE(4)), RuntimeError, "prelu.*channels"),
            ErrorInput(sample(MAKE(2, 3), MAKE(3, dtype="float64")), RuntimeError, "float64"))),
    OperationRecord(f"{F}glu", lambda make: [sample(make(3, 4)), sample(make(4, 3, 2), 0)],
                    dtypes=FLOATS, tolerance=LOOSE, errors=(
        ErrorInput(sample(MAKE(3, 3)), RuntimeError, "halve"),
        ErrorInput(sample(MAKE()), RuntimeError, "0-d"),
        ErrorInput(sample(MAKE(3, 4), 2), IndexError, "dim"))),
    OperationRecord(f"{F}softmax", _softmax, dtypes=FLOATS, special=True, tolerance=LOOSE, errors=(
        ErrorInput(sample(MAKE(3, dtype="int64"), 0), RuntimeError, "floating"),
        ErrorInput(sample(MAKE(3, 4), 2), IndexError, "dim"))),
    OperationRecord(f"{F}log_softmax", _softmax, dtypes=FLOATS, special=True, tolerance=LOOSE),
    OperationRecord(f"{F}softmin", _softmax, dtypes=FULL_FLOATS),
    OperationRecord(f"{F}softmax", lambda make: [
        sample(MAKE(3, 4), 1, dtype="float64"), sample(MAKE(3, 4, dtype="int64"), 1,
                                                       dtype="float32")],
        dtypes=("float32",), gradients=(), variant="dtype"),
    OperationRecord(f"{F}rrelu", _with({"lower": 0.1, "upper": 0.5})),
]
