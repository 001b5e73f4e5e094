"""Contractions of 16-bit floats on the tensor cores of Hopper (sm_90a).

A block stays on its multiprocessor and takes tile after tile.  One of its warpgroups, the producer,
only asks the copy engine for slices of k, which land in a ring of buffers; the others multiply what
has landed (`wgmma`, 64 rows each), and pass a buffer back when their products with it are done.
Producer and consumers meet at two barriers a buffer, *full* and *empty*, and nowhere else, so the
slices of the next tile arrive while a tile's results are being stored.

An operand that is a plain load which a tensor map describes (`tensor_map.py`) is copied.  Either,
or both, may be computed instead, if that is cheap (casts, activations, masks, windows, gathers):
then all threads of the producer write its tiles (`computed_operand.py`), and keep more registers.
`contraction_mma.py` takes what is left.  Speed on a GPU: not measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lazygrad_compiler.artifact import TensorMap
from lazygrad_compiler.backend import Emitted, Grid
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.ptx import warpgroup
from lazygrad_compiler.ptx.builder import WARP, KernelFunction, KernelModule
from lazygrad_compiler.ptx.computed_operand import (
    DEAREST,
    ComputedOperand,
    TileWriter,
    computed,
)
from lazygrad_compiler.ptx.contraction_tiles import fastest_tile
from lazygrad_compiler.ptx.epilogue import Epilogue
from lazygrad_compiler.ptx.operands import Side, tile_at
from lazygrad_compiler.ptx.tensor_core import put_sums
from lazygrad_compiler.ptx.tensor_map import MappedOperand, mapped
from lazygrad_compiler.ptx.warpgroup import BOX, EIGHT_ROWS, GROUP, ROW_BYTES, STEP

BYTES = 2
GROUP_ROWS = 64
PRODUCER_REGISTERS, CONSUMER_REGISTERS = 40, 232
"""Of a thread, after the warpgroups have traded; three warpgroups start with 168 each."""
COMPUTING_REGISTERS = {1: (168, 232), 2: (104, 200)}
"""The same where the producer computes, by the number of warpgroups that multiply."""
STRIP = 64
"""Columns that a warp stores at a time."""
PITCH = STRIP + 4
BARRIER_BYTES = 8
FEWEST = 64
"""Rows, columns and depth from which on the template is taken."""


@dataclass(frozen=True, slots=True)
class WgmmaTile:
    """m, n: the block's tile; depth: slice of k; stages: slices in shared memory.  why: for
    people.
    """

    m: int
    n: int
    depth: int = BOX
    stages: int = 4
    template: str = "wgmma"
    why: str = ""

    @property
    def consumers(self) -> int:
        """Warpgroups that multiply."""
        return self.m // GROUP_ROWS

    @property
    def threads(self) -> int:
        return GROUP * (1 + self.consumers)

    @property
    def slice_bytes(self) -> int:
        return (self.m + self.n) * self.depth * BYTES

    @property
    def staging_bytes(self) -> int:
        """Of a warp, for results on their way out."""
        return 16 * PITCH * 4

    @property
    def shared_bytes(self) -> int:
        warps = self.consumers * GROUP // WARP
        staging = warps * self.staging_bytes
        return self.stages * (self.slice_bytes + 2 * BARRIER_BYTES) + staging


TILES = (
    (WgmmaTile(128, 256), 1.0),
    (WgmmaTile(128, 128), 0.8),
    (WgmmaTile(128, 64), 0.6),
    (WgmmaTile(64, 256), 0.7),
    (WgmmaTile(64, 128), 0.6),
    (WgmmaTile(64, 64), 0.4),
)
"""With how near each comes to the first one's speed where there is work for all, estimated from
what a slice brings for each product: bytes from L2, and elements read from shared memory."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the template needs to know of a kernel that it can take."""

    tile: WgmmaTile
    dtype: DType
    left: MappedOperand | ComputedOperand
    right: MappedOperand | ComputedOperand

    @property
    def maps(self) -> tuple[TensorMap, ...]:
        operands = (self.left, self.right)
        return tuple(each.map for each in operands if isinstance(each, MappedOperand))

    @property
    def computes(self) -> bool:
        return len(self.maps) < 2


