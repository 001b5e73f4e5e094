"""ldmatrix, stmatrix, movmatrix and mma.sync (PTX ISA, section 9.7.14.5).

Fragments: with g = lane / 4 and t = lane % 4, and r elements in a 32-bit register (one for f64),

  A, register i, element e:  row g + 8 (i & 1),  column t r + e + 4 r (i >> 1)
  B, register i, element e:  row t r + e + 4 r i,  column g
  C of 32 or 64 bits, i:     row g + 8 (i >> 1),  column 2 t + (i & 1)
  C of 16 bits, register i:  row g + 8 i,         columns 2 t, 2 t + 1

which is what the figures of sections 9.7.14.5.4 to .11 draw for every m16n8 shape, and for m8n8k4
of f64 (where A has the one register i = 0).  Products are summed in float64 (integers exactly) and
rounded once: the hardware's own order and truncation are not specified.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests.ptx import access, types
from tests.ptx.compiler import Blocking, Compiler, Lanes, Suffixes, instruction, numbers_of
from tests.ptx.control import whole_warps
from tests.ptx.parser import Instruction

WARP = 32
_LANE = np.arange(WARP)
_GROUP, _THREAD = _LANE // 4, _LANE % 4

ELEMENT_BITS = {"f16": 16, "bf16": 16, "tf32": 32, "f64": 64, "s8": 8, "u8": 8}


def element_values(bits: np.ndarray, type_: str) -> np.ndarray:
    """Matrix elements in float64; tf32 ignores the low 13 bits of an f32."""
    if type_ == "tf32":
        return (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    return np.ascontiguousarray(types.decode(bits, type_)).astype(np.float64)


def unpacked(registers: np.ndarray, type_: str) -> np.ndarray:
    """(…, registers) of 32 (f64: 64) bits as float64 elements (…, registers, r)."""
    width = registers.dtype.itemsize
    part = types.UNSIGNED[ELEMENT_BITS[type_] // 8]
    count = width // np.dtype(part).itemsize
    parts = np.ascontiguousarray(registers).view(part).reshape(*registers.shape, count)
    return element_values(parts, type_)


def a_position(register: int, element: int, per_register: int) -> tuple[np.ndarray, np.ndarray]:
    row = _GROUP + 8 * (register & 1)
    return row, _THREAD * per_register + element + 4 * per_register * (register >> 1)


def b_position(register: int, element: int, per_register: int) -> tuple[np.ndarray, np.ndarray]:
    return _THREAD * per_register + element + 4 * per_register * register, _GROUP


def c_position(register: int, element: int, halves: bool) -> tuple[np.ndarray, np.ndarray]:
    if halves:
        return _GROUP + 8 * register, 2 * _THREAD + element
    return _GROUP + 8 * (register >> 1), 2 * _THREAD + (register & 1)


@instruction("mma")
def multiply_matrices(compiler: Compiler, item: Instruction) -> Blocking:
    suffixes = Suffixes(item)
    for word in ("sync", "aligned", "row", "col"):
        if not suffixes.flag(word):
            raise suffixes.error(f"needs .{word}")
    saturate = suffixes.flag("satfinite")
    shape = suffixes.take(*(p for p in item.opcode.split(".") if re.fullmatch(r"m\d+n\d+k\d+", p)))
    known = re.fullmatch(r"m(16|8)n8k(\d+)", shape)
    names = [suffixes.take(*ELEMENT_BITS, "f32", "s32") for _ in range(4)]
    suffixes.done()
    result, a_type, b_type, c_type = names
    if known is None or result not in ("f16", "f32", "f64", "s32") or c_type != result or saturate:
        raise suffixes.error("is a matrix product that is not known")
    m, k = int(known.group(1)), int(known.group(2))
    bits = ELEMENT_BITS[a_type]
    container = 64 if a_type == "f64" else 32
    per_register = container // bits
    a_count, b_count = m * k * bits // container // WARP, k * 8 * bits // container // WARP
    halves = result == "f16"
    c_count = m * 8 // WARP // (2 if halves else 1)
    allowed = {
        ("f16", "f32"): (8, 16), ("f16", "f16"): (8, 16), ("bf16", "f32"): (8, 16),
        ("tf32", "f32"): (4, 8), ("s8", "s32"): (16, 32), ("u8", "s32"): (16, 32),
        ("f64", "f64"): (4, 8, 16),
    }  # fmt: skip
    fits = k in allowed.get((a_type, result), ()) and (m == 16 or (a_type == "f64" and k == 4))
    mixed = a_type != b_type and {a_type, b_type} != {"s8", "u8"}
    if not fits or mixed:
        raise suffixes.error("is a matrix product that is not known")
    operands = [compiler.vector(operand) for operand in item.operands]
    if [len(o) for o in operands] != [c_count, a_count, b_count, c_count]:
        raise suffixes.error(
            f"needs {c_count}, {a_count}, {b_count} and {c_count} registers for its operands"
        )
    stored = "b32" if halves else {"f32": "f32", "f64": "f64", "s32": "s32"}[result]
    writes = [compiler.writer(operand, stored) for operand in operands[0]]
    a_reads = compiler.readers(operands[1], f"b{container}")
    b_reads = compiler.readers(operands[2], f"b{container}")
    c_reads = compiler.readers(operands[3], stored)

    def gather(batch: Any, lanes: Lanes, reads: list[Any]) -> np.ndarray:
        count = len(numbers_of(batch, lanes))
        columns = [np.broadcast_to(read(batch, lanes), (count,)) for read in reads]
        return np.stack(columns, -1).reshape(-1, WARP, len(reads))

    def run(batch: Any, lanes: Lanes) -> None:
        a_values = unpacked(gather(batch, lanes, a_reads), a_type)
        b_values = unpacked(gather(batch, lanes, b_reads), b_type)
        warps = len(a_values)
        a, b = np.empty((warps, m, k)), np.empty((warps, k, 8))
        for element in range(per_register):
            for register in range(a_count):
                a[:, *a_position(register, element, per_register)] = a_values[
                    :, :, register, element
                ]
            for register in range(b_count):
                b[:, *b_position(register, element, per_register)] = b_values[
                    :, :, register, element
                ]
        product = a @ b
        c = gather(batch, lanes, c_reads)
        if halves:
            old = unpacked(c, "f16")
            for register in range(c_count):
                new = np.empty((warps, WARP, 2))
                for element in range(2):
                    at = c_position(register, element, True)
                    new[:, :, element] = product[:, *at] + old[:, :, register, element]
                writes[register](batch, lanes, types.encode(new, "f16x2").reshape(-1))
            return
        for register in range(c_count):
            at = c_position(register, 0, False)
            total = product[:, *at] + c[:, :, register]
            if result == "s32":
                total = total.astype(np.int64).astype(np.int32)
            writes[register](batch, lanes, total.reshape(-1))

    return whole_warps(run)


@instruction("ldmatrix")
def load_matrices(compiler: Compiler, item: Instruction) -> Blocking:
    """Lane 8 j + i gives the address of row i of matrix j; see section 9.7.14.5.15."""
    suffixes = Suffixes(item)
    count, transposed = _matrix_form(suffixes)
    operands = compiler.vector(item.operands[0])
    if len(operands) != count:
        raise suffixes.error(f"names {len(operands)} registers for {count} matrices")
    writes = [compiler.writer(operand, "b32") for operand in operands]
    _, address = compiler.address(item.operands[1])
    space = "shared" if ".shared" in item.opcode else ""

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        givers = numbers[numbers % WARP < 8 * count]
        rows = access.load(batch, givers, space, address(batch, givers), 2, 8)
        matrices = rows.reshape(-1, count, 8, 8)
        if transposed:
            matrices = matrices.swapaxes(2, 3)
        for index, write in enumerate(writes):
            pairs = np.ascontiguousarray(matrices[:, index]).reshape(-1, 64).view(np.uint32)
            # Lane 4 i + j holds the elements 2 j and 2 j + 1 of row i.
            write(batch, lanes, pairs.reshape(-1))

    return whole_warps(run)


def _matrix_form(suffixes: Suffixes) -> tuple[int, bool]:
    suffixes.take("sync")
    suffixes.take("aligned")
    if not suffixes.take("m8n8"):
        raise suffixes.error("has a shape that is not known")
    count = int(suffixes.take("x1", "x2", "x4", default="x1")[1:])
    transposed = suffixes.flag("trans")
    suffixes.take("shared", "shared::cta")
    suffixes.take("b16")
    suffixes.done()
    return count, transposed


@instruction("stmatrix")
def store_matrices(compiler: Compiler, item: Instruction) -> Blocking:
    """The reverse of ldmatrix (section 9.7.14.5.16)."""
    suffixes = Suffixes(item)
    count, transposed = _matrix_form(suffixes)
    operands = compiler.vector(item.operands[1])
    if len(operands) != count:
        raise suffixes.error(f"names {len(operands)} registers for {count} matrices")
    reads = compiler.readers(operands, "b32")
    _, address = compiler.address(item.operands[0])
    space = "shared" if ".shared" in item.opcode else ""

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        givers = numbers[numbers % WARP < 8 * count]
        warps = len(numbers) // WARP
        matrices = np.empty((warps, count, 8, 8), np.uint16)
        for index, read in enumerate(reads):
            pairs = np.ascontiguousarray(read(batch, lanes)).view(np.uint16)
            matrices[:, index] = pairs.reshape(-1, 8, 8)
        if transposed:
            matrices = matrices.swapaxes(2, 3)
        rows = np.ascontiguousarray(matrices).reshape(-1, 8)
        access.store(batch, givers, space, address(batch, givers), rows)

    return whole_warps(run)


@instruction("movmatrix")
def transpose_matrix(compiler: Compiler, item: Instruction) -> Blocking:
    suffixes = Suffixes(item)
    for word in ("sync", "aligned", "m8n8", "trans", "b16"):
        suffixes.take(word)
    suffixes.done()
    read, write = compiler.reader(item.operands[1], "b32"), compiler.writer(item.operands[0], "b32")

    def run(batch: Any, lanes: Lanes) -> None:
        matrices = np.ascontiguousarray(read(batch, lanes)).view(np.uint16).reshape(-1, 8, 8)
        turned = np.ascontiguousarray(matrices.swapaxes(1, 2))
        write(batch, lanes, turned.reshape(-1, 64).view(np.uint32).reshape(-1))

    return whole_warps(run)
