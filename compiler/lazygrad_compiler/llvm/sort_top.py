"""Emission of top_k: the first elements of a row's order without the order of the rest.

Few of many: a row, or a chunk of a long one, is scanned a vector at a time for elements that come
before the worst of the best so far.  They are put into a buffer; when it is full the best are
kept, by rank.  Each clearing makes room for half of the buffer at least, so that even a row in
the worst order takes time linear in its length.  The best of the chunks are sorted in the end.

More: the key of the last element wanted is found digit by digit, what comes before it is
collected, and only that is sorted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.builder import Function, Value, const, const_lanes, vector_of
from lazygrad_compiler.llvm.sort import (
    Emit,
    RowWriter,
    Step,
    chunk_span,
    key_lanes_of,
    key_of_rank,
    reader_of,
)
from lazygrad_compiler.llvm.sort_items import (
    Items,
    digits_scratch,
    longest_by_rank,
    sort_by_digits,
    sort_by_rank,
)
from lazygrad_compiler.llvm.sort_keys import Keys
from lazygrad_compiler.loops.sort import buffered, chunks_of, is_few

BLOCK = 4
"""Vectors that are looked at in one go."""


@dataclass(frozen=True, slots=True)
class Flat:
    """Carried numbers and positions in two arrays of their own."""

    f: Function
    keys: Keys
    numbers: Value
    positions: Value

    def carried(self, place: Value) -> Value:
        held = self.keys.held
        return self.f.load(held, self.f.offset(self.numbers, place, held), self.keys.held_bytes)

    def index(self, place: Value) -> Value:
        return self.f.load("i64", self.f.offset(self.positions, place, "i64"), 8)

    def store(self, place: Value, carried: Value, index: Value) -> None:
        f, held = self.f, self.keys.held
        f.store(carried, f.offset(self.numbers, place, held), self.keys.held_bytes)
        f.store(index, f.offset(self.positions, place, "i64"), 8)


def top_of_span(step: Step, source: Value, first: Value, last: Value, wanted: int) -> Flat:
    """The best `wanted` of the elements first..last-1, in order; there have to be as many."""
    f, keys = step.f, step.keys
    lanes = step.target.lanes(8 * keys.held_bytes)
    held, zero, one = keys.held, const("i64", 0), const("i64", 1)
    room = buffered(wanted)
    waiting = Flat(f, keys, f.alloca(held, room), f.alloca("i64", room))
    best = Flat(f, keys, f.alloca(held, wanted), f.alloca("i64", wanted))
    count_slot, open_slot, limit_slot = (f.alloca("i64", 1) for _ in range(3))
    f.store(zero, count_slot, 8)
    f.store(one, open_slot, 8)  # until the buffer was full once everything is taken
    f.store(const(held, 0), limit_slot, keys.held_bytes)

    def clear_buffer() -> None:
        """Keeps the best; a later element that equals the worst of them cannot get in."""
        count = f.load("i64", count_slot, 8)

        def waiting_keys(place: Value, lanes: int, mask: Value | None) -> Value:
            type_ = vector_of(held, lanes)
            carried = f.load(type_, f.offset(waiting.numbers, place, held), keys.held_bytes)
            there = f.icmp(
                "slt",
                f.add(f.splat(place, lanes), const_lanes("i64", range(lanes))),
                f.splat(count, lanes),
            )
            return f.select(there, keys.key(f, carried), -1)

        def keep(place: Value, rank: Value) -> None:
            with f.when(f.icmp("slt", rank, wanted), "keep"):
                best.store(rank, waiting.carried(place), waiting.index(place))

        sort_by_rank(f, keys, step.target, room, waiting_keys, keep)
        with f.loop(0, wanted, 1, hint="back") as loop:
            waiting.store(loop.index, best.carried(loop.index), best.index(loop.index))
        worst = keys.key(f, best.carried(const("i64", wanted - 1)))
        f.store(worst, limit_slot, keys.held_bytes)
        f.store(const("i64", wanted), count_slot, 8)
        f.store(zero, open_slot, 8)

    def consider(place: Value) -> None:
        """Takes the element, unless the limit has moved past it meanwhile."""
        carried = keys.load(f, source, place)
        limit = f.load(held, limit_slot, keys.held_bytes)
        better = f.icmp("ult", keys.key(f, carried), limit)
        better = f.or_(better, f.icmp("ne", f.load("i64", open_slot, 8), 0))
        with f.when(better, "take"):
            count = f.load("i64", count_slot, 8)
            waiting.store(count, carried, place)
            f.store(f.add(count, 1), count_slot, 8)
            with f.when(f.icmp("eq", count, room - 1), "full"):
                clear_buffer()

    def consider_lanes(place: Value, better: Value) -> None:
        """Those of a vector that the mask names, in order."""
        word = f.convert("zext", f.bitcast(better, f"i{lanes}"), "i64") if lanes > 1 else (
            f.convert("zext", better, "i64"))
        with f.loop(0, f.overloaded("llvm.ctpop", word), 1, [word], "bit") as bit:
            (left,) = bit.carried
            lane = f.intrinsic("llvm.cttz.i64", "i64", left, Value("i1", "true"))
            consider(f.add(place, lane))
            bit.next = [f.and_(left, f.sub(left, 1))]

    size = BLOCK * lanes
    whole = f.add(first, f.mul(f.udiv(f.sub(last, first), size), size))
    with f.loop(first, whole, size, hint="scan") as block:
        limit = f.splat(f.load(held, limit_slot, keys.held_bytes), lanes)
        open_ = f.splat(f.icmp("ne", f.load("i64", open_slot, 8), 0), lanes)
        hits = []
        for part in range(BLOCK):
            place = f.add(block.index, part * lanes)
            better = f.icmp("ult", key_lanes_of(step, source)(place, lanes, None), limit)
            hits.append((place, f.or_(better, open_)))
        some = hits[0][1]
        for _, better in hits[1:]:
            some = f.or_(some, better)
        found = f.icmp("ne", f.bitcast(some, f"i{lanes}"), 0) if lanes > 1 else some
        with f.when(found, "hit"):
            for place, better in hits:
                consider_lanes(place, better)
    with f.loop(whole, last, 1, hint="rest") as loop:
        consider(loop.index)
    clear_buffer()
    return best


def emit_top_chunks(step: Step) -> Work:
    """Step `top-chunks`: the best of each chunk, as items (row, chunk, k)."""
    f, keys = step.f, step.keys
    shape = step.kernel.shapes[0]
    rows, length, wanted = math.prod(shape[:-1]), shape[-1], step.kernel.attrs[0]
    items = Items(keys, True)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="chunk") as task:
        row, first, last = chunk_span(step, task.index, length)
        best = top_of_span(step, step.row(0, row, length), first, last, wanted)
        listed = [step.row(1 + n, task.index, wanted) for n in range(len(items.sizes()))]
        with f.loop(0, wanted, 1, hint="best") as loop:
            items.store(f, listed, loop.index, best.carried(loop.index), best.index(loop.index))
    return Work(rows * chunks_of(length))


def emit_top_merge(step: Step) -> Work:
    """Step `top-merge`: the best of the chunks' best."""
    f, keys, kernel = step.f, step.keys, step.kernel
    rows, chunks, wanted = kernel.shapes[0]
    items = Items(keys, True)
    arrays, count = len(items.sizes()), chunks * wanted
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="row") as task:
        listed = [step.row(number, task.index, count) for number in range(arrays)]
        writer = RowWriter(step, task.index, wanted, ["indices"], arrays)

        def finish(
            position: Value, carried: Value, index: Value, writer: RowWriter = writer
        ) -> None:
            with f.when(f.icmp("slt", position, wanted), "wanted"):
                writer.write(position, None, index)

        def read(position: Value, listed: list[Value] = listed) -> tuple[Value, Value]:
            return items.load(f, listed, position)

        sort_by_digits(f, items, step.target, count, step.scratch, read, finish)
    return Work(rows, 1, digits_scratch(items, count))


