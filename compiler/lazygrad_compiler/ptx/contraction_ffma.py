"""Contractions by scalar multiply and add: strict f32 and f64, integers, and whatever has no tensor
core.

A block of 256 threads computes a tile of sums, each thread some of it in registers, over slices of
k that go through shared memory in two buffers: while one is multiplied, the next is on its way from
global memory.  Shared memory holds both operands with k outermost, so that a thread reads its rows
and columns as vectors of 16 bytes and half a warp reads the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lazygrad_compiler.backend import Emitted, Grid
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const, lanes_of
from lazygrad_compiler.llvm.points import I64
from lazygrad_compiler.llvm.reduce import accumulator_dtype
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.ptx.builder import KernelFunction, KernelModule, element_bytes
from lazygrad_compiler.ptx.contraction_tiles import fastest_tile
from lazygrad_compiler.ptx.epilogue import Epilogue
from lazygrad_compiler.ptx.operands import TileOperand, sides, tile_origin

THREADS = 256
ROW = 16
"""Threads side by side in a tile; as many below each other."""


@dataclass(frozen=True, slots=True)
class FfmaTile:
    """m, n: the block's tile; depth: slice of k.  A thread has m/16 × n/16 sums.  why: for
    people.
    """

    m: int
    n: int
    depth: int
    template: str = "ffma"
    why: str = ""


TILES = ((128, 128, 8), (128, 64, 16), (64, 128, 16), (64, 64, 16), (32, 64, 16), (64, 32, 16),
         (32, 32, 32), (16, 64, 16), (64, 16, 16), (16, 16, 32))  # fmt: skip


def intensity(m: int, n: int) -> float:
    """How near to the peak a tile of that size comes, roughly: multiply-adds per value read from
    shared memory, which gives as many values a cycle as an eighth of the multiply-adds.
    """
    rows, columns = m / ROW, n / ROW
    return min(1.0, rows * columns / (rows + columns) / 4)


def choose_tile(kernel: ContractionKernel, target: CudaTarget) -> FfmaTile:
    wide = accumulator_dtype(kernel.dtype)
    limit = 128 if wide.bits <= 32 else 64
    tile = fastest_tile(kernel, target, (
        (FfmaTile(m, n, depth), intensity(m, n)) for m, n, depth in TILES if max(m, n) <= limit
    ))  # fmt: skip
    if wide.bits > 32:
        return replace(tile, depth=8 if tile.depth == 16 else 16)
    return tile


def emit_ffma(
    module: KernelModule, name: str, kernel: ContractionKernel, target: CudaTarget, why: str
) -> Emitted:
    schedule = replace(choose_tile(kernel, target), why=why)
    # 64 sums, their operands and what is under way just fit into 128 registers: two blocks share
    # a multiprocessor, and one multiplies while the other waits
    largest = schedule.m * schedule.n >= 128 * 128
    f = module.kernel(name, len(kernel.buffers), THREADS, 2 if largest else 1)
    blocks = _Ffma(f, kernel, schedule).run()
    f.ret()
    return Emitted(schedule, grid=Grid((blocks, 1, 1), (THREADS, 1, 1), module.dynamic_bytes))


class _Ffma:
    def __init__(
        self, f: KernelFunction, kernel: ContractionKernel, schedule: FfmaTile
    ) -> None:
        self.f, self.kernel, self.s = f, kernel, schedule
        self.wide = accumulator_dtype(kernel.dtype)
        self.element = scalar.memory_type(self.wide)
        self.bytes = element_bytes(self.element)
        vector = 16 // self.bytes
        left, right = sides(kernel)
        depth = schedule.depth
        self.operands = (
            TileOperand(f, kernel, left, schedule.m, depth, THREADS, vector),
            TileOperand(f, kernel, right, schedule.n, depth, THREADS, vector),
        )
        # a row of 16 bytes more than the tile: vectors stored across it meet in few banks
        self.pitches = (schedule.m + vector, schedule.n + vector)
        self.sizes = tuple(depth * pitch for pitch in self.pitches)
        self.rows = self._runs(schedule.m)
        self.columns = self._runs(schedule.n)

    def _runs(self, extent: int) -> tuple[int, int]:
        """(runs, length): a thread's rows are so many runs of neighbours."""
        each = extent // ROW
        length = min(each, 16 // self.bytes)
        return each // length, length

    def run(self) -> int:
        f, kernel, s = self.f, self.kernel, self.s
        pitch = s.n + 16 // self.bytes
        runs, run = self.rows
        stage_rows = s.m // runs
        loop_bytes = 2 * sum(self.sizes) * self.bytes
        base = f.shared_address(f.module.shared(max(loop_bytes, stage_rows * pitch * self.bytes)))
        batch, first_row, first_column, blocks = tile_origin(f, kernel, s.m, s.n)
        left, right = self.operands
        left.start(batch, first_row)
        right.start(batch, first_column)
        sums = self._multiply(base)
        epilogue = Epilogue(f, kernel, self.wide, s.n, pitch, THREADS)
        row = f.mul(f.udiv(f.thread(), ROW), run)
        for number in range(runs):
            self._stage(base, pitch, row, sums, number)
            f.barrier()
            start = f.add(first_row, number * stage_rows) if number else first_row
            epilogue.run(base, stage_rows, batch, start, first_column)
            if number + 1 < runs:
                f.barrier()
        return blocks

    # ---- slices of k

    def _multiply(self, base: Value) -> list[Value]:
        """The thread's sums, row by row."""
        f, s, k = self.f, self.s, self.kernel.k
        slices = -(-k.extent // s.depth)
        buffers = sum(self.sizes)
        zero = const(I64, 0)
        self._put(base, [operand.fetch(zero, self.wide) for operand in self.operands])
        f.barrier()
        count = (s.m // ROW) * (s.n // ROW)
        start = [scalar.constant(self.wide, 0) for _ in range(count)]
        if slices == 1:
            sums = self._slice(base, start)
            f.barrier()
            return sums
        with f.loop(const("i32", 0), const("i32", slices - 1), 1, start, "k") as loop:
            following = f.mul(f.wide(f.add(loop.index, 1)), s.depth)
            fetched = [operand.fetch(following, self.wide) for operand in self.operands]
            odd = f.and_(loop.index, 1)
            here = f.offset(base, f.mul(odd, buffers), self.element)
            there = f.offset(base, f.mul(f.sub(const("i32", 1), odd), buffers), self.element)
            loop.next = self._slice(here, loop.carried)
            self._put(there, fetched)
            f.barrier()
        last = f.offset(base, (slices - 1) % 2 * buffers, self.element)
        sums = self._slice(last, loop.results)
        f.barrier()
        return sums

    def _put(self, base: Value, fetched: list[list[Value]]) -> None:
        """Both operands' vectors into one buffer, k outermost."""
        f, start = self.f, 0
        for operand, values, pitch, size in zip(
            self.operands, fetched, self.pitches, self.sizes, strict=True
        ):
            for (row, k), inside, value in zip(
                operand.groups, operand.inside, values, strict=True
            ):
                place = f.add(f.add(f.mul(k, pitch), row), start)
                if inside is None:
                    self._put_vector(base, place, value, pitch if operand.along_k else 1)
                else:
                    with f.when(inside, "put"):
                        self._put_vector(base, place, value, pitch if operand.along_k else 1)
            start += size

    def _put_vector(self, base: Value, place: Value, value: Value, step: int) -> None:
        f, address = self.f, self.f.offset(base, place, self.element)
        if step == 1:
            f.store(value, address, self.bytes * lanes_of(value.type))
            return
        for lane in range(lanes_of(value.type)):
            target = f.offset(address, lane * step, self.element) if lane else address
            f.store(f.extract(value, lane), target, self.bytes)

    def _slice(self, buffer: Value, sums: list[Value]) -> list[Value]:
        """Multiplies one slice that lies in shared memory."""
        f, s = self.f, self.s
        thread = f.thread()
        at = (
            f.mul(f.udiv(thread, ROW), self.rows[1]),
            f.mul(f.urem(thread, ROW), self.columns[1]),
        )
        left = f.offset(buffer, at[0], self.element)
        right = f.offset(buffer, f.add(at[1], self.sizes[0]), self.element)
        for k in range(s.depth):
            rows = self._runs_at(left, k * self.pitches[0], self.rows)
            columns = self._runs_at(right, k * self.pitches[1], self.columns)
            sums = [
                self._multiply_add(a, b, sums[i * len(columns) + j])
                for i, a in enumerate(rows)
                for j, b in enumerate(columns)
            ]
        return sums

    def _runs_at(self, pointer: Value, start: int, runs: tuple[int, int]) -> list[Value]:
        f, (count, length) = self.f, runs
        result = []
        for number in range(count):
            address = f.offset(pointer, start + number * ROW * length, self.element)
            vector = f.load(scalar.memory_type(self.wide, length), address, self.bytes * length)
            result += f.unpack(vector)
        return result

    def _multiply_add(self, a: Value, b: Value, total: Value) -> Value:
        f = self.f
        return f.fma(a, b, total) if self.wide.is_floating else f.add(f.mul(a, b), total)

    # ---- sums

    def _stage(
        self, base: Value, pitch: int, row: Value, sums: list[Value], number: int
    ) -> None:
        """The thread's rows of one run into shared memory, row-major."""
        f = self.f
        (_, run), (runs, length) = self.rows, self.columns
        column = f.mul(f.urem(f.thread(), ROW), length)
        width = runs * length
        for i in range(run):
            for j in range(runs):
                first = (number * run + i) * width + j * length
                value = f.pack(sums[first : first + length])
                place = f.add(f.mul(f.add(row, i), pitch), column)
                address = f.offset(base, f.add(place, j * ROW * length), self.element)
                f.store(value, address, self.bytes * length)
