"""Instructions that multiply two vectors of words and add each word's products to one sum.

`add_products(f, instruction, sums, left, right)`: vectors of words, as many as there are sums.
Which instruction takes which elements is in `loops/products.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from lazygrad_compiler.llvm.builder import Function, Value, lanes_of, vector_of

ONES = 0x01010101
"""A word of four bytes that are one: products with it sum the others up."""

Rule = Callable[[Function, Value, Value, Value], Value]


def _x86(name: str, element: str, bits: int) -> Rule:
    """An intrinsic that LLVM has for 128, 256 and 512 bits: (sums, left, right)."""

    def rule(f: Function, sums: Value, left: Value, right: Value) -> Value:
        lanes = lanes_of(sums.type)
        type_ = vector_of(element, lanes * 32 // bits)
        full = f"llvm.x86.{name}.{lanes * 32}"
        return f.intrinsic(full, sums.type, sums, f.bitcast(left, type_), f.bitcast(right, type_))

    return rule


def _arm(name: str, element: str, suffix: str, bits: int) -> Rule:
    def rule(f: Function, sums: Value, left: Value, right: Value) -> Value:
        lanes = lanes_of(sums.type)
        type_ = vector_of(element, lanes * 32 // bits)
        short = "f32" if "float" in sums.type else "i32"
        full = f"llvm.aarch64.neon.{name}.v{lanes}{short}.v{lanes * 32 // bits}{suffix}"
        return f.intrinsic(full, sums.type, sums, f.bitcast(left, type_), f.bitcast(right, type_))

    return rule


_MADD = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}


def _multiply_add_pairs(f: Function, sums: Value, left: Value, right: Value) -> Value:
    """On Zen 5 as fast as vpdpwssd, though two instructions."""
    lanes = lanes_of(sums.type)
    type_ = vector_of("i16", 2 * lanes)
    name = f"llvm.x86.{_MADD[lanes]}"
    products = f.intrinsic(name, sums.type, f.bitcast(left, type_), f.bitcast(right, type_))
    return f.add(products, sums)


_RULES: dict[str, Rule] = {
    "vdpbf16ps": _x86("avx512bf16.dpbf16ps", "bfloat", 16),
    "vpdpbusd": _x86("avx512.vpdpbusd", "i8", 8),
    "vpdpwssd": _x86("avx512.vpdpwssd", "i16", 16),
    "vpmaddwd": _multiply_add_pairs,
    "bfdot": _arm("bfdot", "bfloat", "bf16", 16),
    "sdot": _arm("sdot", "i8", "i8", 8),
    "udot": _arm("udot", "i8", "i8", 8),
}


def rounded(f: Function, instruction: str, values: Value) -> Value | None:
    """Floats as the bits of bfloat16, rounded to nearest even by an instruction that comes with the
    one that sums; None where there is none.  It takes numbers below the normal range for zero, but
    so does vdpbf16ps, and its sums are none of those.
    """
    lanes = lanes_of(values.type)
    if instruction != "vdpbf16ps" or lanes not in (4, 8, 16, 32):
        return None
    if lanes <= 16:
        name, parts = f"cvtneps2bf16.{lanes * 32}", [values]
    else:
        low, high = (f.shuffle(values, None, range(begin, begin + 16)) for begin in (0, 16))
        name, parts = "cvtne2ps2bf16.512", [high, low]
    made = f.intrinsic(f"llvm.x86.avx512bf16.{name}", vector_of("bfloat", lanes), *parts)
    return f.bitcast(made, vector_of("i16", lanes))


def add_products(f: Function, instruction: str, sums: Value, left: Value, right: Value) -> Value:
    """left, right: words, or bits of as many; "" multiplies and adds numbers as they are."""
    if instruction:
        return _RULES[instruction](f, sums, left, right)
    if "float" in sums.type or "double" in sums.type:
        return f.fma(left, right, sums)
    return f.add(f.mul(left, right), sums)
