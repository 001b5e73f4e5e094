"""Emission of `compact`: the positions at which a mask holds, in order.

A mask is read as words of 64 bits, one for 64 elements.  A chunk's count is the sum of the words'
population counts; its positions are written by taking the lowest bit of a word off until none is
left, which costs as much as there is to write.
"""

from __future__ import annotations

from collections.abc import Callable

from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.builder import Function, Value, const, const_lanes
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.loops.scan import COMPACT_CHUNK

WORD = 64
BYTES = f"<{WORD} x i8>"


def _word(f: Function, mask: Value, place: Value, active: Value | None) -> Value:
    """64 elements of the mask as bits; those that are not active as 0."""
    address = f.offset(mask, place, "i8")
    if active is None:
        loaded = f.load(BYTES, address, 1)
    else:
        loaded = f.masked_load(BYTES, address, 1, active, const(BYTES, 0))
    return f.bitcast(f.icmp("ne", loaded, 0), "i64")


def _words(
    f: Function, mask: Value, chunk: Value, size: int, carried: Value,
    take: Callable[[Value, Value, Value], Value],
) -> Value:
    """take(word, place, carried) -> carried for each word of a chunk, in order."""
    begin = f.mul(chunk, COMPACT_CHUNK)
    end = f.add(begin, COMPACT_CHUNK)
    end = f.select(f.icmp("slt", end, size), end, const("i64", size))
    whole = f.add(begin, f.mul(f.udiv(f.sub(end, begin), WORD), WORD))
    with f.loop(begin, whole, WORD, [carried], "word") as loop:
        word = _word(f, mask, loop.index, None)
        loop.next = [take(word, loop.index, loop.carried[0])]
    # zero or one times round: the word that is not full
    with f.loop(whole, end, WORD, loop.results, "rest") as loop:
        lanes = const_lanes("i64", list(range(WORD)))
        active = f.icmp("slt", lanes, f.splat(f.sub(end, loop.index), WORD))
        word = _word(f, mask, loop.index, active)
        loop.next = [take(word, loop.index, loop.carried[0])]
    return loop.results[0]


def _count(f: Function, kernel: ArrayKernel, pointers: list[Value]) -> Work:
    _, begin, end, _ = f.parameters
    size = kernel.buffers[0].size

    def take(word: Value, place: Value, total: Value) -> Value:
        return f.add(total, f.overloaded("llvm.ctpop", word))

    with f.loop(begin, end, 1, hint="task") as task:
        total = _words(f, pointers[0], task.index, size, const("i64", 0), take)
        f.store(total, f.offset(pointers[1], task.index, "i64"), 8)
    f.ret()
    return Work(kernel.buffers[1].size)


def _begins(f: Function, kernel: ArrayKernel, pointers: list[Value]) -> Work:
    with f.loop(0, kernel.buffers[0].size, 1, [const("i64", 0)], "chunk") as loop:
        count = f.load("i64", f.offset(pointers[0], loop.index, "i64"), 8)
        f.store(loop.carried[0], f.offset(pointers[1], loop.index, "i64"), 8)
        loop.next = [f.add(loop.carried[0], count)]
    f.ret()
    return Work(1)


def _positions(f: Function, kernel: ArrayKernel, pointers: list[Value]) -> Work:
    """Never writes more than the result holds, whatever the mask."""
    _, begin, end, _ = f.parameters
    size, room = kernel.buffers[0].size, kernel.buffers[2].size
    result = pointers[2]

    def take(word: Value, place: Value, written: Value) -> Value:
        past = f.add(written, f.overloaded("llvm.ctpop", word))
        past = f.select(f.icmp("slt", past, room), past, const("i64", room))
        with f.loop(written, past, 1, [word], "bit") as loop:
            (left,) = loop.carried
            lane = f.intrinsic("llvm.cttz.i64", "i64", left, Value("i1", "true"))
            f.store(f.add(place, lane), f.offset(result, loop.index, "i64"), 8)
            loop.next = [f.and_(left, f.sub(left, 1))]
        return past

    with f.loop(begin, end, 1, hint="task") as task:
        first = f.load("i64", f.offset(pointers[1], task.index, "i64"), 8)
        _words(f, pointers[0], task.index, size, first, take)
    f.ret()
    return Work(kernel.buffers[1].size)


COMPACT_STEPS: dict[str, Callable[[Function, ArrayKernel, list[Value]], Work]] = {
    "count": _count,
    "begins": _begins,
    "positions": _positions,
}
