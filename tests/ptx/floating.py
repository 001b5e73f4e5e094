"""Floating-point arithmetic (PTX ISA, sections 9.7.3, 9.7.4 and 9.7.5).

f32 and f64 to nearest are NumPy's own operations; everything else goes through `rounding.py`.  The
`.approx` functions are computed in float64 and rounded: closer than the hardware, whose errors the
ISA only bounds (2 ulp and less for most), so results differ from a GPU's in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx import rounding, types
from tests.ptx.compiler import Compiler, Lanes, Step, Suffixes, instruction
from tests.ptx.parser import Instruction

MODES = ("rn", "rz", "rm", "rp")


def finish(values: np.ndarray, type_: str, mode: str, saturate: bool, ftz: bool) -> np.ndarray:
    """One rounding of an odd float64 result into the type's decoded form, then .sat and .ftz."""
    element = types.PACKED.get(type_, type_)
    if element == "f64":
        result = values
    elif element == "bf16":
        bits = rounding.bfloat16_bits(values, mode)
        result = types.decode(bits, "bf16")
    else:
        result = rounding.round_to(values, element, mode)
        if element == "f16":
            result = result.astype(np.float64)
    if ftz and element == "f32":
        result = rounding.flush(result)
    elif ftz and element == "f16":
        result = np.where(np.abs(result) < 2.0**-14, np.copysign(0.0, result), result)
    if saturate:
        # A NaN becomes +0.
        result = np.where(np.isnan(result), 0, np.clip(result, 0, 1)).astype(result.dtype)
    return result


def _step(
    compiler: Compiler,
    item: Instruction,
    type_: str,
    ftz: bool,
    operation: Callable[..., np.ndarray],
) -> Step:
    reads = compiler.readers(item.operands[1:], type_)
    write = compiler.writer(item.operands[0], type_)
    flushes = ftz and type_ == "f32"

    def run(batch: Any, lanes: Lanes) -> None:
        values = [read(batch, lanes) for read in reads]
        if flushes:
            values = [rounding.flush(value) for value in values]
        write(batch, lanes, operation(*values))

    return run


_NATIVE = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
_ODD = {
    "add": rounding.add_odd,
    "sub": lambda a, b: rounding.add_odd(a, -np.asarray(b, np.float64)),
    # The product of two f32 (or narrower) numbers is exact in float64.
    "mul": lambda a, b: np.asarray(a, np.float64) * np.asarray(b, np.float64),
}


def arithmetic(compiler: Compiler, item: Instruction) -> Step:
    """add, sub, mul."""
    name = item.opcode.split(".")[0]
    suffixes = Suffixes(item)
    mode, ftz = suffixes.take(*MODES, default="rn"), suffixes.flag("ftz")
    saturate, type_ = suffixes.flag("sat"), suffixes.type()
    suffixes.done()
    if type_ == "f64" and mode != "rn":
        raise suffixes.error("rounds f64 in a direction")
    if type_ in ("f32", "f64") and mode == "rn" and not (ftz or saturate):
        return _step(compiler, item, type_, False, _NATIVE[name])
    native = type_ in ("f32", "f64") and mode == "rn"
    compute = _NATIVE[name] if native else _ODD[name]
    return _step(
        compiler, item, type_, ftz, lambda a, b: finish(compute(a, b), type_, mode, saturate, ftz)
    )


