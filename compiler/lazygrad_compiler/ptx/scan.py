"""Scans on a GPU: running totals along an axis, and the positions at which a mask holds.

An array is (outer, length, inner), the scan running along the middle axis.

  along    inner is small: a block scans a line, some neighbours a thread, by shuffles within the
           warps and through shared memory between them; one total is carried to the next round.
  across   inner is long: neighbouring threads have neighbouring columns, each goes down its own.

Few long lines are cut into chunks, in three launches: the total of each chunk, what comes before
each (an exclusive scan of the totals), and the chunks.  How lines are cut and in which order totals
combine depends on the shape alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lazygrad_compiler.backend import Emitted
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node, Shape
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.points import I64
from lazygrad_compiler.llvm.scan import OPS_OF, emit_logaddexp, neutral
from lazygrad_compiler.loops.arrays import array_launch, temporary
from lazygrad_compiler.loops.kernel import ArrayKernel, Launch
from lazygrad_compiler.loops.lower import Group
from lazygrad_compiler.loops.scan import (
    Lines,
    accumulator_dtype,
    lower_running,
    without_attributes,
)
from lazygrad_compiler.ptx.arrays import Row, Step, emit_step
from lazygrad_compiler.ptx.builder import WARP, KernelFunction, KernelModule, element_bytes

THREADS = 256
EACH = 4
"""Neighbours that a thread scans by itself."""
ACROSS = 32
"""Columns from which on threads lie across."""
CHUNK = 1 << 13
"""Positions of a line that are worth a block, or with columns across a thread's walk."""
CHUNK_ACROSS = 1 << 9
LINES_ENOUGH = 256
"""Blocks' worth of lines from which on no line is cut."""
COMPACT_CHUNK = 1 << 13


def runs_across(lines: Lines) -> bool:
    """Whether threads take neighbouring lines rather than share one."""
    return lines.inner >= ACROSS


