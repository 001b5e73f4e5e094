"""Emission of the ops built on order: the table of steps, and the one in which a task has a row.

`loops/sort.py` decides on the steps; the first word of a kernel's `step` names its emitter here,
the others say what it reads and writes, and which dtype is sorted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lazygrad_compiler.ir.dtypes import dtype_named
from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.builder import Function, Module, Value, const
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.llvm.sort_items import (
    Items,
    bucket_of,
    bump,
    clear,
    digits_scratch,
    higher_digits,
    longest_by_rank,
    sort_by_digits,
    sort_by_rank,
)
from lazygrad_compiler.llvm.sort_keys import DIGIT_BITS, RADIX, Keys
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.loops.sort import chunks_of
from lazygrad_compiler.target import Target

TASK_ELEMENTS = 1 << 14
"""Elements that are worth a task of their own."""


def descending(kernel: ArrayKernel) -> bool:
    """The direction of the op's order."""
    return kernel.op in ("argsort", "top_k") and bool(kernel.attrs[-1])


@dataclass(slots=True)
class Step:
    """One step under emission: the function, the buffers' addresses, the op's keys."""

    f: Function
    kernel: ArrayKernel
    target: Target
    keys: Keys
    pointers: list[Value]

    @property
    def words(self) -> list[str]:
        """The step's name, without the dtype at its end."""
        return self.kernel.step.split()[:-2]

    @property
    def scratch(self) -> Value:
        return self.f.parameters[3]

    def row(self, number: int, row: Value, length: int) -> Value:
        """Where a row of one buffer begins."""
        element = f"i{self.kernel.buffers[number].dtype.itemsize * 8}"
        return self.f.offset(self.pointers[number], self.f.mul(row, length), element)


Emit = Callable[[Step], Work]


