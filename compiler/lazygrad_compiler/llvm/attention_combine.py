"""Emission of the second launch of decoding: chunks of keys combined; and what becomes of the tops
and totals of online softmaxes.
"""

from __future__ import annotations

import math

from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.attention_tiles import I64, Tiles, power_of
from lazygrad_compiler.llvm.builder import Function, Module, Value, const
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.loops.attention import (
    DECODE_STATISTICS,
    Cut,
    Operand,
    Sizes,
    row_major,
)
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.target import Target


def larger(f: Function, value: Value, top: Value) -> Value:
    """The larger one; the second where the first is NaN."""
    return f.select(f.fcmp("ogt", value, top), value, top)


def shift(tiles: Tiles, top: Value) -> Value:
    """What is taken off the scores: the top, or 0 for -inf."""
    f = tiles.f
    return f.select(f.fcmp("oeq", top, const(tiles.vector, -math.inf)), 0.0, top)


def reciprocal(tiles: Tiles, total: Value) -> Value:
    f = tiles.f
    if tiles.sizes.empty_is_zero:
        total = f.select(f.fcmp("oeq", total, const(total.type, 0)), 1.0, total)
    return f.fdiv(1.0, total)


def emit_combine(module: Module, name: str, kernel: ArrayKernel, target: Target) -> Work:
    """The second launch: chunks of each query, weighted by 2**(their top - the top of all)."""
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, _ = load_arguments(f, 2)
    chunks, batch, heads, queries, stride = kernel.shapes[0]
    wide, dtype = kernel.buffers[0].dtype, kernel.buffers[1].dtype
    width = stride - DECODE_STATISTICS
    _, causal, empty_is_zero = kernel.attrs[:3]
    sizes = Sizes(
        batch, heads, heads, queries, 0, 0, width, 1.0, causal, empty_is_zero, wide
    )
    tiles = Tiles(f, sizes, Cut(target.lanes(wide.bits), 1, 1, 1), pointers)
    lanes = tiles.cut.lanes
    source = Operand(0, wide, kernel.shapes[0], 0, row_major(kernel.shapes[0]))
    step = batch * heads * queries * stride
    rows = batch * heads * queries
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="task") as task:
        zero = const(I64, 0)
        first = tiles.address(source, zero, zero, zero, zero)
        first = tiles.at(first, f.mul(task.index, stride))
        result = f.offset(pointers[1], f.mul(task.index, width), scalar.memory_type(dtype))

        def statistic(chunk: Value, number: int, first: Value = first) -> Value:
            place = tiles.at(first, f.add(f.mul(chunk, step), width + number))
            return f.splat(f.load(tiles.element, place, tiles.itemsize), lanes)

        with f.loop(0, chunks, 1, [const(tiles.vector, -math.inf)], "top") as loop:
            loop.next = [larger(f, statistic(loop.index, 0), loop.carried[0])]
        base = shift(tiles, loop.results[0])

        def weight(chunk: Value, base: Value = base) -> Value:
            return power_of(f, f.fsub(statistic(chunk, 0), base))

        with f.loop(0, chunks, 1, [const(tiles.vector, 0)], "total") as loop:
            loop.next = [f.fma(weight(loop.index), statistic(loop.index, 1), loop.carried[0])]
        factor = reciprocal(tiles, loop.results[0])
        for start, stop, mask in tiles.columns(width):
            with f.loop(start, stop, lanes, hint="column") as column:
                with f.loop(0, chunks, 1, [const(tiles.vector, 0)], "chunk") as loop:
                    place = f.add(f.mul(loop.index, step), column.index)
                    value = tiles.read(first, place, wide, mask)
                    loop.next = [f.fma(weight(loop.index), value, loop.carried[0])]
                place = f.offset(result, column.index, scalar.memory_type(dtype))
                tiles.write(f.fmul(loop.results[0], factor), place, dtype, mask)
    f.ret()
    return Work(rows)
