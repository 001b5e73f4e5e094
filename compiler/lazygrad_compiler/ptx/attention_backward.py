"""Gradients of attention, from the row statistics: weights are computed again, block by block.

Two kernels, so that each gradient is summed by one block in one order and nothing is added
atomically: the same program gives the same bits.  That takes seven products where atomics would
take five.  One goes through keys for rows of queries, and gives their gradient; the other goes
through the queries of all heads that share a head of keys, and gives the gradients of keys and
values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.llvm.attention_tiles import LOG2_E
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.loops.attention import Operand, operands
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.ptx.attention_products import PIECE_COLUMNS, Sums, zeros
from lazygrad_compiler.ptx.attention_scores import I32, NOTHING, AttentionTile, Block, Columns
from lazygrad_compiler.ptx.attention_tiles import MaskReader, RowWriter, head_pointer, scaled
from lazygrad_compiler.ptx.builder import KernelFunction


def emit_backward(f: KernelFunction, kernel: ArrayKernel, tile: AttentionTile) -> int:
    """Writes the body; gives the number of blocks."""
    if kernel.step.split()[1:] == ["q"]:
        return _OfQueries(f, kernel, tile).run()
    return _OfKeys(f, kernel, tile).run()


class _Gradient:
    """q, k, v: operands; g: cotangent; results by name."""

    def __init__(self, f: KernelFunction, kernel: ArrayKernel, tile: AttentionTile) -> None:
        self.f, self.kernel, self.tile = f, kernel, tile
        every = operands(kernel)
        written = kernel.step.split()[1:]
        self.results = dict(zip(written, every[-len(written) :], strict=True))
        self.q, self.k, self.v, self.g, self.logsumexp, self.delta = every[:6]

    def start(self, kept: Sequence[Operand], moving: Sequence[Operand]) -> Block:
        self.block = Block(self.f, self.kernel, self.tile, kept, moving)
        mask = self.block.mask_operand
        self.forgets = mask is not None and mask.dtype is dtypes.bool_
        """Nothing flows to a score that a mask replaced."""
        return self.block

    def statistics_at(self, batch: Value, head: Value) -> list[Value]:
        """Where those of a head begin."""
        f, sizes = self.f, self.block.sizes
        line = f.add(f.mul(f.wide(batch), sizes.heads), f.wide(head))
        place = f.mul(line, sizes.queries)
        return [
            f.offset(f.parameters[each.buffer], place, "float")
            for each in (self.logsumexp, self.delta)
        ]

    def statistics(self, pointers: Sequence[Value], query: Value) -> tuple[Value, Value, Value]:
        """(shift of the exponent, delta, whether the row is empty) of a query, or the last one."""
        f, last = self.f, self.block.sizes.queries - 1
        query = f.select(f.icmp("slt", query, last), query, const(I32, last))
        logsumexp, delta = (
            f.load("float", f.offset(pointer, scaled(f, query, 1), "float"), 4)
            for pointer in pointers
        )
        empty = f.fcmp("oeq", logsumexp, NOTHING)
        shift = f.select(empty, NOTHING, f.fmul(logsumexp, const("float", -LOG2_E)))
        return shift, delta, empty

    def slopes(self, weights: Sums, inner: Sums, deltas: Sequence[Value], by_row: bool) -> Sums:
        """Gradients of the scores, before scaling."""
        f = self.f

        def slope(value: Value, row: int, column: int) -> Value:
            return f.fsub(value, deltas[row if by_row else column])

        found = self.block.each(inner, slope)
        found = [f.fmul(weight, value) for weight, value in zip(weights, found, strict=True)]
        if not self.forgets:
            return found
        zero = const("float", 0.0)
        return [
            f.select(f.fcmp("oeq", weight, zero), zero, value)
            for weight, value in zip(weights, found, strict=True)
        ]

    def inner(self, left: Value, right: Value) -> Sums:
        """Products of cotangents and values."""
        block, columns = self.block, self.tile.columns
        count = 4 * self.tile.rows * (columns // PIECE_COLUMNS)
        return block.products.along(zeros(count), left, right, columns, block.value_width)

    def scaled_sums(self, sums: Sums) -> Sums:
        scale = const("float", self.block.sizes.scale)
        return [self.f.fmul(value, scale) for value in sums]


class _OfQueries(_Gradient):
    """Rows are queries; keys and values pass by."""

    def run(self) -> int:
        f, tile = self.f, self.tile
        block = self.start([self.q, self.g], [self.k, self.v])
        sizes, element = block.sizes, block.products.element
        batch, head, first, blocks = block.place(sizes.queries, sizes.heads, sizes.causal)
        shared = f.udiv(head, sizes.heads // sizes.groups)
        moving = [head_pointer(f, each, batch, shared, element) for each in (self.k, self.v)]
        kept = [head_pointer(f, each, batch, head, element) for each in (self.q, self.g)]
        rows = block.row_numbers(first)
        pointers = self.statistics_at(batch, head)
        shifts, deltas, _ = zip(*(self.statistics(pointers, row) for row in rows), strict=True)
        mask = block.mask_of(batch, head)

        def step(columns: Columns, sums: Sums) -> Sums:
            keys, values = columns.tiles
            scores = block.scores(block.kept[0], keys)
            scores = block.restricted(scores, rows, columns, False, mask)
            weights = block.each(
                scores, lambda score, row, column: block.power(score, shifts[row])
            )
            slopes = self.slopes(weights, self.inner(block.kept[1], values), deltas, True)
            return block.products.through(sums, slopes, keys, tile.columns, block.width)

        def keep() -> None:
            for loader, place, pointer in zip(
                block.kept_loaders, block.kept, kept, strict=True
            ):
                loader.copy(place, pointer, first)

        pieces = block.width // PIECE_COLUMNS
        sums = block.walk(
            keep,
            block.visible(first),
            lambda number: (head, f.mul(number, tile.columns), moving),
            zeros(4 * tile.rows * pieces),
            step,
        )
        writer = RowWriter(f, block.products, self.results["q"])
        writer.write(self.scaled_sums(sums), pieces, block.kept[0], batch, head, first)
        return blocks


class _OfKeys(_Gradient):
    """Rows are keys; queries and cotangents pass by."""

    def run(self) -> int:
        f, tile = self.f, self.tile
        block = self.start([self.k, self.v], [self.q, self.g])
        sizes, element = block.sizes, block.products.element
        batch, group, first, blocks = block.place(sizes.keys, sizes.groups, False)
        kept = [head_pointer(f, each, batch, group, element) for each in (self.k, self.v)]
        rows = block.row_numbers(first)
        self.batch, self.group = batch, group
        self.reader = None
        if block.mask_operand is not None:
            self.reader = MaskReader(f, block.mask_operand, 3, 2)
        steps = -(-sizes.queries // tile.columns)
        begin: Value = const(I32, 0)
        each: Value = const(I32, steps)
        # a row where nothing is allowed has NaN for weights, also of keys that causality leaves out
        self.with_nan = (
            "v" in self.results and self.reader is not None and not sizes.empty_is_zero
        )
        if sizes.causal and not self.with_nan:
            # keys that no query sees go through the last block all the same: their sums are zeros
            begin = f.udiv(first, tile.columns)
            begin = f.select(f.icmp("slt", begin, steps - 1), begin, const(I32, steps - 1))
            each = f.sub(const(I32, steps), begin)
        self.begin, self.each_head = begin, each
        heads = sizes.heads // sizes.groups
        with_k, with_v = "k" in self.results, "v" in self.results
        pieces = block.width // PIECE_COLUMNS
        value_pieces = block.value_width // PIECE_COLUMNS
        k_count = 4 * tile.rows * pieces if with_k else 0
        v_count = 4 * tile.rows * value_pieces if with_v else 0

        def step(columns: Columns, carried: Sums) -> Sums:
            k_sums, v_sums = carried[:k_count], carried[k_count:]
            queries, cotangents = columns.tiles
            pointers = self.statistics_at(batch, columns.head)
            numbers = block.column_numbers(columns.first)
            known = [self.statistics(pointers, number) for number in numbers]
            scores = block.scores(block.kept[0], queries)
            mask = None if self.reader is None else self._mask
            scores = block.restricted(scores, rows, columns, True, mask)
            weights = block.each(
                scores, lambda score, row, column: block.power(score, known[column][0])
            )
            if with_v:
                shown = weights
                if self.with_nan:
                    nan = const("float", math.nan)
                    inside = [f.icmp("slt", number, sizes.queries) for number in numbers]
                    lost = [f.and_(a, b[2]) for a, b in zip(inside, known, strict=True)]
                    shown = block.each(
                        weights, lambda weight, row, column: f.select(lost[column], nan, weight)
                    )
                v_sums = block.products.through(
                    v_sums, shown, cotangents, tile.columns, block.value_width
                )
            if with_k:
                inner = self.inner(block.kept[1], cotangents)
                slopes = self.slopes(weights, inner, [each[1] for each in known], False)
                k_sums = block.products.through(
                    k_sums, slopes, queries, tile.columns, block.width
                )
            return [*k_sums, *v_sums]

        def keep() -> None:
            for loader, place, pointer in zip(
                block.kept_loaders, block.kept, kept, strict=True
            ):
                loader.copy(place, pointer, first)

        count = f.mul(each, heads) if heads > 1 else each
        found = block.walk(keep, count, self._columns, zeros(k_count + v_count), step)
        if with_k:
            writer = RowWriter(f, block.products, self.results["k"])
            sums = self.scaled_sums(found[:k_count])
            writer.write(sums, pieces, block.kept[0], batch, group, first)
        if with_v:
            writer = RowWriter(f, block.products, self.results["v"])
            writer.write(found[k_count:], value_pieces, block.kept[1], batch, group, first)
        return blocks

    def _columns(self, number: Value) -> tuple[Value, Value, list[Value]]:
        """Queries of the first head that shares these keys, then of the next."""
        f, sizes = self.f, self.block.sizes
        heads = sizes.heads // sizes.groups
        head, strip = self.group, number
        if heads > 1:
            head = f.add(f.mul(self.group, heads), f.udiv(number, self.each_head))
            strip = f.urem(number, self.each_head)
        first = f.mul(f.add(self.begin, strip), self.tile.columns)
        element = self.block.products.element
        pointers = [
            head_pointer(f, each, self.batch, head, element) for each in (self.q, self.g)
        ]
        return head, first, pointers

    def _mask(self, columns: Columns) -> tuple[MaskReader, Value]:
        assert self.reader is not None
        return self.reader, self.reader.start(self.batch, columns.head)
