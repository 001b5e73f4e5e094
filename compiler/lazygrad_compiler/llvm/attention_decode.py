"""Emission of attention of few queries to many keys: one pass over keys and values.

All queries that read a head of keys are its *rows*: those of a group's heads share one read.
Vectors run along the width, so that keys and values are read in whole lines where they lie.  A
block of keys gives its scores (a vector of keys at a time, their sums over lanes taken together by
a tree of shuffles), the online softmax its weights, and a register tile adds the weighted values.

Few heads are cut into chunks of keys, by shape alone: each task then writes the sum of its weighted
values, their top score and their total, and a second launch combines them.

Taken apart and by this kernel, two threads, heads of 64: 64 heads, one query, 4096 keys 5.3 and 4.9
ms; 8 heads, 8192 keys 1.19 and 0.92; 8 x 32 heads on 4 of keys, 8192 keys 22.1 and 14.1.  Four
queries a head gain nothing: 4 x 8 heads, 4096 keys 3.8 and 3.9.
"""

from __future__ import annotations

import math

from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.attention_tiles import (
    I64,
    LOG2_E,
    Scratch,
    Tiles,
    power_of,
    round_up,
)
from lazygrad_compiler.llvm.builder import Function, Module, Value, const
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.loops.attention import (
    DECODE_BLOCK,
    DECODE_STATISTICS,
    Cut,
    Operand,
    Sizes,
    decode_chunks,
    decode_span,
    operands,
    row_major,
    sizes_of,
)
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.target import Target

LINE = 64
MOST_SUMS = 16
"""Vectors of sums in the register tile of weighted values."""
MOST_VECTORS = 4


def emit_decode(module: Module, name: str, kernel: ArrayKernel, target: Target) -> Work:
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, _ = load_arguments(f, len(kernel.buffers))
    sizes = sizes_of(kernel)
    decode = _Decode(Tiles(f, sizes, _cut(sizes, target), pointers), operands(kernel))
    chunks = decode_chunks(sizes.batch, sizes.groups, sizes.keys)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="task") as task:
        chunk, number = f.urem(task.index, chunks), f.udiv(task.index, chunks)
        group, batch = f.urem(number, sizes.groups), f.udiv(number, sizes.groups)
        decode.chunk(batch, group, chunk)
    f.ret()
    return Work(sizes.batch * sizes.groups * chunks, 1, decode.scratch.used)


def _cut(sizes: Sizes, target: Target) -> Cut:
    return Cut(target.lanes(sizes.wide.bits), 1, 1, DECODE_BLOCK)


def sums_of_lanes(f: Function, rows: list[Value]) -> Value:
    """The vector whose lane i is the sum of the lanes of rows[i]: as many rows as lanes."""
    size, step = len(rows), 1
    while len(rows) > 1:
        low = [lane if not lane & step else size + (lane ^ step) for lane in range(size)]
        high = [(lane | step) if not lane & step else size + lane for lane in range(size)]
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [f.fadd(f.shuffle(a, b, low), f.shuffle(a, b, high)) for a, b in pairs]
        step *= 2
    return rows[0]


