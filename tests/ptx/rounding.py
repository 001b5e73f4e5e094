"""Exact floating-point arithmetic with one rounding, on arrays.

Sums and products are formed in float64 and made *odd*: where the float64 result is inexact, its
last bit is set so that it lies strictly between the neighbours a narrower format can tell apart.
Rounding an odd value once more, to any format at least two bits narrower, gives the correctly
rounded result in every direction (Boldo and Melquiond, "Emulation of a FMA and correctly rounded
sums: proved algorithms using rounding to odd", 2008).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def _odd(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """`value + error` rounded to odd, where value = fl(value + error)."""
    value, error = np.broadcast_arrays(value, error)
    bits = np.ascontiguousarray(value, dtype=np.float64).view(np.int64)
    inexact = (error != 0) & np.isfinite(value) & np.isfinite(error) & ((bits & 1) == 0)
    if not inexact.any():
        return value
    toward = np.where(error > 0, np.inf, -np.inf)
    return np.where(inexact, np.nextafter(value, toward), value)


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def add_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b of float64 arrays, rounded to odd."""
    total, error = _two_sum(np.asarray(a, np.float64), np.asarray(b, np.float64))
    return _odd(total, error)


def fma_odd(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c rounded to odd in float64; a and b have at most 26 bits (f32 and narrower)."""
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    return add_odd(product, c)


def divide_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b rounded to odd in float64, for operands of f32 and narrower."""
    quotient = np.asarray(a, np.float64) / np.asarray(b, np.float64)
    high, low = _two_product(quotient, np.asarray(b, np.float64))
    remainder = (a - high) - low
    return _odd(quotient, remainder * np.sign(b))


def sqrt_odd(a: np.ndarray) -> np.ndarray:
    """sqrt(a) rounded to odd in float64, for operands of f32 and narrower."""
    root = np.sqrt(np.asarray(a, np.float64))
    high, low = _two_product(root, root)
    return _odd(root, (a - high) - low)


_SPLIT = 134217729.0  # 2**27 + 1: Veltkamp's constant


def _two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a * b as an unevaluated sum (Dekker 1971)."""
    product = a * b
    a_high = _SPLIT * a - (_SPLIT * a - a)
    b_high = _SPLIT * b - (_SPLIT * b - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def fma_f64(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c in float64 with one rounding.

    Boldo and Melquiond's algorithm where no step can over- or underflow, exact rational arithmetic
    for the few elements where one could.
    """
    a, b, c = np.broadcast_arrays(a, b, c)
    high, low = _two_product(a, b)
    upper, lower = _two_sum(c, low)
    total, rest = _two_sum(high, upper)
    result = total + add_odd(lower, rest)
    magnitude = np.abs(np.stack([a, b, high]))
    risky = ((magnitude > 1e290) | (magnitude < 1e-250)).any(0) | (np.abs(c) > 1e290)
    risky &= (a != 0) & (b != 0)
    plain = ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(c)) | (a == 0) | (b == 0)
    result = np.where(plain, a * b + c, result)
    for index in np.argwhere(risky & ~plain):
        at = tuple(index)
        exact = Fraction(float(a[at])) * Fraction(float(b[at])) + Fraction(float(c[at]))
        if exact == 0:
            result[at] = a[at] * b[at] + c[at]
            continue
        try:
            result[at] = float(exact)
        except OverflowError:
            result[at] = np.inf if exact > 0 else -np.inf
    return result


_DTYPE = {"f16": np.dtype(np.float16), "f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}


def round_to(values: np.ndarray, type_: str, mode: str = "rn") -> np.ndarray:
    """Float64 (or f32) values in the type's dtype; f16, f32 or f64; mode rn, rz, rm or rp."""
    dtype = _DTYPE[type_]
    values = np.asarray(values)
    if values.dtype == dtype:
        return values
    nearest = values.astype(dtype)
    if mode == "rn":
        return nearest
    back = nearest.astype(np.float64)
    exact = values.astype(np.float64)
    infinity = dtype.type(np.inf)
    if mode == "rz":
        wrong, toward = np.abs(back) > np.abs(exact), dtype.type(0)
        return np.where(wrong, np.nextafter(nearest, toward), nearest)
    if mode == "rm":
        return np.where(back > exact, np.nextafter(nearest, -infinity), nearest)
    if mode == "rp":
        return np.where(back < exact, np.nextafter(nearest, infinity), nearest)
    raise KeyError(mode)


def bfloat16_bits(values: np.ndarray, mode: str = "rn") -> np.ndarray:
    """The bfloat16 bits of float64 or f32 values, rounded once."""
    values = np.asarray(values)
    if values.dtype == np.float64:
        single = values.astype(np.float32)
        error = values - single.astype(np.float64)
        # Rounded to odd in f32, so that the next rounding is the only one that counts.
        even = (single.view(np.uint32) & 1) == 0
        inexact = (error != 0) & np.isfinite(single) & even
        toward = np.where(error > 0, np.float32(np.inf), np.float32(-np.inf))
        single = np.where(inexact, np.nextafter(single, toward), single)
    else:
        single = values.astype(np.float32, copy=False)
    bits = np.ascontiguousarray(single).view(np.uint32)
    if mode == "rn":
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> np.uint32(16)
    elif mode == "rz":
        rounded = bits >> np.uint32(16)
    else:
        raise KeyError(mode)
    return np.where(np.isnan(single), 0x7FFF, rounded).astype(np.uint16)


def flush(values: np.ndarray) -> np.ndarray:
    """Subnormal f32 values replaced by zeros of their sign (`.ftz`)."""
    tiny = np.abs(values) < np.float32(2.0**-126)
    return np.where(tiny, np.copysign(np.float32(0), values), values)
