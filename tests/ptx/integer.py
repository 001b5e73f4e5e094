"""Integer arithmetic, bits and shifts (PTX ISA, sections 9.7.1, 9.7.2 and 9.7.8).

The names add, sub, mul, … are shared with floating point: the type suffix decides here which of the
two compiles the instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx import floating, types
from tests.ptx.compiler import Compiler, Lanes, Step, Suffixes, instruction, numbers_of
from tests.ptx.parser import Instruction

Operation = Callable[..., np.ndarray]


def _simple(compiler: Compiler, item: Instruction, type_: str, operation: Operation) -> Step:
    """All operands and the result of one type."""
    reads = compiler.readers(item.operands[1:], type_)
    write = compiler.writer(item.operands[0], type_)
    return lambda batch, lanes: write(batch, lanes, operation(*(r(batch, lanes) for r in reads)))


def _is_float(item: Instruction) -> bool:
    return any(types.is_float(part) for part in item.opcode.split("."))


PAIRS = {"s16x2": np.int16, "u16x2": np.uint16}
"""Two 16-bit numbers in one register, the first in the low half."""


def _pairs(compiler: Compiler, item: Instruction, operation: Operation) -> Step | None:
    """An operation on both halves; None where the instruction is not on pairs."""
    _, *rest = item.opcode.split(".")
    if len(rest) != 1 or rest[0] not in PAIRS:
        return None
    dtype = PAIRS[rest[0]]
    reads = compiler.readers(item.operands[1:], "b32")
    write = compiler.writer(item.operands[0], "b32")

    def run(batch: Any, lanes: Lanes) -> None:
        halves = np.broadcast_arrays(*(read(batch, lanes) for read in reads))
        split = [np.ascontiguousarray(value, np.uint32).view(dtype) for value in halves]
        write(batch, lanes, operation(*split).astype(dtype).view(np.uint32))

    return run


WIDE = {f"{kind}{bits}": f"{kind}{2 * bits}" for kind in "us" for bits in (16, 32)}


def high_product(a: np.ndarray, b: np.ndarray, type_: str) -> np.ndarray:
    """The upper half of the double-width product."""
    if type_ in WIDE:
        wide = types.INTEGERS[WIDE[type_]]
        bits = 8 * types.BYTES[type_]
        product = a.astype(wide) * b.astype(wide)
        return (product >> wide.type(bits)).astype(types.INTEGERS[type_])
    left, right = a.view(np.uint64), b.view(np.uint64)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a_low, a_high, b_low, b_high = left & mask, left >> half, right & mask, right >> half
    middle = a_high * b_low + (a_low * b_low >> half)
    other = a_low * b_high + (middle & mask)
    high = a_high * b_high + (middle >> half) + (other >> half)
    if type_ == "s64":
        high = high - np.where(a < 0, right, 0) - np.where(b < 0, left, 0)
        return high.view(np.int64)
    return high


def _saturated(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -(2**31), 2**31 - 1).astype(np.int32)


def _with_carry(
    compiler: Compiler, item: Instruction, subtract: bool, use: bool, keep: bool
) -> Step:
    """add.cc, addc, sub.cc, subc: the carry (or borrow) flag of each lane."""
    suffixes = Suffixes(item)
    suffixes.flag("cc")
    type_ = "u" + suffixes.type()[1:]
    suffixes.done()
    a, b = compiler.readers(item.operands[1:], type_)
    write = compiler.writer(item.operands[0], type_)

    def run(batch: Any, lanes: Lanes) -> None:
        left, right = np.broadcast_arrays(a(batch, lanes), b(batch, lanes))
        carry = batch.carry[lanes].astype(left.dtype) if use else left.dtype.type(0)
        if subtract:
            result = left - right - carry
            out = (left < right) | ((left == right) & (carry == 1))
        else:
            result = left + right + carry
            out = (result < left) | ((result == left) & (carry == 1))
        write(batch, lanes, result)
        if keep:
            batch.carry[lanes] = out

    return run


@instruction("add", "sub")
def add(compiler: Compiler, item: Instruction) -> Step:
    if _is_float(item):
        return floating.arithmetic(compiler, item)
    subtract = item.opcode.startswith("sub")
    pairs = _pairs(compiler, item, np.subtract if subtract else np.add)
    if pairs is not None:
        return pairs
    suffixes = Suffixes(item)
    if suffixes.flag("cc"):
        return _with_carry(compiler, item, subtract, use=False, keep=True)
    saturate, type_ = suffixes.flag("sat"), suffixes.type()
    suffixes.done()
    operation: Operation = np.subtract if subtract else np.add
    if saturate:
        plain = operation
        operation = lambda a, b: _saturated(plain(a.astype(np.int64), b.astype(np.int64)))
    return _simple(compiler, item, type_, operation)


@instruction("addc", "subc")
def add_with_carry(compiler: Compiler, item: Instruction) -> Step:
    keep = ".cc" in item.opcode
    return _with_carry(compiler, item, item.opcode.startswith("sub"), use=True, keep=keep)


@instruction("mul")
def multiply(compiler: Compiler, item: Instruction) -> Step:
    if _is_float(item):
        return floating.arithmetic(compiler, item)
    suffixes = Suffixes(item)
    part, type_ = suffixes.take("lo", "hi", "wide"), suffixes.type()
    suffixes.done()
    if part == "wide":
        wide = types.INTEGERS[WIDE[type_]]
        a, b = compiler.readers(item.operands[1:], type_)
        write = compiler.writer(item.operands[0], WIDE[type_])
        return lambda batch, lanes: write(
            batch, lanes, a(batch, lanes).astype(wide) * b(batch, lanes).astype(wide)
        )
    if part == "hi":
        return _simple(compiler, item, type_, lambda a, b: high_product(a, b, type_))
    if part != "lo":
        raise suffixes.error("needs .lo, .hi or .wide")
    return _simple(compiler, item, type_, np.multiply)


@instruction("mad")
def multiply_add(compiler: Compiler, item: Instruction) -> Step:
    if _is_float(item):
        return floating.fused(compiler, item)
    suffixes = Suffixes(item)
    part, type_ = suffixes.take("lo", "hi", "wide"), suffixes.type()
    suffixes.done()
    result = WIDE[type_] if part == "wide" else type_
    dtype = types.INTEGERS[result]
    a, b = compiler.readers(item.operands[1:3], type_)
    c = compiler.reader(item.operands[3], result)
    write = compiler.writer(item.operands[0], result)
    if part not in ("lo", "hi", "wide"):
        raise suffixes.error("needs .lo, .hi or .wide")

    def run(batch: Any, lanes: Lanes) -> None:
        left, right = a(batch, lanes), b(batch, lanes)
        if part == "hi":
            product = high_product(left, right, type_)
        else:
            product = left.astype(dtype) * right.astype(dtype)
        write(batch, lanes, product + c(batch, lanes))

    return run


@instruction("div", "rem")
def divide(compiler: Compiler, item: Instruction) -> Step:
    if _is_float(item):
        return floating.divide(compiler, item)
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()
    remainder = item.opcode.startswith("rem")
    a, b = compiler.readers(item.operands[1:], type_)
    write = compiler.writer(item.operands[0], type_)

    def run(batch: Any, lanes: Lanes) -> None:
        left, right = a(batch, lanes), b(batch, lanes)
        zero = np.broadcast_to(right == 0, numbers_of(batch, lanes).shape)
        if zero.any():
            lane = int(numbers_of(batch, lanes)[np.flatnonzero(zero)[0]])
            raise batch.fault("integer division by zero (its result is unspecified)", lane)
        if type_.startswith("s"):
            # Truncation, where NumPy's // rounds down; the smallest number by -1 wraps.
            quotient = np.where(right == -1, -left, left // np.where(right == -1, 1, right))
            inexact = quotient * right != left
            quotient = quotient + (inexact & ((left < 0) != (right < 0)))
        else:
            quotient = left // right
        write(batch, lanes, left - quotient * right if remainder else quotient)

    return run


@instruction("min", "max")
def extreme(compiler: Compiler, item: Instruction) -> Step:
    if _is_float(item):
        return floating.extreme(compiler, item)
    operation = np.minimum if item.opcode.startswith("min") else np.maximum
    pairs = _pairs(compiler, item, operation)
    if pairs is not None:
        return pairs
    suffixes = Suffixes(item)
    relu, type_ = suffixes.flag("relu"), suffixes.type()
    suffixes.done()
    if relu:
        return _simple(compiler, item, type_, lambda a, b: np.maximum(operation(a, b), 0))
    return _simple(compiler, item, type_, operation)


@instruction("abs", "neg")
def sign(compiler: Compiler, item: Instruction) -> Step:
    if _is_float(item):
        return floating.sign(compiler, item)
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()
    operation = np.abs if item.opcode.startswith("abs") else np.negative
    return _simple(compiler, item, type_, operation)


@instruction("sad")
def sum_of_differences(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()
    return _simple(compiler, item, type_, lambda a, b, c: c + np.where(a < b, b - a, a - b))


_LOGIC = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


@instruction("and", "or", "xor")
def logic(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()
    return _simple(compiler, item, type_, _LOGIC[item.opcode.split(".")[0]])


@instruction("not", "cnot")
def complement(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()
    if item.opcode.startswith("cnot"):
        return _simple(compiler, item, type_, lambda a: (a == 0).astype(a.dtype))
    return _simple(compiler, item, type_, np.invert)


@instruction("shl", "shr")
def shift(compiler: Compiler, item: Instruction) -> Step:
    """Amounts beyond the width are clamped to it."""
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()
    bits, left = 8 * types.BYTES[type_], item.opcode.startswith("shl")
    a, amount = compiler.reader(item.operands[1], type_), compiler.reader(item.operands[2], "u32")
    write = compiler.writer(item.operands[0], type_)
    dtype = types.INTEGERS[type_].type
    signed = type_.startswith("s")

    def run(batch: Any, lanes: Lanes) -> None:
        value, by = a(batch, lanes), amount(batch, lanes)
        inside = np.minimum(by, bits - 1).astype(dtype)
        if left:
            result = np.where(by < bits, value << inside, dtype(0))
        elif signed:
            result = value >> inside
        else:
            result = np.where(by < bits, value >> inside, dtype(0))
        write(batch, lanes, result)

    return run


@instruction("shf")
def funnel_shift(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    side, mode = suffixes.take("l", "r"), suffixes.take("wrap", "clamp")
    suffixes.type()
    suffixes.done()

    def operation(low: np.ndarray, high: np.ndarray, amount: np.ndarray) -> np.ndarray:
        by = (amount & np.uint32(31)) if mode == "wrap" else np.minimum(amount, np.uint32(32))
        both = high.astype(np.uint64) << np.uint64(32) | low.astype(np.uint64)
        shifted = both << by.astype(np.uint64) if side == "l" else both >> by.astype(np.uint64)
        result = shifted >> np.uint64(32) if side == "l" else shifted
        return result.astype(np.uint32)

    return _simple(compiler, item, "u32", operation)


def _field(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint64) & np.uint64(0xFF)


@instruction("bfe")
def extract_field(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()
    bits = 8 * types.BYTES[type_]
    a = compiler.reader(item.operands[1], type_)
    start, length = compiler.readers(item.operands[2:], "u32")
    write = compiler.writer(item.operands[0], "u" + type_[1:])
    unsigned = types.INTEGERS["u" + type_[1:]]

    def run(batch: Any, lanes: Lanes) -> None:
        value = a(batch, lanes)
        raw = value.view(unsigned).astype(np.uint64)
        first, count = _field(start(batch, lanes)), _field(length(batch, lanes))
        mask = np.where(count >= 64, ~np.uint64(0), (np.uint64(1) << np.minimum(count, 63)) - 1)
        moved = np.where(first < bits, raw >> np.minimum(first, np.uint64(63)), np.uint64(0))
        result = moved & mask
        if type_.startswith("s"):
            last = np.minimum(first + count - np.uint64(1), np.uint64(bits - 1))
            last = np.where(count == 0, np.uint64(0), last)
            negative = (raw >> last & np.uint64(1)).astype(bool) & (count > 0)
            # Bits at and above the field's own end, or the register's end, copy the sign.
            held = np.where(first < bits, np.minimum(count, np.uint64(bits) - first), 0)
            keep = np.where(
                held >= 64,
                ~np.uint64(0),
                (np.uint64(1) << np.minimum(held, 63).astype(np.uint64)) - 1,
            )
            result = np.where(negative, (result & keep) | ~keep, result)
        write(batch, lanes, result.astype(unsigned))

    return run


@instruction("bfi")
def insert_field(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    type_ = "u" + suffixes.type()[1:]
    suffixes.done()
    bits = 8 * types.BYTES[type_]
    a, b = compiler.readers(item.operands[1:3], type_)
    start, length = compiler.readers(item.operands[3:], "u32")
    write = compiler.writer(item.operands[0], type_)

    def run(batch: Any, lanes: Lanes) -> None:
        field, under = a(batch, lanes).astype(np.uint64), b(batch, lanes).astype(np.uint64)
        first, count = _field(start(batch, lanes)), _field(length(batch, lanes))
        ones = np.where(count >= 64, ~np.uint64(0), (np.uint64(1) << np.minimum(count, 63)) - 1)
        by = np.minimum(first, np.uint64(63))
        mask = np.where(first < bits, ones << by, np.uint64(0))
        write(batch, lanes, ((field << by) & mask | under & ~mask).astype(types.INTEGERS[type_]))

    return run


@instruction("bfind")
def find_bit(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    amount, type_ = suffixes.flag("shiftamt"), suffixes.type()
    suffixes.done()
    bits = 8 * types.BYTES[type_]
    read, write = compiler.reader(item.operands[1], type_), compiler.writer(item.operands[0], "u32")

    def run(batch: Any, lanes: Lanes) -> None:
        value = read(batch, lanes)
        if type_.startswith("s"):
            value = np.where(value < 0, ~value, value)
        top = leading_zeros(types.encode(value, type_), bits)
        found = bits - 1 - top
        result = top if amount else found
        write(batch, lanes, np.where(top == bits, 0xFFFFFFFF, result).astype(np.uint32))

    return run


def leading_zeros(values: np.ndarray, bits: int) -> np.ndarray:
    value = values.astype(np.uint64)
    for step in (1, 2, 4, 8, 16, 32):
        value = value | (value >> np.uint64(step))
    return bits - np.bitwise_count(value).astype(np.int64)


@instruction("popc", "clz")
def count_bits(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()
    bits = 8 * types.BYTES[type_]
    read, write = compiler.reader(item.operands[1], type_), compiler.writer(item.operands[0], "u32")
    if item.opcode.startswith("popc"):
        return lambda batch, lanes: write(batch, lanes, np.bitwise_count(read(batch, lanes)))
    return lambda batch, lanes: write(batch, lanes, leading_zeros(read(batch, lanes), bits))


@instruction("brev")
def reverse_bits(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    type_ = suffixes.type()
    suffixes.done()

    def operation(a: np.ndarray) -> np.ndarray:
        size = a.dtype.itemsize
        octets = np.ascontiguousarray(a).view(np.uint8).reshape(-1, size)
        flipped = np.packbits(np.unpackbits(octets, axis=1, bitorder="little")[:, ::-1],
                              axis=1, bitorder="little")  # fmt: skip
        return np.ascontiguousarray(flipped).view(a.dtype)[:, 0]

    return _simple(compiler, item, type_, operation)


@instruction("prmt")
def permute_bytes(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    mode = suffixes.take("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")
    suffixes.type()
    suffixes.done()

    def selectors(c: np.ndarray) -> list[np.ndarray]:
        low = (c & np.uint32(3)).astype(np.int64)
        if mode == "f4e":
            return [low + index for index in range(4)]
        if mode == "b4e":
            return [(low - index) & 7 for index in range(4)]
        if mode == "rc8":
            return [low] * 4
        if mode == "ecl":
            return [np.maximum(low, index) for index in range(4)]
        if mode == "ecr":
            return [np.minimum(low, index) for index in range(4)]
        if mode == "rc16":
            return [(low & 1) * 2 + index % 2 for index in range(4)]
        return [(c >> np.uint32(4 * index)).astype(np.int64) & 15 for index in range(4)]

    def operation(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        both = b.astype(np.uint64) << np.uint64(32) | a.astype(np.uint64)
        result = np.uint32(0)
        for index, selector in enumerate(selectors(c)):
            octet = (both >> ((selector & 7) * 8).astype(np.uint64)) & np.uint64(0xFF)
            if not mode:
                spread = np.where(octet & np.uint64(0x80), np.uint64(0xFF), np.uint64(0))
                octet = np.where(selector & 8, spread, octet)
            result = result | (octet.astype(np.uint32) << np.uint32(8 * index))
        return result

    return _simple(compiler, item, "u32", operation)


@instruction("lop3")
def logic_of_three(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    suffixes.type()
    suffixes.done()
    table = int(item.operands[4].value)  # type: ignore[union-attr]
    reads = compiler.readers(item.operands[1:4], "u32")
    write = compiler.writer(item.operands[0], "u32")

    def run(batch: Any, lanes: Lanes) -> None:
        a, b, c = (read(batch, lanes) for read in reads)
        result = np.uint32(0)
        for row in range(8):
            if table >> row & 1:
                result = result | (
                    (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
                )
        write(batch, lanes, np.broadcast_to(result, np.broadcast(a, b, c).shape))

    return run


@instruction("dp4a")
def dot_of_bytes(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    left, right = suffixes.type(), suffixes.type()
    suffixes.done()
    a, b, c = compiler.readers(item.operands[1:], "u32")
    write = compiler.writer(item.operands[0], "u32")

    def octets(value: np.ndarray, type_: str) -> np.ndarray:
        view = np.ascontiguousarray(value).view(np.int8 if type_ == "s32" else np.uint8)
        return view.reshape(-1, 4).astype(np.int64)

    def run(batch: Any, lanes: Lanes) -> None:
        total = (octets(a(batch, lanes), left) * octets(b(batch, lanes), right)).sum(1)
        write(batch, lanes, total + c(batch, lanes))

    return run
