"""Emission of attention forward: online softmax over key blocks, a strip of queries a task.

For each key block: scores, masks, the new top of each query, weights 2**(score - top), and the sum
of weighted values, of which what there was is scaled down to the new top (M. Milakov and
N. Gimelshein, "Online normalizer calculation for softmax", 2018; T. Dao et al., "FlashAttention",
2022).  Keys that no query of the strip may see are not visited.  Memory: a strip's scores.
"""

from __future__ import annotations

import math
from dataclasses import replace

from lazygrad_compiler.ir.inference_attention import dropout_of, optional_operands
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.attention_backward import emit_backward, emit_sum
from lazygrad_compiler.llvm.attention_combine import emit_combine
from lazygrad_compiler.llvm.attention_decode import emit_decode
from lazygrad_compiler.llvm.attention_dropout import Kept
from lazygrad_compiler.llvm.attention_tiles import (
    I64,
    LOG2_E,
    Scratch,
    Tiles,
    in_words,
    power_of,
)
from lazygrad_compiler.llvm.builder import Module, Value, const
from lazygrad_compiler.llvm.elementary import emit_elementary
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.loops.attention import (
    VECTORS,
    Cut,
    Operand,
    default_cut,
    operands,
    sizes_of,
)
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.loops.products import word_instruction
from lazygrad_compiler.loops.rounding import round_up
from lazygrad_compiler.loops.schedule_arrays import AttentionSchedule
from lazygrad_compiler.target import Target


def emit_attention(
    module: Module, name: str, kernel: ArrayKernel, target: Target,
    schedule: AttentionSchedule | None,
) -> Work:
    """schedule: None for the steps that have no strips."""
    if kernel.step == "sum":
        return emit_sum(module, name, kernel, target)
    if kernel.step == "decode":
        return emit_decode(module, name, kernel, target)
    if kernel.step == "combine":
        return emit_combine(module, name, kernel, target)
    module.opaque_indices = target.has_wide_addresses
    cut = default_cut(kernel, target)
    assert cut is not None and schedule is not None
    cut = replace(cut, pairs=schedule.pairs, block=schedule.block)
    if kernel.step.startswith("backward"):
        return emit_backward(module, name, kernel, target, cut)
    return _emit_forward(module, name, kernel, target, cut)


