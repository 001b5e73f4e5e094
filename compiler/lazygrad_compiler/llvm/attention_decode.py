"""Emission of attention of few queries to many keys: one pass over keys and values.

All queries that read a head of keys are its *rows*: those of a group's heads share one read.
Vectors run along the width, so that keys and values are read in whole lines where they lie.  A
block of keys gives its scores (their sums over lanes taken together by a tree of shuffles), the
online softmax its weights, for all rows in one vector, and a register tile adds the weighted
values.

Few heads are cut into chunks of keys, by shape alone: each task then writes the sum of its weighted
values, their top score and their total, and a second launch combines them.

Memory is asked for evenly: what multiplies keys fetches the block's values line by line, what adds
values the next block's keys.  A fetch that finds the processor's buffers full is dropped: a loop of
fetches alone "reads" 400 GB/s here.  So what is not fetched has to come by the processor's own
fetching, which wants lines in order: two keys abreast by all rows overlap with memory, eight by
two rows did not.  bfloat16 keys meet queries in words of two (`loops/products.py`); values are
widened, a vector of words into its even and its odd columns, and weights stay float32.

Share of the read bandwidth of the same run (51 GB/s by its measure, which two streams exceed), two
threads, medians of eight rounds in turns, before (eight keys by two rows, 16 KB of keys a block)
and now: one query a head, 64 heads of 64, 4096 keys 100 and 103 %, bfloat16 110 and 112; heads of
256 89 and 97; 32 heads of 128 on 8 of keys 74 and 79, bfloat16 101 and 112; 32 of 64 80 and 100;
64 of 128 on 8, 8192 keys 71 and 86, bfloat16 107 and 114.  Where the machine read 79 GB/s, 64 on 8
took 1.9 ms (90 %) instead of 3.4 at best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.attention_combine import larger, reciprocal, shift
from lazygrad_compiler.llvm.attention_layout import Layout
from lazygrad_compiler.llvm.attention_tiles import (
    I64,
    LOG2_E,
    Scratch,
    Tiles,
    power_of,
)
from lazygrad_compiler.llvm.builder import Module, Value, const
from lazygrad_compiler.llvm.contraction_words import add_products
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.llvm.transpose import sums_of_lanes
from lazygrad_compiler.loops.attention import (
    DECODE_BLOCK,
    Cut,
    Operand,
    Sizes,
    decode_chunks,
    decode_span,
    operands,
    sizes_of,
)
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.loops.products import group_of, word_instruction
from lazygrad_compiler.loops.rounding import round_up
from lazygrad_compiler.target import Target

LINE = 64
MOST_SUMS = 16
"""Vectors of sums in the register tile of weighted values."""
LEAST_SUMS = 8
"""Additions under way at a time: two a cycle, of four cycles each."""
MOST_VECTORS = 8
MOST_UNROLLED = 128
"""Additions of products to scores that are gone through without a loop."""
ABREAST = 2
"""Keys that several queries are multiplied by at a time."""
MOST_FETCHED = 256
"""Lines that one piece of code asks for; past that the processor finds them by itself."""
UNROLL = 4
BLOCK_BYTES = 1 << 13
LEAST_BLOCK = 16
"""Keys of a block take a sixth of the first cache, their values another, and what is fetched beside
them a third.
"""
ASKED_TWICE = 8
"""Rows from which on keys and values are fetched in both parts of the work.  The processor drops
what it is asked for while its buffers are full, as they are in the part that takes less time.  64
heads of 128 on 8 of keys: bfloat16 1.37 ms instead of 1.75, float32 3.4 instead of 3.7; of 32 heads
float32 4.1 instead of 3.3.
"""


def emit_decode(module: Module, name: str, kernel: ArrayKernel, target: Target) -> Work:
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, _ = load_arguments(f, len(kernel.buffers))
    sizes = sizes_of(kernel)
    dtype = kernel.buffers[1].dtype
    tiles = Tiles(f, sizes, _cut(sizes, dtype.itemsize, target), pointers)
    decode = _Decode(tiles, operands(kernel), word_instruction(dtype, dtype, target))
    chunks = decode_chunks(sizes.batch, sizes.groups, sizes.keys)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="task") as task:
        chunk, number = f.urem(task.index, chunks), f.udiv(task.index, chunks)
        group, batch = f.urem(number, sizes.groups), f.udiv(number, sizes.groups)
        decode.chunk(batch, group, chunk)
    f.ret()
    return Work(sizes.batch * sizes.groups * chunks, 1, decode.scratch.used)


def _cut(sizes: Sizes, itemsize: int, target: Target) -> Cut:
    block = DECODE_BLOCK
    while block > LEAST_BLOCK and block * sizes.width * itemsize > BLOCK_BYTES:
        block //= 2
    return Cut(target.lanes(sizes.wide.bits), 1, 1, block)


class _Decode:
    def __init__(self, tiles: Tiles, everything: list[Operand], instruction: str) -> None:
        self.tiles, self.instruction = tiles, instruction
        self.q, self.k, self.v, *masks, self.result = everything
        self.mask = masks[0] if masks else None
        sizes, lanes = tiles.sizes, tiles.cut.lanes
        self.rows = sizes.heads // sizes.groups * sizes.queries
        self.layout = Layout.of(self.rows, lanes)
        self.across = lanes * group_of(instruction)
        """Elements of a vector of keys, words counted whole."""
        self.paired = self.v.dtype is dtypes.bfloat16 and lanes > 1
        """Whether a vector of values is read as two: its even columns, its odd ones."""
        self.width = round_up(sizes.width, self.across)
        self.value_width = round_up(sizes.value_width, 2 * lanes if self.paired else lanes)
        self.scratch = scratch = Scratch(tiles.f, tiles.itemsize)
        layout = self.layout
        self.queries = scratch.take(layout.groups * layout.rows * self.width)
        self.scores = scratch.take(tiles.cut.block * layout.stride + lanes)
        self.sums = scratch.take(self.rows * self.value_width)
        self.tops, self.totals, self.factors = (
            scratch.take(layout.groups * lanes) for _ in range(3)
        )

    def chunk(self, batch: Value, group: Value, chunk: Value) -> None:
        """All that there is to do for a head of keys and a chunk of them."""
        tiles = self.tiles
        f, sizes, cut = tiles.f, tiles.sizes, tiles.cut
        self._start(batch, group)
        span = decode_span(sizes.batch, sizes.groups, sizes.keys)
        first = f.mul(chunk, span)
        end = tiles.least(f.add(first, span), sizes.keys)
        keys, values = (tiles.address(each, batch, group, first) for each in (self.k, self.v))
        with f.loop(first, end, cut.block, hint="block") as loop:
            begin = loop.index
            count = f.sub(tiles.least(f.add(begin, cut.block), end), begin)
            keys, values = (tiles.address(each, batch, group, begin) for each in (self.k, self.v))
            self._scores(keys, values, count)
            with f.loop(0, self.layout.groups, 1, hint="rows") as rows:
                if self.mask is not None:
                    self._apply_mask(self.mask, (batch, group, rows.index), begin, count)
                self._weights(rows.index, count)
            self._add_weighted(keys, values, count)
        self._add_totals()
        with f.loop(0, self.rows, 1, hint="row") as row:
            own = (batch, *self._query(group, row.index))
            if self.paired:
                self._in_order(row.index)
            if len(self.result.shape) > 4:
                self._write_partial(tiles.address(self.result, chunk, *own), row.index)
            else:
                self._write(tiles.address(self.result, *own), row.index)

    def _query(self, group: Value, row: Value) -> tuple[Value, Value]:
        """(head, query) of a row."""
        f, sizes = self.tiles.f, self.tiles.sizes
        heads = f.mul(group, sizes.heads // sizes.groups)
        return f.add(heads, f.udiv(row, sizes.queries)), f.urem(row, sizes.queries)

    @property
    def _factor(self) -> float:
        return self.tiles.sizes.scale * LOG2_E

    def _start(self, batch: Value, group: Value) -> None:
        """Queries scaled, zeros behind their width; nothing seen yet.  As words they stay as they
        are, and their scores are scaled.
        """
        tiles = self.tiles
        f, layout = tiles.f, self.layout
        type_ = scalar.memory_type(self.q.dtype)
        tiles.clear(self.queries, layout.groups * layout.rows * self.width)
        with f.loop(0, self.rows, 1, hint="query") as row:
            source = tiles.address(self.q, batch, *self._query(group, row.index))
            place = tiles.at(self.queries, f.mul(row.index, self.width))
            for begin, end, mask in tiles.columns(tiles.sizes.width, self.across):
                with f.loop(begin, end, self.across, hint="pack") as loop:
                    if self.instruction:
                        words = tiles.words(f.offset(source, loop.index, type_), mask)
                        f.store(words, f.offset(place, loop.index, type_), 4)
                    else:
                        value = tiles.read(source, loop.index, self.q.dtype, mask)
                        tiles.store(f.fmul(value, self._factor), place, loop.index)
        with f.loop(0, layout.groups * layout.lanes, layout.lanes, hint="start") as loop:
            tiles.store(const(tiles.vector, -math.inf), self.tops, loop.index)
            tiles.store(const(tiles.vector, 0), self.totals, loop.index)
        tiles.clear(self.sums, self.rows * self.value_width)

    # ---- scores

    def _scores(self, keys: Value, values: Value, count: Value) -> None:
        """Scores of a block, -inf behind the last key.  Meanwhile the block's values are fetched.

        Of one query a vector of keys at a time, of several few keys by all of them: what the
        processor fetches by itself follows lines that are read evenly, one after the other.
        """
        tiles, layout = self.tiles, self.layout
        f = tiles.f
        together = layout.lanes if self.rows == 1 else min(layout.keys, ABREAST)
        last, stride = f.sub(count, 1), self.k.strides[2]
        type_ = scalar.memory_type(self.k.dtype)
        with f.loop(0, count, together, hint="keys") as loop:
            places = [
                f.offset(keys, f.mul(tiles.least(f.add(loop.index, number), last), stride), type_)
                for number in range(together)
            ]
            with f.loop(0, layout.groups, 1, hint="rows") as rows:
                lines = self._lines(
                    self.v, values, loop.index, together, rows.index, layout.groups
                )
                if self.rows >= ASKED_TWICE:
                    following = f.add(loop.index, tiles.cut.block)
                    lines += self._lines(
                        self.k, keys, following, together, rows.index, layout.groups
                    )
                score = self._dots(places, rows.index, lines)
                place = f.add(f.mul(loop.index, layout.stride), f.mul(rows.index, layout.lanes))
                tiles.store(score, self.scores, place)
        infinite = const(tiles.vector, -math.inf)
        tiles.store(infinite, self.scores, f.mul(count, layout.stride))

    def _dots(self, places: list[Value], group: Value, lines: list[Value]) -> Value:
        """Scores of some keys, of each those of a group of queries; some lines are fetched."""
        tiles, layout = self.tiles, self.layout
        f = tiles.f
        zero = const(tiles.vector, 0)
        first = f.mul(group, layout.rows)
        queries = [
            tiles.at(self.queries, f.mul(f.add(first, row), self.width))
            for row in range(layout.rows)
        ]
        sums = [zero] * (len(places) * len(queries))
        parts = tiles.columns(tiles.sizes.width, self.across)
        steps = self.width // self.across
        if steps * len(sums) <= MOST_UNROLLED:
            for start, end, mask in parts:
                for at in range(start, end, self.across):
                    for line in _share(lines, at // self.across, steps):
                        f.prefetch(line)
                    sums = self._dot_step(places, queries, const(I64, at), mask, sums)
        else:
            for line in lines:
                f.prefetch(line)
            for start, end, mask in parts:
                with f.loop(start, end, self.across, sums, "dot") as dot:
                    dot.next = self._dot_step(places, queries, dot.index, mask, dot.carried)
                sums = dot.results
        if len(queries) > 1:  # by key, then by query
            missing = [zero] * (layout.slots - len(queries))
            count = len(places)
            sums = [
                each for key in range(count) for each in (*sums[key::count], *missing)
            ]
        score = sums_of_lanes(f, sums)
        return f.fmul(score, self._factor) if self.instruction else score

    def _dot_step(
        self, places: list[Value], queries: list[Value], at: Value, mask: Value | None,
        sums: Sequence[Value],
    ) -> list[Value]:
        tiles = self.tiles
        f, type_ = tiles.f, scalar.memory_type(self.k.dtype)
        if self.instruction:
            own = [tiles.words(f.offset(query, at, type_), None) for query in queries]
        else:
            own = [tiles.load(query, at) for query in queries]
        changed = list(sums)
        for number, place in enumerate(places):
            if self.instruction:
                key = tiles.words(f.offset(place, at, type_), mask)
            else:
                key = tiles.read(place, at, self.k.dtype, mask)
            for row, query in enumerate(own):
                spot = row * len(places) + number
                changed[spot] = add_products(f, self.instruction, changed[spot], key, query)
        return changed

    def _lines(
        self, operand: Operand, pointer: Value, first: Value, rows: int, part: Value, parts: int
    ) -> list[Value]:
        """Addresses of the lines of a part of the operand's rows from `first` on."""
        f, type_ = self.tiles.f, scalar.memory_type(operand.dtype)
        step, width, stride = LINE // operand.dtype.itemsize, operand.shape[3], operand.strides[2]
        dense = stride == width
        across = -(-width // step)
        count = -(-rows * width // step) if dense else rows * across
        each = -(-count // parts)
        if each > MOST_FETCHED:
            return []
        start = f.offset(pointer, f.mul(first, stride), type_)
        found = []
        for number in range(each):
            line = f.add(f.mul(part, each), number)
            if dense:
                place = f.mul(line, step)
            else:
                row, column = f.udiv(line, across), f.urem(line, across)
                place = f.add(f.mul(row, stride), f.mul(column, step))
            found.append(f.offset(start, place, type_))
        return found

    def _apply_mask(
        self, mask: Operand, place: tuple[Value, Value, Value], first: Value, count: Value
    ) -> None:
        """Scores plus the mask, or -inf where a bool mask does not hold.

        place: batch, head of keys, group of rows.
        """
        tiles, layout = self.tiles, self.layout
        f, lanes = tiles.f, layout.lanes
        batch, group, rows = place
        zero = const(I64, 0)
        alike = mask.shape[1] == mask.shape[2] == 1
        sources = []
        for number in range(1 if alike else layout.rows):
            row = tiles.least(f.add(f.mul(rows, layout.rows), number), self.rows - 1)
            places = (batch, *self._query(group, row))
            sources.append(tiles.address(
                mask,
                *(each if size > 1 else zero
                  for each, size in zip(places, mask.shape, strict=False)),
            ))
        with f.loop(0, count, layout.keys, hint="mask") as loop:
            left = tiles.first_lanes(tiles.least(f.sub(count, loop.index), layout.keys))
            values = []
            for source in sources:
                if mask.shape[3] > 1:
                    place_ = f.add(first, loop.index)
                    values.append(tiles.mask_read(source, place_, mask.dtype, left))
                else:
                    values.append(f.splat(tiles.mask_element(source, zero, mask.dtype), lanes))
            value = values[0]
            if layout.slots > 1:
                value = f.shuffle(value, None, [lane // layout.slots for lane in range(lanes)])
            for number, other in enumerate(values[1:], 1):
                order = [
                    lanes + lane // layout.slots if lane % layout.slots == number else lane
                    for lane in range(lanes)
                ]
                value = f.shuffle(value, other, order)
            at = f.add(f.mul(loop.index, layout.stride), f.mul(rows, lanes))
            tiles.mask_vector(self.scores, at, value, mask.dtype)

    def _weights(self, group: Value, count: Value) -> None:
        """Scores of a group of rows become weights in place; its tops, its totals (of each lane),
        and the factors of what was summed before.
        """
        tiles, layout = self.tiles, self.layout
        f, lanes = tiles.f, layout.lanes
        lane = f.mul(group, lanes)
        scores = tiles.at(self.scores, lane)
        step = layout.keys * layout.stride
        end = f.mul(count, layout.stride)
        old = tiles.load(self.tops, lane)
        with f.loop(0, end, step, [old], "top") as loop:
            loop.next = [larger(f, tiles.load(scores, loop.index), loop.carried[0])]
        top = layout.together(f, loop.results[0], lambda a, b: larger(f, b, a))
        base = shift(tiles, top)
        factor = power_of(f, f.fsub(old, base))
        total = f.fmul(tiles.load(self.totals, lane), factor)
        with f.loop(0, end, step, [total], "weight") as loop:
            weight = power_of(f, f.fsub(tiles.load(scores, loop.index), base))
            tiles.store(weight, scores, loop.index)
            loop.next = [f.fadd(loop.carried[0], weight)]
        tiles.store(top, self.tops, lane)
        tiles.store(loop.results[0], self.totals, lane)
        tiles.store(factor, self.factors, lane)

    def _add_totals(self) -> None:
        tiles, layout = self.tiles, self.layout
        f = tiles.f
        with f.loop(0, layout.groups * layout.lanes, layout.lanes, hint="total") as loop:
            total = layout.together(f, tiles.load(self.totals, loop.index), f.fadd)
            tiles.store(total, self.totals, loop.index)

    # ---- weighted values

    def _add_weighted(self, keys: Value, values: Value, count: Value) -> None:
        """sums (rows, width) = sums * factors + weights (rows, keys) times values (keys, width).

        Meanwhile the next block's keys are fetched.
        """
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        vectors = self.value_width // lanes
        most = max(MOST_VECTORS, MOST_SUMS // self.rows)
        if self.paired:
            most = most // 2 * 2
        height = max(min(self.rows, MOST_SUMS // min(most, vectors)), 1)
        parts = -(-vectors // most) * -(-self.rows // height)
        for column in range(0, vectors, most):
            wide = min(most, vectors - column)

            def tile(
                first: Value, rows: int, number: Value, column: int = column, wide: int = wide,
            ) -> None:
                part = f.add(number, column // most * -(-self.rows // height))
                self._tile(values, first, rows, column, wide, count, (keys, part, parts))

            whole = self.rows // height
            with f.loop(0, whole, 1, hint="rows") as loop:
                tile(f.mul(loop.index, height), height, loop.index)
            if self.rows % height:
                tile(const(I64, whole * height), self.rows % height, const(I64, whole))

    def _tile(
        self, values: Value, first: Value, rows: int, column: int, wide: int, count: Value,
        fetched: tuple[Value, Value, int],
    ) -> None:
        """Some rows by some vectors of columns.  Few sums are kept several times, each for every
        second or fourth key, so that additions need not wait for each other.
        """
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        copies = 1
        while 2 * copies * rows * wide <= LEAST_SUMS:
            copies *= 2
        start, places = [], []
        for i in range(rows):
            row = f.add(first, i)
            factor = self._splat(self.factors, self.layout.place(f, row))
            place = tiles.at(self.sums, f.add(f.mul(row, self.value_width), column * lanes))
            places.append(place)
            start += [f.fmul(tiles.load(place, j * lanes), factor) for j in range(wide)]
        start += [const(tiles.vector, 0)] * ((copies - 1) * len(start))
        weights = [
            tiles.at(self.scores, self.layout.place(f, f.add(first, i))) for i in range(rows)
        ]
        keys, part, parts = fetched

        def step(key: Value, copy: int, sums: list[Value]) -> None:
            found = self._value_vectors(values, key, column, wide)
            for i in range(rows):
                weight = self._splat(weights[i], f.mul(key, self.layout.stride))
                for j, value in enumerate(found):
                    spot = (copy * rows + i) * wide + j
                    sums[spot] = f.fma(weight, value, sums[spot])

        whole = f.and_(count, -UNROLL)
        with f.loop(0, whole, UNROLL, start, "key") as loop:
            sums = list(loop.carried)
            first = f.add(loop.index, tiles.cut.block)
            lines = self._lines(self.k, keys, first, UNROLL, part, parts)
            if self.rows >= ASKED_TWICE:
                lines += self._lines(self.v, values, first, UNROLL, part, parts)
            for number in range(UNROLL):
                for line in _share(lines, number, UNROLL):
                    f.prefetch(line)
                step(f.add(loop.index, number), number % copies, sums)
            loop.next = sums
        with f.loop(whole, count, 1, loop.results, "key") as rest:
            sums = list(rest.carried)
            step(rest.index, 0, sums)
            rest.next = sums
        sums = list(rest.results)
        while len(sums) > rows * wide:
            half = len(sums) // 2
            sums = [f.fadd(a, b) for a, b in zip(sums[:half], sums[half:], strict=True)]
        for number, total in enumerate(sums):
            i, j = divmod(number, wide)
            tiles.store(total, places[i], j * lanes)

    def _value_vectors(self, values: Value, key: Value, column: int, wide: int) -> list[Value]:
        """Vectors of a row of values; bfloat16 by even and odd columns."""
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        width, type_ = tiles.sizes.value_width, scalar.memory_type(self.v.dtype)
        place = f.offset(values, f.mul(key, self.v.strides[2]), type_)
        step = 2 * lanes if self.paired else lanes
        found: list[Value] = []
        for at in range(column * lanes, (column + wide) * lanes, step):
            mask = tiles.first_lanes(width - at, step) if at + step > width else None
            if not self.paired:
                found.append(tiles.read(place, at, self.v.dtype, mask))
                continue
            words = tiles.words(f.offset(place, at, type_), mask)
            for half in (f.shl(words, 16), f.and_(words, 0xFFFF0000)):
                found.append(f.bitcast(half, tiles.vector))
        return found

    def _in_order(self, row: Value) -> None:
        """A row's sums by even and odd columns, put in the order of columns."""
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        sums = tiles.at(self.sums, f.mul(row, self.value_width))
        woven = [lane // 2 + lanes * (lane % 2) for lane in range(2 * lanes)]
        with f.loop(0, self.value_width, 2 * lanes, hint="weave") as loop:
            second = f.add(loop.index, lanes)
            even, odd = tiles.load(sums, loop.index), tiles.load(sums, second)
            tiles.store(f.shuffle(even, odd, woven[:lanes]), sums, loop.index)
            tiles.store(f.shuffle(even, odd, woven[lanes:]), sums, second)

    def _splat(self, pointer: Value, place: Value) -> Value:
        """An element of scratch memory, in every lane."""
        tiles = self.tiles
        value = tiles.f.load(tiles.element, tiles.at(pointer, place), tiles.itemsize)
        return tiles.f.splat(value, self.layout.lanes)

    def _write(self, address: Value, row: Value) -> None:
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        factor = reciprocal(tiles, self._splat(self.totals, self.layout.place(f, row)))
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
        lane = self.layout.place(f, row)
        sums = tiles.at(self.sums, f.mul(row, self.value_width))
        for begin, end, mask in tiles.columns(width):
            with f.loop(begin, end, lanes, hint="write") as loop:
                value = tiles.load(sums, loop.index)
                tiles.write(value, tiles.at(address, loop.index), tiles.sizes.wide, mask)
        for place, pointer in enumerate((self.tops, self.totals)):
            value = f.load(tiles.element, tiles.at(pointer, lane), tiles.itemsize)
            f.store(value, tiles.at(address, width + place), tiles.itemsize)


def _share(lines: list[Value], part: int, parts: int) -> list[Value]:
    return lines[len(lines) * part // parts : len(lines) * (part + 1) // parts]
