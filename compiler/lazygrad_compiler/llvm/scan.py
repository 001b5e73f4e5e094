"""Emission of scans: running totals along an axis, in the steps that `loops/scan.py` decides on.

Two ways through an array of (outer, length, inner):

  along    inner is 1, or a small power of two: a vector holds neighbours of a line.  It is scanned
           in registers (log2(lanes) shuffles, Hillis and Steele, CACM 1986), and only the last
           total is carried to the next vector: one dependent operation a vector.
  across   inner is longer: a vector holds neighbouring columns, and each step of the line combines
           a row of them with the totals so far.

Both combine in an order that is fixed by the shape and the vector width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.builder import (
    Function,
    Module,
    Value,
    const,
    const_lanes,
    lanes_of,
)
from lazygrad_compiler.llvm.compact import COMPACT_STEPS
from lazygrad_compiler.llvm.elementary import emit_elementary
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.loops.scan import Lines, accumulator_dtype, lines_of
from lazygrad_compiler.loops.schedule import STREAM_BYTES, stretch
from lazygrad_compiler.target import Target

LINE = 64
MOST_LANES = 16
TASK_ELEMENTS = 1 << 15
"""Elements that are worth handing to a thread at a time."""
PAST_CACHES_FROM = 2 * STREAM_BYTES
"""Bytes from which on results are written past the caches where rows begin on cache lines: 2048 x
8192 float32 takes 2.3 ms instead of 2.8.  Put together in scratch memory first, those of 2048 x
8191 took 3.6 to 4.3 instead of 3.0.
"""

OPS_OF = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}


def neutral(combine: str, dtype: DType) -> float:
    """What changes nothing: `combine(neutral, x)` is x."""
    if combine in ("add", "mul"):
        return 0 if combine == "add" else 1
    if combine == "logaddexp":
        return -math.inf
    low, high = dtype.limits()
    return low if combine == "max" else high


def emit_logaddexp(f: Function, x: Value, y: Value) -> Value:
    """log(exp(x) + exp(y)), from the larger and the distance; infinities and NaN as they are."""
    high = scalar.RULES["maximum"](f, dtypes.float64, [x, y])
    low = scalar.RULES["minimum"](f, dtypes.float64, [x, y])
    more = emit_elementary("log1p", f, emit_elementary("exp", f, f.fsub(low, high)))
    infinite = f.fcmp("oeq", f.overloaded("llvm.fabs", high), const(high.type, math.inf))
    return f.select(infinite, high, f.fadd(high, more))


@dataclass(slots=True)
class _Scan:
    """One step under emission.

    source, result: dtypes in memory.  wide: that of the totals.  lanes: of a vector.  past_caches:
    whether results are written past them.
    """

    f: Function
    combine: str
    reverse: bool
    source: DType
    result: DType
    wide: DType
    lanes: int
    lines: Lines
    past_caches: bool = False
    nothing: Value | None = None
    """A vector of the neutral element, if vectors are scanned, which LLVM must not know: it shifts
    zeros in by `vexpandps`, which is slow on Zen 5.  512 x 8191 float32 in the caches: 0.28 ms on
    two cores instead of 0.98, 31 cycles a vector; 2048 x 8191 2.9 instead of 4.1.
    """

    def merge(self, earlier: Value, later: Value) -> Value:
        if self.combine == "logaddexp":
            return emit_logaddexp(self.f, earlier, later)
        return scalar.emit_op(
            self.f, OPS_OF[self.combine], [earlier, later], self.wide, self.wide
        )

    def neutral(self, lanes: int) -> Value:
        return scalar.constant(self.wide, neutral(self.combine, self.wide), lanes)

    # ---- memory

    def load(self, pointer: Value, place: Value, lanes: int, mask: Value | None = None) -> Value:
        """Elements as totals are held; the neutral element where the mask is off."""
        f, dtype = self.f, self.source
        type_ = scalar.memory_type(dtype, lanes)
        address = f.offset(pointer, place, scalar.memory_type(dtype))
        if mask is None or lanes == 1:
            return scalar.widen(f, f.load(type_, address, dtype.itemsize), dtype)
        loaded = f.masked_load(type_, address, dtype.itemsize, mask, const(type_, 0))
        return f.select(mask, scalar.widen(f, loaded, dtype), self.neutral(lanes))

    def store(self, pointer: Value, place: Value, value: Value, mask: Value | None = None) -> None:
        f, dtype = self.f, self.result
        if scalar.is_narrow(dtype):
            value = scalar.narrow(f, value, dtype)
        address = f.offset(pointer, place, scalar.memory_type(dtype))
        if mask is None and self.past_caches:
            f.store_past_caches_if_aligned(value, address, lanes_of(value.type) * dtype.itemsize)
        elif mask is None or lanes_of(value.type) == 1:
            f.store(value, address, dtype.itemsize)
        else:
            f.masked_store(value, address, dtype.itemsize, mask)

    # ---- places

    def limits(self, chunk: Value) -> tuple[Value, Value]:
        """The positions of a chunk: from, and to before."""
        f, lines = self.f, self.lines
        if lines.chunks == 1:
            return const("i64", 0), const("i64", lines.length)
        begin = f.mul(chunk, lines.chunk)
        end = f.add(begin, lines.chunk)
        return begin, f.select(f.icmp("slt", end, lines.length), end, const("i64", lines.length))

    # ---- along the line

    def running(self, value: Value) -> Value:
        """The scan within one vector, of each of its columns."""
        f, lanes, step = self.f, self.lanes, self.lines.inner
        while step < lanes:
            if self.reverse:
                order = [lane + step for lane in range(lanes)]
            else:
                order = [(lane - step) % (2 * lanes) for lane in range(lanes)]
            value = self.merge(f.shuffle(value, self.nothing, order), value)
            step *= 2
        return value

    def last(self, value: Value) -> Value:
        """The last totals of a scanned vector, in every lane of their columns."""
        inner = self.lines.inner
        first = 0 if self.reverse else self.lanes - inner
        if self.lanes == 1:
            return value
        return self.f.shuffle(value, None, [first + lane % inner for lane in range(self.lanes)])

    def along(
        self, source: Value, result: Value | None, row: Value, chunk: Value, carry: Value
    ) -> Value:
        """Scans a chunk into the result, or only totals it (without one); gives the carry."""
        f, lines, lanes = self.f, self.lines, self.lanes
        first, past = self.limits(chunk)
        if result is not None:
            self.nothing = f.hidden(self.neutral(lanes))
        begin = f.mul(f.add(f.mul(row, lines.length), first), lines.inner)
        count = f.mul(f.sub(past, first), lines.inner)
        end = f.add(begin, count)
        whole = f.mul(f.udiv(count, lanes), lanes)

        def step(place: Value, totals: Value, mask: Value | None) -> Value:
            value = self.load(source, place, lanes, mask)
            if result is None:
                return self.merge(totals, value)
            scanned = self.running(value)
            self.store(result, place, self.merge(totals, scanned), mask)
            return self.merge(totals, self.last(scanned))

        with f.loop(0, whole, lanes, [carry], "vector") as loop:
            place = f.add(begin, loop.index)
            if self.reverse:
                place = f.sub(f.sub(end, loop.index), lanes)
            loop.next = [step(place, loop.carried[0], None)]
        (carry,) = loop.results
        place = begin if self.reverse else f.add(begin, whole)
        if lines.chunks == 1:
            # a constant mask stays one here: `masked_store` has to see it
            left = lines.length * lines.inner % lanes
            if not left:
                return carry
            return step(place, carry, const_lanes("i1", [lane < left for lane in range(lanes)]))
        rest = f.sub(count, whole)
        # zero or one times round: the vector that is not full
        with f.loop(0, rest, lanes, [carry], "rest") as loop:
            mask = f.icmp("slt", const_lanes("i64", list(range(lanes))), f.splat(rest, lanes))
            loop.next = [step(place, loop.carried[0], mask)]
        return loop.results[0]

    def folded(self, totals: Value) -> Value:
        """A vector's lanes combined, column by column: the first `inner` lanes of the result."""
        lanes = lanes_of(totals.type)
        while lanes > self.lines.inner:
            lanes //= 2
            low, high = range(lanes), range(lanes, 2 * lanes)
            if lanes == 1:
                totals = self.merge(self.f.extract(totals, 0), self.f.extract(totals, 1))
            else:
                totals = self.merge(
                    self.f.shuffle(totals, None, list(low)),
                    self.f.shuffle(totals, None, list(high)),
                )
        return totals

    # ---- across the columns

    def across(
        self,
        source: Value,
        result: Value | None,
        place: tuple[Value, Value, Value],
        columns: Sequence[tuple[int, Value | None]],
        totals: list[Value],
        exclusive: bool,
    ) -> list[Value]:
        """Scans a chunk of some columns: (offset of a vector's first, mask) each; gives the
        totals.

        place: row, chunk, first column.
        """
        f, lines, lanes = self.f, self.lines, self.lanes
        row, chunk, column = place
        first, past = self.limits(chunk)
        base = f.add(f.mul(f.mul(row, lines.length), lines.inner), column)
        with f.loop(first, past, 1, totals, "position") as loop:
            position = loop.index
            if self.reverse:
                position = f.sub(f.sub(f.add(first, past), position), 1)
            start = f.add(base, f.mul(position, lines.inner))
            loop.next = []
            for (offset, mask), total in zip(columns, loop.carried, strict=True):
                at = f.add(start, offset)
                after = self.merge(total, self.load(source, at, lanes, mask))
                if result is not None:
                    self.store(result, at, total if exclusive else after, mask)
                loop.next.append(after)
        return loop.results


