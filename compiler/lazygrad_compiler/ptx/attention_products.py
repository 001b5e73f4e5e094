"""Products of the tiles of attention, by one warp: on the tensor cores, or by fused multiply-adds.

Attention needs two forms, forward and backward: rows of a tile in shared memory times rows of
another (`along`: both lie along what is summed), and sums that were just computed times a tile
(`through`: the tile lies across).  Either way a warp holds its sums as `mma.sync` leaves them: of a
16 x 8 piece lane 4 g + t has the columns 2t and 2t + 1 of the rows g and g + 8 (PTX ISA,
9.7.14.5.8).  So all that happens to scores in between is the same for every dtype.

Tiles lie row by row with a pitch of an odd number of 16-byte chunks: eight rows at one column meet
in no bank.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Operand, Value, const
from lazygrad_compiler.ptx.builder import KernelFunction
from lazygrad_compiler.ptx.tensor_core import load_matrices, multiply

Sums = list[Value]
PIECE_ROWS, PIECE_COLUMNS = 16, 8


def piece(pieces: int, i: int, j: int) -> int:
    """Where the four sums of a piece begin: the j-th of `pieces` in the i-th row of pieces."""
    return 4 * (i * pieces + j)


class Products:
    """The products of one warp.

    rows: rows of pieces that a warp has.  chunk: elements of 16 bytes; step: what widths are padded
    to; element: LLVM's type of one in memory.  pitch: elements from row to row of every tile.
    """

    chunk: int
    step: int
    element: str
    bytes: int
    template: str

    def __init__(
        self, f: KernelFunction, dtype: DType, rows: int, warp: Value, lane: Value, pitch: int
    ) -> None:
        self.f, self.dtype, self.rows, self.pitch = f, dtype, rows, pitch
        self.warp, self.lane = warp, lane
        self.row = f.lshr(lane, 2)
        """g: the lane's first row of a piece."""
        self.column = f.shl(f.and_(lane, 3), 1)
        """2t: its first column."""
        self.first_row = f.mul(warp, PIECE_ROWS * rows)
        """Of the block's rows, the warp's first."""

    def at(self, base: Value, place: Operand) -> Value:
        """The address so many elements behind `base`."""
        if isinstance(place, int) and not place:
            return base
        return self.f.offset(base, place, self.element)

    def along(
        self, sums: Sums, left: Value, right: Value, columns: int, depth: int
    ) -> Sums:
        """sums + left rightᵀ: the warp's rows of the tile `left` by `columns` rows of `right`."""
        raise NotImplementedError

    def through(self, sums: Sums, weights: Sums, right: Value, depth: int, width: int) -> Sums:
        """sums + weights right: `depth` columns of sums by as many rows of the tile `right`."""
        raise NotImplementedError


