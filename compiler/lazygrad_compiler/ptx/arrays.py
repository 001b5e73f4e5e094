"""What the emitters of ops on whole arrays have in common: a step of an op is one launch, and each
step is a row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lazygrad_compiler.backend import Emitted, Grid
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.llvm.builder import Value
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.ptx.builder import KernelFunction, KernelModule

MOST_BLOCKS_YZ = 65535


@dataclass(frozen=True, slots=True)
class Step:
    """A step under emission.  words: of its name; the first one finds the row of the table."""

    f: KernelFunction
    kernel: ArrayKernel
    target: CudaTarget
    threads: int

    @property
    def words(self) -> list[str]:
        return self.kernel.step.split()

    @property
    def pointers(self) -> list[Value]:
        return self.f.parameters[: len(self.kernel.buffers)]


@dataclass(frozen=True, slots=True)
class Row:
    """threads: of a block.  emit: writes the body, gives the number of blocks."""

    threads: int
    emit: Callable[[Step], int]


def emit_step(
    module: KernelModule,
    name: str,
    kernel: ArrayKernel,
    target: CudaTarget,
    table: Mapping[str, Row],
) -> Emitted:
    row = table[kernel.step.split()[0]]
    f = module.kernel(name, len(kernel.buffers), row.threads)
    blocks = row.emit(Step(f, kernel, target, row.threads))
    f.ret()
    grid = Grid((blocks, 1, 1), (row.threads, 1, 1), module.dynamic_bytes)
    return Emitted(f"{kernel.step}: {blocks} blocks of {row.threads}", grid=grid)


def one_thread_each(step: Step, count: int, body: Callable[[Value], None]) -> int:
    """body(number) for each number below count, by a thread of its own; gives the blocks."""
    f = step.f
    number = f.add(f.mul(f.wide(f.block()), step.threads), f.wide(f.thread()))
    with f.when(f.icmp("slt", number, count), "inside"):
        body(number)
    return -(-count // step.threads)
