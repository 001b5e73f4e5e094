"""Constant offsets move from a kernel's accesses into the binding of its buffers.

In: a launch.  Out: the same work, with every buffer read and written from the first element that is
touched for sure, and that element's number as the argument's offset.  Kernels that differ only in
where they start (the frames of an unrolled recurrence, the slices of one weight) become one kernel,
which is compiled once.
"""

from __future__ import annotations

from dataclasses import replace

from lazygrad_compiler.loops.index import Affine
from lazygrad_compiler.loops.kernel import (
    ContractionKernel,
    Instr,
    Launch,
    LoopKernel,
    Stage,
    Store,
)


def rebase(launch: Launch, alignment: int = 1) -> Launch:
    """alignment: of the first element's place, in bytes, where the target's loads ask for it."""
    kernel = launch.kernel
    if not isinstance(kernel, (LoopKernel, ContractionKernel)):
        return launch
    stages = kernel.stages if isinstance(kernel, LoopKernel) else (kernel.epilogue,)
    starts: dict[int, int] = {}

    def touch(buffer: int, index: Affine) -> None:
        starts[buffer] = min(starts.get(buffer, index.constant), index.constant)

    for instr in kernel.values:
        if instr.op == "load":
            touch(*instr.data)
    for stage in stages:
        for store in stage.stores:
            touch(store.buffer, store.index)
    whole = [max(alignment // buffer.dtype.itemsize, 1) for buffer in kernel.buffers]
    # where a load is masked, the first place may lie beyond the end; what is bound never does,
    # since masked loads read the first element instead
    inside = {
        buffer: min(start, kernel.buffers[buffer].size - 1) for buffer, start in starts.items()
    }
    shifts = {
        buffer: start // whole[buffer] * whole[buffer]
        for buffer, start in inside.items()
        if start >= whole[buffer]
    }
    if not shifts:
        return launch

    def moved(buffer: int, index: Affine) -> Affine:
        return index + -shifts.get(buffer, 0)

    def moved_instr(instr: Instr) -> Instr:
        if instr.op != "load" or instr.data[0] not in shifts:
            return instr
        return replace(instr, data=(instr.data[0], moved(*instr.data)))

    def moved_stage(stage: Stage) -> Stage:
        return replace(stage, stores=tuple(moved_store(store) for store in stage.stores))

    def moved_store(store: Store) -> Store:
        return replace(store, index=moved(store.buffer, store.index))

    values = tuple(map(moved_instr, kernel.values))
    offsets = tuple(shifts.get(number, 0) for number in range(len(kernel.buffers)))
    if isinstance(kernel, LoopKernel):
        made: LoopKernel | ContractionKernel = replace(
            kernel, stages=tuple(map(moved_stage, kernel.stages)), values=values
        )
    else:
        made = replace(kernel, epilogue=moved_stage(kernel.epilogue), values=values)
    return replace(launch, kernel=made, offsets=offsets)
