"""The program's one entry point: `void program(ptr table, ptr pool)`.

`table` holds the addresses of inputs, outputs, arena and error block, in that order.  The entry
binds each launch's buffers and hands the kernel to the pool's `parallel` function, whose address
lies first in the pool structure.  After a launch that checks indices it looks at the error block
and returns at once if something was reported, with the launch's number in its word of the block.

Launches of a loop are a loop here: every round binds the buffers of that round, and launches the
same kernels.

A library call is made by the entry itself, on the thread that runs the program: it calls
`lazygrad_library(i64 launch, ptr arguments, ptr error)`, which the runtime provides when it loads
the program.  The error block says that the call is under way until the callee clears it, so an
exception at any place of the callee counts as a failure.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.binding import (
    Advancing,
    AnyBinding,
    Binding,
    BoundLaunch,
    end_of_loop,
    slots_of,
)
from lazygrad_compiler.llvm.builder import Module, Value, const
from lazygrad_compiler.llvm.points import LAUNCH_WORD

LIBRARY_SYMBOL = "lazygrad_library"
LIBRARY_UNDER_WAY = -1
"""What the error block holds while a library call runs."""


CLOCK_MONOTONIC = 1
"""Linux's number of the clock that Python's `time.monotonic` reads."""

CLOCK_WORDS = 2
"""Of one reading: seconds and nanoseconds, 64 bits each."""


def emit_entry(
    module: Module,
    launches: Sequence[BoundLaunch],
    error_slot: int,
    attributes: str,
    clock_slot: int | None = None,
) -> None:
    """Emits `program`.  clock_slot: of the table, where the variant that measures itself finds
    room for a reading of the clock before the first launch and one after each that is run.
    """
    for name in dict.fromkeys(launch.kernel for launch in launches if not launch.library):
        module.declare(name, "void", ["ptr", "i64", "i64", "ptr"])
    if any(launch.library for launch in launches):
        module.declare(LIBRARY_SYMBOL, "void", ["i64", "ptr", "ptr"])
    if clock_slot is not None:
        module.declare("clock_gettime", "i32", ["i32", "ptr"])
    _Emitter(module, launches, error_slot, attributes, clock_slot).run()


class _Emitter:
    def __init__(
        self,
        module: Module,
        launches: Sequence[BoundLaunch],
        error_slot: int,
        attributes: str,
        clock_slot: int | None,
    ) -> None:
        self.f = f = module.function(
            "program", "void", [("ptr", "table"), ("ptr", "pool")], attributes
        )
        table, self.pool = f.parameters
        self.launches = launches
        most = max((len(launch.arguments) for launch in launches), default=0)
        self.arguments = f.alloca("ptr", most + 1)
        self.parallel = f.load("ptr", self.pool, 8)
        read = {slot for launch in launches for b in launch.arguments for slot in slots_of(b)}
        read |= {error_slot} if clock_slot is None else {error_slot, clock_slot}
        self.slots = {
            number: f.load("ptr", f.offset(table, number, "ptr"), 8) for number in sorted(read)
        }
        self.error = self.slots[error_slot]
        self.clock = None if clock_slot is None else self.slots[clock_slot]
        self.readings = f.alloca("i64", 1)
        self.rounds: list[tuple[Value, int]] = []  # of the loops around: which round, of how many

    def run(self) -> None:
        f = self.f
        if self.clock is not None:
            f.store(const("i64", 0), self.readings, 8)
            self.read_clock()
        self.sequence(0, len(self.launches))
        f.ret()

    def read_clock(self) -> None:
        if self.clock is None:
            return
        f = self.f
        count = f.load("i64", self.readings, 8)
        reading = f.offset(self.clock, f.mul(count, CLOCK_WORDS), "i64")
        f.emit_void(f"call i32 @clock_gettime(i32 {CLOCK_MONOTONIC}, ptr {reading.name})")
        f.store(f.add(count, 1), self.readings, 8)

    def sequence(self, begin: int, end: int) -> None:
        """Launches in order; those of a loop within a loop."""
        depth = len(self.rounds)
        number = begin
        while number < end:
            repeats = self.launches[number].repeats
            if len(repeats) == depth:
                self.launch(number)
                number += 1
                continue
            after = end_of_loop(self.launches, number, depth)
            length = repeats[depth][1]
            with self.f.loop(0, length, 1, hint="repeat") as loop:
                self.rounds.append((loop.index, length))
                self.sequence(number, after)
                self.rounds.pop()
            number = after

    def address(self, binding: AnyBinding) -> Value:
        f = self.f
        if isinstance(binding, Binding):
            base = self.slots[binding.slot]
            return f.offset(base, binding.offset, "i8") if binding.offset else base
        index, length = self.rounds[binding.depth]
        if isinstance(binding, Advancing):
            distance = f.mul(index, binding.stride)
            return f.offset(self.address(binding.start), distance, "i8")
        if binding.rounds == "odd":
            condition = f.icmp("ne", f.and_(index, 1), 0)
        else:
            condition = f.icmp("eq", index, 0 if binding.rounds == "first" else length - 1)
        return f.select(condition, self.address(binding.chosen), self.address(binding.other))

    def launch(self, number: int) -> None:
        f, launch = self.f, self.launches[number]
        if not launch.tasks:
            self.read_clock()
            return
        for place, binding in enumerate(launch.arguments):
            f.store(self.address(binding), f.offset(self.arguments, place, "ptr"), 8)
        f.store(self.error, f.offset(self.arguments, len(launch.arguments), "ptr"), 8)
        if launch.library:
            f.store(const("i64", LIBRARY_UNDER_WAY), self.error, 8)
            f.emit_void(
                f"call void @{LIBRARY_SYMBOL}(i64 {number}, ptr {self.arguments.name}, "
                f"ptr {self.error.name})"
            )
        else:
            f.emit_void(
                f"call void {self.parallel.name}(ptr {self.pool.name}, ptr @{launch.kernel}, "
                f"ptr {self.arguments.name}, i64 {launch.tasks}, i64 {launch.grain})"
            )
        self.read_clock()
        if launch.checks:
            reported = f.icmp("ne", f.load("i64", self.error, 8), 0)
            with f.when(reported, "failed"):
                f.store(const("i64", number), f.offset(self.error, LAUNCH_WORD, "i64"), 8)
                f.ret()
                f.start_block(f.new_block("unreachable"))
