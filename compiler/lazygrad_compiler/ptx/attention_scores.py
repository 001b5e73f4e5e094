"""What the passes over attention's scores share: a block's tiles, the walk along their columns, and
what becomes of scores in registers.

A block keeps tiles whose rows are the *rows* of its scores, and goes through blocks of *columns*,
whose tiles lie in a ring, asked for one step ahead.  Forward and for the gradient of queries, rows
are queries and columns keys; for the gradients of keys and values it is the other way round, and
scores are transposed.  What is left out for a causal mask is not visited; a mask is applied only
where a block touches the diagonal or the end.

Scores are held before scaling wherever that commutes with taking maxima; exponentials are powers of
two of `unit * score + shift`, one fused multiply-add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.attention_tiles import LOG2_E, power_of
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.loops.attention import Operand, Sizes, operands, sizes_of
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.loops.rounding import round_up
from lazygrad_compiler.ptx.attention_products import (
    PIECE_COLUMNS,
    PIECE_ROWS,
    PRODUCTS,
    FfmaProducts,
    Products,
    Sums,
    piece,
    zeros,
)
from lazygrad_compiler.ptx.attention_tiles import MaskReader, TileLoader
from lazygrad_compiler.ptx.builder import WARP, KernelFunction
from lazygrad_compiler.ptx.tensor_core import commit_copies, wait_copies

I32 = "i32"
NOTHING = const("float", -math.inf)
STAGES = 2


@dataclass(frozen=True, slots=True)
class AttentionTile:
    """rows: pieces of 16 rows that a warp has; warps of a block; columns of a step.  template: how
    products are computed; why: for people.
    """

    rows: int
    warps: int
    columns: int
    template: str
    why: str = ""

    @property
    def threads(self) -> int:
        return WARP * self.warps

    @property
    def height(self) -> int:
        """Rows of a block."""
        return PIECE_ROWS * self.rows * self.warps


def pitch_of(sizes: Sizes, products: type[Products]) -> int:
    widest = max(sizes.width, sizes.value_width)
    return round_up(widest, products.step) + products.chunk


def shared_bytes(sizes: Sizes, products: type[Products], tile: AttentionTile, kept: int) -> int:
    """kept: tiles that a block keeps throughout."""
    rows = kept * tile.height + STAGES * 2 * tile.columns
    total = rows * pitch_of(sizes, products) * products.bytes
    if products is FfmaProducts:
        total += FfmaProducts.staging_bytes(tile.warps, tile.rows, tile.columns)
    return total


@dataclass(slots=True)
class Columns:
    """A block of columns: the head they are of (i32), its first column, what to find there."""

    head: Value
    first: Value
    tiles: list[Value]


Mask = Callable[[Columns], tuple[MaskReader, Value]]
"""What reads the mask, and where it begins for a block of columns."""


class Block:
    """One block of a kernel under emission.

    kept: operands whose rows the block keeps; moving: the two whose tiles pass by.
    """

    def __init__(
        self, f: KernelFunction, kernel: ArrayKernel, tile: AttentionTile, kept: Sequence[Operand],
        moving: Sequence[Operand],
    ) -> None:  # fmt: skip
        self.f, self.kernel, self.tile = f, kernel, tile
        self.sizes = sizes = sizes_of(kernel)
        self.dtype = kernel.buffers[0].dtype
        kind = PRODUCTS[tile.template]
        self.pitch = pitch_of(sizes, kind)
        lane, warp = f.and_(f.thread(), WARP - 1), f.lshr(f.thread(), 5)
        self.products = kind(f, self.dtype, tile.rows, warp, lane, self.pitch)
        self.width = round_up(sizes.width, kind.step)
        self.value_width = round_up(sizes.value_width, kind.step)
        base = f.shared_address(
            f.module.shared(shared_bytes(sizes, kind, tile, len(kept)), 128)
        )
        each = tile.height * self.pitch
        self.kept = [self.products.at(base, number * each) for number in range(len(kept))]
        self.ring = self.products.at(base, len(kept) * each)
        self.ring_tile = tile.columns * self.pitch
        if isinstance(self.products, FfmaProducts):
            after = self.products.at(self.ring, STAGES * 2 * self.ring_tile)
            self.products.stage_in(after, tile.columns)
        self.kept_loaders = [self._loader(each, tile.height) for each in kept]
        self.moving_loaders = [self._loader(each, tile.columns) for each in moving]
        every = operands(kernel)
        self.mask_operand = next(
            (each for number, each in enumerate(every)
             if number in (3, 6) and not kernel.buffers[number].written
             and (number == 6) == (kernel.op == "attention_grad")), None,
        )  # fmt: skip
        additive = self.mask_operand is not None and self.mask_operand.dtype is not dtypes.bool_
        factor = sizes.scale * LOG2_E
        self.before = factor if additive or factor <= 0 else None
        """What scores are multiplied by at once; None where `unit` does it."""
        self.unit = factor if self.before is None else 1.0
        self.natural = sizes.scale if self.before is None else math.log(2)
        """What takes a score to one of the natural exponential."""

    def _loader(self, operand: Operand, rows: int) -> TileLoader:
        width = round_up(operand.shape[3], self.products.step)
        return TileLoader(self.f, self.products, operand, rows, width, self.tile.threads)

    # ---- where the block is

    def place(self, rows: int, heads: int, last_first: bool) -> tuple[Value, Value, Value, int]:
        """(batch, head, first row) of the block as i32, and the number of blocks."""
        f, height = self.f, self.tile.height
        down = -(-rows // height)
        number = f.block()
        strip, rest = const(I32, 0), number
        if down > 1:
            strip, rest = f.urem(number, down), f.udiv(number, down)
        if last_first:
            strip = f.sub(const(I32, down - 1), strip)
        batch, head = rest, const(I32, 0)
        if heads > 1:
            batch, head = f.udiv(rest, heads), f.urem(rest, heads)
        return batch, head, f.mul(strip, height), down * heads * self.sizes.batch

    def row_numbers(self, first: Value) -> list[Value]:
        """Of the rows that the thread has scores of, two a row of pieces."""
        f, products = self.f, self.products
        own = f.add(f.add(first, products.first_row), products.row)
        return [
            f.add(own, PIECE_ROWS * i + 8 * half) if i or half else own
            for i in range(self.tile.rows)
            for half in (0, 1)
        ]

    def column_numbers(self, first: Value) -> list[Value]:
        f = self.f
        own = f.add(first, self.products.column)
        return [
            f.add(own, PIECE_COLUMNS * j + side) if j or side else own
            for j in range(self.tile.columns // PIECE_COLUMNS)
            for side in (0, 1)
        ]

    def visible(self, first: Value) -> Value:
        """Blocks of keys that the queries of a block from `first` on go through."""
        f, tile = self.f, self.tile
        every = const(I32, -(-self.sizes.keys // tile.columns))
        if not self.sizes.causal:
            return every
        seen = f.udiv(f.add(first, tile.height - 1 + tile.columns), tile.columns)
        return f.select(f.icmp("slt", seen, every), seen, every)

    def mask_of(self, batch: Value, head: Value) -> Mask | None:
        """That of one head of queries, which are the rows."""
        if self.mask_operand is None:
            return None
        reader = MaskReader(self.f, self.mask_operand, 2, 3)
        pointer = reader.start(batch, head)
        return lambda columns: (reader, pointer)

    # ---- the walk

    def walk(
        self,
        keep: Callable[[], None],
        count: Value,
        columns: Callable[[Value], tuple[Value, Value, Sequence[Value]]],
        carried: Sums,
        step: Callable[[Columns, Sums], Sums],
    ) -> Sums:
        """keep: asks for the tiles that stay.  columns: of a step's number, its head, first column
        and where the rows of both moving operands begin.
        """
        f = self.f

        def ask(number: Value, buffer: Value) -> None:
            _, first, pointers = columns(number)
            for k, (loader, pointer) in enumerate(zip(self.moving_loaders, pointers, strict=True)):
                loader.copy(self._ring_place(buffer, k), pointer, first)

        keep()
        zero = const(I32, 0)
        ask(zero, zero)
        commit_copies(f)
        with f.loop(zero, count, 1, carried, "columns") as loop:
            wait_copies(f, 0)
            f.barrier()
            following = f.add(loop.index, 1)
            with f.when(f.icmp("slt", following, count), "ask"):
                ask(following, f.and_(following, STAGES - 1))
            commit_copies(f)
            buffer = f.and_(loop.index, STAGES - 1)
            head, first, _ = columns(loop.index)
            tiles = [self._ring_place(buffer, k) for k in (0, 1)]
            loop.next = step(Columns(head, first, tiles), loop.carried)
        wait_copies(f, 0)
        return loop.results

    def _ring_place(self, buffer: Value, number: int) -> Value:
        f = self.f
        place = f.mul(f.add(f.mul(buffer, 2), number), self.ring_tile)
        return self.products.at(self.ring, place)

    # ---- scores

    def scores(self, left: Value, right: Value) -> Sums:
        """Rows of a kept tile of queries or keys by those of a moving one of the others."""
        count = 4 * self.tile.rows * (self.tile.columns // PIECE_COLUMNS)
        return self.products.along(zeros(count), left, right, self.tile.columns, self.width)

    def each(self, scores: Sums, change: Callable[[Value, int, int], Value]) -> Sums:
        """Every score by what `change` makes of it, its row and its column (of the thread's)."""
        pieces = self.tile.columns // PIECE_COLUMNS
        made = list(scores)
        for number, row, column in self.positions(pieces):
            made[number] = change(scores[number], row, column)
        return made

    def positions(self, pieces: int) -> list[tuple[int, int, int]]:
        """(number, row, column) of all sums."""
        return [
            (piece(pieces, i, j) + 2 * half + side, 2 * i + half, 2 * j + side)
            for i in range(self.tile.rows)
            for j in range(pieces)
            for half in (0, 1)
            for side in (0, 1)
        ]

    def restricted(
        self,
        scores: Sums,
        rows: Sequence[Value],
        columns: Columns,
        transposed: bool,
        mask: Mask | None,
    ) -> Sums:
        """Scores with masks applied: -inf where nothing is seen.  transposed: rows are keys."""
        f, sizes = self.f, self.sizes
        numbers = self.column_numbers(columns.first)
        if mask is not None:
            reader, pointer = mask(columns)
            scores = self._masked(scores, reader.values(pointer, rows, numbers), reader)
        elif self.before is not None:
            factor = const("float", self.before)
            scores = self.each(scores, lambda score, row, column: f.fmul(score, factor))
        extent = sizes.queries if transposed else sizes.keys
        ragged = extent % self.tile.columns != 0
        if not ragged and not sizes.causal:
            return scores
        last = f.add(columns.first, self.tile.columns - 1)
        edge: Value | None = None
        if ragged:
            edge = f.icmp("sge", last, extent)
        if sizes.causal:
            lowest = f.sub(rows[0], self.products.row)
            if transposed:
                highest = f.add(lowest, PIECE_ROWS * self.tile.rows - 1)
                crosses = f.icmp("slt", columns.first, highest)
            else:
                crosses = f.icmp("sgt", last, lowest)
            edge = crosses if edge is None else f.or_(edge, crosses)
        assert edge is not None

        def change() -> Sums:
            def seen(score: Value, row: int, column: int) -> Value:
                allowed: list[Value] = []
                if ragged:
                    allowed.append(f.icmp("slt", numbers[column], extent))
                if sizes.causal:
                    key, query = numbers[column], rows[row]
                    if transposed:
                        key, query = query, key
                    allowed.append(f.icmp("sle", key, query))
                both = allowed[0] if len(allowed) == 1 else f.and_(*allowed)
                return f.select(both, score, NOTHING)

            return self.each(scores, seen)

        return self._where(edge, scores, change)

    def _masked(self, scores: Sums, values: list[list[Value]], reader: MaskReader) -> Sums:
        f, dtype = self.f, reader.mask.dtype
        if dtype is dtypes.bool_:
            if self.before is not None:
                factor = const("float", self.before)
                scores = self.each(scores, lambda score, row, column: f.fmul(score, factor))
            return self.each(
                scores, lambda score, row, column: f.select(values[row][column], score, NOTHING)
            )
        factor, log2_e = const("float", self.before), const("float", LOG2_E)

        def added(score: Value, row: int, column: int) -> Value:
            number = scalar.emit_cast(f, values[row][column], dtype, dtypes.float32)
            return f.fma(score, factor, f.fmul(number, log2_e))

        return self.each(scores, added)

    def _where(self, condition: Value, values: Sums, change: Callable[[], Sums]) -> Sums:
        """The values, changed where the condition (the same for a whole warp) holds."""
        f = self.f
        then, after = f.fresh("edge.then"), f.fresh("edge.end")
        before = f.label
        f.branch_if(condition, then, after)
        f.start_block(then)
        changed = change()
        end = f.label
        f.branch(after)
        f.start_block(after)
        return [
            f.phi(new.type, [(new, end), (old, before)])
            for new, old in zip(changed, values, strict=True)
        ]

    def power(self, score: Value, shift: Value) -> Value:
        """2 ** (unit * score + shift)."""
        f = self.f
        exponent = f.fma(score, const("float", self.unit), shift)
        if self.products.bytes == 2:
            return f.intrinsic("llvm.nvvm.ex2.approx.ftz.f", "float", exponent)
        return power_of(f, exponent)

    def across_row(self, value: Value, join: Callable[[Value, Value], Value]) -> Value:
        """Among the four lanes that share a row."""
        for distance in (1, 2):
            value = join(value, self.f.shuffle_xor(value, distance))
        return value
