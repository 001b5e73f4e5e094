"""Emission of the steps over chunks of long rows: sorting by digits, and finding ranks.

Sorting, for each digit from the least significant on: `count` counts the digits of every chunk,
`offsets` turns the counts into where each chunk's elements of each digit go, `scatter` moves them
there, in order, so that equal digits stay in order.  The first pass reads the elements themselves
and the last one writes the results: nothing is converted in a pass of its own.

Ranks, for each digit from the most significant on: `rank-count` counts the digits of the elements
that agree with what is known of the wanted key, `rank-narrow` finds the next digit.  What lies
below is counted by chunk on the way, so that `rank-collect` knows where each chunk writes, and
`rank-locate` in which chunk to look.
"""

from __future__ import annotations

import math

from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.builder import Value, const, vector_of
from lazygrad_compiler.llvm.sort import Emit, RowWriter, Step, chunk_span, clamped, find_equal
from lazygrad_compiler.llvm.sort_items import (
    Items,
    Read,
    bucket_of,
    bump,
    clear,
    digits_scratch,
    higher_digits,
)
from lazygrad_compiler.llvm.sort_keys import DIGIT_BITS, RADIX
from lazygrad_compiler.llvm.sort_top import arrange, collect
from lazygrad_compiler.loops.sort import chunks_of

SEPARATE = 4
"""Tables that neighbours are counted in, so that equal ones do not wait for each other."""


def _source(step: Step, row: Value, length: int, indexed: bool) -> tuple[Read, Items]:
    """How a pass reads: the elements, or what the pass before left."""
    f, keys = step.f, step.keys
    items = Items(keys, indexed)
    if "elements" in step.words:
        elements = step.row(0, row, length)
        return (lambda position: (keys.load(f, elements, position), position)), items
    arrays = [step.row(number, row, length) for number in range(len(items.sizes()))]
    return (lambda position: items.load(f, arrays, position)), items


def _rows_and_length(step: Step) -> tuple[int, int]:
    """Of the first buffer."""
    shape = step.kernel.shapes[0]
    return math.prod(shape[:-1]), shape[-1]


def emit_count(step: Step) -> Work:
    f, keys = step.f, step.keys
    rows, length = _rows_and_length(step)
    number = int(step.words[1])
    counts = step.pointers[-1]
    table = f.alloca("i32", SEPARATE * RADIX)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="chunk") as task:
        row, first, last = chunk_span(step, task.index, length)
        read, _ = _source(step, row, length, "indexed" in step.words)
        clear(f, table, SEPARATE * RADIX, step.target)

        def count(position: Value, place: int) -> None:
            carried, _ = read(position)
            digit = keys.digit(f, keys.key(f, carried), number)
            bump(f, table, f.add(digit, place * RADIX) if place else digit)

        whole = f.add(first, f.and_(f.sub(last, first), -SEPARATE))
        with f.loop(first, whole, SEPARATE, hint="count") as loop:
            for place in range(SEPARATE):
                count(f.add(loop.index, place), place)
        with f.loop(whole, last, 1, hint="rest") as loop:
            count(loop.index, 0)
        lanes = step.target.lanes(32)
        type_ = vector_of("i32", lanes)
        result = f.offset(counts, f.mul(task.index, RADIX), "i32")
        with f.loop(0, RADIX, lanes, hint="sum") as loop:
            total = f.load(type_, f.offset(table, loop.index, "i32"), 4)
            for place in range(1, SEPARATE):
                part = f.offset(table, f.add(loop.index, place * RADIX), "i32")
                total = f.add(total, f.load(type_, part, 4))
            f.store(total, f.offset(result, loop.index, "i32"), 4)
    return Work(rows * chunks_of(length))


def emit_offsets(step: Step) -> Work:
    """Counts (rows, chunks, digits) become places: all of the lower digits first, then those of
    earlier chunks.
    """
    f = step.f
    rows, chunks, _ = step.kernel.shapes[0]
    lanes = step.target.lanes(32)
    type_ = vector_of("i32", lanes)
    totals = f.alloca("i32", RADIX)
    _, begin, end, _ = f.parameters

    def each_row(counts: Value, store: bool) -> None:
        with f.loop(0, chunks, 1, hint="chunk") as chunk:
            line = f.offset(counts, f.mul(chunk.index, RADIX), "i32")
            with f.loop(0, RADIX, lanes, hint="digits") as loop:
                address, running = (f.offset(at, loop.index, "i32") for at in (line, totals))
                count, before = f.load(type_, address, 4), f.load(type_, running, 4)
                f.store(f.add(before, count), running, 4)
                if store:
                    f.store(before, address, 4)

    with f.loop(begin, end, 1, hint="row") as task:
        counts = f.offset(step.pointers[0], f.mul(task.index, chunks * RADIX), "i32")
        clear(f, totals, RADIX, step.target)
        each_row(counts, False)
        with f.loop(0, RADIX, 1, carried=[const("i32", 0)], hint="prefix") as loop:
            address = f.offset(totals, loop.index, "i32")
            count = f.load("i32", address, 4)
            f.store(loop.carried[0], address, 4)
            loop.next = [f.add(loop.carried[0], count)]
        each_row(counts, True)
    return Work(rows)