class MmaProducts(Products):
    """16-bit floats on the tensor cores, sums in float32.  A matrix of `ldmatrix` is eight rows of
    a chunk, and a product takes two of them along what is summed.
    """

    chunk, step, element, bytes, template = 8, 16, "i16", 2, "mma.sync"

    def __init__(
        self, f: KernelFunction, dtype: DType, rows: int, warp: Value, lane: Value, pitch: int
    ) -> None:
        super().__init__(f, dtype, rows, warp, lane, pitch)
        right = f.mul(f.lshr(lane, 4), self.chunk)
        self.straight = f.add(f.mul(f.and_(lane, 15), pitch), right)
        """Of 16 rows of two chunks, where the lane's row of a matrix is, lanes going down first."""
        down = f.shl(f.lshr(lane, 4), 3)
        right = f.mul(f.and_(f.lshr(lane, 3), 1), self.chunk)
        self.crossed = f.add(f.mul(f.add(f.and_(lane, 7), down), pitch), right)
        """The same, lanes going right first."""
        self.mine = f.add(self.straight, f.mul(self.first_row, pitch))

    def along(
        self, sums: Sums, left: Value, right: Value, columns: int, depth: int
    ) -> Sums:
        f, pitch, pieces = self.f, self.pitch, columns // PIECE_COLUMNS
        sums = list(sums)
        left, right = self.at(left, self.mine), self.at(right, self.crossed)
        for k in range(0, depth, 2 * self.chunk):
            a = [
                load_matrices(f, self.at(left, PIECE_ROWS * i * pitch + k), transposed=False)
                for i in range(self.rows)
            ]
            for j in range(0, pieces, 2):
                place = PIECE_COLUMNS * j * pitch + k
                four = load_matrices(f, self.at(right, place), transposed=False)
                self._take_in(sums, a, four, pieces, j)
        return sums

    def through(self, sums: Sums, weights: Sums, right: Value, depth: int, width: int) -> Sums:
        f, pitch, pieces = self.f, self.pitch, width // PIECE_COLUMNS
        sums = list(sums)
        right = self.at(right, self.straight)
        for k in range(0, depth, 16):
            a = [self._fragment(weights, i, depth, k) for i in range(self.rows)]
            for j in range(0, pieces, 2):
                place = k * pitch + PIECE_COLUMNS * j
                four = load_matrices(f, self.at(right, place), transposed=True)
                self._take_in(sums, a, four, pieces, j)
        return sums

    def _take_in(
        self, sums: Sums, a: Sequence[Sequence[Value]], four: Sequence[Value], pieces: int, j: int
    ) -> None:
        """Two pieces beside each other, in every row of pieces."""
        for i, left in enumerate(a):
            for side in (0, 1):
                begin = piece(pieces, i, j + side)
                end = begin + 4
                pair = four[2 * side : 2 * side + 2]
                sums[begin:end] = multiply(self.f, self.dtype, left, pair, sums[begin:end])

    def _fragment(self, weights: Sums, i: int, columns: int, k: int) -> list[Value]:
        """16 columns of sums as a left operand: sums lie as the operand has to, two to a word."""
        f, made = self.f, []
        for j in (k // PIECE_COLUMNS, k // PIECE_COLUMNS + 1):
            begin = piece(columns // PIECE_COLUMNS, i, j)
            for half in (0, 2):
                pair = f.pack(weights[begin + half : begin + half + 2])
                narrow = "<2 x bfloat>" if self.dtype is dtypes.bfloat16 else "<2 x half>"
                made.append(f.bitcast(f.convert("fptrunc", pair, narrow), "i32"))
        return made


class Tf32Products(MmaProducts):
    """float32 rounded to tf32, where that was asked for by name."""

    chunk, step, element, bytes, template = 4, 8, "float", 4, "mma.sync tf32"

    def through(self, sums: Sums, weights: Sums, right: Value, depth: int, width: int) -> Sums:
        """A lane has the columns 2t and 2t + 1 of the sums, where an operand has t and t + 4: the
        order of what is summed is free, so they are taken for those, and so are the tile's rows.
        """
        f, pitch, pieces = self.f, self.pitch, width // PIECE_COLUMNS
        sums = list(sums)
        right = self.at(right, f.add(f.mul(self.column, pitch), self.row))
        for k in range(0, depth, PIECE_COLUMNS):
            a = [self._fragment(weights, i, depth, k) for i in range(self.rows)]
            for j in range(pieces):
                place = k * pitch + PIECE_COLUMNS * j
                pair = [f.load("i32", self.at(right, place + own), 4) for own in (0, pitch)]
                for i, left in enumerate(a):
                    begin = piece(pieces, i, j)
                    end = begin + 4
                    sums[begin:end] = multiply(f, self.dtype, left, pair, sums[begin:end])
        return sums

    def _fragment(self, weights: Sums, i: int, columns: int, k: int) -> list[Value]:
        begin = piece(columns // PIECE_COLUMNS, i, k // PIECE_COLUMNS)
        return [self.f.bitcast(weights[begin + number], "i32") for number in (0, 2, 1, 3)]


class FfmaProducts(Products):
    """float32 strictly: fused multiply-adds over operands in shared memory.

    Weights go through the warp's own part of shared memory, `staging`, to be read as vectors.
    """

    chunk, step, element, bytes, template = 4, 8, "float", 4, "ffma"
    staging: Value

    def stage_in(self, base: Value, columns: int) -> None:
        """base: of the block's memory for weights; columns: the most there are."""
        self.stage_pitch = columns + self.chunk
        f, rows = self.f, PIECE_ROWS * self.rows
        self.staging = f.offset(base, f.mul(self.warp, rows * self.stage_pitch), "float")

    @staticmethod
    def staging_bytes(warps: int, rows: int, columns: int) -> int:
        return 4 * warps * PIECE_ROWS * rows * (columns + FfmaProducts.chunk)

    def _vector(self, base: Value, place: Operand, lanes: int) -> list[Value]:
        f = self.f
        return f.unpack(f.load(f"<{lanes} x float>", self.at(base, place), 4 * lanes))

    def along(
        self, sums: Sums, left: Value, right: Value, columns: int, depth: int
    ) -> Sums:
        f, pitch, pieces = self.f, self.pitch, columns // PIECE_COLUMNS
        own_row = f.add(self.first_row, self.row)
        left = self.at(left, f.mul(own_row, pitch))
        right = self.at(right, f.mul(self.column, pitch))
        with f.loop(const("i32", 0), const("i32", depth), self.chunk, sums, "along") as loop:
            new = list(loop.carried)
            here, there = self.at(left, loop.index), self.at(right, loop.index)
            a = [
                self._vector(here, (PIECE_ROWS * i + 8 * half) * pitch, self.chunk)
                for i in range(self.rows)
                for half in (0, 1)
            ]
            for j in range(pieces):
                for column in (0, 1):
                    place = (PIECE_COLUMNS * j + column) * pitch
                    b = self._vector(there, place, self.chunk)
                    for number, row in enumerate(a):
                        at = piece(pieces, number // 2, j) + 2 * (number % 2) + column
                        for x, y in zip(row, b, strict=True):
                            new[at] = f.fma(x, y, new[at])
            loop.next = new
        return loop.results

    def through(self, sums: Sums, weights: Sums, right: Value, depth: int, width: int) -> Sums:
        f, pitch, pieces = self.f, self.pitch, width // PIECE_COLUMNS
        self._stage(weights, depth)
        left = self.at(self.staging, f.mul(self.row, self.stage_pitch))
        right = self.at(right, self.column)
        with f.loop(const("i32", 0), const("i32", depth), self.chunk, sums, "through") as loop:
            new = list(loop.carried)
            here = self.at(left, loop.index)
            there = self.at(right, f.mul(loop.index, pitch))
            a = [
                self._vector(here, (PIECE_ROWS * i + 8 * half) * self.stage_pitch, self.chunk)
                for i in range(self.rows)
                for half in (0, 1)
            ]
            for k in range(self.chunk):
                for j in range(pieces):
                    b = self._vector(there, k * pitch + PIECE_COLUMNS * j, 2)
                    for number, row in enumerate(a):
                        at = piece(pieces, number // 2, j) + 2 * (number % 2)
                        for column in (0, 1):
                            new[at + column] = f.fma(row[k], b[column], new[at + column])
            loop.next = new
        return loop.results

    def _stage(self, weights: Sums, columns: int) -> None:
        """Row-major; the warp has read what was there before."""
        f, pieces = self.f, columns // PIECE_COLUMNS
        f.warp_barrier()
        place = f.add(f.mul(self.row, self.stage_pitch), self.column)
        base = self.at(self.staging, place)
        for i in range(self.rows):
            for j in range(pieces):
                for half in (0, 1):
                    begin = piece(pieces, i, j) + 2 * half
                    down = (PIECE_ROWS * i + 8 * half) * self.stage_pitch
                    address = self.at(base, down + PIECE_COLUMNS * j)
                    f.store(f.pack(weights[begin : begin + 2]), address, 8)
        f.warp_barrier()


PRODUCTS = {each.template: each for each in (MmaProducts, Tf32Products, FfmaProducts)}
"""By the name of the template."""


def products_for(dtype: DType, tf32: bool) -> type[Products]:
    if scalar.is_narrow(dtype):
        return MmaProducts
    return Tf32Products if tf32 else FfmaProducts


def zeros(count: int) -> Sums:
    return [const("float", 0.0)] * count