def top_row(step: Step, row: Value, length: int, wanted: int) -> int:
    f, keys = step.f, step.keys
    source = step.row(0, row, length)
    writer = RowWriter(step, row, wanted, ["indices"], 1)

    def inside(position: Value, index: Value) -> None:
        with f.when(f.icmp("slt", position, wanted), "wanted"):
            writer.write(position, None, index)

    if length <= longest_by_rank(keys, step.target):
        sort_by_rank(f, keys, step.target, length, key_lanes_of(step, source),
                     lambda position, rank: inside(rank, position))
        return 0
    items = Items(keys, True)
    if 2 * wanted > length:
        sort_by_digits(f, items, step.target, length, step.scratch, reader_of(step, source),
                       lambda position, carried, index: inside(position, index))
        return digits_scratch(items, length)
    if is_few(wanted, length):
        flat = top_of_span(step, source, const("i64", 0), const("i64", length), wanted)
        with f.loop(0, wanted, 1, hint="best") as loop:
            writer.write(loop.index, None, flat.index(loop.index))
        return 0
    threshold, ties = key_of_rank(step, source, length, const("i64", wanted - 1))
    below = f.sub(wanted - 1, ties)
    listed = items.arrays(f, step.scratch, wanted)
    collect(step, items, listed, source, (const("i64", 0), const("i64", length)), threshold,
            (const("i64", 0), below), wanted)
    rest = f.offset(step.scratch, items.bytes(wanted), "i8")
    arrange(step, items, listed, wanted, rest, writer)
    return items.bytes(wanted) + digits_scratch(items, wanted)


