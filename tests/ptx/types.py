"""PTX's scalar types (PTX ISA, section 5.2) and how their bits lie in registers.

A register is an array of unsigned integers of its width (or of bools for predicates), one element a
lane.  Reading gives an array of the instruction's type, writing takes one.  The one idea: floating
values narrower than f32 are handed on as float64, which holds them exactly; `rounding.py` brings
results back with one correct rounding.
"""

from __future__ import annotations

import numpy as np

from tests.ptx.rounding import bfloat16_bits, round_to

UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}

INTEGERS = {
    **{f"{kind}{8 * size}": np.dtype(UNSIGNED[size]) for kind in "ub" for size in UNSIGNED},
    **{f"s{8 * size}": np.dtype(SIGNED[size]) for size in SIGNED},
}
FLOATS = ("f16", "bf16", "f32", "f64")
PACKED = {"f16x2": "f16", "bf16x2": "bf16"}
BYTES = {
    **{name: dtype.itemsize for name, dtype in INTEGERS.items()},
    "f16": 2, "bf16": 2, "f32": 4, "tf32": 4, "f64": 8, "f16x2": 4, "bf16x2": 4, "pred": 1,
}  # fmt: skip


def is_float(type_: str) -> bool:
    return type_ in FLOATS or type_ in PACKED


def decode(bits: np.ndarray, type_: str) -> np.ndarray:
    """Values from contiguous unsigned bits of the type's own width.

    f32 and f64 as they are; f16 and bf16 as float64; packed types as float64 of shape (…, 2).
    """
    if type_ in INTEGERS:
        return bits.view(INTEGERS[type_])
    if type_ == "f32":
        return bits.view(np.float32)
    if type_ == "f64":
        return bits.view(np.float64)
    if type_ == "f16":
        return bits.view(np.float16).astype(np.float64)
    if type_ == "bf16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    if type_ in PACKED:
        halves = np.ascontiguousarray(bits).view(np.uint16).reshape(*bits.shape, 2)
        return decode(halves, PACKED[type_])
    raise KeyError(type_)


def encode(values: np.ndarray, type_: str) -> np.ndarray:
    """The bits of values that the type holds (floats are rounded to nearest even)."""
    if type_ in INTEGERS:
        dtype = INTEGERS[type_]
        return values.astype(dtype, copy=False).view(UNSIGNED[dtype.itemsize])
    if type_ == "f32":
        return np.ascontiguousarray(round_to(values, "f32")).view(np.uint32)
    if type_ == "f64":
        return np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)
    if type_ == "f16":
        return np.ascontiguousarray(round_to(values, "f16")).view(np.uint16)
    if type_ == "bf16":
        return bfloat16_bits(values)
    if type_ in PACKED:
        halves = np.ascontiguousarray(encode(values, PACKED[type_]))
        return halves.view(np.uint32).reshape(values.shape[:-1])
    raise KeyError(type_)


def widen(bits: np.ndarray, type_: str, size: int) -> np.ndarray:
    """Bits of a type put into a register of `size` bytes: sign-extended for `s` types."""
    if bits.dtype.itemsize == size:
        return bits
    if type_.startswith("s"):
        return bits.view(SIGNED[bits.dtype.itemsize]).astype(SIGNED[size]).view(UNSIGNED[size])
    return bits.astype(UNSIGNED[size])
