"""What the kernels of attention are made of: register tiles, blocks transposed on the way in and
out, scores masked and turned into weights.

Scores are in units of log 2 (queries are scaled by scale * log2(e) when they are packed), so that a
weight is 2**(score - top): one constant less to multiply with, and no range to reduce.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Function, Value, const, const_lanes, vector_of
from lazygrad_compiler.llvm.contraction_words import add_products, rounded
from lazygrad_compiler.llvm.elementary_lanes import Lanes, nearest, polynomial, scale, select
from lazygrad_compiler.llvm.transpose import transpose
from lazygrad_compiler.loops.attention import VECTORS, Cut, Operand, Sizes
from lazygrad_compiler.loops.rounding import round_up

I64 = "i64"
LOG2_E = math.log2(math.e)
SMALLEST_POWER = {"float": -152.0, "double": -1077.0}
"""2 to this rounds to 0."""


def power_of(f: Function, score: Value) -> Value:
    """2**score for a score of at most 1 or so: NaN stays NaN, -inf gives 0."""
    x = Lanes(f, score)
    x = select(x < SMALLEST_POWER[x.element], SMALLEST_POWER[x.element], x)
    n = nearest(x, 1.0)
    r = x - n.number
    return scale(r * polynomial("exp2", r) + 1.0, n).value


def in_words(operand: Operand) -> bool:
    """Whether rows are read as words of two neighbours where they lie."""
    return operand.shape[3] % 2 == 0 and operand.strides[2] % 2 == 0


@dataclass(slots=True)
class Scratch:
    """Hands out the scratch memory of a task, piece by piece."""

    f: Function
    itemsize: int
    used: int = 0

    def take(self, elements: int) -> Value:
        place = self.f.offset(self.f.parameters[3], self.used, "i8")
        self.used += round_up(elements * self.itemsize, 64) + 64
        return place


@dataclass(slots=True)
class Tiles:
    """Emits the parts of one kernel into a function."""

    f: Function
    sizes: Sizes
    cut: Cut
    pointers: list[Value]
    instruction: str = ""
    """What multiplies words of two bfloat16; "" where numbers are made wide before."""

    @property
    def element(self) -> str:
        return scalar.register_type(self.sizes.wide)

    @property
    def itemsize(self) -> int:
        return self.sizes.wide.itemsize

    @property
    def vector(self) -> str:
        return vector_of(self.element, self.cut.lanes)

    # ---- addresses and vectors in memory

    def at(self, pointer: Value, place: Value | int) -> Value:
        """The address of an element of scratch memory."""
        return self.f.offset(pointer, place, self.element)

    def load(self, pointer: Value, place: Value | int) -> Value:
        return self.f.load(self.vector, self.at(pointer, place), self.itemsize)

    def store(self, value: Value, pointer: Value, place: Value | int) -> None:
        self.f.store(value, self.at(pointer, place), self.itemsize)

    def clear(self, pointer: Value, elements: int) -> None:
        """Zeroes whole vectors, at least so many elements."""
        with self.f.loop(0, elements, self.cut.lanes, hint="clear") as loop:
            self.store(const(self.vector, 0), pointer, loop.index)

    def address(self, operand: Operand, *places: Value) -> Value:
        """Where (batch, head, row, …) of an operand begins."""
        f = self.f
        total: Value = const(I64, operand.offset)
        for place, stride in zip(places, operand.strides, strict=False):
            total = f.add(total, f.mul(place, stride))
        return f.offset(self.pointers[operand.buffer], total, scalar.memory_type(operand.dtype))

    def first_lanes(self, count: Value | int, lanes: int = 0) -> Value:
        lanes = lanes or self.cut.lanes
        if isinstance(count, int):
            return const_lanes("i1", [lane < count for lane in range(lanes)])
        return self.f.icmp("slt", const_lanes(I64, list(range(lanes))), self.f.splat(count, lanes))

    def read(self, pointer: Value, place: Value | int, dtype: DType, mask: Value | None) -> Value:
        """A vector of an operand's elements as they are computed with; 0 where masked off."""
        f, lanes = self.f, self.cut.lanes
        address = f.offset(pointer, place, scalar.memory_type(dtype))
        type_ = scalar.memory_type(dtype, lanes)
        if mask is None or lanes == 1:
            value = f.load(type_, address, dtype.itemsize)
        else:
            value = f.masked_load(type_, address, dtype.itemsize, mask, const(type_, 0))
        return self.widened(value, dtype)

    def words(self, address: Value, mask: Value | None) -> Value:
        """Two vectors of 16-bit numbers as one of words; zeros where masked off."""
        f, lanes = self.f, self.cut.lanes
        type_ = vector_of("i16", 2 * lanes)
        if mask is None:
            bits = f.load(type_, address, 2)
        else:
            bits = f.masked_load(type_, address, 2, mask, const(type_, 0))
        return f.bitcast(bits, vector_of("i32", lanes))

    def rounded(self, value: Value) -> Value:
        """A vector of float as the bits of bfloat16."""
        found = rounded(self.f, self.instruction, value)
        return scalar.narrow(self.f, value, dtypes.bfloat16) if found is None else found

    def pairs(self, first: Value, second: Value) -> Value:
        """Words of the lanes of two vectors of float, rounded to bfloat16."""
        f, lanes = self.f, self.cut.lanes
        both = self.rounded(f.shuffle(first, second, range(2 * lanes)))
        woven = f.shuffle(both, None, [lane // 2 + lanes * (lane % 2) for lane in range(2 * lanes)])
        return f.bitcast(woven, vector_of("i32", lanes))

    def widened(self, value: Value, dtype: DType) -> Value:
        if dtype is dtypes.bool_:
            return value
        return scalar.emit_cast(self.f, value, dtype, self.sizes.wide)

    def write(self, value: Value, address: Value, dtype: DType, mask: Value | None) -> None:
        f = self.f
        value = scalar.emit_cast(f, value, self.sizes.wide, dtype)
        if mask is None or self.cut.lanes == 1:
            f.store(value, address, dtype.itemsize)
        else:
            f.masked_store(value, address, dtype.itemsize, mask)

    def least(self, value: Value, limit: Value | int) -> Value:
        limit = limit if isinstance(limit, Value) else const(I64, limit)
        return self.f.select(self.f.icmp("slt", value, limit), value, limit)

    def most(self, value: Value, limit: Value) -> Value:
        return self.f.select(self.f.icmp("sgt", value, limit), value, limit)

    # ---- operands into scratch memory, results out of it

    def columns(self, width: int, lanes: int = 0) -> list[tuple[int, int, Value | None]]:
        """(from, to, mask) of the whole vectors of a row, and of the one that is not full."""
        lanes = lanes or self.cut.lanes
        whole = width // lanes * lanes
        parts: list[tuple[int, int, Value | None]] = [(0, whole, None)] if whole else []
        if width % lanes:
            parts.append((whole, whole + lanes, self.first_lanes(width % lanes, lanes)))
        return parts

    def pack_transposed(
        self, operand: Operand, head: Sequence[Value], first: Value, target: Value, factor: float
    ) -> None:
        """A strip of rows, times a factor, as (width, strip); rows beyond the end repeat it.  As
        words, each of two neighbours along the width, they stay as they are.
        """
        f, cut = self.f, self.cut
        count, width = operand.shape[2:]
        across = cut.lanes * (2 if self.instruction else 1)
        for column in range(0, cut.strip, cut.lanes):
            rows = [
                self.address(operand, *head, self.least(f.add(first, column + lane), count - 1))
                for lane in range(cut.lanes)
            ]
            for begin, end, mask in self.columns(width, across):
                with f.loop(begin, end, across, hint="pack") as loop:
                    if self.instruction:
                        read = [self.words(f.offset(row, loop.index, "i16"), mask) for row in rows]
                        place = self.at(target, f.add(f.mul(loop.index, cut.strip // 2), column))
                        for lane, value in enumerate(transpose(f, read)):
                            self.store(value, place, lane * cut.strip)
                        continue
                    read = [self.read(row, loop.index, operand.dtype, mask) for row in rows]
                    place = self.at(target, f.add(f.mul(loop.index, cut.strip), column))
                    for lane, value in enumerate(transpose(f, read)):
                        if factor != 1.0:
                            value = f.fmul(value, factor)
                        self.store(value, place, lane * cut.strip)

    def write_transposed(
        self,
        source: Value,
        operand: Operand,
        head: Sequence[Value],
        first: Value,
        factors: Sequence[Value],
    ) -> None:
        """(width, strip) as a strip of rows, times a factor for each vector of rows.

        Rows beyond the end go to the last one, which is written after them.
        """
        f, cut = self.f, self.cut
        count, width = operand.shape[2:]
        for number, factor in reversed(list(enumerate(factors))):
            column = number * cut.lanes
            rows = [
                self.address(operand, *head, self.least(f.add(first, column + lane), count - 1))
                for lane in range(cut.lanes)
            ]
            for begin, end, mask in self.columns(width):
                with f.loop(begin, end, cut.lanes, hint="unpack") as loop:
                    place = self.at(source, f.add(f.mul(loop.index, cut.strip), column))
                    read = [
                        f.fmul(self.load(place, lane * cut.strip), factor)
                        for lane in range(cut.lanes)
                    ]
                    written = transpose(f, read)
                    for lane in reversed(range(cut.lanes)):
                        address = f.offset(
                            rows[lane], loop.index, scalar.memory_type(operand.dtype)
                        )
                        self.write(written[lane], address, operand.dtype, mask)

    def copy_rows(
        self, operand: Operand, head: Sequence[Value], first: Value, count: Value | int,
        target: Value, stride: int, limit: int | None = None,
    ) -> None:
        """Rows widened, `stride` apart; zeros behind the width, and in rows from `limit` on."""
        f, cut = self.f, self.cut
        zero = const(self.vector, 0)
        with f.loop(0, count, 1, hint="copy.row") as rows:
            row = f.add(first, rows.index)
            inside = None
            if limit is not None:
                inside = f.icmp("slt", row, limit)
                row = self.least(row, limit - 1)
            source = self.address(operand, *head, row)
            place = self.at(target, f.mul(rows.index, stride))
            for begin, end, mask in self.columns(operand.shape[3]):
                with f.loop(begin, end, cut.lanes, hint="copy") as loop:
                    value = self.read(source, loop.index, operand.dtype, mask)
                    if inside is not None:
                        value = f.select(inside, value, zero)
                    self.store(value, place, loop.index)

    def in_place_or_copied(
        self, operand: Operand, head: Sequence[Value], first: Value, count: Value,
        scratch: Value | None,
    ) -> tuple[Value, int]:
        """(address, row stride) of a block of rows in the dtype that is computed in."""
        if scratch is None:
            return self.address(operand, *head, first), operand.strides[2]
        stride = round_up(operand.shape[3], self.cut.lanes)
        self.copy_rows(operand, head, first, count, scratch, stride)
        return scratch, stride

    def rows_of_words(
        self, operand: Operand, head: Sequence[Value], first: Value, count: Value,
        scratch: Value | None,
    ) -> tuple[Value, int]:
        """(address, row stride) of a block of rows in words of two neighbours; see `in_words`."""
        f, lanes = self.f, self.cut.lanes
        if scratch is None:
            return self.address(operand, *head, first), operand.strides[2] // 2
        width = operand.shape[3]
        stride = round_up(width, 2 * lanes) // 2
        with f.loop(0, count, 1, hint="copy.row") as rows:
            source = self.address(operand, *head, f.add(first, rows.index))
            place = self.at(scratch, f.mul(rows.index, stride))
            for begin, end, mask in self.columns(width, 2 * lanes):
                with f.loop(begin, end, 2 * lanes, hint="copy") as loop:
                    value = self.words(f.offset(source, loop.index, "i16"), mask)
                    f.store(value, f.offset(place, loop.index, "i16"), 4)
        return scratch, stride

    def copy_woven(
        self, operand: Operand, head: Sequence[Value], first: Value, count: Value | int,
        target: Value, limit: Value | int,
    ) -> int:
        """Rows as words of two neighbouring rows, (rows / 2, width): zeros in rows from `limit` on
        and behind the width.  Gives the stride.
        """
        f, lanes = self.f, self.cut.lanes
        width, last = operand.shape[3], operand.shape[2] - 1
        stride = round_up(width, 2 * lanes)
        woven = [lane // 2 + 2 * lanes * (lane % 2) for lane in range(4 * lanes)]
        type_ = vector_of("i16", 2 * lanes)
        with f.loop(0, count, 2, hint="weave.row") as rows:
            numbers = [f.add(f.add(first, rows.index), step) for step in (0, 1)]
            inside = [f.icmp("slt", number, limit) for number in numbers]
            sources = [self.address(operand, *head, self.least(n, last)) for n in numbers]
            place = self.at(target, f.mul(rows.index, stride // 2))
            for begin, end, mask in self.columns(width, 2 * lanes):
                with f.loop(begin, end, 2 * lanes, hint="weave") as loop:
                    a, b = (
                        f.select(
                            flag,
                            f.bitcast(self.words(f.offset(s, loop.index, "i16"), mask), type_),
                            const(type_, 0),
                        )
                        for s, flag in zip(sources, inside, strict=True)
                    )
                    for half in (0, 1):
                        order = woven[2 * lanes * half : 2 * lanes * (half + 1)]
                        words = f.bitcast(f.shuffle(a, b, order), vector_of("i32", lanes))
                        self.store(words, place, f.add(loop.index, half * lanes))
        return stride

    # ---- the register tile

    def product(
        self,
        left: tuple[Value, int, int],
        right: tuple[Value, int],
        rows: int,
        vectors: int,
        count: Value | int,
        start: list[Value],
    ) -> list[Value]:
        """start[i, j] + the sum over t < count of left[i, t] * right[t, j]: rows x vectors sums.

        left: address, stride of i, stride of t; an element is broadcast.  right: address, stride of
        t; j counts vectors.  Where there is an instruction for words, elements are words.
        """
        f = self.f
        unroll = 4
        if isinstance(count, int):
            whole: Value = const(I64, count // unroll * unroll)
            sums = self._steps(left, right, rows, vectors, const(I64, 0), whole, unroll, start)
            if count % unroll:
                sums = self._steps(left, right, rows, vectors, whole, const(I64, count), 1, sums)
            return sums
        whole = f.and_(count, -unroll)
        sums = self._steps(left, right, rows, vectors, const(I64, 0), whole, unroll, start)
        return self._steps(left, right, rows, vectors, whole, count, 1, sums)

    def _steps(
        self,
        left: tuple[Value, int, int],
        right: tuple[Value, int],
        rows: int,
        vectors: int,
        begin: Value,
        end: Value,
        unroll: int,
        start: list[Value],
    ) -> list[Value]:
        f, lanes = self.f, self.cut.lanes
        left_pointer, row_stride, step_stride = left
        right_pointer, right_stride = right
        element = "i32" if self.instruction else self.element
        align = 2 if self.instruction else self.itemsize
        with f.loop(begin, end, unroll, start, "k") as loop:
            sums = list(loop.carried)
            left_base = self.at(left_pointer, f.mul(loop.index, step_stride))
            right_base = self.at(right_pointer, f.mul(loop.index, right_stride))
            for step in range(unroll):
                type_ = vector_of(element, lanes)
                columns = [
                    f.load(type_, self.at(right_base, step * right_stride + j * lanes), align)
                    for j in range(vectors)
                ]
                for i in range(rows):
                    place = self.at(left_base, i * row_stride + step * step_stride)
                    value = f.splat(f.load(element, place, align), lanes)
                    for j, column in enumerate(columns):
                        spot = i * vectors + j
                        sums[spot] = add_products(f, self.instruction, sums[spot], value, column)
            loop.next = sums
        return loop.results

    def visible_keys(self, first: Value) -> Value:
        """How many keys a strip looks at: where causal, those up to its last query, in whole
        tiles.
        """
        f, sizes, cut = self.f, self.sizes, self.cut
        if not sizes.causal:
            return const(I64, sizes.keys)
        seen = f.udiv(f.add(first, cut.strip + cut.rows - 1), cut.rows)
        return self.least(f.mul(seen, cut.rows), sizes.keys)

    def key_tiles(self, first: Value, end: Value, emit) -> None:
        """emit(key, rows) for the tiles of a key block: whole ones, and the last keys of all."""
        f, rows, keys = self.f, self.cut.rows, self.sizes.keys
        whole = keys // rows * rows
        if whole:
            with f.loop(first, self.least(end, whole), rows, hint="tile") as loop:
                emit(loop.index, rows)
        if keys % rows:
            with f.when(f.icmp("sgt", end, whole), "last"):
                emit(const(I64, whole), keys % rows)

    def scores(
        self, keys: tuple[Value, int], width: int, queries: Value, target: Value,
        first: Value, end: Value, factor: float = 1.0,
    ) -> None:
        """target (keys, strip) = keys (keys, width) times queries (width, strip), of one block;
        times a factor where they are words.
        """
        f, cut = self.f, self.cut
        pointer, stride = keys
        zero = const(self.vector, 0)
        for pair in range(cut.pairs):
            column = pair * VECTORS * cut.lanes

            def tile(key: Value, rows: int, column: int = column) -> None:
                row = f.sub(key, first)
                sums = self.product(
                    (self.at(pointer, f.mul(row, stride)), stride, 1),
                    (self.at(queries, column), cut.strip),
                    rows,
                    VECTORS,
                    -(-width // 2) if self.instruction else width,
                    [zero] * (rows * VECTORS),
                )
                place = self.at(target, f.add(f.mul(row, cut.strip), column))
                for number, total in enumerate(sums):
                    i, j = divmod(number, VECTORS)
                    if self.instruction and factor != 1.0:
                        total = f.fmul(total, factor)
                    self.store(total, place, i * cut.strip + j * cut.lanes)

            self.key_tiles(first, end, tile)

    def add_weighted(
        self,
        rows_of: tuple[Value, int],
        width: int,
        weights: Value,
        count: Value,
        target: Value,
        factors: Sequence[Value] | None,
        stride_of_weights: int = 0,
    ) -> None:
        """target (width, strip) = target * factors + rows (keys, width) transposed times weights
        (keys, strip); words are of two keys, and count is the number of words.
        """
        f, cut = self.f, self.cut
        pointer, stride = rows_of
        tiles = -(-width // cut.rows)
        height = -(-width // tiles)
        for pair in range(cut.pairs):
            column = pair * VECTORS * cut.lanes

            def tile(first: Value, rows: int, column: int = column, pair: int = pair) -> None:
                place = self.at(target, f.add(f.mul(first, cut.strip), column))
                start = []
                for i in range(rows):
                    for j in range(VECTORS):
                        value = self.load(place, i * cut.strip + j * cut.lanes)
                        if factors is not None:
                            value = f.fmul(value, factors[pair * VECTORS + j])
                        start.append(value)
                sums = self.product(
                    (self.at(pointer, first), 1, stride),
                    (self.at(weights, column), stride_of_weights or cut.strip),
                    rows,
                    VECTORS,
                    count,
                    start,
                )
                for number, total in enumerate(sums):
                    i, j = divmod(number, VECTORS)
                    self.store(total, place, i * cut.strip + j * cut.lanes)

            whole = width // height * height
            with f.loop(0, whole, height, hint="rows") as loop:
                tile(loop.index, height)
            if width % height:
                tile(const(I64, whole), width % height)

    # ---- masks

    def forbid_later(self, scores: Value, first: Value, end: Value, query: Value) -> None:
        """-inf where a key comes after the query; only keys behind the strip's first can."""
        f, cut = self.f, self.cut
        integer = "i32" if self.itemsize == 4 else "i64"
        begin = self.most(first, f.add(query, 1))
        places = [
            f.add(
                f.splat(self._as(query, integer), cut.lanes),
                const_lanes(integer, [column + lane for lane in range(cut.lanes)]),
            )
            for column in range(0, cut.strip, cut.lanes)
        ]
        nothing = const(self.vector, -math.inf)
        with f.loop(begin, end, 1, hint="causal") as loop:
            key = f.splat(self._as(loop.index, integer), cut.lanes)
            row = self.at(scores, f.mul(f.sub(loop.index, first), cut.strip))
            for number, place in enumerate(places):
                allowed = f.icmp("sle", key, place)
                value = self.load(row, number * cut.lanes)
                self.store(f.select(allowed, value, nothing), row, number * cut.lanes)

    def _as(self, value: Value, integer: str) -> Value:
        return self.f.convert("trunc", value, integer) if integer != I64 else value

    def apply_mask(
        self,
        mask: Operand,
        head: Sequence[Value],
        query: Value,
        scores: Value,
        first: Value,
        end: Value,
    ) -> None:
        """Scores of a block plus the mask, or -inf where a bool mask does not hold."""
        f, cut = self.f, self.cut
        batch, heads, queries, keys = mask.shape
        zero = const(I64, 0)
        place = [head[0] if batch > 1 else zero, head[1] if heads > 1 else zero]
        if queries == 1:
            source = self.address(mask, *place, zero)
            with f.loop(first, end, 1, hint="mask") as loop:
                at = loop.index if keys > 1 else zero
                value = f.splat(self.mask_element(source, at, mask.dtype), cut.lanes)
                row = self.at(scores, f.mul(f.sub(loop.index, first), cut.strip))
                for column in range(0, cut.strip, cut.lanes):
                    self.mask_vector(row, column, value, mask.dtype)
            return
        for column in range(0, cut.strip, cut.lanes):
            rows = [
                self.address(mask, *place, self.least(f.add(query, column + lane), queries - 1))
                for lane in range(cut.lanes)
            ]
            with f.loop(first, end, cut.lanes, hint="mask") as loop:
                left = self.first_lanes(f.sub(end, loop.index))
                read = []
                for row in rows:
                    if keys > 1:
                        value = self.mask_read(row, loop.index, mask.dtype, left)
                    else:
                        value = f.splat(self.mask_element(row, zero, mask.dtype), cut.lanes)
                    read.append(value)
                target = self.at(scores, f.mul(f.sub(loop.index, first), cut.strip))
                for lane, value in enumerate(transpose(f, read)):
                    self.mask_vector(target, lane * cut.strip + column, value, mask.dtype)

    def mask_read(self, row: Value, key: Value, dtype: DType, left: Value) -> Value:
        value = self.read(row, key, dtype, left)
        return self._additive(value) if dtype is dtypes.bool_ else value

    def mask_element(self, row: Value, key: Value, dtype: DType) -> Value:
        f = self.f
        type_ = scalar.memory_type(dtype)
        value = f.load(type_, f.offset(row, key, type_), dtype.itemsize)
        return self._additive(value) if dtype is dtypes.bool_ else self.widened(value, dtype)

    def _additive(self, flags: Value) -> Value:
        """0 where a byte holds, -inf elsewhere."""
        f = self.f
        type_ = self.vector if flags.type.startswith("<") else self.element
        holds = f.icmp("ne", flags, 0)
        return f.select(holds, const(type_, 0), const(type_, -math.inf))

    def mask_vector(self, row: Value, place: Value | int, value: Value, dtype: DType) -> None:
        f = self.f
        score = self.load(row, place)
        if dtype is dtypes.bool_:
            score = f.select(f.fcmp("oeq", value, const(self.vector, 0)), score, value)
        else:
            score = f.fma(value, LOG2_E, score)
        self.store(score, row, place)
