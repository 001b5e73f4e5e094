"""Contractions of 16-bit floats on the tensor cores by `mma.sync`, for sm_80 and up.

A block of warps computes a tile of sums in f32, each warp a part of it, over slices of k that lie
in a ring of buffers in shared memory.  An operand that lies in memory as it is needed, in whole
pieces of 16 bytes, is copied there asynchronously, several slices ahead; any other (odd sizes,
windows of a convolution, values computed on the way) goes through registers, fetched before a slice
is multiplied and put down after it.  One barrier a slice.

Products of 16-bit floats are exact in f32, so operands that were only widened to float32 before
the product take this way, too.  Where tf32 was asked for by name, so does float32: an element is a
pair of 16-bit words in all that follows, always along k, since `ldmatrix` transposes words only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lazygrad_compiler.backend import Emitted, Grid
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const, lanes_of
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.ptx.builder import WARP, KernelFunction, KernelModule
from lazygrad_compiler.ptx.contraction_tiles import fastest_tile
from lazygrad_compiler.ptx.epilogue import Epilogue
from lazygrad_compiler.ptx.operands import Side, TileOperand, sides, tile_origin
from lazygrad_compiler.ptx.tensor_core import (
    CHUNK,
    SharedTile,
    commit_copies,
    copy_async,
    load_matrices,
    multiply,
    put_sums,
    wait_copies,
)

BYTES = 2
"""Of a word: an element, or half of a float32."""
STEP = 16
"""Words of k that one instruction takes."""


@dataclass(frozen=True, slots=True)
class MmaTile:
    """m, n: the block's tile; depth: slice of k; down, right: warps that share the tile; stages:
    slices in shared memory.  why: for people.
    """

    m: int
    n: int
    depth: int
    down: int
    right: int
    stages: int
    template: str = "mma.sync"
    why: str = ""

    @property
    def threads(self) -> int:
        return WARP * self.down * self.right


TILES = (
    (MmaTile(128, 128, 32, 2, 4, 4), 1.0),
    (MmaTile(128, 64, 32, 4, 2, 4), 0.8),
    (MmaTile(64, 128, 32, 2, 4, 4), 0.8),
    (MmaTile(64, 64, 32, 2, 2, 4), 0.65),
    (MmaTile(32, 64, 32, 1, 4, 4), 0.4),
    (MmaTile(64, 32, 32, 4, 1, 4), 0.4),
    (MmaTile(16, 64, 32, 1, 4, 4), 0.22),
    (MmaTile(32, 32, 32, 2, 2, 4), 0.25),
)
"""With how near each comes to the first one's speed where there is work for all, estimated from
what warps read from shared memory for each product."""


def words_of(dtype: DType) -> int:
    return dtype.itemsize // BYTES


def narrow_products(kernel: ContractionKernel, tf32: bool) -> tuple[DType, Side, Side] | None:
    """The dtype of the products and both sides, where that is a 16-bit float: operands as they are,
    or before they were widened; or float32 that may be rounded to tf32.  None where it is not.
    """
    found: list[tuple[DType, Side]] = []
    for side in sides(kernel):
        instr = kernel.values[side.result]
        dtype = instr.dtype
        if dtype is dtypes.float32 and instr.op == "cast":
            (source,) = instr.args
            values = tuple(number for number in side.values if number != side.result)
            side = replace(side, result=source, values=values)
            dtype = kernel.values[source].dtype
        found.append((dtype, side))
    (a, left), (b, right) = found
    if a is b and scalar.is_narrow(a):
        return a, left, right
    plain = sides(kernel)
    if tf32 and all(kernel.values[side.result].dtype is dtypes.float32 for side in plain):
        return dtypes.float32, *plain
    return None


def choose_tile(kernel: ContractionKernel, target: CudaTarget) -> MmaTile:
    tile = fastest_tile(kernel, target, TILES)
    slices = -(-kernel.k.extent // tile.depth)
    return replace(tile, stages=2 if slices <= 2 else tile.stages)


def emit_mma(
    module: KernelModule,
    name: str,
    kernel: ContractionKernel,
    target: CudaTarget,
    products: tuple[DType, Side, Side],
    why: str,
) -> Emitted:
    schedule = replace(choose_tile(kernel, target), why=why)
    schedule = replace(schedule, depth=schedule.depth // words_of(products[0]))
    f = module.kernel(name, len(kernel.buffers), schedule.threads)
    blocks = _Mma(f, kernel, schedule, products).run()
    f.ret()
    grid = Grid((blocks, 1, 1), (schedule.threads, 1, 1), module.dynamic_bytes)
    return Emitted(schedule, grid=grid)


class _Operand:
    """One side: how its slices get into shared memory.

    copied: asynchronously, in whole pieces; else through registers.
    """

    def __init__(self, mma: _Mma, side: Side, rows: int, start: int) -> None:
        f, kernel, s = mma.f, mma.kernel, mma.s
        self.f, self.kernel, self.dtype, self.start = f, kernel, mma.dtype, start
        self.words = words_of(mma.dtype)
        self.chunk = CHUNK // self.words
        self.tile = TileOperand(f, kernel, side, rows, s.depth, s.threads, self.chunk)
        turned = self.words > 1 and not self.tile.along_k
        self.shared = SharedTile(rows, s.depth * self.words, self.tile.along_k or turned)
        self.turned = turned and self.tile.lanes > 1
        """Whether vectors along the free axis are put down element by element."""
        self.places = [self._places(row, k) for row, k in self.tile.groups]
        instr = kernel.values[side.result]
        self.copied = (
            self.tile.lanes == self.chunk
            and not turned
            and instr.op == "load"
            and not instr.args
            and instr.dtype is self.dtype
            and kernel.k.extent % s.depth == 0
            and side.values == (side.result,)
        )
        self.copied = self.copied and self._is_aligned(side)

    def _places(self, row: Value, k: Value) -> list[Value]:
        """Of a thread's vector, or of each of its elements."""
        f = self.f
        k = f.mul(k, self.words) if self.words > 1 else k
        lanes = range(self.tile.lanes if self.turned else 1)
        return [self.shared.place(f, f.add(row, lane) if lane else row, k) for lane in lanes]

    def _is_aligned(self, side: Side) -> bool:
        """Whether every vector begins at a multiple of 16 bytes."""
        index = self.kernel.values[side.result].data[1]
        along = self.tile.axis
        others = [c for term, c in index.terms if term is not along and term != along]
        return (
            index.coefficient(along) == 1
            and index.constant % self.chunk == 0
            and all(c % self.chunk == 0 for c in others)
        )

    def fetch(self, k0: Value) -> list[Value]:
        """Registers for a slice; nothing where it is copied."""
        return [] if self.copied else self.tile.fetch(k0, self.dtype)

    def put(self, buffer: Value, fetched: list[Value]) -> None:
        f = self.f
        for places, inside, value in zip(self.places, self.tile.inside, fetched, strict=False):
            parts = f.unpack(value) if self.turned else [value]
            if inside is None:
                self._store(buffer, places, parts)
            else:
                with f.when(inside, "put"):
                    self._store(buffer, places, parts)

    def _store(self, buffer: Value, places: list[Value], parts: list[Value]) -> None:
        f = self.f
        for place, part in zip(places, parts, strict=True):
            address = f.offset(buffer, f.add(place, self.start), "i16")
            f.store(part, address, BYTES * self.words * lanes_of(part.type))

    def copy(self, buffer: Value, k0: Value) -> None:
        """Asks for a slice."""
        f = self.f
        if not self.copied:
            return
        sources = self.tile.addresses(k0)
        for (place,), inside, source in zip(self.places, self.tile.inside, sources, strict=True):
            target = f.offset(buffer, f.add(place, self.start), "i16")
            if inside is None:
                copy_async(f, target, source)
            else:
                with f.when(inside, "copy"):
                    copy_async(f, target, source)


