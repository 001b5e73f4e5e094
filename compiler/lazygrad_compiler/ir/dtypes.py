"""The element types of the IR: one frozen record each, found by name in `DTYPES`.

A record says what the type is called, its kind (bool, unsigned, signed, float, complex), its size,
and the NumPy type that represents it.  bfloat16 and float8 come from ml_dtypes, since NumPy has
none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type.  Compared by identity: there is exactly one record a type."""

    name: str
    kind: str  # "bool", "unsigned", "signed", "float" or "complex"
    bits: int
    numpy: numpy.dtype = field(repr=False)

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory."""
        return self.numpy.itemsize

    @property
    def is_floating(self) -> bool:
        return self.kind == "float"

    @property
    def is_floating_point(self) -> bool:
        """PyTorch's name of `is_floating`."""
        return self.kind == "float"

    @property
    def is_signed(self) -> bool:
        return self.kind in ("signed", "float", "complex")

    @property
    def is_complex(self) -> bool:
        return self.kind == "complex"

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers, not for bool."""
        return self.kind in ("signed", "unsigned")

    @property
    def is_differentiable(self) -> bool:
        return self.kind in ("float", "complex")

    def limits(self) -> tuple[float, float] | tuple[int, int]:
        """The lowest and highest value; -inf and inf for floats, which is what reductions start
        from.
        """
        if self.kind == "bool":
            return 0, 1
        if self.kind == "float":
            return float("-inf"), float("inf")
        information = numpy.iinfo(self.numpy)
        return int(information.min), int(information.max)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple:
        return dtype_named, (self.name,)


bool_ = DType("bool", "bool", 8, numpy.dtype(numpy.bool_))
uint8 = DType("uint8", "unsigned", 8, numpy.dtype(numpy.uint8))
uint16 = DType("uint16", "unsigned", 16, numpy.dtype(numpy.uint16))
uint32 = DType("uint32", "unsigned", 32, numpy.dtype(numpy.uint32))
uint64 = DType("uint64", "unsigned", 64, numpy.dtype(numpy.uint64))
int8 = DType("int8", "signed", 8, numpy.dtype(numpy.int8))
int16 = DType("int16", "signed", 16, numpy.dtype(numpy.int16))
int32 = DType("int32", "signed", 32, numpy.dtype(numpy.int32))
int64 = DType("int64", "signed", 64, numpy.dtype(numpy.int64))
float16 = DType("float16", "float", 16, numpy.dtype(numpy.float16))
bfloat16 = DType("bfloat16", "float", 16, numpy.dtype(ml_dtypes.bfloat16))
float32 = DType("float32", "float", 32, numpy.dtype(numpy.float32))
float64 = DType("float64", "float", 64, numpy.dtype(numpy.float64))
complex64 = DType("complex64", "complex", 64, numpy.dtype(numpy.complex64))
complex128 = DType("complex128", "complex", 128, numpy.dtype(numpy.complex128))

DTYPES: dict[str, DType] = {
    record.name: record
    for record in (
        bool_,
        uint8,
        uint16,
        uint32,
        uint64,
        int8,
        int16,
        int32,
        int64,
        float16,
        bfloat16,
        float32,
        float64,
        complex64,
        complex128,
    )
}
_BY_NUMPY = {record.numpy: record for record in DTYPES.values()}


def dtype_named(name: str) -> DType:
    """The record of that name; KeyError lists the known ones."""
    try:
        return DTYPES[name]
    except KeyError:
        raise KeyError(f"no dtype is called {name!r}; there are {', '.join(DTYPES)}") from None


def dtype_of_numpy(dtype: object) -> DType:
    """The record of a NumPy dtype; TypeError where there is none (strings, objects, dates)."""
    try:
        return _BY_NUMPY[numpy.dtype(dtype)]  # type: ignore[call-overload]
    except (KeyError, TypeError):
        raise TypeError(
            f"arrays of {dtype} have no tensor dtype; convert to one of {', '.join(DTYPES)} first"
        ) from None
