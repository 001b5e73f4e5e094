"""Emission of attention backward: weights are computed again from the row statistics.

With weights P = 2**(scores - logsumexp), cotangent g and delta = the row sums of g * output:

    dV = P^T g        dS = P * (g V^T - delta)        dQ = dS K * scale        dK = dS^T Q * scale

With dropout, dV has what it leaves of P, and dS what it leaves of g V^T.

A task goes through the strips of queries of its heads; gradients of keys and values are added up in
scratch memory, those of a strip's queries are done when the strip is (T. Dao et al.,
"FlashAttention", 2022, algorithm 4, with the loops exchanged).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.inference_attention import dropout_of, optional_operands
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.arrays import Work
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
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.loops.attention import (
    SUM_ELEMENTS,
    VECTORS,
    Cut,
    Operand,
    operands,
    sizes_of,
)
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.loops.products import word_instruction
from lazygrad_compiler.loops.rounding import round_up
from lazygrad_compiler.target import Target

Head = tuple[Value, Value]


def emit_backward(
    module: Module, name: str, kernel: ArrayKernel, target: Target, cut: Cut
) -> Work:
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, _ = load_arguments(f, len(kernel.buffers))
    sizes = sizes_of(kernel)
    dtype = kernel.buffers[0].dtype
    tiles = Tiles(f, sizes, cut, pointers, word_instruction(dtype, dtype, target))
    written = kernel.step.split()[1:]
    everything = operands(kernel)
    read = everything[: len(everything) - len(written)]
    results = dict(zip(written, everything[-len(written) :], strict=True))
    backward = _Backward(tiles, kernel, read, results)
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="task") as task:
        chunk, number = f.urem(task.index, cut.chunks), f.udiv(task.index, cut.chunks)
        group, batch = f.urem(number, sizes.groups), f.udiv(number, sizes.groups)
        backward.group(batch, group, chunk)
    f.ret()
    return Work(sizes.batch * sizes.groups * cut.chunks, 1, backward.scratch.used)


def emit_sum(module: Module, name: str, kernel: ArrayKernel, target: Target) -> Work:
    """The second launch: partial gradients (chunks, …) added up in order."""
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    (source, result), _ = load_arguments(f, 2)
    chunks = kernel.shapes[0][0]
    partial, dtype = kernel.buffers[0].dtype, kernel.buffers[1].dtype
    size = kernel.buffers[1].size
    lanes = target.lanes(partial.bits)
    _, begin, end, _ = f.parameters

    def positions(first: Value, stop: Value, step: int) -> None:
        type_ = scalar.memory_type(partial, step)
        with f.loop(first, stop, step, hint="element") as loop:
            total = const(type_, 0)
            for chunk in range(chunks):
                place = f.add(loop.index, chunk * size)
                address = f.offset(source, place, scalar.memory_type(partial))
                total = f.fadd(total, f.load(type_, address, partial.itemsize))
            address = f.offset(result, loop.index, scalar.memory_type(dtype))
            f.store(scalar.emit_cast(f, total, partial, dtype), address, dtype.itemsize)

    with f.loop(begin, end, 1, hint="task") as task:
        first = f.mul(task.index, SUM_ELEMENTS)
        stop = f.add(first, SUM_ELEMENTS)
        stop = f.select(f.icmp("slt", stop, size), stop, const(I64, size))
        whole = f.add(first, f.mul(f.udiv(f.sub(stop, first), lanes), lanes))
        positions(first, whole, lanes)
        positions(whole, stop, 1)
    f.ret()
    return Work(-(-size // SUM_ELEMENTS))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Of a vector of queries: logsumexp in units of log 2, infinite (weights of 0) where there is
    nothing to attend to and beyond the last query; delta; NaN where there is nothing to attend to,
    else 0.
    """

    shift: Value
    delta: Value
    excess: Value


