"""The first k of long rows without an order of the whole: where they end is selected (`select.py`).

  digits, first, choose   find the key of the last of them, and how many that equal it are theirs
  below                   each chunk's elements before that key are counted
  gather                  a block for each chunk puts its items behind those of the chunks before;
                          of the ties the first ones of the row are taken, as a stable sort does

What was gathered is then sorted (`sort.py`).  No atomic says where anything goes.

Which way a row is taken rests on counting, not on a GPU: bytes at the device's bandwidth, a launch
as LAUNCH of them, and for a bitonic tile the shared memory that its steps move.  The 2,000 largest
of 2**22 float32 are six readings of the row, 101 MB, and some 13 launches, where the whole order
takes eleven merges, 790 MB; the 50 largest of 50,000 are best taken by tiles.
"""

from __future__ import annotations

import math

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.llvm.builder import const
from lazygrad_compiler.llvm.points import I64
from lazygrad_compiler.llvm.sort_keys import RADIX, Keys
from lazygrad_compiler.loops.arrays import temporary
from lazygrad_compiler.loops.kernel import Launch
from lazygrad_compiler.ptx.arrays import Row, Step
from lazygrad_compiler.ptx.scan import Running, block_scan
from lazygrad_compiler.ptx.select import (
    EACH,
    THREADS,
    Chunk,
    MakeLaunch,
    chunk_of,
    narrowed,
    word,
)
from lazygrad_compiler.ptx.sort_items import Items, item_dtypes

LAUNCH = 4 << 20
"""Bytes that memory could move meanwhile: some 2 us at 2 to 3 TB/s."""
TILE_BYTES = 128
"""What sorting an element's tile in shared memory takes, in bytes of device memory: 66 steps of
16 bytes for each, at some eight times the bandwidth."""


def method_of(source: Node, k: int, tile: int) -> str:
    """How the first k of rows longer than a tile are found: "best" of each tile, "gather", or
    "order" for all of it.
    """
    length, itemsize = source.shape[-1], source.dtype.itemsize
    rows = source.size // length
    item = sum(dtype.itemsize for dtype in item_dtypes(source.dtype))
    passes = Keys(source.dtype, False).passes

    def order(count: int) -> int:
        """What sorting so many items of each row takes."""
        merges = max(0, math.ceil(math.log2(-(-count // tile))))
        return rows * count * (TILE_BYTES + 2 * item * (1 + merges)) + LAUNCH * (1 + merges)

    costs = {
        "gather": source.size * itemsize * (passes + 2) + order(k) + LAUNCH * (2 * passes + 2),
        "order": order(length) + LAUNCH,
    }
    if 2 * k <= tile:  # a round leaves half of a row or less
        costs["best"] = source.size * (TILE_BYTES + itemsize) * tile // (tile - k) + 2 * LAUNCH
    return min(costs, key=lambda method: costs[method])


def lower_gather(anchor: Node, launch: MakeLaunch) -> tuple[list[Launch], list[Node]]:
    """The launches that gather each row's first k, and the arrays of their items."""
    source, k = anchor.inputs[0], anchor.shape[-1]
    *rows, length = source.shape
    count = math.prod(rows)
    launches, ties, known = narrowed(anchor, [], count, launch)
    below = temporary(dtypes.uint32, (count, -(-length // chunk_of(length))))
    kept = [temporary(dtype, (*rows, k)) for dtype in item_dtypes(source.dtype)]
    return [
        *launches,
        launch(anchor, [source, known[0]], [below], "below"),
        launch(anchor, [source, ties, below, *known], kept, "gather"),
    ], kept


def _below(step: Step) -> int:
    f = step.f
    items, chunks = step.kernel.shapes[-1]
    block, thread = f.wide(f.block()), f.wide(f.thread())
    item = f.udiv(block, chunks)
    part = Chunk(step, item, f.urem(block, chunks), items)
    wanted = part.known(word(f, step.pointers[1], item))
    with f.loop(part.first, part.end, THREADS * EACH, [const(I64, 0)], "round") as loop:
        mine, total = f.add(loop.index, thread), loop.carried[0]
        found = [part.key(f.add(mine, k * THREADS) if k else mine) for k in range(EACH)]
        for key, there in found:
            before = f.and_(there, f.icmp("ult", key, wanted))
            total = f.add(total, f.convert("zext", before, I64))
        loop.next = [total]
    _, everything = block_scan(Running(f, "add", dtypes.int64), THREADS, loop.results[0])
    with f.when(f.icmp("eq", thread, 0), "put"):
        f.store(f.convert("trunc", everything, "i32"), f.offset(step.pointers[2], block, "i32"), 4)
    return items * chunks


def _gather(step: Step) -> int:
    """Two counts run in one word: elements before the key below, its ties above."""
    f, items_of = step.f, Items(step)
    k = step.kernel.attrs[0]
    items, chunks, _ = step.kernel.shapes[1]
    _, ties, below, keys, ranks, *targets = step.pointers
    block, thread = f.wide(f.block()), f.wide(f.thread())
    item, chunk = f.udiv(block, chunks), f.urem(block, chunks)
    prefix, rank = word(f, keys, item), word(f, ranks, item)
    running = Running(f, "add", dtypes.int64)
    there = f.icmp("slt", thread, chunks)
    own = f.add(f.mul(item, chunks), f.select(there, thread, const(I64, 0)))
    tie = f.add(f.mul(own, RADIX), f.and_(prefix, RADIX - 1))
    both = f.or_(f.shl(f.wide(f.load("i32", f.offset(ties, tie, "i32"), 4)), 32),
                 f.wide(f.load("i32", f.offset(below, own, "i32"), 4)))
    before, _ = block_scan(running, THREADS, f.select(there, both, const(I64, 0)))
    shared = f.shared_address(f.module.shared(8))
    with f.when(f.icmp("eq", thread, chunk), "mine"):
        f.store(before, shared, 8)
    f.barrier()
    part = Chunk(step, item, chunk, items)
    wanted, row = part.known(prefix), f.mul(item, k)
    first_tie = f.sub(const(I64, k - 1), rank)
    mine = f.mul(thread, EACH)
    start = f.load(I64, shared, 8)
    with f.loop(part.first, part.end, THREADS * EACH, [start], "round") as loop:
        places = [f.add(f.add(loop.index, mine), number) for number in range(EACH)]
        found = [part.key(place) for place in places]
        flags, total = [], const(I64, 0)
        for key, present in found:
            less = f.and_(present, f.icmp("ult", key, wanted))
            equal = f.and_(present, f.icmp("eq", key, wanted))
            flag = f.or_(f.convert("zext", less, I64), f.shl(f.convert("zext", equal, I64), 32))
            flags.append((less, equal, flag))
            total = f.add(total, flag)
        earlier, everything = block_scan(running, THREADS, total)
        at = f.add(loop.carried[0], earlier)
        for place, (key, _), (less, equal, flag) in zip(places, found, flags, strict=True):
            number = f.lshr(at, 32)
            taken = f.or_(less, f.and_(equal, f.icmp("sle", number, rank)))
            slot = f.select(less, f.and_(at, 0xFFFFFFFF), f.add(first_tie, number))
            with f.when(taken, "taken"):
                made = items_of.made(key, f.convert("trunc", place, "i32"))
                items_of.store(targets, f.add(row, slot), made)
            at = f.add(at, flag)
        loop.next = [f.add(loop.carried[0], everything)]
        f.barrier()
    return items * chunks


STEPS = {"below": Row(THREADS, _below), "gather": Row(THREADS, _gather)}
