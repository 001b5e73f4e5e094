"""Runs kernels: loads a module, schedules its threads, reports faults.

In: PTX text, a launch.  Out: changed device memory, or a PtxError that names kernel, instruction,
block and thread.  The one idea: all threads of many blocks form one *batch* of lanes, each with a
program counter; the scheduler runs the basic block with the lowest pending counter for all lanes
that are at it.  LLVM lays blocks out so that this is where paths join again.  A lane at an
instruction that needs others (a barrier, a shuffle, an `mbarrier` wait) is blocked until they come;
when nobody can run, outstanding asynchronous copies land, and if there are none it is a deadlock.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from tests.ptx import types
from tests.ptx.compiler import (
    BasicBlock,
    Blocking,
    Branch,
    Compiler,
    Deferred,
    Exit,
    Lanes,
    Program,
    numbers_of,
)
from tests.ptx.memory import ALLOCATED, DeviceMemory, MemoryFault, Space
from tests.ptx.parser import TYPE_BYTES, Instruction, PtxError, Variable, parse

WARP = 32
DONE = np.int32(2**31 - 1)
BATCH_LANES = 1 << 15
BATCH_SHARED_BYTES = 1 << 26
MAX_SHARED_BYTES = 227 * 1024
FAIR_TURN = 257
"""Every so many turns another block than the lowest runs, so that spinning lanes starve nobody."""


class KernelFault(PtxError):
    """A kernel did what no kernel may do."""


class LaunchError(PtxError):
    """The launch does not fit the kernel: its name, arguments, sizes."""


_AXES = "xyz"
SPECIAL_REGISTERS: dict[str, Callable[[Batch], np.ndarray]] = {
    "%laneid": lambda batch: batch.lane_numbers % WARP,
    "%warpid": lambda batch: batch.lane_thread // WARP,
    "%nwarpid": lambda batch: batch.constant(batch.block_lanes // WARP),
    "WARP_SZ": lambda batch: batch.constant(WARP),
    "%gridid": lambda batch: batch.constant(1),
    "%smid": lambda batch: batch.lane_block % 132,
    "%nsmid": lambda batch: batch.constant(132),
    "%clock": lambda batch: batch.constant(batch.turn),
    "%clock64": lambda batch: batch.constant(batch.turn),
    "%globaltimer": lambda batch: batch.constant(batch.turn),
    "%dynamic_smem_size": lambda batch: batch.constant(batch.dynamic_bytes),
    "%total_smem_size": lambda batch: batch.constant(batch.shared_size),
    "%cluster_ctarank": lambda batch: batch.constant(0),
    "%cluster_nctarank": lambda batch: batch.constant(1),
    "%is_explicit_cluster": lambda batch: batch.constant(0),
    "%lanemask_eq": lambda batch: 1 << (batch.lane_numbers % WARP),
    "%lanemask_lt": lambda batch: (1 << (batch.lane_numbers % WARP)) - 1,
    "%lanemask_le": lambda batch: (2 << (batch.lane_numbers % WARP)) - 1,
    "%lanemask_gt": lambda batch: 0xFFFFFFFF & ~((2 << (batch.lane_numbers % WARP)) - 1),
    "%lanemask_ge": lambda batch: 0xFFFFFFFF & ~((1 << (batch.lane_numbers % WARP)) - 1),
}
for _axis, _name in enumerate(_AXES):
    SPECIAL_REGISTERS |= {
        f"%ntid.{_name}": lambda batch, axis=_axis: batch.constant(batch.block[axis]),
        f"%nctaid.{_name}": lambda batch, axis=_axis: batch.constant(batch.grid[axis]),
        f"%tid.{_name}": lambda batch, axis=_axis: batch.coordinate(
            batch.lane_thread, batch.block, axis
        ),
        f"%ctaid.{_name}": lambda batch, axis=_axis: batch.coordinate(
            batch.lane_block + batch.first_block, batch.grid, axis
        ),
        f"%clusterid.{_name}": lambda batch, axis=_axis: batch.coordinate(
            batch.lane_block + batch.first_block, batch.grid, axis
        ),
        f"%nclusterid.{_name}": lambda batch, axis=_axis: batch.constant(batch.grid[axis]),
        f"%cluster_ctaid.{_name}": lambda batch: batch.constant(0),
        f"%cluster_nctaid.{_name}": lambda batch: batch.constant(1),
    }
_CHANGING = ("%clock", "%clock64", "%globaltimer")


class Batch:
    """The state of the lanes of some consecutive blocks of one launch.

    Lane `b * block_lanes + t` is thread t of the batch's block b; block_lanes is the number of
    threads rounded up to whole warps, and the lanes beyond the last thread have exited at once.
    """

    def __init__(
        self,
        program: Program,
        memory: DeviceMemory,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        first_block: int,
        blocks: int,
        dynamic_bytes: int,
        parameter_address: int,
        detect_races: bool,
    ) -> None:
        self.program, self.memory, self.grid, self.block = program, memory, grid, block
        self.first_block, self.blocks = first_block, blocks
        self.parameter_address, self.dynamic_bytes = parameter_address, dynamic_bytes
        self.threads = block[0] * block[1] * block[2]
        self.block_lanes = -(-self.threads // WARP) * WARP
        self.lanes = blocks * self.block_lanes
        self.lane_numbers = np.arange(self.lanes)
        self.lane_block = self.lane_numbers // self.block_lanes
        self.lane_thread = self.lane_numbers % self.block_lanes
        self.pc = np.where(self.lane_thread < self.threads, np.int32(0), DONE)
        self.blocked = np.zeros(self.lanes, bool)
        self.turn = 0
        self.registers = [
            np.zeros(self.lanes, bool)
            if type_ == "pred"
            else np.full(self.lanes, 0xEE, types.UNSIGNED[1])
            if type_ == "b8"
            else np.full(
                self.lanes, 0xEEEEEEEEEEEEEEEE >> (64 - 8 * TYPE_BYTES[type_]),
                types.UNSIGNED[TYPE_BYTES[type_]],
            )
            for type_ in program.register_types
        ]  # fmt: skip
        self.shared_size = program.shared_bytes + dynamic_bytes
        self.shared_stride = -(-max(self.shared_size, 16) // 1024) * 1024
        self.shared = Space(blocks * self.shared_stride, "shared", ALLOCATED)
        self.local_size = program.local_bytes
        self.local_stride = -(-self.local_size // 16) * 16
        self.local = Space(self.lanes * self.local_stride, "local", ALLOCATED)
        self.carry = np.zeros(self.lanes, np.uint8)
        self.barrier = np.full(self.lanes, -1, np.int16)
        self.barrier_count = np.zeros(self.lanes, np.int32)
        self.barrier_arrived = np.zeros((blocks, 16), np.int32)
        self.pending: list[Callable[[], None]] = []
        self.copies: list[Deferred] = []
        self.copy_group = np.zeros(self.lanes, np.int64)
        self.bulk: list[Deferred] = []
        self.bulk_group = np.zeros(self.lanes, np.int64)
        self.products: list[Deferred] = []
        self.product_group = np.zeros(self.lanes, np.int64)
        self.races = None
        if detect_races and program.track_races and self.shared_size:
            from tests.ptx.races import Races

            self.races = Races(self)
        self._special: dict[str, np.ndarray] = {}
        self._random = np.random.default_rng(0)

    # ---- special registers

    def constant(self, value: int) -> np.ndarray:
        return np.full(self.lanes, value, np.int64)

    def coordinate(self, linear: np.ndarray, extent: tuple[int, int, int], axis: int) -> np.ndarray:
        below = int(np.prod(extent[:axis], dtype=np.int64))
        return linear // below % extent[axis]

    def special(self, name: str) -> np.ndarray:
        """A special register's value for every lane."""
        if name in _CHANGING:
            return SPECIAL_REGISTERS[name](self)
        if name not in self._special:
            self._special[name] = SPECIAL_REGISTERS[name](self)
        return self._special[name]

    # ---- faults

    def where(self, lane: int) -> str:
        """Block and thread of a lane, in words."""
        block = int(self.lane_block[lane]) + self.first_block
        thread = int(self.lane_thread[lane])
        spelled = []
        for linear, extent in ((block, self.grid), (thread, self.block)):
            index = np.unravel_index(linear, extent[::-1])[::-1]
            spelled.append("(" + ", ".join(str(int(value)) for value in index) + ")")
        return f"block {spelled[0]}, thread {spelled[1]}"

    def fault(self, message: str, lane: int) -> KernelFault:
        """A fault of one lane; the instruction is added where the step was called."""
        return KernelFault(f"{self.where(lane)}: {message}")

    # ---- scheduling

    def run(self) -> None:
        """Runs every lane to its exit."""
        blocks = self.program.blocks
        while True:
            self.turn += 1
            pending = np.where(self.blocked, DONE, self.pc)
            lowest = pending.min()
            if lowest == DONE:
                if not self.blocked.any():
                    self._finish()
                    return
                self._unblock()
                continue
            if self.turn % FAIR_TURN == 0:
                choices = np.unique(pending)
                lowest = self._random.choice(choices[choices != DONE])
            chosen = pending == lowest
            block = blocks[lowest]
            lanes: Lanes = slice(None) if chosen.all() else np.flatnonzero(chosen)
            step_instruction = None
            try:
                for item, step in block.steps:
                    step_instruction = item
                    step(self, lanes)
                step_instruction = block.end_instruction
                self._end(block, int(lowest), lanes)
            except MemoryFault as error:
                place = "" if error.element is None else self.where(error.element) + ": "
                raise KernelFault(self._locate(step_instruction, f"{place}{error}")) from None
            except KernelFault as error:
                raise KernelFault(self._locate(step_instruction, str(error))) from None

    def _locate(self, item: Instruction | None, message: str) -> str:
        text = "the end" if item is None else f"{item.text!r} (line {item.line})"
        return f"[{self.program.name}] {text}: {message}"

    def _end(self, block: BasicBlock, index: int, lanes: Lanes) -> None:
        end, guard = block.end, block.guard
        if end is None:
            self.pc[lanes] = index + 1
            return
        numbers = numbers_of(self, lanes)
        if guard is not None:
            chosen = np.broadcast_to(guard(self, lanes), numbers.shape)
            self.pc[numbers[~chosen]] = index + 1
            numbers = numbers[chosen]
            if not len(numbers):
                return
        if isinstance(end, Exit):
            self.pc[numbers] = DONE
            self.blocked[:] = False
        elif isinstance(end, Branch):
            targets = block.targets
            assert targets is not None
            if end.index is None:
                self.pc[numbers] = targets[0]
            else:
                chosen = np.broadcast_to(end.index(self, numbers), numbers.shape)
                beyond = chosen >= len(targets)
                if beyond.any():
                    lane = int(numbers[np.flatnonzero(beyond)[0]])
                    raise self.fault(f"jumps beyond its {len(targets)} targets", lane)
                self.pc[numbers] = targets[chosen]
        else:
            self._wait(end, index, numbers)

    def _wait(self, end: Blocking, index: int, arrived: np.ndarray) -> None:
        """Lanes that arrived now join those that wait here; who is ready goes on."""
        self.blocked[arrived] = True
        waiting = np.flatnonzero((self.pc == index) & self.blocked)
        ready = end.ready(self, waiting, index)
        if not len(ready):
            return
        self.blocked[ready] = False
        end.run(self, ready if len(ready) < self.lanes else slice(None))
        if not end.releases_itself:
            self.pc[ready] = index + 1

    def _unblock(self) -> None:
        """Nobody can run: the oldest asynchronous copy lands, or this is a deadlock."""
        if self.pending:
            self.pending.pop(0)()
            self.blocked[:] = False
            return
        lines = []
        for index in np.unique(self.pc[self.blocked]):
            lanes = np.flatnonzero(self.blocked & (self.pc == index))
            item = self.program.blocks[index].end_instruction
            text = f"{item.text!r} (line {item.line})" if item is not None else "?"
            lines.append(f"{len(lanes)} threads at {text}, the first {self.where(int(lanes[0]))}")
        raise KernelFault(f"[{self.program.name}] deadlock: " + "; ".join(lines))

    def _finish(self) -> None:
        """Copies nobody waited for still land before the launch ends."""
        while self.pending:
            self.pending.pop(0)()
        for entry in self.bulk:
            entry.complete(np.ones(len(entry.numbers), bool))