@instruction("fma")
def fused(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    mode, ftz = suffixes.take(*MODES, default="rn"), suffixes.flag("ftz")
    saturate, relu = suffixes.flag("sat"), suffixes.flag("relu")
    type_ = suffixes.type()
    suffixes.done()
    if type_ == "f64":
        if mode != "rn":
            raise suffixes.error("rounds f64 in a direction")
        return _step(compiler, item, type_, False, rounding.fma_f64)

    def operation(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        result = finish(rounding.fma_odd(a, b, c), type_, mode, saturate, ftz)
        return np.where(result < 0, result.dtype.type(0), result) if relu else result

    return _step(compiler, item, type_, ftz, operation)


def divide(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    suffixes.take("approx", "full")
    mode, ftz, type_ = suffixes.take(*MODES, default="rn"), suffixes.flag("ftz"), suffixes.type()
    suffixes.done()
    if type_ not in ("f32", "f64") or (type_ == "f64" and mode != "rn"):
        raise suffixes.error("divides in a form that is not known")
    if mode == "rn" and not ftz:
        return _step(compiler, item, type_, False, np.divide)
    return _step(
        compiler, item, type_, ftz,
        lambda a, b: finish(rounding.divide_odd(a, b), type_, mode, False, ftz),
    )  # fmt: skip


def extreme(compiler: Compiler, item: Instruction) -> Step:
    """min and max: a number wins over a NaN unless `.NaN`; -0 is less than +0."""
    smallest = item.opcode.startswith("min")
    suffixes = Suffixes(item)
    ftz, propagate, type_ = suffixes.flag("ftz"), suffixes.flag("NaN"), suffixes.type()
    suffixes.done()

    def operation(*values: np.ndarray) -> np.ndarray:
        a = values[0]
        for b in values[1:]:
            choose_a = np.signbit(a) if smallest else ~np.signbit(a)
            plain = np.fmin(a, b) if smallest else np.fmax(a, b)
            result = np.where(a == b, np.where(choose_a, a, b), plain)
            if propagate:
                result = np.where(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), result)
            a = result
        return a

    return _step(compiler, item, type_, ftz, operation)


def sign(compiler: Compiler, item: Instruction) -> Step:
    """abs and neg, on the sign bit alone."""
    suffixes = Suffixes(item)
    ftz, type_ = suffixes.flag("ftz"), suffixes.type()
    suffixes.done()
    operation = np.abs if item.opcode.startswith("abs") else np.negative
    return _step(compiler, item, type_, ftz, operation)


@instruction("copysign")
def copy_sign(compiler: Compiler, item: Instruction) -> Step:
    """copysign d, a, b: b's magnitude with a's sign."""
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()
    return _step(compiler, item, type_, False, lambda a, b: np.copysign(b, a))


@instruction("testp")
def test_property(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    what = suffixes.take("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    type_ = suffixes.type()
    suffixes.done()
    read, write = (
        compiler.reader(item.operands[1], type_),
        compiler.writer(item.operands[0], "pred"),
    )
    tiny = 2.0**-126 if type_ == "f32" else 2.0**-1022
    tests: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda a: ~np.isnan(a),
        "notanumber": np.isnan,
        "normal": lambda a: np.isfinite(a) & (np.abs(a) >= tiny),
        "subnormal": lambda a: (np.abs(a) < tiny) & (a != 0),
    }
    return lambda batch, lanes: write(batch, lanes, tests[what](read(batch, lanes)))


_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "rsqrt": lambda a: 1.0 / np.sqrt(a),
}


@instruction(*_FUNCTIONS)
def approximate(compiler: Compiler, item: Instruction) -> Step:
    name = item.opcode.split(".")[0]
    suffixes = Suffixes(item)
    suffixes.flag("approx")
    ftz, type_ = suffixes.flag("ftz"), suffixes.type()
    suffixes.done()
    function = _FUNCTIONS[name]
    return _step(
        compiler, item, type_, ftz,
        lambda a: finish(function(a.astype(np.float64)), type_, "rn", False, ftz),
    )  # fmt: skip


@instruction("rcp", "sqrt")
def reciprocal_or_root(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    suffixes.flag("approx")
    mode, ftz, type_ = suffixes.take(*MODES, default="rn"), suffixes.flag("ftz"), suffixes.type()
    suffixes.done()
    root = item.opcode.startswith("sqrt")
    if type_ == "f64":
        if mode != "rn":
            raise suffixes.error("rounds f64 in a direction")
        return _step(compiler, item, type_, False, np.sqrt if root else lambda a: 1.0 / a)

    def operation(a: np.ndarray) -> np.ndarray:
        exact = rounding.sqrt_odd(a) if root else rounding.divide_odd(np.ones_like(a), a)
        return finish(exact, type_, mode, False, ftz)

    return _step(compiler, item, type_, ftz, operation)