class _Backward:
    def __init__(
        self,
        tiles: Tiles,
        kernel: ArrayKernel,
        read: Sequence[Operand],
        results: dict[str, Operand],
    ) -> None:
        self.tiles, self.results = tiles, results
        self.q, self.k, self.v, self.g, self.logsumexp, self.delta = read[:6]
        self.mask, state = optional_operands(kernel.op, read, kernel.attrs)
        dropout = dropout_of(kernel.attrs)
        sizes, cut = tiles.sizes, tiles.cut
        self.with_scores = "q" in results or "k" in results
        self.row = round_up(sizes.width, cut.lanes)
        self.value_row = round_up(sizes.value_width, cut.lanes)
        self.scratch = scratch = Scratch(tiles.f, tiles.itemsize)
        self.queries = scratch.take(self.row * cut.strip)  # transposed
        self.cotangents = scratch.take(self.value_row * cut.strip)  # transposed
        self.query_rows = scratch.take(cut.strip * self.row)
        self.cotangent_rows = scratch.take(cut.strip * self.value_row)
        self.weights = scratch.take((cut.block + cut.lanes) * cut.strip)
        self.slopes = scratch.take((cut.block + cut.lanes) * cut.strip)
        self.query_sums = scratch.take(self.row * cut.strip)  # transposed
        self.key_sums = scratch.take(sizes.keys * self.row)
        self.value_sums = scratch.take(sizes.keys * self.value_row)
        self.kept = None
        if dropout is not None and state is not None:
            self.kept = Kept(tiles, dropout, state, scratch)
        self.keys = self.values = None
        if tiles.instruction:
            twice = 2 * cut.lanes
            wide, value_wide = (round_up(size, twice) for size in (sizes.width, sizes.value_width))
            self.woven_keys = scratch.take((cut.block // 2 + 1) * wide)
            self.slope_words = scratch.take((cut.block // 2 + 1) * cut.strip)
            if not in_words(self.k):
                self.keys = scratch.take(cut.block * wide // 2)
            if not in_words(self.v):
                self.values = scratch.take(cut.block * value_wide // 2)
        elif scalar.is_narrow(self.k.dtype):
            self.keys = scratch.take(cut.block * self.row)
            self.values = scratch.take(cut.block * self.value_row)

    def group(self, batch: Value, group: Value, chunk: Value) -> None:
        """All heads of q that share a head of keys, every `chunks`-th strip of them."""
        tiles = self.tiles
        f, sizes, cut = tiles.f, tiles.sizes, tiles.cut
        if "k" in self.results:
            tiles.clear(self.key_sums, sizes.keys * self.row)
        if "v" in self.results:
            tiles.clear(self.value_sums, sizes.keys * self.value_row)
        ratio = sizes.heads // sizes.groups
        with f.loop(0, ratio, 1, hint="head") as heads:
            head = f.add(f.mul(group, ratio), heads.index)
            first = f.mul(chunk, cut.strip)
            with f.loop(first, sizes.queries, cut.strip * cut.chunks, hint="strip") as strips:
                self._strip((batch, head), (batch, group), strips.index)
        for name, sums, row, factor in (
            ("k", self.key_sums, self.row, sizes.scale),
            ("v", self.value_sums, self.value_row, 1.0),
        ):
            if name in self.results:
                self._write_rows(sums, row, factor, self.results[name], (batch, group), chunk)

    def _strip(self, own: Head, shared: Head, first: Value) -> None:
        tiles = self.tiles
        f, sizes, cut = tiles.f, tiles.sizes, tiles.cut
        tiles.pack_transposed(self.q, own, first, self.queries, sizes.scale * LOG2_E)
        if self.with_scores:
            tiles.pack_transposed(self.g, own, first, self.cotangents, 1.0)
        for name, operand, place, row in (
            ("k", self.q, self.query_rows, self.row),
            ("v", self.g, self.cotangent_rows, self.value_row),
        ):
            if name in self.results and tiles.instruction:
                tiles.copy_woven(operand, own, first, cut.strip, place, sizes.queries)
            elif name in self.results:
                tiles.copy_rows(operand, own, first, cut.strip, place, row, sizes.queries)
        if "q" in self.results:
            tiles.clear(self.query_sums, sizes.width * cut.strip)
        rows = self._statistics(own, first)
        end = tiles.visible_keys(first)
        if "v" in self.results and self.mask is not None and not sizes.empty_is_zero:
            # a row where nothing is allowed has NaN for weights, also of keys that causality
            # leaves out
            end = const(I64, sizes.keys)
        with f.loop(0, end, cut.block, hint="block") as loop:
            begin = loop.index
            stop = tiles.least(f.add(begin, cut.block), end)
            self._block(own, shared, first, begin, stop, rows)
        if "q" in self.results:
            factor = const(tiles.vector, sizes.scale)
            factors = [factor] * (cut.pairs * VECTORS)
            tiles.write_transposed(self.query_sums, self.results["q"], own, first, factors)

    def _statistics(self, own: Head, first: Value) -> list[_Rows]:
        """What is known of the strip's rows, by vectors of them."""
        tiles = self.tiles
        f, sizes, cut = tiles.f, tiles.sizes, tiles.cut
        rows = []
        for column in range(0, cut.strip, cut.lanes):
            place = f.add(first, column)
            mask = None
            if sizes.queries % cut.strip:
                mask = tiles.first_lanes(f.sub(const(I64, sizes.queries), place))
            found = []
            for operand in (self.logsumexp, self.delta):
                address = tiles.address(operand, *own, place)
                found.append(tiles.read(address, 0, operand.dtype, mask))
            shift, delta = found
            empty = f.fcmp("oeq", shift, const(tiles.vector, -math.inf))
            nan = const(tiles.vector, math.nan)
            excess = f.select(empty, nan, const(tiles.vector, 0))
            nothing = empty if mask is None else f.or_(empty, f.not_(mask))
            shift = f.fmul(shift, LOG2_E)
            shift = f.select(nothing, const(tiles.vector, math.inf), shift)
            rows.append(_Rows(shift, delta, excess))
        return rows

    def _block(
        self, own: Head, shared: Head, first: Value, begin: Value, stop: Value, rows: list[_Rows]
    ) -> None:
        """One strip against one block of keys."""
        tiles = self.tiles
        f, sizes, cut = tiles.f, tiles.sizes, tiles.cut
        count = f.sub(stop, begin)
        read = tiles.rows_of_words if tiles.instruction else tiles.in_place_or_copied
        keys = read(self.k, shared, begin, count, self.keys)
        factor = sizes.scale * LOG2_E
        tiles.scores(keys, sizes.width, self.queries, self.weights, begin, stop, factor)
        if self.mask is not None:
            tiles.apply_mask(self.mask, own, first, self.weights, begin, stop)
        if sizes.causal:
            tiles.forbid_later(self.weights, begin, stop, first)
        if self.with_scores:
            values = read(self.v, shared, begin, count, self.values)
            tiles.scores(values, sizes.value_width, self.cotangents, self.slopes, begin, stop)
        if self.kept is not None:
            self.kept.draw(*own, first, begin, count)
        if tiles.instruction:
            self._weights_in_words(rows, count)
        else:
            with f.loop(0, count, 1, hint="weight") as loop:
                place = f.mul(loop.index, cut.strip)
                for number, row in enumerate(rows):
                    at = f.add(place, number * cut.lanes)
                    weight, slope = self._weight(loop.index, number, row)
                    if slope is not None:
                        tiles.store(slope, self.slopes, at)
                    tiles.store(weight, self.weights, at)
        if "v" in self.results:
            self._add_rows(
                self.weights, self.cotangent_rows, self.value_row, self.value_sums, begin, stop
            )
        if "k" in self.results:
            self._add_rows(self.slopes, self.query_rows, self.row, self.key_sums, begin, stop)
        if "q" in self.results and tiles.instruction:
            stride = tiles.copy_woven(self.k, shared, begin, count, self.woven_keys, sizes.keys)
            words = f.lshr(f.add(count, 1), 1)
            tiles.add_weighted(
                (self.woven_keys, stride), sizes.width, self.slope_words, words, self.query_sums,
                None,
            )
        elif "q" in self.results:
            tiles.add_weighted(keys, sizes.width, self.slopes, count, self.query_sums, None)

    def _weight(self, key: Value, number: int, row: _Rows) -> tuple[Value, Value | None]:
        """Of a key of the block and a vector of queries: what dropout leaves of the weights, and,
        where it is wanted, the gradients of the scores.
        """
        tiles = self.tiles
        f, cut = tiles.f, tiles.cut
        place = f.add(f.mul(key, cut.strip), number * cut.lanes)
        weight = power_of(f, f.fsub(tiles.load(self.weights, place), row.shift))
        kept = None if self.kept is None else self.kept.kept(key, number)
        slope = None
        if self.with_scores:
            inner = tiles.load(self.slopes, place)
            if self.kept is not None and kept is not None:
                inner = self.kept.dropped(kept, inner)
            slope = f.fmul(weight, f.fsub(inner, row.delta))
            if self.mask is not None and self.mask.dtype is dtypes.bool_:
                # nothing flows to a score that was replaced, whatever delta is
                none = f.fcmp("oeq", weight, const(tiles.vector, 0))
                slope = f.select(none, 0.0, slope)
        if not tiles.sizes.empty_is_zero:
            weight = f.fadd(weight, row.excess)
        if self.kept is not None and kept is not None:
            weight = self.kept.dropped(kept, weight)
        return weight, slope

    def _weights_in_words(self, rows: list[_Rows], count: Value) -> None:
        """Weights and slopes as rows of bfloat16, in place of the scores' first halves, and slopes
        as words of two keys.
        """
        tiles = self.tiles
        f, cut = tiles.f, tiles.cut
        with f.loop(0, count, 2, hint="weight") as loop:
            second = f.add(loop.index, 1)
            inside = f.icmp("slt", second, count)
            for number, row in enumerate(rows):
                slopes = []
                for key in (loop.index, second):
                    weight, slope = self._weight(key, number, row)
                    place = f.mul(key, cut.strip)
                    for value, target in ((weight, self.weights), (slope, self.slopes)):
                        if value is not None:
                            address = f.offset(tiles.at(target, place), number * cut.lanes, "i16")
                            f.store(tiles.rounded(value), address, 2)
                    if slope is not None:
                        slopes.append(slope)
                if slopes:
                    slopes[1] = f.select(inside, slopes[1], const(tiles.vector, 0))
                    place = f.add(f.mul(f.lshr(loop.index, 1), cut.strip), number * cut.lanes)
                    tiles.store(tiles.pairs(*slopes), self.slope_words, place)

    def _add_rows(
        self, weights: Value, rows: Value, width: int, sums: Value, begin: Value, stop: Value
    ) -> None:
        """sums (keys, width) += weights (keys, strip) times rows (strip, width), of one block."""
        tiles = self.tiles
        f, cut = tiles.f, tiles.cut

        def tile(key: Value, height: int) -> None:
            left = tiles.at(weights, f.mul(f.sub(key, begin), cut.strip))
            target = tiles.at(sums, f.mul(key, width))
            stride = round_up(width, 2 * cut.lanes) if tiles.instruction else width

            def columns(column: Value, vectors: int) -> None:
                place = tiles.at(target, column)
                spots = [
                    i * width + j * cut.lanes for i in range(height) for j in range(vectors)
                ]
                totals = tiles.product(
                    (left, cut.strip, 1),
                    (tiles.at(rows, column), stride),
                    height,
                    vectors,
                    cut.strip // 2 if tiles.instruction else cut.strip,
                    [tiles.load(place, spot) for spot in spots],
                )
                for spot, total in zip(spots, totals, strict=True):
                    tiles.store(total, place, spot)

            step = VECTORS * cut.lanes
            if width >= step:
                with f.loop(0, width // step * step, step, hint="columns") as loop:
                    columns(loop.index, VECTORS)
            if width % step:
                columns(const(I64, width // step * step), 1)

        tiles.key_tiles(begin, stop, tile)

    def _write_rows(
        self, sums: Value, row: int, factor: float, target: Operand, shared: Head, chunk: Value
    ) -> None:
        """Gradients of a head's keys or values to where they belong."""
        tiles = self.tiles
        f, sizes, cut = tiles.f, tiles.sizes, tiles.cut
        places = (chunk, *shared) if cut.chunks > 1 else shared
        with f.loop(0, sizes.keys, 1, hint="write.row") as rows:
            address = tiles.address(target, *places, rows.index)
            source = tiles.at(sums, f.mul(rows.index, row))
            for begin, end, mask in tiles.columns(target.shape[-1]):
                with f.loop(begin, end, cut.lanes, hint="write") as loop:
                    value = tiles.load(source, loop.index)
                    if factor != 1.0:
                        value = f.fmul(value, factor)
                    spot = f.offset(address, loop.index, scalar.memory_type(target.dtype))
                    tiles.write(value, spot, target.dtype, mask)