def grain(work: int) -> int:
    """Tasks of so many elements that a thread takes at a time."""
    return max(1, TASK_ELEMENTS // max(work, 1))


class RowWriter:
    """Stores elements of one row in their order: values, indices, or both."""

    def __init__(self, step: Step, row: Value, length: int, names: list[str], first: int) -> None:
        self.step = step
        self.places = [
            (name == "values", step.row(first + number, row, length))
            for number, name in enumerate(names)
        ]

    def write(self, position: Value, raw: Value | None, index: Value) -> None:
        f, keys = self.step.f, self.step.keys
        for is_value, place in self.places:
            if is_value:
                assert raw is not None
                f.store(raw, f.offset(place, position, keys.stored), keys.align)
            else:
                f.store(index, f.offset(place, position, "i64"), 8)


def chunk_span(step: Step, task: Value, length: int) -> tuple[Value, Value, Value]:
    """The row of a task, and the first and the end of its chunk."""
    f = step.f
    chunks = chunks_of(length)
    size = -(-length // chunks)
    row, chunk = f.udiv(task, chunks), f.urem(task, chunks)
    first = f.mul(chunk, size)
    first = f.select(f.icmp("slt", first, length), first, length)
    end = f.add(first, size)
    return row, first, f.select(f.icmp("slt", end, length), end, length)


def emit_rows(step: Step) -> Work:
    """Step `rows`: a task has a whole row."""
    f, kernel = step.f, step.kernel
    shape = kernel.shapes[0]
    rows, length = math.prod(shape[:-1]), shape[-1]
    wanted = kernel.shapes[-1][-1]
    _, begin, end, _ = f.parameters
    from lazygrad_compiler.llvm.sort_top import top_row

    emit = {"argsort": _sort_row, "top_k": top_row, "select_rank": _select_row}[kernel.op]
    scratch = 0
    with f.loop(begin, end, 1, hint="row") as loop:
        scratch = emit(step, loop.index, length, wanted)
    return Work(rows, grain(length), scratch)


def key_lanes_of(step: Step, source: Value) -> Callable[[Value, int, Value | None], Value]:
    f, keys = step.f, step.keys

    def load(first: Value, lanes: int, mask: Value | None) -> Value:
        return keys.key(f, keys.load_lanes(f, source, first, lanes, mask))

    return load


def reader_of(step: Step, source: Value) -> Callable[[Value], tuple[Value, Value]]:
    return lambda position: (step.keys.load(step.f, source, position), position)


def _sort_row(step: Step, row: Value, length: int, wanted: int) -> int:
    f, keys, names = step.f, step.keys, step.words[1:]
    source = step.row(0, row, length)
    writer = RowWriter(step, row, length, names, 1)
    if length <= longest_by_rank(keys, step.target):

        def place(position: Value, rank: Value) -> None:
            raw = f.load(keys.stored, f.offset(source, position, keys.stored), keys.align)
            writer.write(rank, raw, position)

        sort_by_rank(f, keys, step.target, length, key_lanes_of(step, source), place)
        return 0
    items = Items(keys, "indices" in names)

    def finish(position: Value, carried: Value, index: Value) -> None:
        writer.write(position, keys.raw(f, carried), index)

    sort_by_digits(
        f, items, step.target, length, step.scratch, reader_of(step, source), finish
    )
    return digits_scratch(items, length)


def key_of_rank(step: Step, source: Value, length: int, rank: Value) -> tuple[Value, Value]:
    """The key at a place of the sorted row, and how many equal elements come before that place.

    Most significant digit first: counts the digits of those that agree in all digits above.
    """
    f, keys = step.f, step.keys
    counts = f.alloca("i32", RADIX + 64)
    prefix = const("i64", 0)
    for number in reversed(range(keys.passes)):
        clear(f, counts, RADIX, step.target)
        with f.loop(0, length, 1, hint="count") as loop:
            key = keys.key(f, keys.load(f, source, loop.index))
            digit = keys.digit(f, key, number)
            if number < keys.passes - 1:
                # the others are counted where nobody looks
                alike = f.icmp("eq", higher_digits(f, key, number), prefix)
                digit = f.select(alike, digit, RADIX)
            bump(f, counts, digit)

        def count_of(digit: Value) -> Value:
            return f.convert("zext", f.load("i32", f.offset(counts, digit, "i32"), 4), "i64")

        bucket, below = bucket_of(f, count_of, rank)
        prefix = f.or_(f.shl(prefix, DIGIT_BITS), bucket)
        rank = f.sub(rank, below)
    return f.convert("trunc", prefix, keys.held), rank


def clamped(f: Function, rank: Value, length: int) -> Value:
    """A rank forced into the row."""
    rank = f.select(f.icmp("slt", rank, 0), 0, rank)
    return f.select(f.icmp("slt", rank, length), rank, length - 1)


def find_equal(
    step: Step, source: Value, span: tuple[Value, Value], key: Value, number: Value
) -> Value:
    """The position of the element that equals the key and has `number` such before it."""
    f, keys = step.f, step.keys
    zero = const("i64", 0)
    with f.loop(*span, 1, carried=[zero, zero], hint="find") as loop:
        seen, found = loop.carried
        equal = f.icmp("eq", keys.key(f, keys.load(f, source, loop.index)), key)
        here = f.and_(equal, f.icmp("eq", seen, number))
        loop.next = [
            f.add(seen, f.convert("zext", equal, "i64")),
            f.select(here, loop.index, found),
        ]
    return loop.results[1]


def _select_row(step: Step, row: Value, length: int, wanted: int) -> int:
    f, keys = step.f, step.keys
    source, ranks = step.row(0, row, length), step.row(1, row, wanted)
    result = step.row(2, row, wanted)

    def each(find: Callable[[Value], Value]) -> None:
        with f.loop(0, wanted, 1, hint="rank") as loop:
            rank = clamped(f, f.load("i64", f.offset(ranks, loop.index, "i64"), 8), length)
            f.store(find(rank), f.offset(result, loop.index, "i64"), 8)

    def from_table(table: Value) -> None:
        each(lambda rank: f.convert("zext", f.load("i32", f.offset(table, rank, "i32"), 4), "i64"))

    def note(table: Value, place: Value, index: Value) -> None:
        f.store(f.convert("trunc", index, "i32"), f.offset(table, place, "i32"), 4)

    if length <= longest_by_rank(keys, step.target):
        table = f.alloca("i32", length)
        sort_by_rank(f, keys, step.target, length, key_lanes_of(step, source),
                     lambda position, rank: note(table, rank, position))
        from_table(table)
        return 0
    if wanted <= 2:

        def search(rank: Value) -> Value:
            key, ties = key_of_rank(step, source, length, rank)
            span = (const("i64", 0), const("i64", length))
            return find_equal(step, source, span, key, ties)

        each(search)
        return 0
    items = Items(keys, True)
    table = step.scratch
    size = -(-4 * length // 64) * 64
    sort_by_digits(f, items, step.target, length, f.offset(table, size, "i8"),
                   reader_of(step, source), lambda position, _, index: note(table, position, index))
    from_table(table)
    return size + digits_scratch(items, length)


STEPS: dict[str, Emit] = {"rows": emit_rows}
"""By the first word of the step; more in the other files."""


def emit_sort(module: Module, name: str, kernel: ArrayKernel, target: Target) -> Work:
    """Any step of any op of the kind `sort`."""
    from lazygrad_compiler.llvm import sort_chunks, sort_search, sort_top

    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, _ = load_arguments(f, len(kernel.buffers))
    dtype = dtype_named(kernel.step.split()[-1])
    step = Step(f, kernel, target, Keys(dtype, descending(kernel)), pointers)
    table = {**STEPS, **sort_chunks.STEPS, **sort_search.STEPS, **sort_top.STEPS}
    work = table[step.words[0]](step)
    f.ret()
    return work