class _Mma:
    def __init__(
        self,
        f: KernelFunction,
        kernel: ContractionKernel,
        schedule: MmaTile,
        products: tuple[DType, Side, Side],
    ) -> None:
        self.f, self.kernel, self.s = f, kernel, schedule
        self.dtype, left, right = products
        self.depth = schedule.depth * words_of(self.dtype)
        """Of a slice, in words."""
        self.left = _Operand(self, left, schedule.m, 0)
        self.right = _Operand(self, right, schedule.n, schedule.m * self.depth)
        self.operands = (self.left, self.right)
        self.buffer = (schedule.m + schedule.n) * self.depth
        self.warp_m, self.warp_n = schedule.m // schedule.down, schedule.n // schedule.right

    def run(self) -> int:
        f, kernel, s = self.f, self.kernel, self.s
        pitch = s.n + 8
        strip = self.warp_m
        loop_bytes = s.stages * self.buffer * BYTES
        base = f.shared_address(f.module.shared(max(loop_bytes, strip * pitch * 4), 128))
        batch, first_row, first_column, blocks = tile_origin(f, kernel, s.m, s.n)
        self.left.tile.start(batch, first_row)
        self.right.tile.start(batch, first_column)
        warp = f.lshr(f.thread(), 5)
        self.down, self.across = f.udiv(warp, s.right), f.urem(warp, s.right)
        self._fragment_places()
        sums = self._multiply(base)
        epilogue = Epilogue(f, kernel, dtypes.float32, s.n, pitch, s.threads)
        for number in range(s.down):
            f.barrier()
            if s.down == 1:
                self._stage(base, pitch, sums)
            else:
                with f.when(f.icmp("eq", self.down, number), "mine"):
                    self._stage(base, pitch, sums)
            f.barrier()
            start = f.add(first_row, number * strip) if number else first_row
            epilogue.run(base, strip, batch, start, first_column)
        return blocks

    def _fragment_places(self) -> None:
        """Where the lane's rows of all fragments lie in a buffer, by step of k."""
        f = self.f
        row, column = f.mul(self.down, self.warp_m), f.mul(self.across, self.warp_n)
        self.left_places = [
            [self.left.shared.left_rows(f, f.add(row, i), k) for i in range(0, self.warp_m, 16)]
            for k in range(0, self.depth, STEP)
        ]
        self.right_places = [
            [
                f.add(self.right.shared.right_rows(f, f.add(column, j), k), self.right.start)
                for j in range(0, self.warp_n, 16)
            ]
            for k in range(0, self.depth, STEP)
        ]

    # ---- slices of k

    def _buffer(self, base: Value, number: Value) -> Value:
        """Of a slice; buffers follow each other round a ring."""
        f = self.f
        return f.offset(base, f.mul(f.and_(number, self.s.stages - 1), self.buffer), "i16")

    def _depth(self, number: Value) -> Value:
        return self.f.mul(self.f.wide(number), self.s.depth)

    def _multiply(self, base: Value) -> list[Value]:
        f, s = self.f, self.s
        slices = -(-self.kernel.k.extent // s.depth)
        ahead = s.stages - 1
        for number in range(ahead):
            if number < slices:
                at = const("i32", number)
                buffer = self._buffer(base, at)
                for operand in self.operands:
                    operand.copy(buffer, self._depth(at))
                for operand in self.operands:
                    operand.put(buffer, operand.fetch(self._depth(at)))
            commit_copies(f)
        count = self.warp_m // 16 * (self.warp_n // 8) * 4
        zero = const("float", 0.0)
        with f.loop(const("i32", 0), const("i32", slices), 1, [zero] * count, "k") as loop:
            wait_copies(f, ahead - 1)
            f.barrier()
            following = f.add(loop.index, ahead)
            more = f.icmp("slt", following, slices)
            buffer = self._buffer(base, following)
            if any(operand.copied for operand in self.operands):
                with f.when(more, "ask"):
                    for operand in self.operands:
                        operand.copy(buffer, self._depth(following))
            commit_copies(f)
            # beyond the last slice the last one is fetched again, into a buffer that nobody reads
            clamped = f.select(more, following, const("i32", slices - 1))
            fetched = [operand.fetch(self._depth(clamped)) for operand in self.operands]
            loop.next = self._slice(self._buffer(base, loop.index), loop.carried)
            for operand, values in zip(self.operands, fetched, strict=True):
                operand.put(buffer, values)
        wait_copies(f, 0)
        return loop.results

    def _slice(self, buffer: Value, sums: list[Value]) -> list[Value]:
        f = self.f
        sums = list(sums)
        for lefts, rights in zip(self.left_places, self.right_places, strict=True):
            a = [
                load_matrices(f, f.offset(buffer, place, "i16"), not self.left.shared.along_k)
                for place in lefts
            ]
            b: list[list[Value]] = []
            for place in rights:
                four = load_matrices(
                    f, f.offset(buffer, place, "i16"), not self.right.shared.along_k
                )
                b += [four[:2], four[2:]]
            for i, left in enumerate(a):
                for j, right in enumerate(b):
                    at = 4 * (i * len(b) + j)
                    sums[at : at + 4] = multiply(f, self.dtype, left, right, sums[at : at + 4])
        return sums

    # ---- sums

    def _stage(self, base: Value, pitch: int, sums: list[Value]) -> None:
        """The warp's sums into shared memory, row-major."""
        f = self.f
        mine = f.offset(base, f.mul(self.across, self.warp_n), "float")
        put_sums(f, mine, pitch, sums, self.warp_m, self.warp_n)
