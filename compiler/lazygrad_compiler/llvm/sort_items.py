"""Half-sorted rows in memory, and the ways to sort one row: by rank and by digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lazygrad_compiler.llvm.builder import Function, Value, const, const_lanes, vector_of
from lazygrad_compiler.llvm.sort_keys import DIGIT_BITS, RADIX, Keys
from lazygrad_compiler.loops.sort import item_dtypes
from lazygrad_compiler.target import Target

Read = Callable[[Value], tuple[Value, Value]]
"""Position -> (carried number, index as i64)."""
Finish = Callable[[Value, Value, Value], None]
"""(sorted position, carried number, index): what becomes of an element."""

UNROLLED = 4


@dataclass(frozen=True, slots=True)
class Items:
    """Rows of carried numbers, each with the position that it came from if `indexed`.

    A 32-bit number and its position are one 64-bit number, so that moving them is one store.
    """

    keys: Keys
    indexed: bool

    @property
    def packed(self) -> bool:
        return self.indexed and self.keys.held == "i32"

    def sizes(self) -> tuple[int, ...]:
        """Bytes of an element in each array."""
        return tuple(dtype.itemsize for dtype in item_dtypes(self.keys.dtype, self.indexed))

    def bytes(self, count: int) -> int:
        """Memory for a row, each array on a boundary of 64 bytes."""
        return sum(-(-size * count // 64) * 64 for size in self.sizes())

    def arrays(self, f: Function, base: Value, count: int) -> list[Value]:
        """The arrays of a row of `count` in one piece of memory."""
        result, offset = [], 0
        for size in self.sizes():
            result.append(f.offset(base, offset, "i8") if offset else base)
            offset += -(-size * count // 64) * 64
        return result

    def load(self, f: Function, arrays: Sequence[Value], position: Value) -> tuple[Value, Value]:
        """Carried number and index (0 where there is none)."""
        if self.packed:
            both = f.load("i64", f.offset(arrays[0], position, "i64"), 8)
            carried = f.convert("trunc", f.lshr(both, 32), "i32")
            return carried, f.and_(both, 0xFFFFFFFF)
        held, size = self.keys.held, self.keys.held_bytes
        carried = f.load(held, f.offset(arrays[0], position, held), size)
        if not self.indexed:
            return carried, const("i64", 0)
        index = f.load("i32", f.offset(arrays[1], position, "i32"), 4)
        return carried, f.convert("zext", index, "i64")

    def store(
        self, f: Function, arrays: Sequence[Value], position: Value, carried: Value, index: Value
    ) -> None:
        if self.packed:
            both = f.or_(f.shl(f.convert("zext", carried, "i64"), 32), index)
            f.store(both, f.offset(arrays[0], position, "i64"), 8)
            return
        held, size = self.keys.held, self.keys.held_bytes
        f.store(carried, f.offset(arrays[0], position, held), size)
        if self.indexed:
            index = f.convert("trunc", index, "i32")
            f.store(index, f.offset(arrays[1], position, "i32"), 4)


def clear(f: Function, table: Value, count: int, target: Target) -> None:
    """Zeros into a table of 32-bit counts."""
    lanes = min(target.lanes(32), count)
    with f.loop(0, count, lanes, hint="clear") as loop:
        f.store(const(vector_of("i32", lanes), 0), f.offset(table, loop.index, "i32"), 4)


def bump(f: Function, table: Value, place: Value) -> Value:
    """Adds 1 to a 32-bit count; gives what it was."""
    address = f.offset(table, place, "i32")
    old = f.load("i32", address, 4)
    f.store(f.add(old, 1), address, 4)
    return old


def longest_by_rank(keys: Keys, target: Target) -> int:
    """Elements up to which comparing each with each beats sorting by digits: the cost of the one
    grows with n * n / lanes, that of the other with the number of digits.
    """
    lanes = target.lanes(8 * keys.held_bytes)
    return (16 if keys.held == "i64" else 10) * lanes


def sort_by_rank(
    f: Function,
    keys: Keys,
    target: Target,
    count: int,
    key_lanes: Callable[[Value, int, Value | None], Value],
    finish: Callable[[Value, Value], None],
) -> None:
    """The rank of an element is how many are smaller, or equal and earlier: no branch, no move.

    key_lanes(first, lanes, mask): keys of neighbours.  finish(position, rank) for each element.
    Quadratic, but a vector of ranks against one key takes two instructions.
    """
    held, size = keys.held, keys.held_bytes
    lanes = target.lanes(8 * size)
    vector = vector_of(held, lanes)
    padded = -(-count // lanes) * lanes
    table, ranks = f.alloca(held, padded), f.alloca(held, padded)
    whole = count // lanes * lanes
    if whole:
        with f.loop(0, whole, lanes, hint="keys") as loop:
            key = key_lanes(loop.index, lanes, None)
            f.store(key, f.offset(table, loop.index, held), size)
    if whole < count:
        mask = const_lanes("i1", [whole + lane < count for lane in range(lanes)])
        rest = key_lanes(const("i64", whole), lanes, mask)
        # behind everything else, and never before anything
        rest = f.select(mask, rest, const(vector, -1))
        f.store(rest, f.offset(table, whole, held), size)
    numbers = const_lanes(held, range(lanes))
    step = min(lanes, UNROLLED)

    def sweep(
        begin: Value, end: Value, rank: Value, ahead: Callable[[Value, Value], Value]
    ) -> Value:
        with f.loop(begin, end, step, carried=[rank], hint="against") as loop:
            total = loop.carried[0]
            for place in range(step):
                at = f.add(loop.index, place) if place else loop.index
                other = f.splat(f.load(held, f.offset(table, at, held), size), lanes)
                total = f.add(total, f.convert("zext", ahead(other, at), total.type))
            loop.next = [total]
        return loop.results[0]

    with f.loop(0, padded, lanes, hint="block") as block:
        mine = f.load(vector, f.offset(table, block.index, held), size)
        here = f.add(f.splat(f.convert("trunc", block.index, held), lanes), numbers)
        after = f.add(block.index, lanes)

        def tie(other: Value, at: Value, mine: Value = mine, here: Value = here) -> Value:
            earlier = f.icmp("ult", f.splat(f.convert("trunc", at, held), lanes), here)
            same = f.icmp("eq", other, mine)
            return f.or_(f.icmp("ult", other, mine), f.and_(same, earlier))

        def not_larger(other: Value, at: Value, mine: Value = mine) -> Value:
            return f.icmp("ule", other, mine)

        def smaller(other: Value, at: Value, mine: Value = mine) -> Value:
            return f.icmp("ult", other, mine)

        rank = const(vector, 0)
        if padded > lanes:
            rank = sweep(const("i64", 0), block.index, rank, not_larger)
        rank = sweep(block.index, after, rank, tie)
        if padded > lanes:
            rank = sweep(after, const("i64", padded), rank, smaller)
        f.store(rank, f.offset(ranks, block.index, held), size)
    with f.loop(0, count, 1, hint="ranked") as loop:
        rank = f.load(held, f.offset(ranks, loop.index, held), size)
        finish(loop.index, f.convert("zext", rank, "i64"))


def prefix_sums(f: Function, table: Value, first: int) -> None:
    """RADIX counts from place `first` on become how many come before each digit."""
    with f.loop(first, first + RADIX, 1, carried=[const("i32", 0)], hint="prefix") as loop:
        address = f.offset(table, loop.index, "i32")
        count = f.load("i32", address, 4)
        f.store(loop.carried[0], address, 4)
        loop.next = [f.add(loop.carried[0], count)]


def digits_scratch(items: Items, count: int) -> int:
    """Bytes that `sort_by_digits` needs."""
    return 2 * items.bytes(count)


def sort_by_digits(
    f: Function,
    items: Items,
    target: Target,
    count: int,
    scratch: Value,
    read: Read,
    finish: Finish,
) -> None:
    """Least significant digit first, from one half of the scratch memory to the other and back.

    All digits are counted in one go; a digit that is the same everywhere is skipped.
    """
    keys = items.keys
    counts = f.alloca("i32", keys.passes * RADIX)
    clear(f, counts, keys.passes * RADIX, target)
    other = f.offset(scratch, items.bytes(count), "i8")
    first = items.arrays(f, scratch, count)
    with f.loop(0, count, 1, hint="fill") as loop:
        carried, index = read(loop.index)
        items.store(f, first, loop.index, carried, index)
        key = keys.key(f, carried)
        for number in range(keys.passes):
            digit = keys.digit(f, key, number)
            bump(f, counts, f.add(digit, number * RADIX) if number else digit)
    source, target_slot = f.alloca("ptr", 1), f.alloca("ptr", 1)
    f.store(scratch, source, 8)
    f.store(other, target_slot, 8)
    for number in range(keys.passes):
        start, end = f.load("ptr", source, 8), f.load("ptr", target_slot, 8)
        old, new = items.arrays(f, start, count), items.arrays(f, end, count)
        sample, _ = items.load(f, old, const("i64", 0))
        digit = f.add(keys.digit(f, keys.key(f, sample), number), number * RADIX)
        alike = f.load("i32", f.offset(counts, digit, "i32"), 4)
        with f.when(f.icmp("ne", alike, count), "pass"):
            prefix_sums(f, counts, number * RADIX)
            with f.loop(0, count, 1, hint="move") as loop:
                carried, index = items.load(f, old, loop.index)
                digit = keys.digit(f, keys.key(f, carried), number)
                place = bump(f, counts, f.add(digit, number * RADIX))
                items.store(f, new, f.convert("zext", place, "i64"), carried, index)
            f.store(end, source, 8)
            f.store(start, target_slot, 8)
    done = items.arrays(f, f.load("ptr", source, 8), count)
    with f.loop(0, count, 1, hint="finish") as loop:
        carried, index = items.load(f, done, loop.index)
        finish(loop.index, carried, index)


def bucket_of(
    f: Function, load_count: Callable[[Value], Value], rank: Value
) -> tuple[Value, Value]:
    """The digit under which the element of a rank (from 0) lies, and how many lie below it.

    load_count(digit) gives an i64.  Looks at all digits: no branch to guess wrong.
    """
    zero = const("i64", 0)
    with f.loop(0, RADIX, 1, carried=[zero, zero, zero], hint="bucket") as loop:
        total, bucket, below = loop.carried
        total = f.add(total, load_count(loop.index))
        passed = f.icmp("sle", total, rank)
        loop.next = [
            total,
            f.add(bucket, f.convert("zext", passed, "i64")),
            f.select(passed, total, below),
        ]
    return loop.results[1], loop.results[2]


def higher_digits(f: Function, key: Value, number: int) -> Value:
    """The part of a key above digit `number`, as i64; all of it but for that may be 0."""
    shift = (number + 1) * DIGIT_BITS
    if shift >= int(key.type[1:]):
        return const("i64", 0)
    return f.convert("zext", f.lshr(key, shift), "i64")