class _Decode:
    def __init__(self, tiles: Tiles, everything: list[Operand]) -> None:
        self.tiles = tiles
        self.q, self.k, self.v, *masks, self.result = everything
        self.mask = masks[0] if masks else None
        sizes, lanes, block = tiles.sizes, tiles.cut.lanes, tiles.cut.block
        self.rows = sizes.heads // sizes.groups * sizes.queries
        self.width = round_up(sizes.width, lanes)
        self.value_width = round_up(sizes.value_width, lanes)
        self.scratch = scratch = Scratch(tiles.f, tiles.itemsize)
        self.queries = scratch.take(self.rows * self.width)
        self.scores = scratch.take(self.rows * block)
        self.sums = scratch.take(self.rows * self.value_width)
        self.tops, self.totals, self.factors = (
            scratch.take(self.rows * lanes) for _ in range(3)
        )
        narrow = scalar.is_narrow(self.k.dtype)
        self.keys = scratch.take(block * self.width) if narrow else None
        self.values = None
        if narrow or sizes.value_width % lanes:
            self.values = scratch.take(block * self.value_width)

    def chunk(self, batch: Value, group: Value, chunk: Value) -> None:
        """All that there is to do for a head of keys and a chunk of them."""
        tiles = self.tiles
        f, sizes, cut = tiles.f, tiles.sizes, tiles.cut
        self._start(batch, group)
        span = decode_span(sizes.batch, sizes.groups, sizes.keys)
        first = f.mul(chunk, span)
        end = tiles.least(f.add(first, span), sizes.keys)
        shared = (batch, group)
        with f.loop(first, end, cut.block, hint="block") as loop:
            begin = loop.index
            count = f.sub(tiles.least(f.add(begin, cut.block), end), begin)
            keys = tiles.in_place_or_copied(self.k, shared, begin, count, self.keys)
            self._scores(keys, count)
            with f.loop(0, self.rows, 1, hint="row") as row:
                if self.mask is not None:
                    self._apply_mask(self.mask, batch, group, row.index, begin, count)
                self._weights(row.index, count)
            values = tiles.in_place_or_copied(self.v, shared, begin, count, self.values)
            self._add_weighted(values, count)
        with f.loop(0, self.rows, 1, hint="row") as row:
            own = (batch, *self._query(group, row.index))
            if len(self.result.shape) > 4:
                self._write_partial(tiles.address(self.result, chunk, *own), row.index)
            else:
                self._write(tiles.address(self.result, *own), row.index)

    def _query(self, group: Value, row: Value) -> tuple[Value, Value]:
        """(head, query) of a row."""
        f, sizes = self.tiles.f, self.tiles.sizes
        heads = f.mul(group, sizes.heads // sizes.groups)
        return f.add(heads, f.udiv(row, sizes.queries)), f.urem(row, sizes.queries)

    def _start(self, batch: Value, group: Value) -> None:
        """Queries scaled, zeros behind their width; nothing seen yet."""
        tiles = self.tiles
        f, cut = tiles.f, tiles.cut
        factor = tiles.sizes.scale * LOG2_E
        with f.loop(0, self.rows, 1, hint="query") as row:
            source = tiles.address(self.q, batch, *self._query(group, row.index))
            place = tiles.at(self.queries, f.mul(row.index, self.width))
            for begin, end, mask in tiles.columns(tiles.sizes.width):
                with f.loop(begin, end, cut.lanes, hint="pack") as loop:
                    value = tiles.read(source, loop.index, self.q.dtype, mask)
                    tiles.store(f.fmul(value, factor), place, loop.index)
            lane = f.mul(row.index, cut.lanes)
            tiles.store(const(tiles.vector, -math.inf), self.tops, lane)
            tiles.store(const(tiles.vector, 0), self.totals, lane)
        tiles.clear(self.sums, self.rows * self.value_width)

    def _scores(self, keys: tuple[Value, int], count: Value) -> None:
        """Scores of a block, a vector of keys at a time; -inf behind the last key."""
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        pointer, stride = keys
        last = f.sub(count, 1)
        with f.loop(0, count, lanes, hint="keys") as loop:
            places = [
                tiles.at(pointer, f.mul(tiles.least(f.add(loop.index, lane), last), stride))
                for lane in range(lanes)
            ]
            self._prefetch(pointer, stride, self.width, f.add(loop.index, tiles.cut.block))
            inside = tiles.first_lanes(f.sub(count, loop.index))
            with f.loop(0, self.rows, 1, hint="row") as row:
                query = tiles.at(self.queries, f.mul(row.index, self.width))
                sums = self._dots(places, query)
                score = f.select(inside, sums_of_lanes(f, sums), const(tiles.vector, -math.inf))
                place = f.add(f.mul(row.index, tiles.cut.block), loop.index)
                tiles.store(score, self.scores, place)

    def _dots(self, places: list[Value], query: Value) -> list[Value]:
        """Products of keys with a query, not yet summed over lanes; narrow keys one by one, so that
        memory is read in order.
        """
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        zero, wide = const(tiles.vector, 0), tiles.sizes.wide
        if self.width <= MOST_SUMS * lanes // 2:
            masks = {begin: mask for begin, _, mask in tiles.columns(tiles.sizes.width)}
            starts = range(0, self.width, lanes)
            parts = [(const(I64, at), tiles.load(query, at), masks.get(at) if at else masks[0])
                     for at in starts]
            sums = []
            for place in places:
                total = zero
                for at, q, mask in parts:
                    total = f.fma(tiles.read(place, at, wide, mask), q, total)
                sums.append(total)
            return sums
        sums = [zero] * lanes
        for begin, end, mask in tiles.columns(tiles.sizes.width):
            with f.loop(begin, end, lanes, sums, "dot") as dot:
                q = tiles.load(query, dot.index)
                dot.next = [
                    f.fma(tiles.read(place, dot.index, wide, mask), q, total)
                    for place, total in zip(places, dot.carried, strict=True)
                ]
            sums = dot.results
        return sums

    def _prefetch(self, pointer: Value, stride: int, width: int, first: Value) -> None:
        """A vector of rows, from `first` on, is going to be read."""
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        for row in range(lanes):
            place = tiles.at(pointer, f.mul(f.add(first, row), stride))
            for column in range(0, width, LINE // tiles.itemsize):
                f.prefetch(tiles.at(place, column))

    def _apply_mask(
        self, mask: Operand, batch: Value, group: Value, row: Value, first: Value, count: Value
    ) -> None:
        """A row of scores plus the mask, or -inf where a bool mask does not hold."""
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        places = (batch, *self._query(group, row))
        zero = const(I64, 0)
        source = tiles.address(
            mask,
            *(place if size > 1 else zero for place, size in zip(places, mask.shape, strict=False)),
        )
        scores = tiles.at(self.scores, f.mul(row, tiles.cut.block))
        with f.loop(0, count, lanes, hint="mask") as loop:
            if mask.shape[3] > 1:
                left = tiles.first_lanes(f.sub(count, loop.index))
                value = tiles.mask_read(source, f.add(first, loop.index), mask.dtype, left)
            else:
                value = f.splat(tiles.mask_element(source, zero, mask.dtype), lanes)
            tiles.mask_vector(scores, loop.index, value, mask.dtype)

    def _weights(self, row: Value, count: Value) -> None:
        """Scores of a row become weights in place; its top, its total, and the factor of what was
        summed before.
        """
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        scores = tiles.at(self.scores, f.mul(row, tiles.cut.block))
        lane = f.mul(row, lanes)
        old = tiles.load(self.tops, lane)
        with f.loop(0, count, lanes, [old], "top") as loop:
            loop.next = [_larger(f, tiles.load(scores, loop.index), loop.carried[0])]
        top = loop.results[0]
        step = lanes // 2
        while step:
            other = f.shuffle(top, None, [place ^ step for place in range(lanes)])
            top = _larger(f, other, top)
            step //= 2
        shift = _shift(tiles, top)
        factor = power_of(f, f.fsub(old, shift))
        total = f.fmul(tiles.load(self.totals, lane), factor)
        with f.loop(0, count, lanes, [total], "weight") as loop:
            weight = power_of(f, f.fsub(tiles.load(scores, loop.index), shift))
            tiles.store(weight, scores, loop.index)
            loop.next = [f.fadd(loop.carried[0], weight)]
        tiles.store(top, self.tops, lane)
        tiles.store(loop.results[0], self.totals, lane)
        tiles.store(factor, self.factors, lane)

    def _add_weighted(self, values: tuple[Value, int], count: Value) -> None:
        """sums (rows, width) = sums * factors + weights (rows, keys) times values (keys, width)."""
        tiles = self.tiles
        f, lanes, block = tiles.f, tiles.cut.lanes, tiles.cut.block
        pointer, stride = values
        vectors = self.value_width // lanes
        for column in range(0, vectors, MOST_VECTORS):
            wide = min(MOST_VECTORS, vectors - column)
            height = min(self.rows, MOST_SUMS // wide)

            def tile(first: Value, rows: int, column: int = column, wide: int = wide) -> None:
                start, places = [], []
                for i in range(rows):
                    row = f.add(first, i)
                    factor = tiles.load(self.factors, f.mul(row, lanes))
                    place = tiles.at(
                        self.sums, f.add(f.mul(row, self.value_width), column * lanes)
                    )
                    places.append(place)
                    start += [f.fmul(tiles.load(place, j * lanes), factor) for j in range(wide)]
                sums = tiles.product(
                    (tiles.at(self.scores, f.mul(first, block)), block, 1),
                    (tiles.at(pointer, column * lanes), stride),
                    rows,
                    wide,
                    count,
                    start,
                )
                for number, total in enumerate(sums):
                    i, j = divmod(number, wide)
                    tiles.store(total, places[i], j * lanes)

            whole = self.rows // height * height
            with f.loop(0, whole, height, hint="rows") as loop:
                tile(loop.index, height)
            if self.rows % height:
                tile(const(I64, whole), self.rows % height)

    def _total(self, row: Value) -> Value:
        """The sum of a row's weights, in every lane."""
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        total = tiles.load(self.totals, f.mul(row, lanes))
        return sums_of_lanes(f, [total] * lanes)

    def _write(self, address: Value, row: Value) -> None:
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        factor = _reciprocal(tiles, self._total(row))
        sums = tiles.at(self.sums, f.mul(row, self.value_width))
        for begin, end, mask in tiles.columns(tiles.sizes.value_width):
            with f.loop(begin, end, lanes, hint="write") as loop:
                value = f.fmul(tiles.load(sums, loop.index), factor)
                place = f.offset(address, loop.index, scalar.memory_type(self.result.dtype))
                tiles.write(value, place, self.result.dtype, mask)

    def _write_partial(self, address: Value, row: Value) -> None:
        """Sums as they are, the top score, the total."""
        tiles = self.tiles
        f, lanes, width = tiles.f, tiles.cut.lanes, tiles.sizes.value_width
        sums = tiles.at(self.sums, f.mul(row, self.value_width))
        for begin, end, mask in tiles.columns(width):
            with f.loop(begin, end, lanes, hint="write") as loop:
                value = tiles.load(sums, loop.index)
                tiles.write(value, tiles.at(address, loop.index), tiles.sizes.wide, mask)
        top = tiles.load(self.tops, f.mul(row, lanes))
        for place, value in enumerate((top, self._total(row))):
            first = f.extract(value, 0) if lanes > 1 else value
            f.store(first, tiles.at(address, width + place), tiles.itemsize)


def _larger(f: Function, value: Value, top: Value) -> Value:
    """The larger one; the second where the first is NaN."""
    return f.select(f.fcmp("ogt", value, top), value, top)


def _shift(tiles: Tiles, top: Value) -> Value:
    """What is taken off the scores: the top, or 0 for -inf."""
    f = tiles.f
    return f.select(f.fcmp("oeq", top, const(tiles.vector, -math.inf)), 0.0, top)


def _reciprocal(tiles: Tiles, total: Value) -> Value:
    f = tiles.f
    if tiles.sizes.empty_is_zero:
        total = f.select(f.fcmp("oeq", total, const(total.type, 0)), 1.0, total)
    return f.fdiv(1.0, total)


def emit_combine(module: Module, name: str, kernel: ArrayKernel, target: Target) -> Work:
    """The second launch: chunks of each query, weighted by 2**(their top - the top of all)."""
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, _ = load_arguments(f, 2)
    chunks, batch, heads, queries, stride = kernel.shapes[0]
    wide, dtype = kernel.buffers[0].dtype, kernel.buffers[1].dtype
    width = stride - DECODE_STATISTICS
    _, causal, empty_is_zero = kernel.attrs[:3]
    sizes = Sizes(
        batch, heads, heads, queries, 0, 0, width, 1.0, causal, empty_is_zero, wide
    )
    tiles = Tiles(f, sizes, _cut(sizes, target), pointers)
    lanes = tiles.cut.lanes
    source = Operand(0, wide, kernel.shapes[0], 0, row_major(kernel.shapes[0]))
    step = batch * heads * queries * stride
    rows = batch * heads * queries
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="task") as task:
        zero = const(I64, 0)
        first = tiles.address(source, zero, zero, zero, zero)
        first = tiles.at(first, f.mul(task.index, stride))
        result = f.offset(pointers[1], f.mul(task.index, width), scalar.memory_type(dtype))

        def statistic(chunk: Value, number: int, first: Value = first) -> Value:
            place = tiles.at(first, f.add(f.mul(chunk, step), width + number))
            return f.splat(f.load(tiles.element, place, tiles.itemsize), lanes)

        with f.loop(0, chunks, 1, [const(tiles.vector, -math.inf)], "top") as loop:
            loop.next = [_larger(f, statistic(loop.index, 0), loop.carried[0])]
        shift = _shift(tiles, loop.results[0])

        def weight(chunk: Value, shift: Value = shift) -> Value:
            return power_of(f, f.fsub(statistic(chunk, 0), shift))

        with f.loop(0, chunks, 1, [const(tiles.vector, 0)], "total") as loop:
            loop.next = [f.fma(weight(loop.index), statistic(loop.index, 1), loop.carried[0])]
        factor = _reciprocal(tiles, loop.results[0])
        for start, stop, mask in tiles.columns(width):
            with f.loop(start, stop, lanes, hint="column") as column:
                with f.loop(0, chunks, 1, [const(tiles.vector, 0)], "chunk") as loop:
                    place = f.add(f.mul(loop.index, step), column.index)
                    value = tiles.read(first, place, wide, mask)
                    loop.next = [f.fma(weight(loop.index), value, loop.carried[0])]
                place = f.offset(result, column.index, scalar.memory_type(dtype))
                tiles.write(f.fmul(loop.results[0], factor), place, dtype, mask)
    f.ret()
    return Work(rows)