def lines_of(shape: Shape, axis: int) -> Lines:
    outer, length, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    across = inner >= ACROSS
    blocks = -(-outer * inner // THREADS) if across else outer * inner
    chunk = CHUNK_ACROSS if across else CHUNK
    if blocks >= LINES_ENOUGH or length <= 2 * chunk:
        return Lines(outer, length, inner, length, 1)
    return Lines(outer, length, inner, chunk, -(-length // chunk))


def lower_scan(group: Group) -> list[Launch]:
    anchor = group.anchor
    assert anchor is not None
    if anchor.op == "compact":
        return _lower_compact(anchor)
    return lower_running(anchor, lines_of(anchor.shape, anchor.attrs[0]))


def _lower_compact(anchor: Node) -> list[Launch]:
    (mask,) = anchor.inputs
    count = -(-mask.size // COMPACT_CHUNK)
    counts, begins = temporary(dtypes.int64, (count,)), temporary(dtypes.int64, (count,))
    launches = [
        array_launch(anchor, [mask], [counts], "scan", "count"),
        array_launch(anchor, [counts], [begins], "scan", "begins"),
        array_launch(anchor, [mask, begins], [anchor], "scan", "positions"),
    ]
    return [without_attributes(each) for each in launches]


def emit_scan(
    module: KernelModule, name: str, kernel: ArrayKernel, target: CudaTarget
) -> Emitted:
    return emit_step(module, name, kernel, target, STEPS)


# ---- running totals


@dataclass(frozen=True, slots=True)
class Running:
    """How totals combine: `earlier` before `later`."""

    f: KernelFunction
    combine: str
    wide: DType

    def merge(self, earlier: Value, later: Value) -> Value:
        if self.combine == "logaddexp":
            return emit_logaddexp(self.f, earlier, later)
        return scalar.emit_op(
            self.f, OPS_OF[self.combine], [earlier, later], self.wide, self.wide
        )

    @property
    def nothing(self) -> Value:
        return scalar.constant(self.wide, neutral(self.combine, self.wide))


def block_scan(
    running: Running, threads: int, total: Value
) -> tuple[Value, Value]:
    """(what the threads before this one have, what all have) of one total a thread.  All threads of
    the block take part; a barrier must lie between two of these.
    """
    f, module = running.f, running.f.module
    thread = f.thread()
    lane, warp = f.and_(thread, WARP - 1), f.lshr(thread, 5)
    inclusive, distance = total, 1
    while distance < WARP:
        other = f.shuffle_up(inclusive, distance)
        merged = running.merge(other, inclusive)
        inclusive = f.select(f.icmp("uge", lane, distance), merged, inclusive)
        distance *= 2
    memory = scalar.memory_type(running.wide)
    warps = threads // WARP
    slots = f.shared_address(module.shared(warps * element_bytes(memory)))
    with f.when(f.icmp("eq", lane, WARP - 1), "warp"):
        f.store(inclusive, f.offset(slots, warp, memory), element_bytes(memory))
    f.barrier()
    before, everything = running.nothing, running.nothing
    for number in range(warps):
        part = f.load(memory, f.offset(slots, number, memory), element_bytes(memory))
        before = f.select(f.icmp("eq", warp, number), everything, before)
        everything = running.merge(everything, part)
    previous = f.shuffle_up(inclusive, 1)
    inside = f.select(f.icmp("eq", lane, 0), running.nothing, previous)
    return running.merge(before, inside), everything


class _Scan:
    """A step of a running total."""

    def __init__(self, step: Step) -> None:
        self.step, self.f = step, step.f
        axis, combine, self.reverse = step.kernel.attrs
        name = step.words[0]
        cut = name in ("totals", "chunks")
        shape = step.kernel.shapes[0]
        if name == "prefix":  # of totals, which lie in the order of the scan
            outer, chunks, inner = shape
            self.lines = Lines(outer, chunks, inner, chunks, 1)
            self.reverse = False
        else:
            self.lines = lines_of(shape, axis)
        assert (self.lines.chunks > 1) == cut
        self.source = step.kernel.buffers[0].dtype
        self.result = step.kernel.buffers[-1].dtype
        self.running = Running(self.f, combine, accumulator_dtype(self.source))

    def _address(self, pointer: Value, outer: Value, position: Value, inner: Value, dtype: DType):
        f, lines = self.f, self.lines
        if self.reverse:
            position = f.sub(const(I64, lines.length - 1), position)
        place = f.add(f.mul(f.add(f.mul(outer, lines.length), position), lines.inner), inner)
        return f.offset(pointer, place, scalar.memory_type(dtype))

    def load(self, outer: Value, position: Value, inner: Value) -> Value:
        f, dtype = self.f, self.source
        address = self._address(self.step.pointers[0], outer, position, inner, dtype)
        loaded = f.load(scalar.memory_type(dtype), address, dtype.itemsize)
        return scalar.widen(f, loaded, dtype)

    def store(self, outer: Value, position: Value, inner: Value, value: Value) -> None:
        f, dtype = self.f, self.result
        address = self._address(self.step.pointers[-1], outer, position, inner, dtype)
        if scalar.is_narrow(dtype):
            value = scalar.narrow(f, value, dtype)
        f.store(value, address, dtype.itemsize)

    def _chunk_place(self, outer: Value, chunk: Value, inner: Value) -> Value:
        f, lines = self.f, self.lines
        return f.add(f.mul(f.add(f.mul(outer, lines.chunks), chunk), lines.inner), inner)

    def _before(self, outer: Value, chunk: Value, inner: Value) -> Value:
        """What comes before a chunk, from the launch that found it."""
        f, wide = self.f, self.running.wide
        if self.step.words[0] != "chunks":
            return self.running.nothing
        memory = scalar.memory_type(wide)
        place = f.offset(self.step.pointers[1], self._chunk_place(outer, chunk, inner), memory)
        return f.load(memory, place, wide.itemsize)

    def _put_total(self, outer: Value, chunk: Value, inner: Value, total: Value) -> None:
        f, wide = self.f, self.running.wide
        memory = scalar.memory_type(wide)
        place = f.offset(self.step.pointers[-1], self._chunk_place(outer, chunk, inner), memory)
        f.store(total, place, wide.itemsize)

    def _limits(self, chunk: Value) -> tuple[Value, Value]:
        f, lines = self.f, self.lines
        if lines.chunks == 1:
            return const(I64, 0), const(I64, lines.length)
        first = f.mul(chunk, lines.chunk)
        end = f.add(first, lines.chunk)
        return first, f.select(f.icmp("slt", end, lines.length), end, const(I64, lines.length))

    def run(self) -> int:
        return self._across() if runs_across(self.lines) else self._along()

    # ---- a thread a column

    def _across(self) -> int:
        f, lines, running = self.f, self.lines, self.running
        number = f.add(f.mul(f.wide(f.block()), THREADS), f.wide(f.thread()))
        columns = lines.outer * lines.chunks * lines.inner
        with f.when(f.icmp("slt", number, columns), "column"):
            inner, rest = f.urem(number, lines.inner), f.udiv(number, lines.inner)
            chunk, outer = f.urem(rest, lines.chunks), f.udiv(rest, lines.chunks)
            first, end = self._limits(chunk)
            start = [self._before(outer, chunk, inner)]
            with f.loop(first, end, 1, start, "position") as loop:
                total = loop.carried[0]
                merged = running.merge(total, self.load(outer, loop.index, inner))
                self._write(outer, loop.index, inner, total, merged)
                loop.next = [merged]
            if self.step.words[0] == "totals":
                self._put_total(outer, chunk, inner, loop.results[0])
        return -(-columns // THREADS)

    def _write(
        self, outer: Value, position: Value, inner: Value, before: Value, after: Value
    ) -> None:
        """One position's result: what is before it for a prefix, else with it."""
        name = self.step.words[0]
        if name != "totals":
            self.store(outer, position, inner, before if name == "prefix" else after)

    # ---- a block a line

    def _along(self) -> int:
        f, lines, running = self.f, self.lines, self.running
        block = f.wide(f.block())
        inner, rest = f.urem(block, lines.inner), f.udiv(block, lines.inner)
        chunk, outer = f.urem(rest, lines.chunks), f.udiv(rest, lines.chunks)
        first, end = self._limits(chunk)
        mine = f.mul(f.wide(f.thread()), EACH)
        start = [self._before(outer, chunk, inner)]
        with f.loop(first, end, THREADS * EACH, start, "round") as loop:
            carried = loop.carried[0]
            places = [f.add(f.add(loop.index, mine), k) for k in range(EACH)]
            present = [f.icmp("slt", place, end) for place in places]
            values = []
            for place, there in zip(places, present, strict=True):
                value = self.load(outer, f.select(there, place, first), inner)
                values.append(f.select(there, value, running.nothing))
            own = [values[0]]
            for value in values[1:]:
                own.append(running.merge(own[-1], value))
            before, everything = block_scan(running, THREADS, own[-1])
            before = running.merge(carried, before)
            for k, (place, there) in enumerate(zip(places, present, strict=True)):
                earlier = running.merge(before, own[k - 1]) if k else before
                with f.when(there, "present"):
                    later = running.merge(before, own[k])
                    self._write(outer, place, inner, earlier, later)
            loop.next = [running.merge(carried, everything)]
            f.barrier()
        if self.step.words[0] == "totals":
            with f.when(f.icmp("eq", f.thread(), 0), "total"):
                self._put_total(outer, chunk, inner, loop.results[0])
        return lines.outer * lines.chunks * lines.inner


# ---- compaction


def _counted_rounds(
    step: Step, start: Value, take: Callable[[Value, Value, Value, Value], None]
) -> Value:
    """take(place, held, before, carried) for each element of the block's chunk of a mask: whether
    the mask holds there, and how many hold before it in the round and in all rounds before.  Gives
    how many hold in the chunk, and `start`.
    """
    f = step.f
    size = step.kernel.buffers[0].size
    first = f.mul(f.wide(f.block()), COMPACT_CHUNK)
    end = f.add(first, COMPACT_CHUNK)
    end = f.select(f.icmp("slt", end, size), end, const(I64, size))
    running = Running(f, "add", dtypes.int32)
    with f.loop(first, end, THREADS, [start], "round") as loop:
        place = f.add(loop.index, f.wide(f.thread()))
        there = f.icmp("slt", place, end)
        address = f.offset(step.pointers[0], f.select(there, place, first), "i8")
        held = f.and_(there, f.icmp("ne", f.load("i8", address, 1), 0))
        before, total = block_scan(running, THREADS, f.convert("zext", held, "i32"))
        take(place, held, before, loop.carried[0])
        loop.next = [f.add(loop.carried[0], f.wide(total))]
        f.barrier()
    return loop.results[0]


def _count(step: Step) -> int:
    f = step.f
    total = _counted_rounds(step, const(I64, 0), lambda *_: None)
    with f.when(f.icmp("eq", f.thread(), 0), "total"):
        f.store(total, f.offset(step.pointers[-1], f.wide(f.block()), I64), 8)
    return -(-step.kernel.buffers[0].size // COMPACT_CHUNK)


def _begins(step: Step) -> int:
    """An exclusive scan of the counts, by one block."""
    f = step.f
    size = step.kernel.buffers[0].size
    running = Running(f, "add", dtypes.int64)
    with f.loop(0, size, THREADS, [const(I64, 0)], "round") as loop:
        place = f.add(loop.index, f.wide(f.thread()))
        there = f.icmp("slt", place, size)
        address = f.offset(step.pointers[0], f.select(there, place, const(I64, 0)), I64)
        value = f.select(there, f.load(I64, address, 8), const(I64, 0))
        before, total = block_scan(running, THREADS, value)
        with f.when(there, "put"):
            begin = f.add(loop.carried[0], before)
            f.store(begin, f.offset(step.pointers[1], place, I64), 8)
        loop.next = [f.add(loop.carried[0], total)]
        f.barrier()
    return 1


def _positions(step: Step) -> int:
    f = step.f
    _, begins, result = step.pointers
    count = step.kernel.buffers[-1].size
    start = f.load(I64, f.offset(begins, f.wide(f.block()), I64), 8)

    def take(place: Value, held: Value, before: Value, carried: Value) -> None:
        rank = f.add(carried, f.wide(before))
        # the count that the op was given may be less than there are
        with f.when(f.and_(held, f.icmp("slt", rank, count)), "put"):
            f.store(place, f.offset(result, rank, I64), 8)

    _counted_rounds(step, start, take)
    return -(-step.kernel.buffers[0].size // COMPACT_CHUNK)


STEPS = {
    **{name: Row(THREADS, lambda step: _Scan(step).run())
       for name in ("whole", "totals", "prefix", "chunks")},
    "count": Row(THREADS, _count),
    "begins": Row(THREADS, _begins),
    "positions": Row(THREADS, _positions),
}  # fmt: skip
