"""What a test needs to know about a public operation, as data.

A family file (`elementwise.py`, `linalg.py`, …) lists `OperationRecord`s in `RECORDS`.  The one
driver, `test_operations.py`, runs every record against PyTorch: values in each dtype, special
values, first and second gradients, in-place and `out=` variants, aliasing, error inputs.  The
matrix of defects (`test_defects.py`) starts from the same samples.

Samples hold NumPy arrays; the driver turns each array, also inside lists, tuples and dictionaries,
into a tensor of either library.  A dtype is written as a NumPy dtype, `numpy.dtype("float64")`, or,
as the keyword `dtype`, by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy

FLOATS = ("float32", "float64", "float16", "bfloat16")
FULL_FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
REALS = FLOATS + INTEGERS
ALL = (*REALS, "bool", *COMPLEX)
REAL_AND_COMPLEX = ("float64", "complex128")
"""Dtypes that gradients are checked in."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One call: positional arguments and keywords, with NumPy arrays where tensors go.

    differentiable: the numbers (or keywords) of the arguments that gradients are checked for; None
    means every floating or complex array.
    """

    arguments: tuple[Any, ...]
    keywords: dict[str, Any] = field(default_factory=dict)
    differentiable: tuple[int | str, ...] | None = None


def sample(*arguments: Any, **keywords: Any) -> Sample:
    return Sample(arguments, keywords)


class Maker:
    """Draws arrays of the dtype under test."""

    def __init__(self, dtype: str, seed: int = 0) -> None:
        self.dtype = dtype
        self.random = numpy.random.default_rng(seed)

    def __call__(
        self, *shape: int, low: float = -2.0, high: float = 2.0, dtype: str | None = None
    ) -> numpy.ndarray:
        """An array of the shape, uniform in [low, high) (integers: whole numbers in it)."""
        name = dtype or self.dtype
        if name == "bool":
            return numpy.asarray(self.random.random(shape) < 0.5)
        if name.startswith(("int", "uint")):
            first = 0 if name.startswith("uint") and low < 0 else int(low)
            return self.random.integers(first, max(int(high), first + 1), shape).astype(name)
        if name.startswith("complex"):
            values = self.random.uniform(low, high, shape) + 1j * self.random.uniform(
                low, high, shape
            )
            return numpy.asarray(values).astype(name)
        numpy_type = ml_dtypes.bfloat16 if name == "bfloat16" else name
        return numpy.asarray(self.random.uniform(low, high, shape)).astype(numpy_type)

    def distinct(self, *shape: int, dtype: str | None = None) -> numpy.ndarray:
        """All elements different, in random order: for sort, max and their like."""
        count = int(numpy.prod(shape))
        name = dtype or self.dtype
        values = self.random.permutation(count).reshape(shape)
        if name.startswith(("int", "uint")):
            return values.astype(name)
        numpy_type = ml_dtypes.bfloat16 if name == "bfloat16" else name
        return (values * 0.5 - count * 0.2).astype(numpy_type)

    def index(self, size: int, *shape: int, dtype: str = "int64") -> numpy.ndarray:
        """Indices in [0, size)."""
        return self.random.integers(0, size, shape).astype(dtype)

    def mask(self, *shape: int) -> numpy.ndarray:
        return numpy.asarray(self.random.random(shape) < 0.5)


@dataclass(frozen=True, slots=True)
class ErrorInput:
    """A call that has to fail: with lazygrad's exception, whose text matches `match` (a regular
    expression).
    """

    sample: Sample
    error: type[Exception] | tuple[type[Exception], ...]
    match: str = ""


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """One public operation.

    name: dotted, as in `torch.<name>`: "lerp", "linalg.solve", "nn.functional.pad",
        "Tensor.index_add".
    samples: Maker -> calls that are legal in that dtype.
    dtypes: names that values are compared in.
    gradients: dtypes that gradients are checked in; empty where there is none.
    second: whether second-order gradients are checked, too.
    method: also a Tensor method of the last part of the name, with the same arguments.
    inplace: also `Tensor.<name>_`.
    out: takes `out=`.
    view: the result shares memory with the first argument.
    special: the first argument is also fed NaN, infinities and signed zeros.
    tolerance: dtype -> (relative, absolute); without an entry the driver's default counts.
    call: what to run instead of the named function: call(library, *arguments, **keywords), where
        library is `torch` or `lazygrad`.  For results that are not unique, return what is.
    reference: what to compare with where PyTorch has no such operation or is wrong (the reason
        goes into `note`): reference(*arrays, **keywords) -> arrays.
    compile: whether the record also runs through `lg.compile`.
    accepts: defects (regular expressions for the names in `defects.py`) whose result is right
        although PyTorch refuses them, or gives another that is as good (why goes into `note`).
    """

    name: str
    samples: Callable[[Maker], Sequence[Sample]]
    dtypes: tuple[str, ...] = FULL_FLOATS
    gradients: tuple[str, ...] = ("float64",)
    second: bool = True
    method: bool = False
    inplace: bool = False
    out: bool = False
    view: bool = False
    special: bool = False
    tolerance: dict[str, tuple[float, float]] = field(default_factory=dict)
    errors: tuple[ErrorInput, ...] = ()
    call: Callable[..., Any] | None = None
    reference: Callable[..., Any] | None = None
    compile: bool = False
    variant: str = ""  # tells records of one name apart
    note: str = ""
    accepts: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        return f"{self.name}[{self.variant}]" if self.variant else self.name
