"""Elements of given ranks (medians, quantiles) without an order of the whole row: radix selection.

Keys (`llvm/sort_keys.py`) are narrowed by 8 bits at a time, from the highest digit on.  For each
row and each of its ranks:

  digits   a block for each chunk of the row counts, in shared memory, the digits of the elements
           whose higher digits are the chosen ones
  first,   a block adds up the chunks' counts and chooses the digit that the rank falls under; the
  choose   rank is from then on that among the elements with all the chosen digits
  find     of the elements that equal the key, the one whose number the rank is by now, in the
           row's order: ties go by position, as in every sort here

What atomics add up are whole numbers, so their order does not matter.

Counted for the median of 2**22 float32: five readings of the row, 84 MB, in nine launches, where
sorting moves 16 bytes for each element in each of eleven rounds of merging, some 790 MB.  Not
measured on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.points import I64
from lazygrad_compiler.llvm.sort import clamped
from lazygrad_compiler.llvm.sort_keys import DIGIT_BITS, RADIX, Keys
from lazygrad_compiler.loops.arrays import temporary
from lazygrad_compiler.loops.kernel import Launch
from lazygrad_compiler.ptx.arrays import Row, Step
from lazygrad_compiler.ptx.builder import KernelFunction
from lazygrad_compiler.ptx.scan import Running, block_scan
from lazygrad_compiler.ptx.sort_items import keys_of

THREADS = RADIX
"""A thread for each digit, and in `find` one for each chunk."""
EACH = 4
"""Elements that a thread loads before it counts the first."""
CHUNK = 1 << 13
"""Elements of a row that are worth a block."""
MOST_RANKS = 4
"""Of a row: each reads it again, so that for more of them a sort moves less."""

MakeLaunch = Callable[[Node, list[Node], list[Node], str], Launch]


def chunk_of(length: int) -> int:
    """Elements of a chunk: a row has THREADS chunks at most."""
    return max(CHUNK, -(-length // THREADS))


def lower_select(anchor: Node, launch: MakeLaunch) -> list[Launch]:
    source, ranks = anchor.inputs
    launches, counts, known = narrowed(anchor, [ranks], anchor.size, launch)
    return [*launches, launch(anchor, [source, counts, *known], [anchor], "find")]


def narrowed(
    anchor: Node, ranks: list[Node], count: int, launch: MakeLaunch
) -> tuple[list[Launch], Node, list[Node]]:
    """Launches that find the keys at so many ranks, the chunks' counts of the last digit, and
    [keys, each rank among the elements that equal its key].  ranks: none for `top_k`, which ends
    at the same one in each row.
    """
    source = anchor.inputs[0]
    length = source.shape[-1]
    chunks = -(-length // chunk_of(length))
    launches: list[Launch] = []
    known: list[Node] = []
    for digit in reversed(range(Keys(source.dtype, False).passes)):
        counts = temporary(dtypes.uint32, (count, chunks, RADIX))
        launches.append(launch(anchor, [source, *known[:1]], [counts], f"digits {digit}"))
        chosen = [temporary(dtypes.uint64, (count,)), temporary(dtypes.int64, (count,))]
        reads, step = ([counts, *known], "choose") if known else ([counts, *ranks], "first")
        launches.append(launch(anchor, reads, chosen, f"{step} {digit} {length}"))
        known = chosen
    return launches, counts, known


class Chunk:
    """A part of a row that a block goes through."""

    def __init__(self, step: Step, item: Value, chunk: Value, items: int) -> None:
        f, self.keys = step.f, keys_of(step)
        self.f: KernelFunction = f
        *rows, length = step.kernel.shapes[0]
        size = chunk_of(length)
        row = f.udiv(item, items // math.prod(rows))
        self.source = f.offset(step.pointers[0], f.mul(row, length), self.keys.stored)
        self.first = f.mul(chunk, size)
        end = f.add(self.first, size)
        self.end = f.select(f.icmp("slt", end, length), end, const(I64, length))

    def key(self, place: Value) -> tuple[Value, Value]:
        """(key of the element, whether the place lies in the chunk)."""
        f = self.f
        there = f.icmp("slt", place, self.end)
        carried = self.keys.load(f, self.source, f.select(there, place, self.first))
        return self.keys.key(f, carried), there

    def known(self, prefix: Value) -> Value:
        """The chosen digits in the type of a key."""
        return prefix if self.keys.held == I64 else self.f.convert("trunc", prefix, "i32")


def word(f: KernelFunction, array: Value, place: Value) -> Value:
    return f.load(I64, f.offset(array, place, I64), 8)


def _digits(step: Step) -> int:
    f, digit = step.f, int(step.words[1])
    items, chunks, _ = step.kernel.shapes[-1]
    block, thread = f.wide(f.block()), f.thread()
    item = f.udiv(block, chunks)
    part = Chunk(step, item, f.urem(block, chunks), items)
    bins = f.shared_address(f.module.shared(4 * RADIX))
    f.store(const("i32", 0), f.offset(bins, thread, "i32"), 4)
    f.barrier()
    shift = DIGIT_BITS * digit
    above = None
    if len(step.pointers) == 3:
        above = f.lshr(part.known(word(f, step.pointers[1], item)), shift + DIGIT_BITS)
    with f.loop(part.first, part.end, THREADS * EACH, hint="round") as round_:
        mine = f.add(round_.index, f.wide(thread))
        found = [part.key(f.add(mine, k * THREADS) if k else mine) for k in range(EACH)]
        for key, there in found:
            if above is not None:
                there = f.and_(there, f.icmp("eq", f.lshr(key, shift + DIGIT_BITS), above))
            number = f.and_(f.lshr(key, shift) if shift else key, RADIX - 1)
            if number.type == I64:
                number = f.convert("trunc", number, "i32")
            with f.when(there, "count"):
                f.atomic("add", f.offset(bins, number, "i32"), const("i32", 1))
    f.barrier()
    total = f.load("i32", f.offset(bins, thread, "i32"), 4)
    place = f.add(f.mul(block, RADIX), f.wide(thread))
    f.store(total, f.offset(step.pointers[-1], place, "i32"), 4)
    return items * chunks


def _choose(step: Step) -> int:
    f, digit, length = step.f, int(step.words[1]), int(step.words[2])
    items, chunks, _ = step.kernel.shapes[0]
    counts, *known, prefixes, ranks = step.pointers
    item, thread = f.wide(f.block()), f.wide(f.thread())
    start = f.add(f.mul(item, chunks * RADIX), thread)
    with f.loop(0, chunks, 1, [const(I64, 0)], "chunk") as loop:
        place = f.add(start, f.mul(loop.index, RADIX))
        count = f.wide(f.load("i32", f.offset(counts, place, "i32"), 4))
        loop.next = [f.add(loop.carried[0], count)]
    total = loop.results[0]
    before, _ = block_scan(Running(f, "add", dtypes.int64), THREADS, total)
    prefix = const(I64, 0)
    if step.words[0] == "choose":
        prefix, rank = (word(f, array, item) for array in known)
    elif known:
        rank = clamped(f, word(f, known[0], item), length)
    else:
        rank = const(I64, step.kernel.attrs[0] - 1)  # the last of the first k
    after = f.add(before, total)
    with f.when(f.and_(f.icmp("sle", before, rank), f.icmp("slt", rank, after)), "mine"):
        chosen = f.or_(prefix, f.shl(thread, DIGIT_BITS * digit) if digit else thread)
        f.store(chosen, f.offset(prefixes, item, I64), 8)
        f.store(f.sub(rank, before), f.offset(ranks, item, I64), 8)
    return items


def _find(step: Step) -> int:
    f = step.f
    items, chunks, _ = step.kernel.shapes[1]
    _, counts, prefixes, ranks, result = step.pointers
    item, thread = f.wide(f.block()), f.wide(f.thread())
    prefix, rank = word(f, prefixes, item), word(f, ranks, item)
    # the lowest digit's counts are those of elements that equal the key
    there = f.icmp("slt", thread, chunks)
    chunk = f.add(f.mul(item, chunks), f.select(there, thread, const(I64, 0)))
    place = f.add(f.mul(chunk, RADIX), f.and_(prefix, RADIX - 1))
    count = f.wide(f.load("i32", f.offset(counts, place, "i32"), 4))
    count = f.select(there, count, const(I64, 0))
    before, _ = block_scan(Running(f, "add", dtypes.int64), THREADS, count)
    shared = f.shared_address(f.module.shared(16))
    inside = f.and_(f.icmp("sle", before, rank), f.icmp("slt", rank, f.add(before, count)))
    with f.when(inside, "mine"):
        f.store(thread, shared, 8)
        f.store(f.sub(rank, before), f.offset(shared, 1, I64), 8)
    f.barrier()
    part = Chunk(step, item, f.load(I64, shared, 8), items)
    wanted, number = part.known(prefix), f.load(I64, f.offset(shared, 1, I64), 8)
    running = Running(f, "add", dtypes.int32)
    with f.loop(part.first, part.end, THREADS, [const(I64, 0)], "round") as loop:
        position = f.add(loop.index, thread)
        key, present = part.key(position)
        equal = f.and_(present, f.icmp("eq", key, wanted))
        earlier, some = block_scan(running, THREADS, f.convert("zext", equal, "i32"))
        own = f.add(loop.carried[0], f.wide(earlier))
        with f.when(f.and_(equal, f.icmp("eq", own, number)), "found"):
            f.store(position, f.offset(result, item, I64), 8)
        loop.next = [f.add(loop.carried[0], f.wide(some))]
        f.barrier()
    return items


STEPS = {
    "digits": Row(THREADS, _digits),
    "first": Row(THREADS, _choose),
    "choose": Row(THREADS, _choose),
    "find": Row(THREADS, _find),
}