def _triple(extent: int | Sequence[int], what: str) -> tuple[int, int, int]:
    values = [extent] if isinstance(extent, int) else list(extent)
    values += [1] * (3 - len(values))
    if len(values) != 3 or any(value < 1 for value in values):
        raise LaunchError(f"{what} {extent}: one to three positive sizes are needed")
    return values[0], values[1], values[2]


class Module:
    """PTX text loaded onto a device memory: global variables are allocated and set.

    Every instruction is understood now or an UnknownInstruction is raised; nothing is put off.
    """

    def __init__(self, text: str, memory: DeviceMemory | None = None) -> None:
        from tests.ptx import handlers

        handlers.load()
        self.text = text
        self.memory = memory if memory is not None else DeviceMemory()
        self.syntax = parse(text)
        symbols: dict[str, tuple[str, int]] = {}
        shared = 0
        for variable in self.syntax.variables:
            if variable.space == "shared":
                if variable.extern:
                    continue
                shared = -(-shared // variable.alignment) * variable.alignment
                symbols[variable.name] = ("shared", shared)
                shared += variable.size
            else:
                address = self.memory.allocate(max(variable.size, 1))
                self.memory.write(address, variable.initial.ljust(variable.size, b"\0"))
                symbols[variable.name] = (variable.space, address)
        for variable in self.syntax.variables:
            for offset, name, addend in variable.relocations:
                value = symbols[name][1] + addend
                self.memory.write(symbols[variable.name][1] + offset, value.to_bytes(8, "little"))
        self.variables = {
            variable.name: (symbols[variable.name][1], variable.size)
            for variable in self.syntax.variables
            if variable.space in ("global", "const")
        }
        self.programs = {
            name: self._compile(name, dict(symbols), shared) for name in self.syntax.kernels
        }

    def _compile(self, name: str, symbols: dict[str, tuple[str, int]], shared: int) -> Program:
        kernel = self.syntax.kernels[name]
        static = shared
        for variable in kernel.variables:
            if variable.space == "shared":
                static = -(-static // variable.alignment) * variable.alignment + variable.size
        # The launch's own shared memory lies behind all static variables, 1024-byte aligned if so
        # declared, as the driver does it.
        dynamic = [v for v in self.syntax.variables if v.space == "shared" and v.extern]
        if dynamic:
            alignment = max(variable.alignment for variable in dynamic)
            static = -(-static // alignment) * alignment
            symbols |= {variable.name: ("shared", static) for variable in dynamic}
        program = Compiler(kernel, symbols, shared).compile()
        program.shared_bytes = max(program.shared_bytes, static)
        return program

    def unload(self) -> None:
        for address, _ in self.variables.values():
            self.memory.free(address)
        self.variables = {}

    def launch(
        self,
        name: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        arguments: Sequence[object],
        shared_bytes: int = 0,
        *,
        detect_races: bool = True,
        batch_lanes: int = BATCH_LANES,
    ) -> None:
        """Runs a kernel to its end.

        arguments: one a parameter: an int (address or number), a float, a NumPy scalar, or the
        bytes of a structure, each put into the parameter's own bytes.
        shared_bytes: dynamic shared memory.  detect_races: shared-memory accesses of two threads
        with no barrier between are an error.
        """
        program = self.programs.get(name)
        if program is None:
            known = ", ".join(sorted(self.programs)) or "none"
            raise LaunchError(f"there is no kernel {name!r} in the module; there are: {known}")
        parameters = self.syntax.kernels[name].parameters
        if len(arguments) != len(parameters):
            raise LaunchError(
                f"[{name}] {len(arguments)} arguments for {len(parameters)} parameters"
            )
        raw = bytearray(program.parameter_bytes)
        for parameter, offset, value in zip(parameters, program.parameter_offsets, arguments):
            raw[offset : offset + parameter.size] = _argument_bytes(name, parameter, value)
        self.launch_raw(
            name, _triple(grid, "grid"), _triple(block, "block"), bytes(raw), shared_bytes,
            detect_races=detect_races, batch_lanes=batch_lanes,
        )  # fmt: skip

    def launch_raw(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        parameters: bytes,
        shared_bytes: int = 0,
        *,
        detect_races: bool = True,
        batch_lanes: int = BATCH_LANES,
    ) -> None:
        """As `launch`, with the parameter block as bytes."""
        program = self.programs[name]
        threads = block[0] * block[1] * block[2]
        required = program.directives.get(".reqntid")
        largest = program.directives.get(".maxntid")
        if required and (*required, 1, 1)[:3] != block:
            raise LaunchError(f"[{name}] needs blocks of {required}, got {block}")
        limit = int(np.prod(largest)) if largest else 1024
        if threads > limit:
            raise LaunchError(f"[{name}] {threads} threads in a block; at most {limit} are allowed")
        total = program.shared_bytes + shared_bytes
        if total > MAX_SHARED_BYTES:
            raise LaunchError(f"[{name}] {total} bytes of shared memory; {MAX_SHARED_BYTES} fit")
        if grid[1] > 65535 or grid[2] > 65535 or grid[0] >= 2**31:
            raise LaunchError(f"[{name}] the grid {grid} is larger than (2**31 - 1, 65535, 65535)")
        count = grid[0] * grid[1] * grid[2]
        lanes = -(-threads // WARP) * WARP
        together = max(1, min(batch_lanes // lanes, BATCH_SHARED_BYTES // max(total, 1024)))
        address = self.memory.allocate(max(len(parameters), 1))
        if parameters:
            self.memory.write(address, parameters)
        try:
            with np.errstate(all="ignore"):
                for first in itertools.count(0, together):
                    if first >= count:
                        break
                    Batch(
                        program, self.memory, grid, block, first, min(together, count - first),
                        shared_bytes, address, detect_races,
                    ).run()  # fmt: skip
        finally:
            self.memory.free(address)


def _argument_bytes(kernel: str, parameter: Variable, value: object) -> bytes:
    size, type_ = parameter.size, parameter.type
    if isinstance(value, bytes | bytearray):
        raw = bytes(value)
    elif isinstance(value, np.ndarray | np.generic):
        raw = value.tobytes()
    elif isinstance(value, float):
        raw = np.array(value, np.float32 if size == 4 else np.float64).tobytes()
    elif isinstance(value, int) and type_ not in ("f32", "f64"):
        raw = (value % (1 << 8 * size)).to_bytes(size, "little")
    else:
        raise LaunchError(f"[{kernel}] {type(value).__name__} {value!r} for a .{type_} parameter")
    if len(raw) != size:
        raise LaunchError(f"[{kernel}] {len(raw)} bytes for parameter {parameter.name} of {size}")
    return raw