def _emit_forward(
    module: Module, name: str, kernel: ArrayKernel, target: Target, cut: Cut
) -> Work:
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, _ = load_arguments(f, len(kernel.buffers))
    sizes = sizes_of(kernel)
    dtype = kernel.buffers[0].dtype
    tiles = Tiles(f, sizes, cut, pointers, word_instruction(dtype, dtype, target))
    everything = operands(kernel)
    written = kernel.step.split()[1:]
    read = everything[: len(everything) - len(written)]
    results = dict(zip(written, everything[-len(written) :], strict=True))
    forward = _Forward(tiles, kernel, read, results)
    strips = -(-sizes.queries // cut.strip)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="task") as task:
        strip = f.urem(task.index, strips)
        if sizes.causal:  # the longest first
            strip = f.sub(const(I64, strips - 1), strip)
        number = f.udiv(task.index, strips)
        head = f.urem(number, sizes.heads)
        forward.strip(f.udiv(number, sizes.heads), head, f.mul(strip, cut.strip))
    f.ret()
    return Work(sizes.batch * sizes.heads * strips, 1, forward.scratch.used)


class _Forward:
    def __init__(
        self,
        tiles: Tiles,
        kernel: ArrayKernel,
        read: list[Operand],
        results: dict[str, Operand],
    ) -> None:
        self.tiles, self.results = tiles, results
        self.q, self.k, self.v = read[:3]
        self.mask, state = optional_operands(kernel.op, read, kernel.attrs)
        dropout = dropout_of(kernel.attrs)
        sizes, cut = tiles.sizes, tiles.cut
        self.vectors = cut.pairs * VECTORS
        self.with_output = "attention" in results
        self.scratch = scratch = Scratch(tiles.f, tiles.itemsize)
        self.queries = scratch.take(round_up(sizes.width, cut.lanes) * cut.strip)
        self.scores = scratch.take((cut.block + cut.lanes) * cut.strip)
        self.sums = scratch.take(round_up(sizes.value_width, cut.lanes) * cut.strip)
        self.kept = None
        if dropout is not None and state is not None and self.with_output:
            self.kept = Kept(tiles, dropout, state, scratch)
        self.keys = self.values = None
        if tiles.instruction:
            wide = round_up(sizes.value_width, 2 * cut.lanes)
            self.values = scratch.take((cut.block // 2 + 1) * wide)
            if not in_words(self.k):
                self.keys = scratch.take(cut.block * round_up(sizes.width, 2 * cut.lanes) // 2)
        elif scalar.is_narrow(self.k.dtype):
            self.keys = scratch.take(cut.block * round_up(sizes.width, cut.lanes))
            self.values = scratch.take(cut.block * round_up(sizes.value_width, cut.lanes))

    def strip(self, batch: Value, head: Value, first: Value) -> None:
        """All that there is to do for the queries from `first` on."""
        tiles = self.tiles
        f, sizes, cut = tiles.f, tiles.sizes, tiles.cut
        group = f.udiv(head, sizes.heads // sizes.groups)
        own, shared = (batch, head), (batch, group)
        tiles.pack_transposed(self.q, own, first, self.queries, sizes.scale * LOG2_E)
        if self.with_output:
            tiles.clear(self.sums, sizes.value_width * cut.strip)
        end = tiles.visible_keys(first)
        top, total, vectors = const(tiles.vector, -math.inf), const(tiles.vector, 0), self.vectors
        carried = [top] * vectors + [total] * vectors
        with f.loop(0, end, cut.block, carried, "block") as loop:
            tops, totals = loop.carried[:vectors], loop.carried[vectors:]
            begin = loop.index
            stop = tiles.least(f.add(begin, cut.block), end)
            count = f.sub(stop, begin)
            factor = sizes.scale * LOG2_E
            if tiles.instruction:
                keys = tiles.rows_of_words(self.k, shared, begin, count, self.keys)
            else:
                keys = tiles.in_place_or_copied(self.k, shared, begin, count, self.keys)
            tiles.scores(keys, sizes.width, self.queries, self.scores, begin, stop, factor)
            if self.mask is not None:
                tiles.apply_mask(self.mask, own, first, self.scores, begin, stop)
            if sizes.causal:
                tiles.forbid_later(self.scores, begin, stop, first)
            new_tops, shifts = self._tops(tops, count)
            factors = [
                power_of(f, f.fsub(old, shift)) for old, shift in zip(tops, shifts, strict=True)
            ]
            totals = [f.fmul(a, b) for a, b in zip(totals, factors, strict=True)]
            if self.kept is not None:
                self.kept.draw(*own, first, begin, count)
            totals = self._weights(shifts, totals, count)
            if self.with_output and tiles.instruction:
                assert self.values is not None
                stride = tiles.copy_woven(self.v, shared, begin, count, self.values, sizes.keys)
                tiles.add_weighted(
                    (self.values, stride), sizes.value_width, self.scores,
                    f.lshr(f.add(count, 1), 1), self.sums, factors, 2 * cut.strip,
                )
            elif self.with_output:
                values = tiles.in_place_or_copied(self.v, shared, begin, count, self.values)
                tiles.add_weighted(
                    values, sizes.value_width, self.scores, count, self.sums, factors
                )
            loop.next = [*new_tops, *totals]
        tops, totals = loop.results[:vectors], loop.results[vectors:]
        if self.with_output:
            factors = [self._reciprocal(total) for total in totals]
            tiles.write_transposed(self.sums, self.results["attention"], own, first, factors)
        if "attention_logsumexp" in self.results:
            self._write_statistics(own, first, tops, totals)

    def _tops(self, tops: list[Value], count: Value) -> tuple[list[Value], list[Value]]:
        """The largest scores so far, and what is taken off the scores: that, or 0 for -inf."""
        tiles = self.tiles
        f, cut = tiles.f, tiles.cut
        with f.loop(0, count, 1, tops, "top") as loop:
            row = tiles.at(self.scores, f.mul(loop.index, cut.strip))
            loop.next = []
            for number, top in enumerate(loop.carried):
                value = tiles.load(row, number * cut.lanes)
                loop.next.append(f.select(f.fcmp("ogt", value, top), value, top))
        new = loop.results
        none = const(tiles.vector, -math.inf)
        return new, [f.select(f.fcmp("oeq", top, none), 0.0, top) for top in new]

    def _weights(self, shifts: list[Value], totals: list[Value], count: Value) -> list[Value]:
        """Scores become weights in place, those of two keys words in place of the first; gives the
        totals with theirs.
        """
        tiles = self.tiles
        f, cut = tiles.f, tiles.cut
        if tiles.instruction:
            return self._weights_in_words(shifts, totals, count)
        with f.loop(0, count, 1, totals, "weight") as loop:
            row = tiles.at(self.scores, f.mul(loop.index, cut.strip))
            loop.next = []
            for number, total in enumerate(loop.carried):
                score = f.fsub(tiles.load(row, number * cut.lanes), shifts[number])
                weight = power_of(f, score)
                loop.next.append(f.fadd(total, weight))
                if self.kept is not None:
                    weight = self.kept.dropped(self.kept.kept(loop.index, number), weight)
                tiles.store(weight, row, number * cut.lanes)
        return loop.results

    def _weights_in_words(
        self, shifts: list[Value], totals: list[Value], count: Value
    ) -> list[Value]:
        tiles = self.tiles
        f, cut = tiles.f, tiles.cut
        zero = const(tiles.vector, 0)
        with f.loop(0, count, 2, totals, "weight") as loop:
            row = tiles.at(self.scores, f.mul(loop.index, cut.strip))
            second = f.add(loop.index, 1)
            inside = f.icmp("slt", second, count)
            loop.next = []
            for number, total in enumerate(loop.carried):
                column = number * cut.lanes
                weights = []
                for key, place in ((loop.index, column), (second, cut.strip + column)):
                    weight = power_of(f, f.fsub(tiles.load(row, place), shifts[number]))
                    if key is second:
                        weight = f.select(inside, weight, zero)
                    total = f.fadd(total, weight)
                    if self.kept is not None:
                        weight = self.kept.dropped(self.kept.kept(key, number), weight)
                    weights.append(weight)
                tiles.store(tiles.pairs(*weights), row, column)
                loop.next.append(total)
        return loop.results

    def _reciprocal(self, total: Value) -> Value:
        f = self.tiles.f
        if self.tiles.sizes.empty_is_zero:
            total = f.select(f.fcmp("oeq", total, const(total.type, 0)), 1.0, total)
        return f.fdiv(1.0, total)

    def _write_statistics(
        self, own: tuple[Value, Value], first: Value, tops: list[Value], totals: list[Value]
    ) -> None:
        tiles, target = self.tiles, self.results["attention_logsumexp"]
        f, sizes, cut = tiles.f, tiles.sizes, tiles.cut
        for number, (top, total) in enumerate(zip(tops, totals, strict=True)):
            place = f.add(first, number * cut.lanes)
            value = f.fma(top, math.log(2), emit_elementary("log", f, total))
            mask = None
            if sizes.queries % cut.strip:
                mask = tiles.first_lanes(f.sub(const(I64, sizes.queries), place))
            tiles.write(value, tiles.address(target, *own, place), target.dtype, mask)