def _across_lanes(inner: int, lanes: int) -> int:
    while lanes > 1 and lanes >= 2 * inner:
        lanes //= 2
    return lanes


def _source_of(kernel: ArrayKernel) -> DType:
    dtype = kernel.buffers[0].dtype
    return dtypes.uint8 if dtype is dtypes.bool_ else dtype


def _cut_of(kernel: ArrayKernel, target: Target) -> tuple[Lines, int, bool]:
    """The step's lines, lanes of a vector, and whether vectors lie along the line."""
    if kernel.step == "prefix":
        outer, chunks, inner = kernel.shapes[0]
        lines = Lines(outer, chunks, inner, chunks, 1)
    else:
        lines = lines_of(kernel.shapes[0], kernel.attrs[0])
    lanes = min(target.lanes(accumulator_dtype(_source_of(kernel)).bits), MOST_LANES)
    along = lines.inner < lanes and lines.inner & (lines.inner - 1) == 0 and kernel.step != "prefix"
    if not along:
        lanes = _across_lanes(lines.inner, lanes)
    return lines, lanes, along


def default_vectors(kernel: ArrayKernel, target: Target) -> int:
    """Vectors of columns that a task scans side by side; 0 where it scans along a line."""
    if kernel.step in COMPACT_STEPS:
        return 0
    lines, lanes, along = _cut_of(kernel, target)
    most = 1 if kernel.attrs[1] == "logaddexp" else target.registers // 4
    return 0 if along else min(-(-lines.inner // lanes), most)


def _scan_of(f: Function, kernel: ArrayKernel, target: Target) -> _Scan:
    _, combine, reverse = kernel.attrs
    source, result = _source_of(kernel), kernel.buffers[-1].dtype
    result = dtypes.uint8 if result is dtypes.bool_ else result
    lines, lanes, _ = _cut_of(kernel, target)
    return _Scan(f, combine, reverse, source, result, accumulator_dtype(source), lanes, lines)


def _emit_along(scan: _Scan, step: str, pointers: list[Value]) -> Work:
    f, lines, lanes = scan.f, scan.lines, scan.lanes
    elements = lines.outer * lines.length * lines.inner
    nbytes = elements * (scan.source.itemsize + scan.result.itemsize)
    aligned = lines.length * lines.inner * scan.result.itemsize % LINE == 0
    scan.past_caches = step != "totals" and aligned and lanes > 1 and nbytes >= PAST_CACHES_FROM
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="task") as task:
        row, chunk = task.index, const("i64", 0)
        if lines.chunks > 1:
            row, chunk = f.udiv(task.index, lines.chunks), f.urem(task.index, lines.chunks)
        carry = scan.neutral(lanes)
        if step == "totals":
            totals = scan.folded(scan.along(pointers[0], None, row, chunk, carry))
            address = f.offset(
                pointers[1], f.mul(task.index, lines.inner), scalar.memory_type(scan.wide)
            )
            f.store(totals, address, scan.wide.itemsize)
        else:
            if step == "chunks":
                address = f.offset(
                    pointers[1], f.mul(task.index, lines.inner), scalar.memory_type(scan.wide)
                )
                type_ = scalar.memory_type(scan.wide, lines.inner)
                before = f.load(type_, address, scan.wide.itemsize)
                if lines.inner == 1:
                    carry = f.splat(before, lanes)
                else:
                    carry = f.shuffle(before, None, [k % lines.inner for k in range(lanes)])
            scan.along(pointers[0], pointers[-1], row, chunk, carry)
    if scan.past_caches:
        f.emit_void("fence seq_cst")  # such stores obey no other order
    f.ret()
    work, tasks = max(lines.chunk * lines.inner, 1), lines.outer * lines.chunks
    return Work(tasks, max(1, TASK_ELEMENTS // work, stretch(work, nbytes, tasks)))


def _emit_across(scan: _Scan, step: str, pointers: list[Value], vectors: int) -> Work:
    f, lines, lanes = scan.f, scan.lines, scan.lanes
    width = vectors * lanes
    strips, left = -(-lines.inner // width), lines.inner % width
    _, begin, end, _ = f.parameters

    def strip(task: Value, row: Value, chunk: Value, column: Value, count: int) -> None:
        columns: list[tuple[int, Value | None]] = []
        for offset in range(0, count, lanes):
            on = min(count - offset, lanes)
            mask = None
            if on < lanes:
                mask = const_lanes("i1", [lane < on for lane in range(lanes)])
            columns.append((offset, mask))
        wide = _Scan(
            f, scan.combine, scan.reverse, scan.wide, scan.wide, scan.wide, lanes, lines
        )
        held = f.add(
            f.mul(f.add(f.mul(row, lines.chunks), chunk), lines.inner), column
        )  # the chunk's place among totals
        totals = [scan.neutral(lanes) for _ in columns]
        if step == "chunks":
            totals = [
                wide.load(pointers[1], f.add(held, offset), lanes, mask)
                for offset, mask in columns
            ]
        result = None if step == "totals" else pointers[-1]
        place = (row, chunk, column)
        totals = scan.across(pointers[0], result, place, columns, totals, step == "prefix")
        if step == "totals":
            for (offset, mask), total in zip(columns, totals, strict=True):
                wide.store(pointers[1], f.add(held, offset), total, mask)

    with f.loop(begin, end, 1, hint="task") as task:
        number, chunk = task.index, const("i64", 0)
        column_strip = f.urem(number, strips)
        number = f.udiv(number, strips)
        if lines.chunks > 1:
            number, chunk = f.udiv(number, lines.chunks), f.urem(number, lines.chunks)
        column = f.mul(column_strip, width)
        if lines.inner >= width:
            full = f.icmp("slt", column_strip, lines.inner // width)
            with f.when(full, "full"):
                strip(task.index, number, chunk, column, width)
        if left:
            partial = f.icmp("sge", column_strip, lines.inner // width)
            with f.when(partial, "partial"):
                strip(task.index, number, chunk, column, left)
    f.ret()
    work = max(lines.chunk * min(width, lines.inner), 1)
    return Work(lines.outer * lines.chunks * strips, max(1, TASK_ELEMENTS // work))


def emit_scan(
    module: Module, name: str, kernel: ArrayKernel, target: Target, vectors: int
) -> Work:
    """vectors: as of a `ScanSchedule`."""
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, _ = load_arguments(f, len(kernel.buffers))
    if kernel.step in COMPACT_STEPS:
        return COMPACT_STEPS[kernel.step](f, kernel, pointers)
    scan = _scan_of(f, kernel, target)
    if vectors == 0:
        return _emit_along(scan, kernel.step, pointers)
    return _emit_across(scan, kernel.step, pointers, vectors)