def plan_for(
    kernel: ContractionKernel, target: CudaTarget, products: tuple[DType, Side, Side]
) -> Plan | str:
    """The plan, or why there is none."""
    if not (target.has("wgmma") and target.has("tma")):
        return f"{target.arch} has no wgmma"
    dtype, left, right = products
    if min(kernel.m.extent, kernel.n.extent, kernel.k.extent) < FEWEST:
        return f"fewer than {FEWEST} rows, columns or terms"
    tile = choose_tile(kernel, target)
    operands: list[MappedOperand | ComputedOperand] = []
    for name, side, rows in (("left", left, tile.m), ("right", right, tile.n)):
        operand = mapped(kernel, side, rows) or computed(kernel, side)
        if isinstance(operand, str):
            return f"the {name} operand {operand}"
        operands.append(operand)
    first, second = operands
    work = sum(operand.cost * rows for operand, rows in ((first, tile.m), (second, tile.n))
               if isinstance(operand, ComputedOperand))
    if work > DEAREST * max(tile.m, tile.n):
        return "computing both operands takes the producer too long"
    return Plan(replace(tile, why=f"{dtype.name}, {_how(first, second)}"), dtype, first, second)


def _how(left: MappedOperand | ComputedOperand, right: MappedOperand | ComputedOperand) -> str:
    """How the operands come, for people."""
    made = {name: operand for name, operand in (("left", left), ("right", right))
            if isinstance(operand, ComputedOperand)}
    if not made:
        return "both operands by tensor maps"
    which = "both operands" if len(made) == 2 else f"the {next(iter(made))} operand"
    apart = [name for name, operand in made.items() if not operand.whole]
    detail = f", the {' and the '.join(apart)} one element by element" if apart else ""
    return f"{which} computed by the producer{detail}"


def choose_tile(kernel: ContractionKernel, target: CudaTarget) -> WgmmaTile:
    return fastest_tile(kernel, target, TILES, stays=True)


def emit_wgmma(
    module: KernelModule, name: str, kernel: ContractionKernel, target: CudaTarget, plan: Plan
) -> Emitted:
    tile = plan.tile
    f = module.kernel(name, len(kernel.buffers), tile.threads, maps=len(plan.maps))
    tiles = _Wgmma(f, kernel, plan).run()
    f.ret()
    blocks = min(tiles, target.multiprocessors)
    grid = Grid(
        (blocks, 1, 1), (tile.threads, 1, 1), module.dynamic_bytes, plan.maps
    )
    return Emitted(tile, grid=grid)