def emit_scatter(step: Step) -> Work:
    f, keys = step.f, step.keys
    rows, length = _rows_and_length(step)
    number, names = int(step.words[1]), step.words[step.words.index("to") + 1 :]
    reads = sum(not buffer.written for buffer in step.kernel.buffers)
    counts = step.pointers[reads - 1]
    table = f.alloca("i32", RADIX)
    lanes = step.target.lanes(32)
    type_ = vector_of("i32", lanes)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="chunk") as task:
        row, first, last = chunk_span(step, task.index, length)
        read, items = _source(step, row, length, "indexed" in step.words)
        offsets = f.offset(counts, f.mul(task.index, RADIX), "i32")
        with f.loop(0, RADIX, lanes, hint="copy") as loop:
            part = f.load(type_, f.offset(offsets, loop.index, "i32"), 4)
            f.store(part, f.offset(table, loop.index, "i32"), 4)
        if names == ["items"]:
            arrays = [
                step.row(reads + place, row, length) for place in range(len(items.sizes()))
            ]
        else:
            writer = RowWriter(step, row, length, names, reads)
        with f.loop(first, last, 1, hint="move") as loop:
            carried, index = read(loop.index)
            digit = keys.digit(f, keys.key(f, carried), number)
            place = f.convert("zext", bump(f, table, digit), "i64")
            if names == ["items"]:
                items.store(f, arrays, place, carried, index)
            else:
                writer.write(place, keys.raw(f, carried), index)
    return Work(rows * chunks_of(length))


# ---- ranks


def emit_rank_count(step: Step) -> Work:
    """Reads the elements and, but for the first time, the state (prefix, rank) of each problem."""
    f, keys = step.f, step.keys
    problems = step.kernel.shapes[-1][0]
    rows, length = _rows_and_length(step)
    number = int(step.words[1])
    counts = step.pointers[-1]
    table = f.alloca("i32", RADIX + 64)
    lanes = step.target.lanes(32)
    type_ = vector_of("i32", lanes)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="chunk") as task:
        problem, first, last = chunk_span(step, task.index, length)
        elements = step.row(0, f.udiv(problem, problems // rows), length)
        known = None
        if len(step.pointers) == 3:
            known = f.load("i64", f.offset(step.pointers[1], f.mul(problem, 2), "i64"), 8)
        clear(f, table, RADIX, step.target)
        with f.loop(first, last, 1, hint="count") as loop:
            key = keys.key(f, keys.load(f, elements, loop.index))
            digit = keys.digit(f, key, number)
            if known is not None:
                alike = f.icmp("eq", higher_digits(f, key, number), known)
                digit = f.select(alike, digit, RADIX)
            bump(f, table, digit)
        result = f.offset(counts, f.mul(task.index, RADIX), "i32")
        with f.loop(0, RADIX, lanes, hint="copy") as loop:
            part = f.load(type_, f.offset(table, loop.index, "i32"), 4)
            f.store(part, f.offset(result, loop.index, "i32"), 4)
    return Work(problems * chunks_of(length))


def emit_rank_narrow(step: Step) -> Work:
    """Finds one more digit of each problem's key.

    places (problem, chunk, 2): how many elements of the chunk lie below the key and, in the end,
    how many equal it; the last time both become where the chunk's begin.
    """
    f, keys, kernel = step.f, step.keys, step.kernel
    number = int(step.words[1])
    first_time, last_time = number == keys.passes - 1, number == 0
    counts, state, places = step.pointers[-3:]
    problems, chunks, _ = kernel.shapes[-1]
    totals = f.alloca("i64", RADIX)
    zero = const("i64", 0)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="problem") as task:
        own_state = f.offset(state, f.mul(task.index, 2), "i64")
        own_places = f.offset(places, f.mul(task.index, chunks * 2), "i64")
        own_counts = f.offset(counts, f.mul(task.index, chunks * RADIX), "i32")
        prefix: Value = zero
        if not first_time:
            prefix = f.load("i64", own_state, 8)
            rank = f.load("i64", f.offset(own_state, 1, "i64"), 8)
        elif kernel.op == "top_k":
            rank = const("i64", kernel.attrs[0] - 1)
        else:
            given = f.load("i64", f.offset(step.pointers[0], task.index, "i64"), 8)
            rank = clamped(f, given, int(step.words[2]))
        _sum_chunks(step, own_counts, totals, chunks)
        bucket, below = bucket_of(
            f, lambda digit: f.load("i64", f.offset(totals, digit, "i64"), 8), rank
        )
        f.store(f.or_(f.shl(prefix, DIGIT_BITS), bucket), own_state, 8)
        f.store(f.sub(rank, below), f.offset(own_state, 1, "i64"), 8)
        with f.loop(0, chunks, 1, carried=[zero, zero], hint="chunk") as chunk:
            line = f.offset(own_counts, f.mul(chunk.index, RADIX), "i32")
            with f.loop(0, bucket, 1, carried=[zero], hint="below") as loop:
                count = f.load("i32", f.offset(line, loop.index, "i32"), 4)
                loop.next = [f.add(loop.carried[0], f.convert("zext", count, "i64"))]
            less_place = f.offset(own_places, f.mul(chunk.index, 2), "i64")
            less = loop.results[0]
            if not first_time:
                less = f.add(less, f.load("i64", less_place, 8))
            less_before, equal_before = chunk.carried
            if last_time:
                f.store(less_before, less_place, 8)
                f.store(equal_before, f.offset(less_place, 1, "i64"), 8)
                equal = f.load("i32", f.offset(line, bucket, "i32"), 4)
                chunk.next = [
                    f.add(less_before, less),
                    f.add(equal_before, f.convert("zext", equal, "i64")),
                ]
            else:
                f.store(less, less_place, 8)
    return Work(problems)


def _sum_chunks(step: Step, counts: Value, totals: Value, chunks: int) -> None:
    f = step.f
    with f.loop(0, RADIX, 1, hint="clear") as loop:
        f.store(const("i64", 0), f.offset(totals, loop.index, "i64"), 8)
    lanes = step.target.lanes(64)
    narrow, wide = vector_of("i32", lanes), vector_of("i64", lanes)
    with f.loop(0, chunks, 1, hint="sum") as chunk:
        line = f.offset(counts, f.mul(chunk.index, RADIX), "i32")
        with f.loop(0, RADIX, lanes, hint="digits") as loop:
            count = f.convert("zext", f.load(narrow, f.offset(line, loop.index, "i32"), 4), wide)
            address = f.offset(totals, loop.index, "i64")
            f.store(f.add(f.load(wide, address, 8), count), address, 8)


def _found(step: Step, problem: Value) -> tuple[Value, Value]:
    """The wanted key of a problem, and how many equal elements come before the wanted one."""
    f = step.f
    own_state = f.offset(step.pointers[1], f.mul(problem, 2), "i64")
    key = f.convert("trunc", f.load("i64", own_state, 8), step.keys.held)
    return key, f.load("i64", f.offset(own_state, 1, "i64"), 8)


def emit_rank_collect(step: Step) -> Work:
    f, keys, kernel = step.f, step.keys, step.kernel
    rows, length = _rows_and_length(step)
    wanted = kernel.shapes[-1][-1]
    items = Items(keys, True)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="chunk") as task:
        row, first, last = chunk_span(step, task.index, length)
        threshold, ties = _found(step, row)
        below = f.sub(wanted - 1, ties)
        place = f.offset(step.pointers[2], f.mul(task.index, 2), "i64")
        less = f.load("i64", place, 8)
        equal = f.add(below, f.load("i64", f.offset(place, 1, "i64"), 8))
        listed = [step.row(3 + number, row, wanted) for number in range(len(items.sizes()))]
        collect(step, items, listed, step.row(0, row, length), (first, last), threshold,
                (less, equal), wanted)
    return Work(rows * chunks_of(length))


