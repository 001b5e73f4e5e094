"""Emission of top_k: the first elements of a row's order without the order of the rest.

Few of many: a row, or a chunk of a long one, is scanned a vector at a time for elements that come
before the worst of the best so far.  They are put into a buffer; when it is full the best are
kept, by rank.  Each clearing makes room for half of the buffer at least, so that even a row in
the worst order takes time linear in its length.  The best of the chunks are sorted in the end.

A long span is gone through for limits first: its elements are dealt out to groups, and the best of
each are compared.  If n are wanted, n groups have an element no worse than the n-th best of those,
so nothing behind that is looked at; of 32,000 random elements some 60 are left where 50 are
wanted and there are 128 groups, where the scan alone took 600, each a branch foretold wrongly, and
cleared the buffer six times.  The best of each block of vectors are kept, too, so that the scan
looks at those only and at the blocks that pass.  50 of 256 rows of 32,000: 0.88 ms
instead of 1.86 on two cores of Zen 5, of rows in ascending order 0.76 instead of 34, of equal
elements 0.71 instead of 0.63; 10 of 4096 rows of 1000: 0.96 instead of 3.9.

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
LIMITED, LEAST_GROUPS = 16, 32
"""Elements for each group from which on a span is gone through for limits first; and the fewest
groups.
"""


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


def is_limited(wanted: int, span: int) -> bool:
    """Whether a span of so many elements is gone through for limits first."""
    return span >= LIMITED * grouped(wanted)


def grouped(wanted: int) -> int:
    """Groups whose best are compared.  For n wanted of 2 n groups some 1.4 n elements pass."""
    return max(LEAST_GROUPS, 2 << (wanted - 1).bit_length())


def limits_scratch(step: Step, wanted: int, span: int) -> int:
    """Bytes of scratch memory that `top_of_span` needs."""
    return span // BLOCK * step.keys.held_bytes if is_limited(wanted, span) else 0


def limit_of_span(
    step: Step, source: Value, first: Value, whole: Value, wanted: int, limits: Value
) -> Value:
    """A key that as many elements as are wanted do not come behind.  limits: where the best of each
    block's lanes go; first..whole-1: whole blocks.
    """
    f, keys = step.f, step.keys
    held, nbytes = keys.held, keys.held_bytes
    lanes, groups = step.target.lanes(8 * nbytes), grouped(wanted)
    type_ = vector_of(held, lanes)
    best, found = f.alloca(held, groups), f.alloca(held, 1)
    with f.loop(0, groups, lanes, hint="start") as loop:
        f.store(const(type_, -1), f.offset(best, loop.index, held), nbytes)
    key_lanes = key_lanes_of(step, source)
    with f.loop(first, whole, BLOCK * lanes, hint="limits") as loop:
        vectors = [key_lanes(f.add(loop.index, n * lanes), lanes, None) for n in range(BLOCK)]
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [f.overloaded("llvm.umin", a, b) for a, b in pairs]
        place = f.udiv(f.sub(loop.index, first), BLOCK)
        f.store(vectors[0], f.offset(limits, place, held), nbytes)
        group = f.offset(best, f.urem(place, groups), held)
        f.store(f.overloaded("llvm.umin", vectors[0], f.load(type_, group, nbytes)), group, nbytes)

    def read(place: Value, lanes: int, mask: Value | None) -> Value:
        return f.load(vector_of(held, lanes), f.offset(best, place, held), nbytes)

    def keep(place: Value, rank: Value) -> None:
        with f.when(f.icmp("eq", rank, wanted - 1), "limit"):
            f.store(f.load(held, f.offset(best, place, held), nbytes), found, nbytes)

    sort_by_rank(f, keys, step.target, groups, read, keep)
    return f.load(held, found, nbytes)


def top_of_span(
    step: Step, source: Value, first: Value, last: Value, wanted: int, span: int
) -> Flat:
    """The best `wanted` of the elements first..last-1, in order; there have to be as many.  span:
    the most that there can be.
    """
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

    def clear_buffer(room: int = room) -> None:
        """Keeps the best of so many at most; a later element that equals the worst of them cannot
        get in.
        """
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

    def before_limit(key: Value) -> Value:
        limit = f.splat(f.load(held, limit_slot, keys.held_bytes), lanes)
        open_ = f.splat(f.icmp("ne", f.load("i64", open_slot, 8), 0), lanes)
        return f.or_(f.icmp("ult", key, limit), open_)

    def any_of(mask: Value) -> Value:
        return f.icmp("ne", f.bitcast(mask, f"i{lanes}"), 0) if lanes > 1 else mask

    def scan(begin: Value) -> None:
        """One block."""
        hits = []
        for part in range(BLOCK):
            place = f.add(begin, part * lanes)
            hits.append((place, before_limit(key_lanes_of(step, source)(place, lanes, None))))
        some = hits[0][1]
        for _, better in hits[1:]:
            some = f.or_(some, better)
        with f.when(any_of(some), "hit"):
            for place, better in hits:
                consider_lanes(place, better)

    size = BLOCK * lanes
    whole = f.add(first, f.mul(f.udiv(f.sub(last, first), size), size))
    if is_limited(wanted, span):
        limits = step.scratch
        worst = limit_of_span(step, source, first, whole, wanted, limits)
        f.store(f.add(worst, 1), limit_slot, keys.held_bytes)  # what equals it is taken
        f.store(f.convert("zext", f.icmp("eq", worst, -1), "i64"), open_slot, 8)
        type_ = vector_of(held, lanes)
        with f.loop(first, whole, size, hint="blocks") as block:
            place = f.offset(limits, f.udiv(f.sub(block.index, first), BLOCK), held)
            with f.when(any_of(before_limit(f.load(type_, place, keys.held_bytes))), "block"):
                scan(block.index)
    else:
        with f.loop(first, whole, size, hint="scan") as block:
            scan(block.index)
    with f.loop(whole, last, 1, hint="rest") as loop:
        consider(loop.index)
    likely = max(-(-3 * wanted // (2 * lanes)) * lanes, 2 * lanes)
    if 4 * likely <= 3 * room:  # mostly no more have passed, and ranks are quadratic
        fits = f.icmp("sle", f.load("i64", count_slot, 8), likely)
        with f.when(fits, "fits"):
            clear_buffer(likely)
        with f.when(f.not_(fits), "more"):
            clear_buffer()
    else:
        clear_buffer()
    return best


def emit_top_chunks(step: Step) -> Work:
    """Step `top-chunks`: the best of each chunk, as items (row, chunk, k)."""
    f, keys = step.f, step.keys
    shape = step.kernel.shapes[0]
    rows, length, wanted = math.prod(shape[:-1]), shape[-1], step.kernel.attrs[0]
    items = Items(keys, True)
    span = -(-length // chunks_of(length))
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="chunk") as task:
        row, first, last = chunk_span(step, task.index, length)
        best = top_of_span(step, step.row(0, row, length), first, last, wanted, span)
        listed = [step.row(1 + n, task.index, wanted) for n in range(len(items.sizes()))]
        with f.loop(0, wanted, 1, hint="best") as loop:
            items.store(f, listed, loop.index, best.carried(loop.index), best.index(loop.index))
    return Work(rows * chunks_of(length), 1, limits_scratch(step, wanted, span))


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
        flat = top_of_span(step, source, const("i64", 0), const("i64", length), wanted, length)
        with f.loop(0, wanted, 1, hint="best") as loop:
            writer.write(loop.index, None, flat.index(loop.index))
        return limits_scratch(step, wanted, length)
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
