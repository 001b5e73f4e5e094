"""wgmma: matrix products of four warps on shared memory (PTX ISA, section 9.7.15; sm_90a).

A warpgroup waits until its 128 threads are at the instruction.  The product is done only when
`wgmma.wait_group` asks for it, as late as a GPU may do it: a kernel that reads accumulators before,
or overwrites the tiles, computes something else.

Matrix descriptors (section 9.7.15.5.1): bits 0-13 start, 16-29 leading and 32-45 stride byte
offset (all in 16 bytes), 49-51 base offset, 62-63 swizzle (0 none, 1 of 128, 2 of 64, 3 of 32
bytes).  Where an element lies, before the swizzle, W being the swizzle's width in bytes (section
9.7.15.5.1.2):

  K-major, swizzled:  (row % 8) W + (row / 8) stride + k
  K-major, plain:     (row % 8) 16 + (row / 8) stride + (k / 16) leading + k % 16
  MN-major, swizzled: (k % 8) W + (k / 8) stride + (row / W) leading + row % W
  MN-major, plain:    (k % 8) 16 + (k / 8) leading + (row / 16) stride + row % 16

where K-major counts k in bytes and MN-major the row.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests.ptx import access, types
from tests.ptx.asynchronous import commit, group_wait, literal
from tests.ptx.compiler import (
    Blocking,
    Compiler,
    Deferred,
    Lanes,
    Step,
    Suffixes,
    instruction,
    numbers_of,
)
from tests.ptx.control import nothing, whole_warps
from tests.ptx.matrix import ELEMENT_BITS, element_values, unpacked
from tests.ptx.parser import Immediate, Instruction, Operand, Vector
from tests.ptx.tensor_copies import swizzled

GROUP = 128
_WIDTHS = (16, 128, 64, 32)


def _offsets(descriptor: int, rows: int, columns: int, size: int, mn_major: bool) -> np.ndarray:
    """Shared-memory addresses (rows, columns) of a tile, rows along M or N, columns along K."""
    start = (descriptor & 0x3FFF) << 4
    leading, stride = (descriptor >> 16 & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4
    width = _WIDTHS[descriptor >> 62]
    row, k = np.arange(rows)[:, None], np.arange(columns)[None, :]
    if mn_major:
        along = row * size
        step = along // width
        inner = (k % 8) * width + along % width
        if width == 16:
            place = inner + (k // 8) * leading + step * stride
        else:
            place = inner + (k // 8) * stride + step * leading
    else:
        along = k * size
        inner = (row % 8) * width + (row // 8) * stride
        if width == 16:
            place = inner + (along // 16) * leading + along % 16
        else:
            place = inner + along
    return swizzled(start + place, width)


def _tile(
    batch: Any, lane: int, descriptor: int, shape: tuple[int, int], type_: str, mn_major: bool
) -> np.ndarray:
    if descriptor >> 49 & 7:
        raise batch.fault("a matrix descriptor with a base offset is not known", lane)
    size = ELEMENT_BITS[type_] // 8
    address = _offsets(descriptor, *shape, size, mn_major).reshape(-1).astype(np.int64)
    bits = access.load(batch, np.full(len(address), lane), "shared", address, size)[:, 0]
    return element_values(np.ascontiguousarray(bits), type_).reshape(shape)


@instruction("wgmma")
def warpgroup_multiply(compiler: Compiler, item: Instruction) -> Step | Blocking:
    suffixes = Suffixes(item)
    what = suffixes.take("fence", "commit_group", "wait_group", "mma_async")
    for word in ("sync", "aligned"):
        if not suffixes.flag(word):
            raise suffixes.error(f"needs .{word}")
    if what != "mma_async":
        suffixes.done()
        if what == "fence":
            return nothing
        if what == "commit_group":
            return commit("product_group")
        count = literal(item, 0)
        wait = group_wait("products", "product_group", lambda batch, lanes: count)
        return whole_warps(wait, warps=4)
    shapes = [part for part in item.opcode.split(".") if re.fullmatch(r"m64n\d+k\d+", part)]
    shape = suffixes.take(*shapes)
    result = suffixes.take("f32", "f16")
    a_type, b_type = suffixes.take("f16", "bf16", "tf32"), suffixes.take("f16", "bf16", "tf32")
    suffixes.done()
    n, k = (int(number) for number in re.findall(r"[nk](\d+)", shape))
    if a_type != b_type or k * ELEMENT_BITS[a_type] != 256 or n % 8 or not 8 <= n <= 256:
        raise suffixes.error("is a matrix product that is not known")
    halves = result == "f16"
    registers = compiler.vector(item.operands[0])
    expected = n // 4 if halves else n // 2
    if len(registers) != expected or not isinstance(item.operands[0], Vector):
        raise suffixes.error(f"needs {expected} accumulators, got {len(registers)}")
    stored = "b32" if halves else "f32"
    reads = compiler.readers(registers, stored)
    writes = [compiler.writer(register, stored) for register in registers]
    a_operand = item.operands[1]
    from_registers = isinstance(a_operand, Vector)
    a_reads = compiler.readers(a_operand.items, "b32") if isinstance(a_operand, Vector) else []
    a_descriptor = None if from_registers else compiler.reader(a_operand, "u64")
    b_descriptor = compiler.reader(item.operands[2], "u64")
    keep = _flag(compiler, item.operands[3])
    rest = [_value(operand) for operand in item.operands[4:]]
    a_sign, b_sign = (rest + [1, 1])[:2]
    transposes = rest[2:]
    a_transposed = bool(transposes[0]) if len(transposes) == 2 else False
    b_transposed = bool(transposes[-1]) if transposes else False
    if a_sign not in (1, -1) or b_sign not in (1, -1):
        raise suffixes.error("has a sign that is neither 1 nor -1")
    if a_type == "tf32" and (a_transposed or b_transposed):
        raise suffixes.error("transposes tf32")

    lane = np.arange(GROUP)
    row = 16 * (lane // 32) + lane % 32 // 4
    pairs = 2 * (lane % 4)

    def multiply(batch: Any, numbers: np.ndarray, a: np.ndarray | None, words: Any) -> None:
        """One warpgroup's product, when it completes."""
        first = int(numbers[0])
        if a is None:
            a = _tile(batch, first, words[0], (64, k), a_type, a_transposed)
        b = _tile(batch, first, words[1], (n, k), b_type, b_transposed)
        product = (a_sign * b_sign) * (a @ b.T)
        for index, (read, write) in enumerate(zip(reads, writes)):
            if halves:
                at = row + 8 * (index & 1), 8 * (index >> 1) + pairs
                both = np.stack([product[at], product[at[0], at[1] + 1]], -1)
                old = types.decode(np.ascontiguousarray(read(batch, numbers)), "f16x2")
                write(batch, numbers, types.encode(both + words[2] * old, "f16x2"))
                continue
            at = row + 8 * (index >> 1 & 1), 8 * (index >> 2) + pairs + (index & 1)
            old = read(batch, numbers).astype(np.float64) if words[2] else 0.0
            write(batch, numbers, product[at] + old)

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        descriptors = [
            None if read is None else np.broadcast_to(read(batch, lanes), numbers.shape)
            for read in (a_descriptor, b_descriptor)
        ]
        scale = np.broadcast_to(keep(batch, lanes), numbers.shape)
        fragments = None
        if from_registers:
            columns = np.stack(
                [np.broadcast_to(r(batch, lanes), numbers.shape) for r in a_reads], -1
            )
            fragments = unpacked(columns, a_type).reshape(-1, GROUP, 4, 32 // ELEMENT_BITS[a_type])
        for group in range(len(numbers) // GROUP):
            part = slice(group * GROUP, (group + 1) * GROUP)
            words = []
            for each in (*descriptors, scale):
                if each is not None and (each[part] != each[part][0]).any():
                    raise batch.fault("the threads of a warpgroup disagree", int(numbers[part][0]))
                words.append(None if each is None else int(each[part][0]))
            a = None if fragments is None else _from_fragments(fragments[group], k)
            own = numbers[part].copy()

            def complete(
                chosen: np.ndarray, own: Any = own, a: Any = a, words: Any = words
            ) -> None:
                if not chosen.all():
                    raise batch.fault("not all threads of the warpgroup wait", int(own[0]))
                multiply(batch, own, a, words)

            batch.products.append(Deferred(own, batch.product_group[own].copy(), complete))

    return whole_warps(run, warps=4)


def _from_fragments(fragments: np.ndarray, k: int) -> np.ndarray:
    """A (64, k) from the registers of 128 lanes: in each warp as for mma.sync."""
    a = np.empty((64, k))
    lane = np.arange(GROUP)
    per_register = fragments.shape[-1]
    for register in range(4):
        for element in range(per_register):
            row = 16 * (lane // 32) + lane % 32 // 4 + 8 * (register & 1)
            column = lane % 4 * per_register + element + 4 * per_register * (register >> 1)
            a[row, column] = fragments[:, register, element]
    return a


def _value(operand: Operand) -> int:
    if not isinstance(operand, Immediate):
        raise ValueError(f"{operand} must be a constant")
    return int(operand.value)


def _flag(compiler: Compiler, operand: Operand) -> Any:
    if isinstance(operand, Immediate):
        value = np.array([bool(operand.value)])
        return lambda batch, lanes: value
    return compiler.predicate(operand)
