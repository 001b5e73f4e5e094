"""Branches, barriers, and what lanes of a warp tell each other (PTX ISA, sections 9.7.12, 9.7.13).

Warp-wide instructions wait until every lane that their mask names, and that has not exited, is at
the same instruction; `bar.sync` waits for the block's threads wherever they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx.compiler import (
    Blocking,
    Branch,
    Compiler,
    Exit,
    Lanes,
    Reader,
    Step,
    Suffixes,
    instruction,
    numbers_of,
)
from tests.ptx.parser import Instruction, Pair, Sink, Symbol

DONE = 2**31 - 1
WARP = 32


@instruction("bra")
def branch(compiler: Compiler, item: Instruction) -> Branch:
    suffixes = Suffixes(item)
    suffixes.flag("uni")
    suffixes.done()
    (target,) = item.operands
    if not isinstance(target, Symbol):
        raise suffixes.error("needs a label")
    return Branch((target.name,))


@instruction("brx")
def branch_by_index(compiler: Compiler, item: Instruction) -> Branch:
    suffixes = Suffixes(item)
    suffixes.take("idx")
    suffixes.flag("uni")
    suffixes.done()
    index, table = item.operands
    assert isinstance(table, Symbol)
    return Branch(compiler.kernel.branch_targets[table.name], compiler.reader(index, "u32"))


@instruction("ret", "exit")
def leave(compiler: Compiler, item: Instruction) -> Exit:
    suffixes = Suffixes(item)
    suffixes.flag("uni")
    suffixes.done()
    return Exit()


@instruction("trap", "brkpt")
def trap(compiler: Compiler, item: Instruction) -> Step:
    def run(batch: Any, lanes: Lanes) -> None:
        raise batch.fault("a trap", int(numbers_of(batch, lanes)[0]))

    return run


def nothing(batch: Any, lanes: Lanes) -> None:
    """Ordering and hints: the interpreter runs one instruction at a time and keeps them anyway."""


@instruction(
    "membar", "fence", "nanosleep", "pmevent", "prefetch", "prefetchu", "setmaxnreg",
    "griddepcontrol", "applypriority", "discard", "cp.async.bulk.prefetch",
)  # fmt: skip
def ordering(compiler: Compiler, item: Instruction) -> Step:
    return nothing


# ---- whole blocks


@instruction("bar", "barrier")
def barrier(compiler: Compiler, item: Instruction) -> Blocking | Step:
    """bar.sync a{, b}, bar.arrive a, b, bar.warp.sync mask, and the barrier{.cta} spellings."""
    suffixes = Suffixes(item)
    if suffixes.flag("warp"):
        suffixes.take("sync")
        suffixes.done()
        return warp_wide(compiler, compiler.reader(item.operands[0], "u32"), _order_warp)
    suffixes.flag("cta")
    what = suffixes.take("sync", "arrive")
    suffixes.take("aligned")
    suffixes.take("all")
    suffixes.done()
    if not what:
        raise suffixes.error("is a barrier that is not known")
    which = compiler.reader(item.operands[0], "u32")
    count = compiler.reader(item.operands[1], "u32") if len(item.operands) > 1 else None
    if count is not None:
        compiler.track_races = False
    if what == "arrive":
        return _arrive(which, count)

    def ready(batch: Any, waiting: np.ndarray, pc: int) -> np.ndarray:
        batch.barrier[waiting] = which(batch, waiting)
        batch.barrier_count[waiting] = 0 if count is None else count(batch, waiting)
        return complete_barriers(batch, waiting)

    return Blocking(ready, nothing, releases_itself=True)


def _arrive(which: Reader, count: Reader | None) -> Step:
    def run(batch: Any, lanes: Lanes) -> None:
        assert count is not None
        numbers = numbers_of(batch, lanes)
        blocks = batch.lane_block[numbers]
        ids = np.broadcast_to(which(batch, lanes), numbers.shape).astype(np.int64)
        np.add.at(batch.barrier_arrived, (blocks, ids), 1)
        # Those that wait look again.
        batch.blocked[:] = False

    return run


def complete_barriers(batch: Any, waiting: np.ndarray) -> np.ndarray:
    """Releases every barrier that is complete among the blocks of `waiting`; gives its lanes."""
    released = []
    exited = None
    for number in np.unique(batch.barrier[waiting]):
        at = batch.barrier == number
        arrived = at.reshape(batch.blocks, -1).sum(1) + batch.barrier_arrived[:, number]
        counts = np.where(at, batch.barrier_count, 0).reshape(batch.blocks, -1).max(1)
        if exited is None:
            gone = (batch.pc == DONE) & (batch.lane_thread < batch.threads)
            exited = gone.reshape(batch.blocks, -1).sum(1)
        whole = arrived + exited >= batch.threads
        full = np.where(counts == 0, whole, arrived >= counts) & at.reshape(batch.blocks, -1).any(1)
        over = (counts > 0) & (arrived > counts)
        if over.any():
            block = int(np.flatnonzero(over)[0])
            message = f"{arrived[block]} threads at barrier {number} of {counts[block]}"
            raise batch.fault(message, block * batch.block_lanes)
        if full.any():
            lanes = np.flatnonzero(at & full[batch.lane_block])
            released.append(lanes)
            batch.barrier[lanes] = -1
            batch.barrier_arrived[full, number] = 0
            if batch.races is not None:
                batch.races.barrier(np.flatnonzero(full))
    if not released:
        return np.empty(0, np.int64)
    lanes = np.concatenate(released)
    # A barrier is a basic block of its own, wherever its lanes wait: each goes on behind its own.
    batch.pc[lanes] += 1
    batch.blocked[lanes] = False
    return lanes


# ---- warps


def warp_wide(compiler: Compiler, mask: Reader, run: Step) -> Blocking:
    """An instruction for the lanes of `mask` together."""

    def ready(batch: Any, waiting: np.ndarray, pc: int) -> np.ndarray:
        if len(waiting) == batch.lanes:
            masks = np.broadcast_to(mask(batch, waiting), waiting.shape)
            if (masks == 0xFFFFFFFF).all():
                return waiting
        here = np.zeros(batch.lanes, bool)
        here[waiting] = True
        warps = waiting // WARP
        arrived = ballot(here)[warps]
        alive = ballot(batch.pc != DONE)[warps]
        wanted = np.broadcast_to(mask(batch, waiting), waiting.shape).astype(np.uint32)
        own = np.uint32(1) << (waiting % WARP).astype(np.uint32)
        outside = wanted & own == 0
        if outside.any():
            lane = int(waiting[np.flatnonzero(outside)[0]])
            raise batch.fault(f"executes with a mask {int(wanted[0]):#x} that leaves it out", lane)
        return waiting[(wanted & alive & ~arrived) == 0]

    return Blocking(ready, run)


def ballot(bits: np.ndarray) -> np.ndarray:
    """One 32-bit mask a warp from a bool a lane."""
    packed = np.packbits(bits.reshape(-1, WARP), axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view(np.uint32)[:, 0]


def _order_warp(batch: Any, lanes: Lanes) -> None:
    if batch.races is not None:
        batch.races.warp(numbers_of(batch, lanes))


@instruction("shfl")
def shuffle(compiler: Compiler, item: Instruction) -> Blocking:
    """shfl.sync.{up,down,bfly,idx}.b32 d|p, a, b, c, mask: c holds clamp and segment mask."""
    suffixes = Suffixes(item)
    suffixes.take("sync")
    mode = suffixes.take("up", "down", "bfly", "idx")
    suffixes.type()
    suffixes.done()
    destination = item.operands[0]
    first, second = (
        (destination.first, destination.second)
        if isinstance(destination, Pair)
        else (destination, Sink())
    )
    write, write_valid = compiler.writer(first, "b32"), compiler.writer(second, "pred")
    value, amount, control, mask = compiler.readers(item.operands[1:], "b32")

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        lane = numbers % WARP
        by = np.broadcast_to(amount(batch, lanes), numbers.shape).astype(np.int64) & 31
        packed = np.broadcast_to(control(batch, lanes), numbers.shape).astype(np.int64)
        clamp, segment = packed & 31, packed >> 8 & 31
        highest = (lane & segment) | (clamp & ~segment)
        lowest = lane & segment
        if mode == "up":
            source = lane - by
            valid = source >= highest
        elif mode == "down":
            source = lane + by
            valid = source <= highest
        elif mode == "bfly":
            source = lane ^ by
            valid = source <= highest
        else:
            source = lowest | (by & ~segment)
            valid = source <= highest
        source = np.where(valid, source, lane)
        origin = numbers - lane + source
        here = np.zeros(batch.lanes, bool)
        here[numbers] = True
        absent = ~here[origin]
        if absent.any():
            element = int(np.flatnonzero(absent)[0])
            message = f"reads lane {int(source[element])}, which does not take part"
            raise batch.fault(message, int(numbers[element]))
        write(batch, lanes, value(batch, origin))
        write_valid(batch, lanes, valid)

    return warp_wide(compiler, mask, run)


@instruction("vote")
def vote(compiler: Compiler, item: Instruction) -> Blocking:
    suffixes = Suffixes(item)
    suffixes.take("sync")
    mode = suffixes.take("all", "any", "uni", "ballot")
    type_ = suffixes.take("pred", "b32")
    suffixes.done()
    write = compiler.writer(item.operands[0], type_)
    read, mask = compiler.predicate(item.operands[1]), compiler.reader(item.operands[2], "u32")

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        masks = np.broadcast_to(mask(batch, lanes), numbers.shape)
        bits, here = np.zeros(batch.lanes, bool), np.zeros(batch.lanes, bool)
        bits[numbers], here[numbers] = read(batch, lanes), True
        yes = ballot(bits)[numbers // WARP] & masks
        present = ballot(here)[numbers // WARP] & masks
        if mode == "ballot":
            write(batch, lanes, yes)
        elif mode == "all":
            write(batch, lanes, yes == present)
        elif mode == "any":
            write(batch, lanes, yes != 0)
        else:
            write(batch, lanes, (yes == present) | (yes == 0))

    return warp_wide(compiler, mask, run)


@instruction("match")
def match(compiler: Compiler, item: Instruction) -> Blocking:
    suffixes = Suffixes(item)
    mode = suffixes.take("any", "all")
    suffixes.take("sync")
    type_ = suffixes.type()
    suffixes.done()
    destination = item.operands[0]
    first, second = (
        (destination.first, destination.second)
        if isinstance(destination, Pair)
        else (destination, Sink())
    )
    write, write_all = compiler.writer(first, "b32"), compiler.writer(second, "pred")
    read, mask = compiler.reader(item.operands[1], type_), compiler.reader(item.operands[2], "u32")

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        masks = np.broadcast_to(mask(batch, lanes), numbers.shape)
        values = np.zeros(batch.lanes, np.uint64)
        values[numbers] = read(batch, lanes)
        here = np.zeros(batch.lanes, bool)
        here[numbers] = True
        by_warp = values.reshape(-1, WARP)
        equal = by_warp[:, :, None] == by_warp[:, None, :]
        found = ballot(equal.reshape(-1)).reshape(-1)[numbers]
        found = found & ballot(here)[numbers // WARP] & masks
        present = ballot(here)[numbers // WARP] & masks
        if mode == "any":
            write(batch, lanes, found)
        else:
            write(batch, lanes, np.where(found == present, present, np.uint32(0)))
            write_all(batch, lanes, found == present)

    return warp_wide(compiler, mask, run)


@instruction("redux")
def reduce_warp(compiler: Compiler, item: Instruction) -> Blocking:
    suffixes = Suffixes(item)
    suffixes.take("sync")
    name, type_ = suffixes.take("add", "min", "max", "and", "or", "xor"), suffixes.type()
    suffixes.done()
    operation = {
        "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and,
        "or": np.bitwise_or, "xor": np.bitwise_xor,
    }[name]  # fmt: skip
    write = compiler.writer(item.operands[0], type_)
    read, mask = compiler.reader(item.operands[1], type_), compiler.reader(item.operands[2], "u32")

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        masks = np.broadcast_to(mask(batch, lanes), numbers.shape).astype(np.int64)
        groups, member = np.unique((numbers // WARP) << 32 | masks, return_inverse=True)
        values = np.broadcast_to(read(batch, lanes), numbers.shape)
        order = np.argsort(member, kind="stable")
        starts = np.searchsorted(member[order], np.arange(len(groups)))
        write(batch, lanes, operation.reduceat(values[order], starts)[member].astype(values.dtype))

    return warp_wide(compiler, mask, run)


@instruction("activemask")
def active_mask(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item)
    suffixes.type()
    suffixes.done()
    write = compiler.writer(item.operands[0], "b32")

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        here = np.zeros(batch.lanes, bool)
        here[numbers] = True
        write(batch, lanes, ballot(here)[numbers // WARP])

    return run


@instruction("elect")
def elect(compiler: Compiler, item: Instruction) -> Blocking:
    """elect.sync d|p, mask: the lowest lane of the mask."""
    suffixes = Suffixes(item)
    suffixes.take("sync")
    suffixes.done()
    destination = item.operands[0]
    if not isinstance(destination, Pair):
        raise suffixes.error("needs d|p")
    write, write_chosen = (
        compiler.writer(destination.first, "b32"),
        compiler.writer(destination.second, "pred"),
    )
    mask = compiler.reader(item.operands[1], "u32")

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        here = np.zeros(batch.lanes, bool)
        here[numbers] = True
        present = ballot(here)[numbers // WARP] & np.broadcast_to(mask(batch, lanes), numbers.shape)
        lowest = np.bitwise_count((present & (~present + np.uint32(1))) - np.uint32(1))
        write(batch, lanes, lowest)
        write_chosen(batch, lanes, numbers % WARP == lowest)

    return warp_wide(compiler, mask, run)


def whole_warps(run: Step, warps: int = 1) -> Blocking:
    """An `.aligned` instruction: all lanes of a warp (or of a group of warps) at the same one."""

    size = WARP * warps

    def ready(batch: Any, waiting: np.ndarray, pc: int) -> np.ndarray:
        if len(waiting) == batch.lanes:
            return waiting
        here = np.zeros(batch.lanes, bool)
        here[waiting] = True
        gone = (batch.pc == DONE).reshape(-1, size).any(1)
        present = here.reshape(-1, size)
        if (gone & present.any(1)).any():
            raise batch.fault("needs all lanes, but some have exited", int(waiting[0]))
        return np.flatnonzero(np.repeat(present.all(1), size))

    def checked(batch: Any, waiting: np.ndarray, pc: int) -> np.ndarray:
        if batch.block_lanes % size:
            raise batch.fault(f"needs blocks of whole groups of {size} threads", int(waiting[0]))
        return ready(batch, waiting, pc)

    return Blocking(checked, run)
