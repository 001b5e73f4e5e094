"""The program's one entry point: `void program(ptr table, ptr pool)`.

`table` holds the addresses of inputs, outputs, arena and error block, in that order.  The entry
binds each launch's buffers and hands the kernel to the pool's `parallel` function, whose address
lies first in the pool structure.  After a launch that checks indices it looks at the error block
and returns at once if something was reported, with the launch's number in slot 4.

A library call is made by the entry itself, on the thread that runs the program: it calls
`lazygrad_library(i64 launch, ptr arguments, ptr error)`, which the runtime provides when it loads
the program.  The error block says that the call is under way until the callee clears it, so an
exception at any place of the callee counts as a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.llvm.builder import Module, Value, const


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a kernel's buffer is: slot of the table, plus an offset in bytes."""

    slot: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class BoundLaunch:
    """kernel: function name.  tasks, grain: for the pool.  checks: whether it can report
    an error.  library: a library call rather than a kernel.
    """

    kernel: str
    arguments: tuple[Binding, ...]
    tasks: int
    grain: int
    checks: bool
    library: bool = False


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
    room for a reading of the clock before the first launch and one after each.
    """
    f = module.function("program", "void", [("ptr", "table"), ("ptr", "pool")], attributes)
    table, pool = f.parameters
    for name in dict.fromkeys(launch.kernel for launch in launches if not launch.library):
        module.declare(name, "void", ["ptr", "i64", "i64", "ptr"])
    if any(launch.library for launch in launches):
        module.declare(LIBRARY_SYMBOL, "void", ["i64", "ptr", "ptr"])
    most = max((len(launch.arguments) for launch in launches), default=0)
    arguments = f.alloca("ptr", most + 1)
    parallel = f.load("ptr", pool, 8)
    slots: dict[int, Value] = {}

    def slot(number: int) -> Value:
        if number not in slots:
            slots[number] = f.load("ptr", f.offset(table, number, "ptr"), 8)
        return slots[number]

    def read_clock(number: int) -> None:
        if clock_slot is not None:
            reading = f.offset(slot(clock_slot), CLOCK_WORDS * number, "i64")
            f.emit_void(f"call i32 @clock_gettime(i32 {CLOCK_MONOTONIC}, ptr {reading.name})")

    if clock_slot is not None:
        module.declare("clock_gettime", "i32", ["i32", "ptr"])
        slot(clock_slot)
    error = slot(error_slot)
    for number in sorted({b.slot for launch in launches for b in launch.arguments}):
        slot(number)
    read_clock(0)
    for number, launch in enumerate(launches):
        if not launch.tasks:
            read_clock(number + 1)
            continue
        for place, binding in enumerate(launch.arguments):
            address = slot(binding.slot)
            if binding.offset:
                address = f.offset(address, binding.offset, "i8")
            f.store(address, f.offset(arguments, place, "ptr"), 8)
        f.store(error, f.offset(arguments, len(launch.arguments), "ptr"), 8)
        if launch.library:
            f.store(const("i64", LIBRARY_UNDER_WAY), error, 8)
            f.emit_void(
                f"call void @{LIBRARY_SYMBOL}(i64 {number}, ptr {arguments.name}, "
                f"ptr {error.name})"
            )
        else:
            f.emit_void(
                f"call void {parallel.name}(ptr {pool.name}, ptr @{launch.kernel}, "
                f"ptr {arguments.name}, i64 {launch.tasks}, i64 {launch.grain})"
            )
        read_clock(number + 1)
        if launch.checks:
            reported = f.icmp("ne", f.load("i64", error, 8), 0)
            with f.when(reported, "failed"):
                f.store(const("i64", number), f.offset(error, 4, "i64"), 8)
                f.ret()
                f.start_block(f.new_block("unreachable"))
    f.ret()
