"""Sorting on a GPU: rows in shared memory, long rows by merging.

  rows     a block sorts a row of up to TILE elements by a bitonic network (Batcher, AFIPS 1968)
  tiles    the same for each tile of a longer row; leaves sorted runs of items (`sort_items.py`)
  merge    runs of some length two by two: each item finds its place by bisection of the other run
  best     the first k of each tile of a longer row, and of those again, until one tile is left

Some ranks of a longer row are selected without a sort (`select.py`), and so is where the first k
end (`top_k.py`), so that only those are sorted.  `select_rank` of more ranks, and `top_k` of nearly
all of a row, pick from the whole order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lazygrad_compiler.backend import Emitted
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.points import I64
from lazygrad_compiler.llvm.sort import clamped
from lazygrad_compiler.loops.arrays import array_launch, temporary
from lazygrad_compiler.loops.kernel import ArrayKernel, Launch
from lazygrad_compiler.loops.lower import Group
from lazygrad_compiler.ptx import select, top_k
from lazygrad_compiler.ptx.arrays import Row, Step, emit_step, one_thread_each
from lazygrad_compiler.ptx.builder import KernelModule
from lazygrad_compiler.ptx.sort_items import Item, Items, item_dtypes

THREADS = 256
TILE = 2048
"""Elements that a block sorts in shared memory."""


def lower_sort(group: Group) -> list[Launch]:
    anchor = group.anchor
    assert anchor is not None
    if anchor.op == "argsort":
        writes = [r for r in group.roots if r.op == "sort_values" and r in group.outputs]
        writes += [anchor] if anchor in group.outputs else []
        return lower_order(anchor, writes, [root.op == "sort_values" for root in writes])
    if anchor.op == "top_k" and anchor.inputs[0].shape[-1] > TILE and anchor.size:
        method = top_k.method_of(anchor.inputs[0], anchor.shape[-1], TILE)
        if method == "best":
            return _lower_best(anchor, anchor.shape[-1])
        if method == "gather":
            launches, kept = top_k.lower_gather(anchor, _launch)
            return [*launches, *_lower_items(anchor, kept)]
    if anchor.op == "select_rank" and anchor.inputs[0].shape[-1] > TILE \
            and anchor.shape[-1] <= select.MOST_RANKS:
        return select.lower_select(anchor, _launch)
    if anchor.op in ("top_k", "select_rank"):
        order = temporary(dtypes.int64, anchor.inputs[0].shape)
        launches = lower_order(anchor, [order], [False])
        reads = [order, *anchor.inputs[1:]]
        return [*launches, _launch(anchor, reads, [anchor], "pick")]
    return [_launch(anchor, list(anchor.inputs), [anchor], anchor.op)]


def _launch(anchor: Node, reads: list[Node], writes: list[Node], step: str) -> Launch:
    """One step; its name ends with the dtype that is sorted."""
    named = f"{step} of {anchor.inputs[0].dtype.name}"
    return array_launch(anchor, reads, writes, "sort", named)


def lower_order(anchor: Node, writes: list[Node], are_values: list[bool]) -> list[Launch]:
    """writes: what to store, of which some are the values and the others positions."""
    source = anchor.inputs[0]
    length = source.shape[-1]
    named = " ".join("values" if is_value else "indices" for is_value in are_values)
    if length <= TILE:
        return [_launch(anchor, [source], writes, f"rows {named}")]

    def items() -> list[Node]:
        return [temporary(dtype, source.shape) for dtype in item_dtypes(source.dtype)]

    held = _items_like(source, length)
    launches = [_launch(anchor, [source], held, "tiles elements")]
    return [*launches, *_lower_merges(anchor, held, writes, named)]


def _items_like(source: Node, length: int) -> list[Node]:
    """Arrays for so many items of each row."""
    shape = (*source.shape[:-1], length)
    return [temporary(dtype, shape) for dtype in item_dtypes(source.dtype)]


def _lower_merges(
    anchor: Node, held: list[Node], writes: list[Node], named: str
) -> list[Launch]:
    """From sorted tiles to the whole order."""
    source, length = anchor.inputs[0], held[0].shape[-1]
    launches: list[Launch] = []
    run = TILE
    while run < length:
        last = 2 * run >= length
        target = writes if last else _items_like(source, length)
        what = named if last else "items"
        reads = [*held, source] if last else held
        launches.append(_launch(anchor, reads, target, f"merge {run} {what}"))
        held, run = target, 2 * run
    return launches


def _lower_items(anchor: Node, held: list[Node]) -> list[Launch]:
    """The positions of items in any order, sorted."""
    length = held[0].shape[-1]
    if length <= TILE:
        return [_launch(anchor, held, [anchor], f"best {length} items")]
    tiles = _items_like(anchor.inputs[0], length)
    launches = [_launch(anchor, held, tiles, "tiles items")]
    return [*launches, *_lower_merges(anchor, tiles, [anchor], "indices")]


def _lower_best(anchor: Node, k: int) -> list[Launch]:
    """Rounds of tiles, until one tile holds all that is left of a row."""
    launches: list[Launch] = []
    source = anchor.inputs[0]
    left = source.shape[-1]
    held, what = [source], "elements"
    while left > TILE:
        left = -(-left // TILE) * k
        kept = _items_like(source, left)
        launches.append(_launch(anchor, held, kept, f"best {k} {what}"))
        held, what = kept, "items"
    return [*launches, _launch(anchor, held, [anchor], f"best {k} {what}")]


def emit_sort(
    module: KernelModule, name: str, kernel: ArrayKernel, target: CudaTarget
) -> Emitted:
    return emit_step(module, name, kernel, target, STEPS)


def _put(step: Step, items: Items, what: list[str], row: Value, place: Value, item: Item,
         source: Value, targets: list[Value], length: int) -> None:
    """Stores an item at its final place of a row: positions, or the elements themselves."""
    f, keys = step.f, items.keys
    position = items.position(item)
    start = f.mul(row, length)
    for word, target in zip(what, targets, strict=True):
        if word == "indices":
            f.store(position, f.offset(target, f.add(start, place), I64), 8)
            continue
        raw = f.load(keys.stored, f.offset(source, f.add(start, position), keys.stored),
                     keys.align)
        f.store(raw, f.offset(target, f.add(start, place), keys.stored), keys.align)


def _bitonic(step: Step, items: Items, shared: list[Value], size: int) -> None:
    """Sorts `size` items (a power of two) in shared memory."""
    f = step.f
    pairs = size // 2
    block = 2
    while block <= size:
        distance = block // 2
        while distance:
            f.barrier()
            with f.grid_stride(f.thread(), const("i32", pairs), step.threads, "pair") as pair:
                low = f.add(f.mul(f.udiv(pair, distance), 2 * distance), f.urem(pair, distance))
                high = f.add(low, distance)
                a, b = items.load(shared, low), items.load(shared, high)
                down = f.icmp("ne", f.and_(low, block), 0) if block < size else None
                swap = items.less(b, a)
                if down is not None:
                    swap = f.xor(swap, down)
                with f.when(swap, "swap"):
                    items.store(shared, low, b)
                    items.store(shared, high, a)
            distance //= 2
        block *= 2
    f.barrier()


def _sorted_tile(
    step: Step, items: Items, item_at: Callable[[Value, Value, Value], Item]
) -> tuple[list[Value], int, Value, Value, Value, int]:
    """Sorts the block's tile of a row in shared memory.  item_at: of the first element's place of
    the row, a position in it, and that position or 0 where there is none.

    Gives (items, how many there are room for, row, number of the tile, its first position, tiles
    of a row).
    """
    f = step.f
    length = step.kernel.shapes[0][-1]
    tiles, size = -(-length // TILE), 2
    while size < min(length, TILE):
        size *= 2
    shared = items.shared(size)
    block = f.wide(f.block())
    row, number = f.udiv(block, tiles), f.urem(block, tiles)
    tile = f.mul(number, TILE)
    start = f.mul(row, length)
    with f.grid_stride(f.thread(), const("i32", size), step.threads, "load") as each:
        position = f.add(tile, f.wide(each))
        there = f.icmp("slt", position, length)
        item = item_at(start, position, f.select(there, position, const(I64, 0)))
        items.store(shared, each, items.choose(there, item, items.last()))
    _bitonic(step, items, shared, size)
    return shared, size, row, number, tile, tiles


def _reader(
    step: Step, items: Items
) -> tuple[Callable[[Value, Value, Value], Item], list[Value]]:
    """How a row's items are read, made of elements where the last word but two says so, and the
    arrays behind what is read.
    """
    f, keys = step.f, items.keys
    if step.words[-3] == "items":
        arrays = 2 if items.apart else 1
        held, others = step.pointers[:arrays], step.pointers[arrays:]
        return lambda start, _, safe: items.load(held, f.add(start, safe)), others
    source, *others = step.pointers

    def item_at(start: Value, position: Value, safe: Value) -> Item:
        raw = f.load(keys.stored, f.offset(source, f.add(start, safe), keys.stored), keys.align)
        return items.of(raw, f.convert("trunc", position, "i32"))

    return item_at, others


def _rows(step: Step) -> int:
    """A whole row, or a tile of one, a block."""
    f, items = step.f, Items(step)
    shape = step.kernel.shapes[0]
    length, rows = shape[-1], math.prod(shape[:-1])
    item_at, targets = _reader(step, items)
    shared, size, row, _, tile, tiles = _sorted_tile(step, items, item_at)
    start = f.mul(row, length)
    with f.grid_stride(f.thread(), const("i32", size), step.threads, "put") as number:
        place = f.add(tile, f.wide(number))
        with f.when(f.icmp("slt", place, length), "there"):
            item = items.load(shared, number)
            if step.words[0] == "tiles":
                items.store(targets, f.add(start, place), item)
            else:
                _put(step, items, step.words[1:-2], row, place, item, step.pointers[0], targets,
                     length)
    return rows * tiles


def _best(step: Step) -> int:
    """The first k items of a tile: kept as they are, or their positions where no others are left.
    A tile of fewer has items after all others for the rest.
    """
    f, items = step.f, Items(step)
    k = int(step.words[1])
    item_at, targets = _reader(step, items)
    shared, _, row, tile, _, tiles = _sorted_tile(step, items, item_at)
    start = f.mul(f.add(f.mul(row, tiles), tile), k)
    with f.grid_stride(f.thread(), const("i32", k), step.threads, "put") as number:
        place, item = f.add(start, f.wide(number)), items.load(shared, number)
        if tiles == 1:
            f.store(items.position(item), f.offset(targets[0], place, I64), 8)
        else:
            items.store(targets, place, item)
    return math.prod(step.kernel.shapes[0][:-1]) * tiles


def _merge(step: Step) -> int:
    """Each item of two neighbouring runs to its place: its own number in its run, and how many of
    the other run come before it.
    """
    f, items = step.f, Items(step)
    run, what = int(step.words[1]), step.words[2:-2]
    shape = step.kernel.shapes[0]
    length, count = shape[-1], math.prod(shape)
    arrays = 2 if items.apart else 1
    held = step.pointers[:arrays]
    last = what != ["items"]
    source = step.pointers[arrays]
    targets = step.pointers[arrays + (1 if last else 0) :]

    def body(number: Value) -> None:
        row, place = f.udiv(number, length), f.urem(number, length)
        start = f.mul(row, length)
        item = items.load(held, number)
        pair = f.mul(f.udiv(place, 2 * run), 2 * run)
        middle = f.add(pair, run)
        middle = f.select(f.icmp("slt", middle, length), middle, const(I64, length))
        end = f.add(pair, 2 * run)
        end = f.select(f.icmp("slt", end, length), end, const(I64, length))
        left = f.icmp("slt", place, middle)
        low = f.select(left, middle, pair)
        size = f.sub(f.select(left, end, middle), low)
        # no two items are equal: positions differ
        with f.loop(0, run.bit_length(), 1, [low, size], "bisect") as loop:
            first, left_over = loop.carried
            active = f.icmp("sgt", left_over, 0)
            half = f.lshr(left_over, 1)
            looked = f.select(active, f.add(first, half), const(I64, 0))
            other = items.load(held, f.add(start, looked))
            right = f.and_(active, items.less(other, item))
            loop.next = [
                f.select(right, f.add(first, f.add(half, 1)), first),
                f.select(right, f.sub(left_over, f.add(half, 1)), half),
            ]
        before = f.sub(loop.results[0], low)
        own = f.sub(place, f.select(left, pair, middle))
        target = f.add(pair, f.add(own, before))
        if last:
            _put(step, items, what, row, target, item, source, targets, length)
        else:
            items.store(targets, f.add(start, target), item)

    return one_thread_each(step, count, body)


def _take(step: Step) -> int:
    """The elements of each row in a given order."""
    f, keys = step.f, Items(step).keys
    shape = step.kernel.shapes[0]
    length = shape[-1]
    values, order, result = step.pointers

    def body(number: Value) -> None:
        start = f.mul(f.udiv(number, length), length)
        # an order that is none must not read elsewhere
        place = clamped(f, f.load(I64, f.offset(order, number, I64), 8), length)
        raw = f.load(keys.stored, f.offset(values, f.add(start, place), keys.stored), keys.align)
        f.store(raw, f.offset(result, number, keys.stored), keys.align)

    return one_thread_each(step, math.prod(shape), body)


def _pick(step: Step) -> int:
    """Positions out of a row's whole order, the first ones or those at given ranks."""
    f = step.f
    length, shape = step.kernel.shapes[0][-1], step.kernel.shapes[-1]
    wanted = shape[-1]
    order, result = step.pointers[0], step.pointers[-1]

    def body(number: Value) -> None:
        row = f.udiv(number, wanted)
        if len(step.pointers) == 3:
            rank = f.load(I64, f.offset(step.pointers[1], number, I64), 8)
            place = clamped(f, rank, length)
        else:
            place = f.sub(number, f.mul(row, wanted))
        found = f.load(I64, f.offset(order, f.add(f.mul(row, length), place), I64), 8)
        f.store(found, f.offset(result, number, I64), 8)

    return one_thread_each(step, math.prod(shape), body)