def collect(
    step: Step,
    items: Items,
    listed: list[Value],
    source: Value,
    span: tuple[Value, Value],
    threshold: Value,
    starts: tuple[Value, Value],
    wanted: int,
) -> None:
    """Appends the elements below the threshold, and those equal to it while there is room.

    starts: where in the list the ones and the others go.
    """
    f, keys = step.f, step.keys
    less_slot, equal_slot = f.alloca("i64", 1), f.alloca("i64", 1)
    f.store(starts[0], less_slot, 8)
    f.store(starts[1], equal_slot, 8)
    with f.loop(*span, 1, hint="collect") as loop:
        carried = keys.load(f, source, loop.index)
        key = keys.key(f, carried)
        with f.when(f.icmp("ule", key, threshold), "candidate"):
            less = f.icmp("ult", key, threshold)
            at_less, at_equal = f.load("i64", less_slot, 8), f.load("i64", equal_slot, 8)
            place = f.select(less, at_less, at_equal)
            step_less = f.convert("zext", less, "i64")
            f.store(f.add(at_less, step_less), less_slot, 8)
            f.store(f.sub(f.add(at_equal, 1), step_less), equal_slot, 8)
            with f.when(f.icmp("slt", place, wanted), "room"):
                items.store(f, listed, place, carried, loop.index)


def arrange(
    step: Step, items: Items, listed: list[Value], wanted: int, scratch: Value, writer: RowWriter
) -> None:
    """Sorts the list of a row and writes the indices."""
    f, keys = step.f, step.keys
    if wanted <= longest_by_rank(keys, step.target):
        lanes = step.target.lanes(8 * keys.held_bytes)
        flat = f.alloca(keys.held, -(-wanted // lanes) * lanes)
        with f.loop(0, wanted, 1, hint="flat") as loop:
            carried, _ = items.load(f, listed, loop.index)
            place = f.offset(flat, loop.index, keys.held)
            f.store(keys.key(f, carried), place, keys.held_bytes)

        def key_lanes(first: Value, lanes: int, mask: Value | None) -> Value:
            type_ = f"<{lanes} x {keys.held}>" if lanes > 1 else keys.held
            return f.load(type_, f.offset(flat, first, keys.held), keys.held_bytes)

        def place_index(position: Value, rank: Value) -> None:
            writer.write(rank, None, items.load(f, listed, position)[1])

        sort_by_rank(f, keys, step.target, wanted, key_lanes, place_index)
        return
    sort_by_digits(f, items, step.target, wanted, scratch,
                   lambda position: items.load(f, listed, position),
                   lambda position, carried, index: writer.write(position, None, index))


STEPS: dict[str, Emit] = {"top-chunks": emit_top_chunks, "top-merge": emit_top_merge}