def emit_rank_arrange(step: Step) -> Work:
    f, keys, kernel = step.f, step.keys, step.kernel
    rows, wanted = kernel.shapes[0]
    items = Items(keys, True)
    arrays = len(items.sizes())
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="row") as task:
        listed = [step.row(number, task.index, wanted) for number in range(arrays)]
        writer = RowWriter(step, task.index, wanted, ["indices"], arrays)
        arrange(step, items, listed, wanted, step.scratch, writer)
    return Work(rows, 1, digits_scratch(items, wanted))


def emit_rank_locate(step: Step) -> Work:
    f, kernel = step.f, step.kernel
    rows, length = _rows_and_length(step)
    problems = math.prod(kernel.shapes[-1])
    chunks = chunks_of(length)
    zero = const("i64", 0)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="problem") as task:
        key, ties = _found(step, task.index)
        own_places = f.offset(step.pointers[2], f.mul(task.index, chunks * 2), "i64")
        with f.loop(0, chunks, 1, carried=[zero, zero], hint="chunk") as loop:
            before = f.load(
                "i64", f.offset(own_places, f.add(f.mul(loop.index, 2), 1), "i64"), 8
            )
            # the last chunk before which there are not too many: empty ones are passed over
            reached = f.icmp("sle", before, ties)
            loop.next = [
                f.select(reached, loop.index, loop.carried[0]),
                f.select(reached, before, loop.carried[1]),
            ]
        chunk, before = loop.results
        row = f.udiv(task.index, problems // rows)
        _, first, last = chunk_span(step, chunk, length)
        source = step.row(0, row, length)
        found = find_equal(step, source, (first, last), key, f.sub(ties, before))
        f.store(found, f.offset(step.pointers[-1], task.index, "i64"), 8)
    return Work(problems)


STEPS: dict[str, Emit] = {
    "count": emit_count,
    "offsets": emit_offsets,
    "scatter": emit_scatter,
    "rank-count": emit_rank_count,
    "rank-narrow": emit_rank_narrow,
    "rank-collect": emit_rank_collect,
    "rank-arrange": emit_rank_arrange,
    "rank-locate": emit_rank_locate,
}