def _search(step: Step) -> int:
    """`searchsorted` by bisection.  NaN comes last: everything is before it, and it before
    nothing.
    """
    f, items = step.f, Items(step)
    keys = items.keys
    (side,) = step.kernel.attrs
    shape = step.kernel.shapes[1]
    length, count = step.kernel.shapes[0][-1], math.prod(shape)
    single = len(step.kernel.shapes[0]) == 1
    wanted = shape[-1] if shape else 1
    rows, values, result = step.pointers
    predicate = "ult" if side == "left" else "ule"

    def body(number: Value) -> None:
        raw = f.load(keys.stored, f.offset(values, number, keys.stored), keys.align)
        key = keys.key(f, keys.carried(f, raw))
        is_nan = None
        if keys.dtype.is_floating:
            is_nan = f.icmp("eq", key, keys.key(f, keys.carried(f, const(keys.stored, -1))))
        start = const(I64, 0) if single else f.mul(f.udiv(number, wanted), length)
        with f.loop(
            0, length.bit_length(), 1, [const(I64, 0), const(I64, length)], "bisect"
        ) as loop:
            low, left_over = loop.carried
            active = f.icmp("sgt", left_over, 0)
            half = f.lshr(left_over, 1)
            looked = f.select(active, f.add(low, half), const(I64, 0))
            other = f.load(
                keys.stored, f.offset(rows, f.add(start, looked), keys.stored), keys.align
            )
            before = f.icmp(predicate, keys.key(f, keys.carried(f, other)), key)
            if is_nan is not None:
                before = f.or_(before, is_nan)
            right = f.and_(active, before)
            loop.next = [
                f.select(right, f.add(low, f.add(half, 1)), low),
                f.select(right, f.sub(left_over, f.add(half, 1)), half),
            ]
        f.store(loop.results[0], f.offset(result, number, I64), 8)

    return one_thread_each(step, count, body)


STEPS = {
    "rows": Row(THREADS, _rows),
    "tiles": Row(THREADS, _rows),
    "merge": Row(THREADS, _merge),
    "best": Row(THREADS, _best),
    "sort_values": Row(THREADS, _take),
    "pick": Row(THREADS, _pick),
    "searchsorted": Row(THREADS, _search),
    **select.STEPS,
    **top_k.STEPS,
}
