"""Attention forward: a block takes rows of queries and goes through keys and values, with an online
softmax (T. Dao, "FlashAttention-2", 2023): sums are scaled down to each new top.  Nothing of the
size of the scores is ever in memory.
"""

from __future__ import annotations

from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.elementary import emit_elementary
from lazygrad_compiler.loops.attention import operands
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.ptx.attention_products import PIECE_COLUMNS, Sums, zeros
from lazygrad_compiler.ptx.attention_scores import NOTHING, AttentionTile, Block, Columns
from lazygrad_compiler.ptx.attention_tiles import RowWriter, head_pointer, scaled
from lazygrad_compiler.ptx.builder import KernelFunction


def emit_forward(f: KernelFunction, kernel: ArrayKernel, tile: AttentionTile) -> int:
    """Writes the body; gives the number of blocks."""
    return _Forward(f, kernel, tile).run()


class _Forward:
    def __init__(self, f: KernelFunction, kernel: ArrayKernel, tile: AttentionTile) -> None:
        self.f, self.kernel, self.tile = f, kernel, tile
        every = operands(kernel)
        written = kernel.step.split()[1:]
        self.results = dict(zip(written, every[-len(written) :], strict=True))
        self.q, self.k, self.v = every[:3]
        self.block = Block(f, kernel, tile, [self.q], [self.k, self.v])
        self.pieces = self.block.value_width // PIECE_COLUMNS
        self.with_output = "attention" in self.results
        self.sum_count = 4 * tile.rows * self.pieces if self.with_output else 0

    def run(self) -> int:
        f, block, tile, sizes = self.f, self.block, self.tile, self.block.sizes
        element = block.products.element
        batch, head, first, blocks = block.place(sizes.queries, sizes.heads, sizes.causal)
        shared = f.udiv(head, sizes.heads // sizes.groups)
        pointers = [head_pointer(f, each, batch, shared, element) for each in (self.k, self.v)]
        queries = head_pointer(f, self.q, batch, head, element)
        rows = block.row_numbers(first)
        self.rows = rows
        mask = block.mask_of(batch, head)

        def step(columns: Columns, carried: Sums) -> Sums:
            scores = block.scores(block.kept[0], columns.tiles[0])
            scores = block.restricted(scores, rows, columns, False, mask)
            return self._online(scores, columns.tiles[1], carried)

        count = len(rows)
        carried = zeros(self.sum_count) + [NOTHING] * count + zeros(count)
        found = block.walk(
            lambda: block.kept_loaders[0].copy(block.kept[0], queries, first),
            block.visible(first),
            lambda number: (head, f.mul(number, tile.columns), pointers),
            carried,
            step,
        )
        sums, tops, totals = self._parts(found)
        totals = [block.across_row(total, f.fadd) for total in totals]
        if self.with_output:
            self._write(sums, totals, batch, head, first)
        if "attention_logsumexp" in self.results:
            self._write_statistics(tops, totals, batch, head)
        return blocks

    def _parts(self, carried: Sums) -> tuple[Sums, Sums, Sums]:
        """Sums of values; tops and totals of the rows."""
        count, rows = self.sum_count, len(self.rows)
        return carried[:count], carried[count : count + rows], carried[count + rows :]

    def _online(self, scores: Sums, values: Value, carried: Sums) -> Sums:
        f, block = self.f, self.block
        sums, tops, totals = self._parts(carried)
        sums, tops, totals = list(sums), list(tops), list(totals)
        unit = const("float", block.unit)
        pieces = self.tile.columns // PIECE_COLUMNS
        own: list[list[int]] = [[] for _ in tops]
        for number, row, _ in block.positions(pieces):
            own[row].append(number)
        weights = list(scores)
        factors = []
        for row, numbers in enumerate(own):
            best = scores[numbers[0]]
            for number in numbers[1:]:
                best = self._larger(best, scores[number])
            best = self._larger(tops[row], block.across_row(best, self._larger))
            base = f.select(f.fcmp("oeq", best, NOTHING), const("float", 0.0), best)
            shift = f.fneg(f.fmul(base, unit))
            factor = block.power(tops[row], shift)
            total = f.fmul(totals[row], factor)
            for number in numbers:
                weights[number] = block.power(scores[number], shift)
                total = f.fadd(total, weights[number])
            tops[row], totals[row] = best, total
            factors.append(factor)
        if self.with_output:
            for number, row, _ in block.positions(self.pieces):
                sums[number] = f.fmul(sums[number], factors[row])
            sums = block.products.through(
                sums, weights, values, self.tile.columns, block.value_width
            )
        return [*sums, *tops, *totals]

    def _larger(self, a: Value, b: Value) -> Value:
        """A NaN counts for nothing here; its weight is NaN all the same."""
        return self.f.intrinsic("llvm.nvvm.fmax.f", "float", a, b)

    def _write(self, sums: Sums, totals: Sums, batch: Value, head: Value, first: Value) -> None:
        f, block = self.f, self.block
        if block.sizes.empty_is_zero:
            totals = [
                f.select(f.fcmp("oeq", total, 0.0), const("float", 1.0), total) for total in totals
            ]
        factors = [f.fdiv(const("float", 1.0), total) for total in totals]
        sums = list(sums)
        for number, row, _ in block.positions(self.pieces):
            sums[number] = f.fmul(sums[number], factors[row])
        writer = RowWriter(f, block.products, self.results["attention"])
        writer.write(sums, self.pieces, block.kept[0], batch, head, first)

    def _write_statistics(self, tops: Sums, totals: Sums, batch: Value, head: Value) -> None:
        f, block = self.f, self.block
        target = self.results["attention_logsumexp"]
        sizes = block.sizes
        line = f.add(f.mul(f.wide(batch), sizes.heads), f.wide(head))
        pointer = f.offset(f.parameters[target.buffer], f.mul(line, sizes.queries), "float")
        leads = f.icmp("eq", block.products.column, 0)
        for row, top, total in zip(self.rows, tops, totals, strict=True):
            inside = f.and_(leads, f.icmp("slt", row, sizes.queries))
            with f.when(inside, "statistics"):
                value = f.fma(top, const("float", block.natural), emit_elementary("log", f, total))
                f.store(value, f.offset(pointer, scaled(f, row, 1), "float"), 4)