class _Wgmma:
    def __init__(self, f: KernelFunction, kernel: ContractionKernel, plan: Plan) -> None:
        self.f, self.kernel, self.plan, self.s = f, kernel, plan, plan.tile
        s = plan.tile
        start = f.module.shared(s.shared_bytes, EIGHT_ROWS)
        staging = start + s.stages * s.slice_bytes
        warps = s.consumers * GROUP // WARP
        self.ring_address = f.shared_address(start)
        self.ring = warpgroup.shared_word(f, self.ring_address)
        self.staging = staging
        self.full = staging + warps * s.staging_bytes
        self.empty = self.full + s.stages * BARRIER_BYTES
        self.slices = -(-kernel.k.extent // s.depth)
        self.left_bytes = s.m * s.depth * BYTES
        self.registers = (
            COMPUTING_REGISTERS[s.consumers] if plan.computes
            else (PRODUCER_REGISTERS, CONSUMER_REGISTERS)
        )

    def run(self) -> int:
        f, s, kernel = self.f, self.s, self.kernel
        thread = f.thread()
        with f.when(f.icmp("eq", thread, 0), "start"):
            for number in range(s.stages):
                place = const("i32", number)
                # of whoever asks for copies, and of all who have written
                arrivals = bool(self.plan.maps) + (GROUP if self.plan.computes else 0)
                warpgroup.start_barrier(f, self._barrier(self.full, place), arrivals)
                arrivals = s.consumers * GROUP // WARP
                warpgroup.start_barrier(f, self._barrier(self.empty, place), arrivals)
            warpgroup.show_barriers(f)
        f.barrier()
        down, right = -(-kernel.m.extent // s.m), -(-kernel.n.extent // s.n)
        tiles = down * right * kernel.batch.extent
        block = f.block()
        # of every so many tiles each block takes one
        rest = f.sub(const("i32", tiles - 1), block)
        count = f.add(f.udiv(rest, f.blocks()), 1)
        produce, consume, end = f.fresh("produce"), f.fresh("consume"), f.fresh("end")
        f.branch_if(f.icmp("ult", thread, GROUP), produce, consume)
        f.start_block(produce)
        self._produce(thread, count)
        f.branch(end)
        f.start_block(consume)
        self._consume(thread, count)
        f.branch(end)
        f.start_block(end)
        return tiles

    # ---- where things are

    def _barrier(self, first: int, stage: Value) -> Value:
        f = self.f
        base = warpgroup.shared_word(f, f.shared_address(first))
        return f.add(base, f.mul(stage, BARRIER_BYTES))

    def _tile(self, ordinal: Value) -> tuple[Value, Value, Value]:
        """(batch, first row, first column) as i32 of the block's tile of this number."""
        f, s = self.f, self.s
        number = f.add(f.block(), f.mul(ordinal, f.blocks()))
        return tile_at(f, self.kernel, number, s.m, s.n)

    def _stage(self, ordinal: Value, k: Value) -> tuple[Value, Value]:
        """(buffer, parity of the time it is used) of a slice."""
        f, s = self.f, self.s
        number = f.add(f.mul(ordinal, self.slices), k)
        stage = f.and_(number, s.stages - 1)
        return stage, f.and_(f.lshr(number, s.stages.bit_length() - 1), 1)

    # ---- the producer

    def _produce(self, thread: Value, count: Value) -> None:
        f, s = self.f, self.s
        warpgroup.take_registers(f, self.registers[0], more=False)
        if self.plan.computes:
            self._compute(thread, count)
            return
        with f.when(f.icmp("eq", thread, 0), "ask"), f.loop(const("i32", 0), count, 1) as tile:
            at = self._tile(tile.index)
            with f.loop(const("i32", 0), const("i32", self.slices), 1, hint="k") as loop:
                stage, parity = self._stage(tile.index, loop.index)
                warpgroup.wait(f, self._barrier(self.empty, stage), f.xor(parity, 1))
                self._ask(stage, at, f.mul(loop.index, s.depth))

    def _ask(self, stage: Value, at: tuple[Value, Value, Value], k: Value) -> None:
        """Asks for the copied operands of a slice; done by one thread."""
        f, s, plan = self.f, self.s, self.plan
        full = self._barrier(self.full, stage)
        buffer = f.add(self.ring, f.mul(stage, s.slice_bytes))
        batch, row, column = at
        tensors = iter(f.maps)
        asked = [
            (operand, place, rows, first)
            for operand, place, rows, first in (
                (plan.left, buffer, s.m, row),
                (plan.right, f.add(buffer, self.left_bytes), s.n, column),
            )
            if isinstance(operand, MappedOperand)
        ]
        nbytes = sum(rows * s.depth * BYTES for _, _, rows, _ in asked)
        warpgroup.arrive_expecting(f, full, nbytes)
        for operand, place, rows, first in asked:
            tensor = f.convert("ptrtoint", next(tensors), "i64")
            self._copy(operand, tensor, place, rows, first, k, batch, full)

    def _compute(self, thread: Value, count: Value) -> None:
        """All threads write what is computed; the first asks for what is not.  The first loads of a
        slice are under way while its buffer is waited for.
        """
        f, s = self.f, self.s
        writers = self._writers()
        with f.loop(const("i32", 0), count, 1, hint="tile") as tile:
            at = self._tile(tile.index)
            for writer, _, axis in writers:
                writer.start(f.wide(at[0]), f.wide(at[axis]))
            with f.loop(const("i32", 0), const("i32", self.slices), 1, hint="k") as loop:
                stage, parity = self._stage(tile.index, loop.index)
                k = f.mul(loop.index, s.depth)
                early = writers[0][0].early(f.wide(k))
                warpgroup.wait(f, self._barrier(self.empty, stage), f.xor(parity, 1))
                if self.plan.maps:
                    with f.when(f.icmp("eq", thread, 0), "ask"):
                        self._ask(stage, at, k)
                start = f.mul(stage, s.slice_bytes)
                for turn, (writer, place, _) in enumerate(writers):
                    where = f.add(start, place) if place else start
                    buffer = f.offset(self.ring_address, where, "i8")
                    writer.write(buffer, f.wide(k), [] if turn else early)
                warpgroup.show_to_products(f)
                warpgroup.arrive(f, self._barrier(self.full, stage))

    def _writers(self) -> list[tuple[TileWriter, int, int]]:
        """Who writes each operand that is computed, where in a buffer, and whether the tile's row
        (1) or column (2) is where it begins.
        """
        s, plan = self.s, self.plan
        return [
            (TileWriter(self.f, self.kernel, operand, rows, plan.dtype), place, axis)
            for operand, rows, place, axis in (
                (plan.left, s.m, 0, 1), (plan.right, s.n, self.left_bytes, 2)
            )
            if isinstance(operand, ComputedOperand)
        ]

    def _copy(
        self, operand: MappedOperand, tensor: Value, buffer: Value, rows: int, first: Value,
        k: Value, batch: Value, full: Value,
    ) -> None:  # fmt: skip
        f = self.f
        matrix = batch if operand.batched else const("i32", 0)
        for number in range(operand.boxes(rows)):
            place = [k, first, matrix]
            target = buffer
            if operand.across:
                at = f.add(first, number * BOX) if number else first
                place = [at, k, matrix]
                target = f.add(buffer, number * BOX * ROW_BYTES) if number else buffer
            warpgroup.copy_box(f, target, tensor, place, full)

    # ---- consumers

    def _consume(self, thread: Value, count: Value) -> None:
        f, s, kernel = self.f, self.s, self.kernel
        warpgroup.take_registers(f, self.registers[1], more=True)
        lane = f.and_(thread, WARP - 1)
        warp = f.sub(f.lshr(thread, 5), GROUP // WARP)
        group = f.lshr(warp, 2)
        leads = f.icmp("eq", lane, 0)
        epilogue = Epilogue(f, kernel, dtypes.float32, min(STRIP, s.n), PITCH, WARP, lane)
        staging = f.offset(f.shared_address(self.staging), f.mul(warp, 16 * PITCH), "float")
        zeros = [const("float", 0.0)] * (s.n // 2)
        with f.loop(const("i32", 0), count, 1, hint="tile") as tile:
            sums = self._multiply(tile.index, group, leads, zeros)
            batch, row, column = self._tile(tile.index)
            first_row = f.wide(f.add(row, f.mul(warp, 16)))
            for start in range(0, s.n, STRIP):
                strip = sums[start // 2 : (start + STRIP) // 2]
                put_sums(f, staging, PITCH, strip, 16, STRIP)
                f.warp_barrier()
                first_column = f.wide(f.add(column, start) if start else column)
                epilogue.run(staging, 16, f.wide(batch), first_row, first_column)
                f.warp_barrier()

    def _multiply(
        self, ordinal: Value, group: Value, leads: Value, zeros: list[Value]
    ) -> list[Value]:
        f, s = self.f, self.s
        one = const("i32", 1)
        with f.loop(const("i32", 0), const("i32", self.slices), 1, zeros, "k") as loop:
            stage, parity = self._stage(ordinal, loop.index)
            warpgroup.wait(f, self._barrier(self.full, stage), parity)
            buffer = f.add(self.ring, f.mul(stage, s.slice_bytes))
            warpgroup.product_fence(f)
            loop.next = self._slice(buffer, group, loop.carried)
            warpgroup.commit_products(f)
            # the slice before this one has been read; this one may still be
            warpgroup.wait_products(f, 1)
            with f.when(f.and_(leads, f.icmp("ne", loop.index, 0)), "done"):
                before, _ = self._stage(ordinal, f.sub(loop.index, one))
                warpgroup.arrive(f, self._barrier(self.empty, before))
        warpgroup.wait_products(f, 0)
        with f.when(leads, "done"):
            last, _ = self._stage(ordinal, const("i32", self.slices - 1))
            warpgroup.arrive(f, self._barrier(self.empty, last))
        return loop.results

    def _slice(self, buffer: Value, group: Value, sums: list[Value]) -> list[Value]:
        """Products with one slice.  A step of k is 32 bytes further along rows of k, or two groups
        of eight rows further down.
        """
        f, s, plan = self.f, self.s, self.plan
        left_group = BOX * ROW_BYTES if plan.left.across else GROUP_ROWS * ROW_BYTES
        left = f.add(buffer, f.mul(group, left_group))
        right = f.add(buffer, self.left_bytes)
        descriptors = [
            warpgroup.descriptor(f, address, BOX * ROW_BYTES if operand.across else 16)
            for address, operand in ((left, plan.left), (right, plan.right))
        ]
        steps = [
            (2 * EIGHT_ROWS if operand.across else STEP * BYTES) >> 4
            for operand in (plan.left, plan.right)
        ]
        for number in range(s.depth // STEP):
            a, b = (
                f.add(each, number * step) if number else each
                for each, step in zip(descriptors, steps, strict=True)
            )
            sums = warpgroup.multiply_group(
                f, plan.dtype, s.n, sums, a, b, plan.left.across, plan.right.across
            )
        return sums
