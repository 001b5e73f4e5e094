"""Emission of attention of few queries to many keys: one pass over keys and values.

All queries that read a head of keys are its *rows*: those of a group's heads share one read.
Vectors run along the width, so that keys and values are read in whole lines where they lie.  A
block of keys gives its scores (a vector of keys at a time, their sums over lanes taken together by
a tree of shuffles), the online softmax its weights, and a register tile adds the weighted values.

Few heads are cut into chunks of keys, by shape alone: each task then writes the sum of its weighted
values, their top score and their total, and a second launch combines them.

Memory is asked for evenly: what multiplies keys fetches the block's values line by line, what adds
values the next block's keys.  bfloat16 keys meet queries in words of two (`loops/products.py`);
values are widened, a vector of words into its even and its odd columns, and weights stay float32.

Share of the read bandwidth of the same run, two threads, before (keys fetched alone, narrow blocks
copied) and now: one query a head, 64 heads of 64, 4096 keys 82 and 90 %; bfloat16 52 and 87 %;
heads of 256 84 and 88 %; four queries a head 61 and 80 %; 32 heads of 128 on 8 of keys 60 and 66 %;
64 on 8, bfloat16, 8192 keys 32 and 62 to 72 %.  In the caches a key of 64 takes 9 cycles in
bfloat16 and 25 in float32, where memory takes some 40 and 80.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.attention_combine import larger, reciprocal, shift
from lazygrad_compiler.llvm.attention_tiles import (
    I64,
    LOG2_E,
    Scratch,
    Tiles,
    power_of,
    round_up,
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
from lazygrad_compiler.target import Target

LINE = 64
MOST_SUMS = 16
"""Vectors of sums in the register tile of weighted values."""
LEAST_SUMS = 8
"""Additions under way at a time: two a cycle, of four cycles each."""
MOST_VECTORS = 4
MOST_UNROLLED = 8
"""Vectors of a key that are gone through without a loop."""
MOST_FETCHED = 256
"""Lines that one piece of code asks for; past that the processor finds them by itself."""
UNROLL = 4
BLOCK_BYTES = 1 << 14
LEAST_BLOCK = 32
"""Keys of a block take no more than a third of the first cache: their values are fetched beside
them, then the next block's keys.
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
        self.across = lanes * group_of(instruction)
        """Elements of a vector of keys, words counted whole."""
        self.paired = self.v.dtype is dtypes.bfloat16 and lanes > 1
        """Whether a vector of values is read as two: its even columns, its odd ones."""
        self.width = round_up(sizes.width, self.across)
        self.value_width = round_up(sizes.value_width, 2 * lanes if self.paired else lanes)
        self.row = tiles.cut.block + lanes
        """Scores of a row; there is room for a vector behind the last."""
        self.scratch = scratch = Scratch(tiles.f, tiles.itemsize)
        self.queries = scratch.take(self.rows * self.width)
        self.scores = scratch.take(self.rows * self.row)
        self.sums = scratch.take(self.rows * self.value_width)
        self.tops, self.totals, self.factors = (
            scratch.take(self.rows * lanes) for _ in range(3)
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
            with f.loop(0, self.rows, 1, hint="row") as row:
                if self.mask is not None:
                    self._apply_mask(self.mask, batch, group, row.index, begin, count)
                self._weights(row.index, count)
            self._add_weighted(keys, values, count)
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
        f, cut = tiles.f, tiles.cut
        type_ = scalar.memory_type(self.q.dtype)
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
            lane = f.mul(row.index, cut.lanes)
            tiles.store(const(tiles.vector, -math.inf), self.tops, lane)
            tiles.store(const(tiles.vector, 0), self.totals, lane)
        tiles.clear(self.sums, self.rows * self.value_width)

    # ---- scores

    def _scores(self, keys: Value, values: Value, count: Value) -> None:
        """Scores of a block, a vector of keys at a time; -inf behind the last key.  Meanwhile the
        block's values are fetched.
        """
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        last, stride = f.sub(count, 1), self.k.strides[2]
        type_ = scalar.memory_type(self.k.dtype)
        pairs = self.rows // 2 * 2 if lanes >= 4 else 0
        with f.loop(0, count, lanes, hint="keys") as loop:
            places = [
                f.offset(keys, f.mul(tiles.least(f.add(loop.index, lane), last), stride), type_)
                for lane in range(lanes)
            ]

            def lines(part: Value, first: Value = loop.index) -> list[Value]:
                return self._lines(self.v, values, first, lanes, part, self.rows)

            with f.loop(0, pairs, 2, hint="pair") as pair:
                rows = [pair.index, f.add(pair.index, 1)]
                for part, begin in enumerate((0, lanes // 2)):
                    own = places[begin : begin + lanes // 2]
                    score = self._dots(own, rows, lines(rows[part]))
                    for number, row in enumerate(rows):
                        lane = number * lanes // 2
                        half = f.shuffle(score, None, range(lane, lane + lanes // 2))
                        place = f.add(f.mul(row, self.row), f.add(loop.index, begin))
                        tiles.store(half, self.scores, place)
            if self.rows > pairs:
                with f.loop(pairs, self.rows, 1, hint="row") as single:
                    score = self._dots(places, [single.index], lines(single.index))
                    place = f.add(f.mul(single.index, self.row), loop.index)
                    tiles.store(score, self.scores, place)
        with f.loop(0, self.rows, 1, hint="row") as row:
            place = f.add(f.mul(row.index, self.row), count)
            tiles.store(const(tiles.vector, -math.inf), self.scores, place)

    def _dots(self, places: list[Value], rows: list[Value], lines: list[Value]) -> Value:
        """Scores of keys and queries, those of the first query first: a vector in all.  Meanwhile
        some lines are fetched.
        """
        tiles = self.tiles
        f = tiles.f
        zero = const(tiles.vector, 0)
        queries = [tiles.at(self.queries, f.mul(row, self.width)) for row in rows]
        sums = [zero] * (len(places) * len(rows))
        parts = tiles.columns(tiles.sizes.width, self.across)
        if self.width <= MOST_UNROLLED * self.across:
            steps = self.width // self.across
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
        scores = tiles.at(self.scores, f.mul(row, self.row))
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
        scores = tiles.at(self.scores, f.mul(row, self.row))
        lane = f.mul(row, lanes)
        old = tiles.load(self.tops, lane)
        with f.loop(0, count, lanes, [old], "top") as loop:
            loop.next = [larger(f, tiles.load(scores, loop.index), loop.carried[0])]
        top = loop.results[0]
        step = lanes // 2
        while step:
            other = f.shuffle(top, None, [place ^ step for place in range(lanes)])
            top = larger(f, other, top)
            step //= 2
        base = shift(tiles, top)
        factor = power_of(f, f.fsub(old, base))
        total = f.fmul(tiles.load(self.totals, lane), factor)
        with f.loop(0, count, lanes, [total], "weight") as loop:
            weight = power_of(f, f.fsub(tiles.load(scores, loop.index), base))
            tiles.store(weight, scores, loop.index)
            loop.next = [f.fadd(loop.carried[0], weight)]
        tiles.store(top, self.tops, lane)
        tiles.store(loop.results[0], self.totals, lane)
        tiles.store(factor, self.factors, lane)

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
            factor = tiles.load(self.factors, f.mul(row, lanes))
            place = tiles.at(self.sums, f.add(f.mul(row, self.value_width), column * lanes))
            places.append(place)
            start += [f.fmul(tiles.load(place, j * lanes), factor) for j in range(wide)]
        start += [const(tiles.vector, 0)] * ((copies - 1) * len(start))
        weights = tiles.at(self.scores, f.mul(first, self.row))
        keys, part, parts = fetched

        def step(key: Value, copy: int, sums: list[Value]) -> None:
            found = self._value_vectors(values, key, column, wide)
            for i in range(rows):
                place = tiles.at(weights, f.add(key, i * self.row))
                weight = f.splat(f.load(tiles.element, place, tiles.itemsize), lanes)
                for j, value in enumerate(found):
                    spot = (copy * rows + i) * wide + j
                    sums[spot] = f.fma(weight, value, sums[spot])

        whole = f.and_(count, -UNROLL)
        with f.loop(0, whole, UNROLL, start, "key") as loop:
            sums = list(loop.carried)
            first = f.add(loop.index, tiles.cut.block)
            lines = self._lines(self.k, keys, first, UNROLL, part, parts)
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

    def _total(self, row: Value) -> Value:
        """The sum of a row's weights, in every lane."""
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        total = tiles.load(self.totals, f.mul(row, lanes))
        return sums_of_lanes(f, [total] * lanes)

    def _write(self, address: Value, row: Value) -> None:
        tiles = self.tiles
        f, lanes = tiles.f, tiles.cut.lanes
        factor = reciprocal(tiles, self._total(row))
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


def _share(lines: list[Value], part: int, parts: int) -> list[Value]:
    return lines[len(lines) * part // parts : len(lines) * (part + 1) // parts]
