"""Element types under PyTorch's names, and PyTorch's rules of promotion.

Categories are ordered bool < integer < float < complex.  Tensors with axes decide among themselves;
0-d tensors, and below them Python numbers, change the result only by a higher category.
"""

from __future__ import annotations

from typing import Any

import numpy

from lazygrad._core.context import fail
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES, DType, dtype_of_numpy

_CATEGORY = {"bool": 0, "unsigned": 1, "signed": 1, "float": 2, "complex": 3}
CATEGORY: dict[DType, int] = {record: _CATEGORY[record.kind] for record in DTYPES.values()}
_UNSIGNED_TO_SIGNED = {8: dtypes.int16, 16: dtypes.int32, 32: dtypes.int64}
_COMPLEX_OF = {16: dtypes.complex64, 32: dtypes.complex64, 64: dtypes.complex128}


class _Default:
    __slots__ = ("dtype",)

    dtype: DType




default = _Default()
default.dtype = dtypes.float32


def _promote(left: DType, right: DType) -> DType | None:
    if left is right:
        return left
    if CATEGORY[left] > CATEGORY[right]:
        left, right = right, left
    if right.kind == "complex":
        return _COMPLEX_OF[max(left.bits // (2 if left.is_complex else 1), right.bits // 2)] \
            if left.kind in ("float", "complex") else right
    if CATEGORY[left] < CATEGORY[right]:
        return right
    if right.kind == "float":
        if left.bits == right.bits:
            return dtypes.float32
        return max(left, right, key=lambda record: record.bits)
    if left.kind == right.kind:
        return max(left, right, key=lambda record: record.bits)
    unsigned, signed = (left, right) if left.kind == "unsigned" else (right, left)
    if signed.bits > unsigned.bits:
        return signed
    return _UNSIGNED_TO_SIGNED.get(unsigned.bits)


PROMOTED: dict[DType, dict[DType, DType | None]] = {
    left: {right: _promote(left, right) for right in DTYPES.values()} for left in DTYPES.values()
}


def promote_types(type1: DType, type2: DType) -> DType:
    """The smallest dtype that both fit, by PyTorch's table."""
    if type1.__class__ is not DType or type2.__class__ is not DType:
        wrong = type2 if type1.__class__ is DType else type1
        raise fail("promote_types", f"takes two dtypes, not {type(wrong).__name__}", kind=TypeError)
    found = PROMOTED[type1][type2]
    if found is None:
        raise fail("promote_types", f"{type1.name} and {type2.name} have no common dtype",
                   "Convert one of them with .to(...).", TypeError)
    return found


def combine(higher: DType, lower: DType) -> DType:
    """`higher` decides unless `lower` has a higher category (0-d tensors against others)."""
    if CATEGORY[higher] >= CATEGORY[lower]:
        return higher
    if higher.kind == "float" and lower.kind == "complex":
        return _COMPLEX_OF[higher.bits]
    return lower


def complex_default() -> DType:
    return _COMPLEX_OF[default.dtype.bits]


def scalar_dtype(value: Any) -> DType | None:
    """The dtype that a Python or NumPy number stands for; None for anything else."""
    kind = value.__class__
    if kind is float:
        return default.dtype
    if kind is int:
        return dtypes.int64
    if kind is bool:
        return dtypes.bool_
    if kind is complex:
        return complex_default()
    if isinstance(value, numpy.generic):
        try:
            category = CATEGORY[dtype_of_numpy(value.dtype)]
        except TypeError:
            return None
        return (dtypes.bool_, dtypes.int64, default.dtype, complex_default())[category]
    if isinstance(value, float):
        return default.dtype
    if isinstance(value, int):
        return dtypes.int64
    return None


def with_scalar(dtype: DType, value: Any) -> DType | None:
    """The dtype of an operation between a tensor of `dtype` and a number."""
    kind = value.__class__
    if kind is float and dtype.kind in ("float", "complex"):
        return dtype
    if kind is int and dtype.kind != "bool":
        return dtype
    scalar = scalar_dtype(value)
    return None if scalar is None else combine(dtype, scalar)


def as_dtype(value: Any) -> DType:
    """A dtype from ours, Python's float/int/bool/complex, a name or a NumPy dtype."""
    if value.__class__ is DType:
        return value
    if value is float:
        return dtypes.float64
    if value is int:
        return dtypes.int64
    if value is bool:
        return dtypes.bool_
    if value is complex:
        return dtypes.complex128
    if isinstance(value, str) and value in DTYPES:
        return DTYPES[value]
    return dtype_of_numpy(value)


def set_default_dtype(d: DType) -> None:
    """Sets the dtype of float literals and of creation functions."""
    d = as_dtype(d)
    if not d.is_floating:
        raise fail("set_default_dtype", f"only floating dtypes can be the default, not {d.name}",
                   kind=TypeError)
    default.dtype = d


def get_default_dtype() -> DType:
    return default.dtype


def can_cast(from_: DType, to: DType) -> bool:
    """Whether in-place operations may put a result of `from_` into a tensor of `to`."""
    return CATEGORY[from_] <= CATEGORY[to]


def float_of(dtype: DType) -> DType:
    """The dtype that true division and elementary functions compute in."""
    return dtype if dtype.is_differentiable else default.dtype


class finfo:
    """Limits of a floating dtype: eps, min, max, tiny, bits."""

    def __init__(self, dtype: DType | None = None) -> None:
        import ml_dtypes
        self.dtype = dtype or default.dtype
        limits = ml_dtypes.finfo(self.dtype.numpy)
        self.bits = self.dtype.bits
        self.eps, self.max, self.min = float(limits.eps), float(limits.max), float(limits.min)
        self.tiny = self.smallest_normal = float(limits.smallest_normal)
        self.resolution = float(limits.resolution)


class iinfo:
    """Limits of an integer dtype: min, max, bits."""

    def __init__(self, dtype: DType) -> None:
        self.dtype, self.bits = dtype, dtype.bits
        self.min: int = int(dtype.limits()[0])
        self.max: int = int(dtype.limits()[1])
