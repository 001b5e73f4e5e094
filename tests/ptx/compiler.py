"""From syntax to steps: each instruction becomes a closure over arrays.

In: a kernel's syntax.  Out: `Program`, basic blocks of steps.  A step is called with the batch and
the lanes that execute it (an index array, or `slice(None)` for all).  The one idea: handlers are
rows of the table `HANDLERS`, take their suffixes off one by one, and whatever suffix is left is an
error, so that no instruction is half understood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.ptx import types
from tests.ptx.parser import (
    TYPE_BYTES,
    Address,
    Immediate,
    Instruction,
    Kernel,
    Label,
    Negated,
    Operand,
    PtxError,
    Register,
    Sink,
    Symbol,
    Vector,
)

Lanes = Any
"""slice(None) for every lane of the batch, or an array of lane numbers."""
Step = Callable[[Any, Lanes], None]
Reader = Callable[[Any, Lanes], np.ndarray]
Writer = Callable[[Any, Lanes, np.ndarray], None]


class UnknownInstruction(PtxError):
    """An opcode, suffix or operand form that the interpreter does not know."""


@dataclass(frozen=True, slots=True)
class Blocking:
    """An instruction that some lanes must wait at.

    ready(batch, lanes, pc): which of the waiting lanes may go on (an index array).  run: the
    effect, for those.  releases_itself: `ready` moved the program counters already.
    """

    ready: Callable[[Any, np.ndarray, int], np.ndarray]
    run: Step
    releases_itself: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """targets: label names; one for `bra`, several for `brx.idx` (chosen by `index`)."""

    targets: tuple[str, ...]
    index: Reader | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """`ret` and `exit`."""


@dataclass(slots=True)
class Deferred:
    """Work of several lanes, each in its lane's group; complete(chosen) does it for some of
    them."""

    numbers: np.ndarray
    groups: np.ndarray
    complete: Callable[[np.ndarray], None]


Handler = Callable[["Compiler", Instruction], "Step | Blocking | Branch | Exit"]
HANDLERS: dict[str, Handler] = {}


def instruction(*names: str) -> Callable[[Handler], Handler]:
    """Registers a handler under the first part(s) of an opcode."""

    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
        return handler

    return register


class Suffixes:
    """The parts of an opcode behind its name."""

    def __init__(self, instruction: Instruction, skip: int = 1) -> None:
        self._instruction = instruction
        self._parts = instruction.opcode.split(".")[skip:]

    def take(self, *choices: str, default: str = "") -> str:
        for part in self._parts:
            if part in choices:
                self._parts.remove(part)
                return part
        return default

    def flag(self, name: str) -> bool:
        return bool(self.take(name))

    def drop(self, choices: frozenset[str]) -> None:
        """Takes off every suffix that changes nothing here (caching, ordering, scope)."""
        self._parts = [
            part
            for part in self._parts
            if part not in choices and not part.startswith(("L1::", "L2::"))
        ]

    def type(self) -> str:
        for part in self._parts:
            if part in types.BYTES:
                self._parts.remove(part)
                return part
        raise self.error("has no type")

    def done(self) -> None:
        if self._parts:
            raise self.error(f"has suffixes that are not known: {'.'.join(self._parts)}")

    def error(self, message: str) -> UnknownInstruction:
        return UnknownInstruction(
            f"line {self._instruction.line}: {self._instruction.text!r} {message}"
        )


def width_of(batch: Any, lanes: Lanes) -> int:
    """How many lanes execute."""
    return batch.lanes if isinstance(lanes, slice) else len(lanes)


def numbers_of(batch: Any, lanes: Lanes) -> np.ndarray:
    """The lanes as an index array."""
    return batch.lane_numbers if isinstance(lanes, slice) else lanes


def narrow(lanes: Lanes, chosen: np.ndarray) -> np.ndarray:
    """The lanes where `chosen` is true."""
    return np.flatnonzero(chosen) if isinstance(lanes, slice) else lanes[chosen]


@dataclass(slots=True)
class BasicBlock:
    """steps, then one of: a blocking instruction (alone), a branch, an exit, or falling through."""

    steps: list[tuple[Instruction, Step]] = field(default_factory=list)
    end: Blocking | Branch | Exit | None = None
    end_instruction: Instruction | None = None
    guard: Reader | None = None
    targets: np.ndarray | None = None


@dataclass(slots=True)
class Program:
    """A kernel that can run.  Sizes in bytes; parameter_offsets in order of the parameters."""

    name: str
    blocks: list[BasicBlock]
    register_types: list[str]
    parameter_offsets: list[int]
    parameter_bytes: int
    shared_bytes: int
    local_bytes: int
    directives: dict[str, tuple[int, ...]]
    track_races: bool


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


class Compiler:
    """Compiles one kernel.  symbols: the module's variables as (space, address)."""

    def __init__(self, kernel: Kernel, symbols: dict[str, tuple[str, int]], shared: int) -> None:
        self.kernel = kernel
        self.symbols = dict(symbols)
        self._registers = {name: index for index, name in enumerate(kernel.registers)}
        self._types = list(kernel.registers.values())
        self.parameter_offsets: list[int] = []
        self.track_races = True
        offset = 0
        for parameter in kernel.parameters:
            offset = _aligned(offset, max(parameter.alignment, 1))
            self.parameter_offsets.append(offset)
            self.symbols[parameter.name] = ("param", offset)
            offset += parameter.size
        self.parameter_bytes = offset
        self.shared, self.local = shared, 0
        for variable in kernel.variables:
            if variable.space == "shared":
                self.shared = _aligned(self.shared, variable.alignment)
                self.symbols[variable.name] = ("shared", self.shared)
                self.shared += variable.size
            elif variable.space == "local":
                self.local = _aligned(self.local, variable.alignment)
                self.symbols[variable.name] = ("local", self.local)
                self.local += variable.size
            else:
                raise PtxError(f"{kernel.name}: variable {variable.name!r} in {variable.space!r}")

    # ---- operands

    def error(self, message: str) -> UnknownInstruction:
        return UnknownInstruction(f"kernel {self.kernel.name}: {message}")

    def register(self, operand: Operand) -> tuple[int, str]:
        """Index and declared type of a register."""
        if not isinstance(operand, Register) or operand.name not in self._registers:
            raise self.error(f"{operand} is no declared register")
        index = self._registers[operand.name]
        return index, self._types[index]

    def reader(self, operand: Operand, type_: str) -> Reader:
        """Reads an operand as values of a type (see `types.decode`); constants have length 1."""
        if type_ == "pred":
            return self.predicate(operand)
        if isinstance(operand, Register):
            if operand.name not in self._registers:
                return self._special(operand.name, type_)
            index, declared = self.register(operand)
            have, want = TYPE_BYTES[declared], types.BYTES[type_]
            if declared == "pred" or have < want:
                raise self.error(f"{operand.name} (.{declared}) is read as .{type_}")
            if have == want:
                return lambda batch, lanes: types.decode(batch.registers[index][lanes], type_)
            unsigned = types.UNSIGNED[want]
            return lambda batch, lanes: types.decode(
                batch.registers[index][lanes].astype(unsigned), type_
            )
        if isinstance(operand, Immediate):
            value = self._constant(operand, type_)
            return lambda batch, lanes: value
        if isinstance(operand, Symbol):
            if operand.name not in self.symbols:
                raise self.error(f"{operand.name!r} is not declared")
            address = self.symbols[operand.name][1] + operand.offset
            symbol = self._constant(Immediate(address), type_)
            return lambda batch, lanes: symbol
        raise self.error(f"{operand} cannot be read as .{type_}")

    def _constant(self, operand: Immediate, type_: str) -> np.ndarray:
        size = types.BYTES[type_]
        if isinstance(operand.value, float):
            if operand.bits == 32 and size == 4:
                bits = np.array([operand.value], np.float32).view(np.uint32)
            elif type_ in ("f64", "b64", "u64"):
                bits = np.array([operand.value], np.float64).view(np.uint64)
            elif type_ == "f32":
                bits = np.array([operand.value], np.float32).view(np.uint32)
            else:
                raise self.error(f"the constant {operand.value} cannot be a .{type_}")
        elif type_ in ("f32", "f64"):
            raise self.error(f"the integer constant {operand.value} cannot be a .{type_}")
        else:
            bits = np.array([operand.value % (1 << 8 * size)], np.uint64)
            bits = bits.astype(types.UNSIGNED[size])
        return types.decode(bits, type_)

    def _special(self, name: str, type_: str) -> Reader:
        dtype = types.INTEGERS.get(type_)
        if dtype is None:
            raise self.error(f"{name} cannot be read as .{type_}")

        def read(batch: Any, lanes: Lanes) -> np.ndarray:
            return batch.special(name)[lanes].astype(dtype)

        from tests.ptx.machine import SPECIAL_REGISTERS

        if name not in SPECIAL_REGISTERS:
            raise self.error(f"the special register {name} is not known")
        return read

    def predicate(self, operand: Operand, negated: bool = False) -> Reader:
        if isinstance(operand, Negated):
            return self.predicate(operand.operand, not negated)
        if isinstance(operand, Immediate):
            value = np.array([bool(operand.value) != negated])
            return lambda batch, lanes: value
        index, declared = self.register(operand)
        if declared != "pred":
            raise self.error(f"{operand} is no predicate")
        if negated:
            return lambda batch, lanes: ~batch.registers[index][lanes]
        return lambda batch, lanes: batch.registers[index][lanes]

    def writer(self, operand: Operand, type_: str) -> Writer:
        """Writes values of a type; a wider register is zero- or sign-extended."""
        if isinstance(operand, Sink):
            return lambda batch, lanes, values: None
        index, declared = self.register(operand)
        if type_ == "pred" or declared == "pred":
            if type_ != declared:
                raise self.error(f"{operand} (.{declared}) is written as .{type_}")

            def write_predicate(batch: Any, lanes: Lanes, values: np.ndarray) -> None:
                batch.registers[index][lanes] = values

            return write_predicate
        have, want = TYPE_BYTES[declared], types.BYTES[type_]
        if have < want:
            raise self.error(f"{operand} (.{declared}) is written as .{type_}")

        def write(batch: Any, lanes: Lanes, values: np.ndarray) -> None:
            batch.registers[index][lanes] = types.widen(types.encode(values, type_), type_, have)

        return write

    def readers(self, operands: tuple[Operand, ...], type_: str) -> list[Reader]:
        return [self.reader(operand, type_) for operand in operands]

    def vector(self, operand: Operand) -> tuple[Operand, ...]:
        return operand.items if isinstance(operand, Vector) else (operand,)

    def address(self, operand: Operand) -> tuple[str, Reader]:
        """The space a symbol names ("" for a register) and a reader of its int64 addresses."""
        if not isinstance(operand, Address):
            raise self.error(f"{operand} is no address")
        space, offset, base = "", np.int64(operand.offset), operand.base
        if isinstance(base, Register):
            wide = TYPE_BYTES[self.register(base)[1]] == 8
            read = self.reader(base, "s64" if wide else "u32")
            return space, lambda batch, lanes: read(batch, lanes).astype(np.int64) + offset
        if isinstance(base, Symbol):
            if base.name not in self.symbols:
                raise self.error(f"{base.name!r} is not declared")
            space, start = self.symbols[base.name]
            value = start + base.offset + operand.offset
        else:
            value = int(base.value) + operand.offset
        return space, lambda batch, lanes: np.full(width_of(batch, lanes), value, np.int64)

    # ---- the whole kernel

    def _step(self, item: Instruction) -> Step | Blocking | Branch | Exit:
        parts = item.opcode.split(".")
        for length in (3, 2, 1):
            handler = HANDLERS.get(".".join(parts[:length])) if len(parts) >= length else None
            if handler is not None:
                try:
                    return handler(self, item)
                except UnknownInstruction as error:
                    if str(error).startswith("line "):
                        raise UnknownInstruction(f"kernel {self.kernel.name}, {error}") from None
                    raise UnknownInstruction(f"{error} (line {item.line}: {item.text})") from None
                except (KeyError, IndexError, ValueError) as error:
                    raise UnknownInstruction(
                        f"kernel {self.kernel.name}, line {item.line}: {item.text!r} has a form"
                        f" that is not known ({error!r})"
                    ) from error
        raise UnknownInstruction(
            f"kernel {self.kernel.name}, line {item.line}: the instruction"
            f" {item.text!r} is not known"
        )

    def compile(self) -> Program:
        blocks = [BasicBlock()]
        labels: dict[str, int] = {}
        for item in self.kernel.body:
            if isinstance(item, Label):
                if blocks[-1].steps or blocks[-1].end is not None:
                    blocks.append(BasicBlock())
                labels[item.name] = len(blocks) - 1
                continue
            if blocks[-1].end is not None:
                blocks.append(BasicBlock())
            guard = None
            if item.predicate is not None:
                guard = self.predicate(*item.predicate)
            step = self._step(item)
            if isinstance(step, Blocking | Branch | Exit):
                if isinstance(step, Blocking) and blocks[-1].steps:
                    blocks.append(BasicBlock())
                block = blocks[-1]
                block.end, block.end_instruction, block.guard = step, item, guard
            else:
                blocks[-1].steps.append((item, step if guard is None else _guarded(guard, step)))
        if not isinstance(blocks[-1].end, Exit) or blocks[-1].guard is not None:
            blocks.append(BasicBlock(end=Exit()))
        for block in blocks:
            if isinstance(block.end, Branch):
                missing = [name for name in block.end.targets if name not in labels]
                if missing:
                    raise self.error(f"the label {missing[0]!r} is not defined")
                block.targets = np.array([labels[name] for name in block.end.targets], np.int32)
        return Program(
            self.kernel.name,
            blocks,
            self._types,
            self.parameter_offsets,
            self.parameter_bytes,
            self.shared,
            self.local,
            self.kernel.directives,
            self.track_races,
        )


def _guarded(guard: Reader, step: Step) -> Step:
    def run(batch: Any, lanes: Lanes) -> None:
        chosen = guard(batch, lanes)
        if chosen.all():
            step(batch, lanes)
        elif chosen.any():
            step(batch, narrow(lanes, chosen))

    return run
