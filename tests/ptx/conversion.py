"""cvt: conversions between all scalar types (PTX ISA, section 9.7.9.21).

Float to integer clamps to the destination's range always; a NaN becomes 0, or the integer with only
its top bit set where the source is f64 or the destination has 64 bits.  Integer to integer chops,
or clamps with `.sat`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx import rounding, types
from tests.ptx.compiler import Compiler, Lanes, Step, Suffixes, instruction
from tests.ptx.floating import finish
from tests.ptx.parser import Instruction

_INTEGRAL = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def to_integer(values: np.ndarray, source: str, target: str, mode: str) -> np.ndarray:
    """Floats to an integer type, clamped."""
    dtype = types.INTEGERS[target]
    limits = np.iinfo(dtype)
    whole = _INTEGRAL[mode](values.astype(np.float64))
    over = whole >= float(limits.max)
    under = whole <= float(limits.min)
    inside = np.where(over | under | np.isnan(whole), 0.0, whole)
    result = inside.astype(dtype)
    result = np.where(over, dtype.type(limits.max), result)
    result = np.where(under, dtype.type(limits.min), result)
    if dtype.itemsize < 8 and source != "f64":
        missing = dtype.type(0)
    else:
        top = np.array([1 << (8 * dtype.itemsize - 1)], np.uint64).astype(f"u{dtype.itemsize}")
        missing = top.view(dtype)[0]
    return np.where(np.isnan(whole), missing, result)


def integer_to_odd(values: np.ndarray) -> np.ndarray:
    """64-bit integers in float64, rounded to odd."""
    if values.dtype.itemsize < 8:
        return values.astype(np.float64)
    high = (values >> values.dtype.type(32)).astype(np.float64) * 2.0**32
    low = (values & values.dtype.type(0xFFFFFFFF)).astype(np.float64)
    return rounding.add_odd(high, low)


@instruction("cvt")
def convert(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    mode = suffixes.take("rn", "rz", "rm", "rp", "rna", *_INTEGRAL)
    ftz, saturate = suffixes.flag("ftz"), suffixes.flag("sat")
    relu, finite = suffixes.flag("relu"), suffixes.flag("satfinite")
    target, source = suffixes.type(), suffixes.type()
    suffixes.done()
    if target in types.PACKED and source == "f32":
        return _convert_pair(compiler, item, target, mode, relu, finite)
    if target == "tf32":
        return _convert_tf32(compiler, item, mode, relu)
    if target in types.PACKED or source in types.PACKED or finite:
        raise suffixes.error("converts in a form that is not known")
    read, write = (
        compiler.reader(item.operands[1], source),
        compiler.writer(item.operands[0], target),
    )
    from_float, to_float = types.is_float(source), types.is_float(target)

    def run(batch: Any, lanes: Lanes) -> None:
        values = read(batch, lanes)
        if ftz and source == "f32":
            values = rounding.flush(values)
        if from_float and not to_float:
            result = to_integer(values, source, target, mode)
        elif not from_float and to_float:
            if target == "f64":
                result = values.astype(np.float64)
            else:
                result = finish(integer_to_odd(values), target, mode or "rn", saturate, False)
        elif to_float:
            result = values.astype(np.float64) if target != source else values
            if mode in _INTEGRAL:
                result = _INTEGRAL[mode](result)
            # without a mode the conversion widens, which is exact
            rounding_mode = "rn" if mode in _INTEGRAL or not mode else mode
            result = finish(result, target, rounding_mode, saturate, ftz)
            if target == "f64":
                result = result.astype(np.float64)
            if relu:
                result = np.where(result < 0, result.dtype.type(0), result)
        elif saturate:
            limits = np.iinfo(types.INTEGERS[target])
            own = np.iinfo(values.dtype)
            result = np.clip(values, max(limits.min, own.min), min(limits.max, own.max))
            result = result.astype(types.INTEGERS[target])
        else:
            result = values.astype(types.INTEGERS[target])
        write(batch, lanes, result)

    if from_float and not to_float and mode not in _INTEGRAL:
        raise suffixes.error("needs .rni, .rzi, .rmi or .rpi")
    # Registers wider than the destination are filled as `types.widen` says.
    if to_float and not from_float and mode not in ("rn", "rz", "rm", "rp"):
        raise suffixes.error("needs a rounding")
    narrowing = from_float and to_float and types.BYTES[target] < types.BYTES[source]
    if narrowing and mode not in ("rn", "rz", "rm", "rp", *_INTEGRAL):
        raise suffixes.error("needs a rounding")
    if target == "f64" and not from_float and source.endswith("64") and mode != "rn":
        raise suffixes.error("rounds f64 in a direction")
    if "bf16" in target and mode in ("rm", "rp"):
        raise suffixes.error("rounds bf16 in a direction")
    return run


def _convert_pair(
    compiler: Compiler, item: Instruction, target: str, mode: str, relu: bool, finite: bool
) -> Step:
    """cvt.rn.f16x2.f32 d, a, b: a becomes the upper half."""
    upper, lower = compiler.readers(item.operands[1:], "f32")
    write = compiler.writer(item.operands[0], target)
    if finite or mode not in ("rn", "rz"):
        raise ValueError(mode)

    def run(batch: Any, lanes: Lanes) -> None:
        high, low = np.broadcast_arrays(upper(batch, lanes), lower(batch, lanes))
        values = finish(np.stack([low, high], -1), target, mode, False, False)
        if relu:
            values = np.where(values < 0, 0.0, values)
        write(batch, lanes, values)

    return run


def _convert_tf32(compiler: Compiler, item: Instruction, mode: str, relu: bool) -> Step:
    """f32 with 10 bits of mantissa, the low 13 bits zero; rna rounds ties away from zero."""
    read, write = compiler.reader(item.operands[1], "b32"), compiler.writer(item.operands[0], "b32")
    if mode not in ("rna", "rn", "rz"):
        raise ValueError(mode)

    def run(batch: Any, lanes: Lanes) -> None:
        bits = read(batch, lanes)
        special = bits & np.uint32(0x7F800000) == 0x7F800000
        if mode == "rna":
            rounded = bits + np.uint32(0x1000)
        elif mode == "rn":
            rounded = bits + np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1))
        else:
            rounded = bits
        rounded = np.where(special, bits, rounded) & np.uint32(0xFFFFE000)
        if relu:
            rounded = np.where(rounded >> np.uint32(31), np.uint32(0), rounded)
        write(batch, lanes, rounded)

    return run
