"""cp.async and mbarrier (PTX ISA, sections 9.7.9.25 and 9.7.13.15).

A copy lands as late as it may: when its thread waits for the group (`cp.async.wait_group`), so a
kernel that reads too early meets bytes that count as unwritten.  An mbarrier's 64 opaque bits are,
here:

  bits 0-19 arrivals still pending, 20-39 arrivals expected, 40-61 transaction bytes (biased), 63
  phase
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx import access
from tests.ptx.compiler import (
    Blocking,
    Compiler,
    Deferred,
    Lanes,
    Step,
    Suffixes,
    instruction,
    narrow,
    numbers_of,
)
from tests.ptx.control import nothing
from tests.ptx.memory import ALLOCATED
from tests.ptx.moves import HINTS
from tests.ptx.parser import Address, Immediate, Instruction, Register


def complete_groups(waiting: list[Deferred], batch: Any, lanes: Lanes, limit: np.ndarray) -> None:
    """Does, in order, all deferred work of the lanes whose group is before the lane's limit."""
    upto = np.full(batch.lanes, -1, np.int64)
    upto[lanes] = limit
    kept = []
    for entry in waiting:
        due = entry.groups < upto[entry.numbers]
        if due.any():
            entry.complete(due)
        if not due.all():
            rest = np.flatnonzero(~due)
            entry.numbers, entry.groups = entry.numbers[rest], entry.groups[rest]
            complete = entry.complete

            def later(chosen: np.ndarray, complete: Any = complete, rest: Any = rest,
                      size: int = len(due)) -> None:  # fmt: skip
                whole = np.zeros(size, bool)
                whole[rest[chosen]] = True
                complete(whole)

            entry.complete = later
            kept.append(entry)
    waiting[:] = kept


def group_wait(waiting: str, group: str, keep: Callable[[Any, Lanes], Any]) -> Step:
    """Completes all but the last `keep` groups of each lane."""

    def run(batch: Any, lanes: Lanes) -> None:
        limit = getattr(batch, group)[lanes] - keep(batch, lanes)
        complete_groups(getattr(batch, waiting), batch, lanes, limit)

    return run


def commit(group: str) -> Step:
    def run(batch: Any, lanes: Lanes) -> None:
        getattr(batch, group)[lanes] += 1

    return run


@instruction("cp.async")
def copy(compiler: Compiler, item: Instruction) -> Step:
    suffixes = Suffixes(item, skip=2)
    if suffixes.flag("commit_group"):
        suffixes.done()
        return commit("copy_group")
    if suffixes.flag("wait_group"):
        suffixes.done()
        count = literal(item, 0)
        return group_wait("copies", "copy_group", lambda batch, lanes: count)
    if suffixes.flag("wait_all"):
        suffixes.done()
        # The group that is still open counts too.
        return group_wait("copies", "copy_group", lambda batch, lanes: -1)
    if suffixes.flag("mbarrier"):
        return _copy_arrive(compiler, item, suffixes)
    suffixes.take("ca", "cg")
    suffixes.take("shared", "shared::cta")
    if not suffixes.take("global"):
        raise suffixes.error("copies from a space that is not known")
    suffixes.drop(HINTS)
    suffixes.done()
    _, destination = compiler.address(item.operands[0])
    _, source = compiler.address(item.operands[1])
    size = literal(item, 2)
    given = None
    if len(item.operands) > 3:
        fourth = item.operands[3]
        if isinstance(fourth, Register) and compiler.register(fourth)[1] == "pred":
            ignore = compiler.predicate(fourth)
            given = lambda batch, lanes: np.where(ignore(batch, lanes), 0, size)
        else:
            given = compiler.reader(fourth, "u32")
    if size not in (4, 8, 16):
        raise suffixes.error("copies a size that is not 4, 8 or 16")

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes).copy()
        to, come = destination(batch, lanes), source(batch, lanes)
        taken = np.full(len(numbers), size, np.int64)
        if given is not None:
            taken[:] = given(batch, lanes)
        held, index = access.locate(batch, numbers, "shared", to, size)
        held.mark(index, size, ALLOCATED)
        if batch.races is not None:
            batch.races.write(numbers, index, size)

        def complete(chosen: np.ndarray) -> None:
            some = numbers[chosen]
            values = np.zeros((len(some), size), np.uint8)
            wanted = taken[chosen]
            for amount in np.unique(wanted):
                rows = np.flatnonzero(wanted == amount)
                if amount:
                    # Aligned to the whole copy even where fewer bytes are read.
                    access.locate(batch, some[rows], "global", come[chosen][rows], size)
                    values[rows, :amount] = access.load(
                        batch, some[rows], "global", come[chosen][rows], 1, int(amount)
                    )
            words = values.view(np.uint32)
            access.store(batch, some, "shared", to[chosen], words)

        batch.copies.append(Deferred(numbers, batch.copy_group[lanes].copy(), complete))

    return run


def literal(item: Instruction, index: int) -> int:
    operand = item.operands[index]
    if not isinstance(operand, Immediate):
        raise ValueError(f"operand {index} must be a constant")
    return int(operand.value)


# ---- mbarrier

_MASK = (1 << 20) - 1
_BIAS = 1 << 20


def pack(phase: int, pending: int, expected: int, transactions: int) -> int:
    return phase << 63 | (transactions + _BIAS) << 40 | expected << 20 | pending


def unpack(word: int) -> tuple[int, int, int, int]:
    """phase, pending, expected, transactions"""
    return word >> 63, word & _MASK, word >> 20 & _MASK, (word >> 40 & (1 << 22) - 1) - _BIAS


def update(
    batch: Any, index: int, lane: int, arrivals: int = 0, expect: int = 0, complete: int = 0,
    drop: int = 0,
) -> None:  # fmt: skip
    """Arrivals and transaction bytes on the mbarrier at a position of the batch's shared memory."""
    words = batch.shared.data.view(np.uint64)
    phase, pending, expected, transactions = unpack(int(words[index // 8]))
    transactions += expect - complete
    expected -= drop
    while True:
        taken = min(arrivals, pending)
        pending, arrivals = pending - taken, arrivals - taken
        if pending == 0 and transactions == 0:
            phase, pending = phase ^ 1, expected
            batch.blocked[:] = False
        if not arrivals:
            break
        if not pending:
            raise batch.fault("arrives at an mbarrier more often than it expects", lane)
    words[index // 8] = pack(phase, pending, expected, transactions)


def barrier_words(batch: Any, lanes: Lanes, address: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The words of initialised mbarriers and their positions."""
    words = access.load(batch, lanes, "shared", address, 8)[:, 0]
    numbers = numbers_of(batch, lanes)
    return words, access.locate(batch, numbers, "shared", address, 8)[1]


def _sum_by_place(places: np.ndarray, *amounts: np.ndarray) -> list[tuple[int, int, list[int]]]:
    """(position, first element, sums) of each mbarrier that some lanes meet at."""
    found, first, inverse = np.unique(places, return_index=True, return_inverse=True)
    sums = [np.bincount(inverse, amount, len(found)).astype(np.int64) for amount in amounts]
    return [
        (int(place), int(first[i]), [int(total[i]) for total in sums])
        for i, place in enumerate(found)
    ]


@instruction("mbarrier")
def mbarrier(compiler: Compiler, item: Instruction) -> Step | Blocking:
    compiler.track_races = False
    suffixes = Suffixes(item)
    what = suffixes.take(
        "init", "inval", "arrive", "arrive_drop", "test_wait", "try_wait", "expect_tx",
        "complete_tx", "pending_count",
    )  # fmt: skip
    expects = suffixes.flag("expect_tx")
    suffixes.flag("noComplete")
    parity = suffixes.flag("parity")
    shared = suffixes.take("shared", "shared::cta", "shared::cluster")
    suffixes.drop(HINTS)
    suffixes.flag("b64")
    suffixes.done()
    operands = list(item.operands)
    if what == "pending_count":
        read, write = compiler.reader(operands[1], "u64"), compiler.writer(operands[0], "u32")
        return lambda batch, lanes: write(batch, lanes, read(batch, lanes) & np.uint64(_MASK))
    if not shared:
        raise suffixes.error("names no .shared space")
    at = next(i for i, operand in enumerate(operands) if isinstance(operand, Address))
    _, address = compiler.address(operands[at])
    rest = operands[at + 1 :]
    if what == "init":
        return _init(address, compiler.reader(rest[0], "u32"))
    if what == "inval":
        return nothing
    if what in ("expect_tx", "complete_tx"):
        return _transactions(address, compiler.reader(rest[0], "u32"), what == "expect_tx")
    if what in ("test_wait", "try_wait"):
        write = compiler.writer(operands[0], "pred")
        return _wait(address, write, compiler.reader(rest[0], "u32" if parity else "u64"), parity,
                     what == "try_wait")  # fmt: skip
    state = compiler.writer(operands[0], "b64") if at else None
    amount = compiler.reader(rest[0], "u32") if rest else None

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        words, places = barrier_words(batch, lanes, address(batch, lanes))
        amounts = np.ones(len(numbers), np.int64)
        if amount is not None:
            amounts[:] = amount(batch, lanes)
        if state is not None:
            state(batch, lanes, words)
        ones = np.ones(len(numbers), np.int64)
        arrivals = ones if expects else amounts
        for place, element, (count, bytes_) in _sum_by_place(places, arrivals, amounts):
            update(batch, place, int(numbers[element]), count, bytes_ if expects else 0,
                   drop=count if what == "arrive_drop" else 0)  # fmt: skip

    return run


def _init(address: Any, count: Any) -> Step:
    def run(batch: Any, lanes: Lanes) -> None:
        where = address(batch, lanes)
        counts = np.broadcast_to(count(batch, lanes), where.shape)
        words = [[pack(0, int(value), int(value), 0)] for value in counts]
        access.store(batch, lanes, "shared", where, np.array(words, np.uint64))

    return run


def _transactions(address: Any, amount: Any, expect: bool) -> Step:
    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        _, places = barrier_words(batch, lanes, address(batch, lanes))
        amounts = np.broadcast_to(amount(batch, lanes), places.shape)
        for place, element, (total,) in _sum_by_place(places, amounts):
            lane = int(numbers[element])
            if expect:
                update(batch, place, lane, expect=total)
            else:
                update(batch, place, lane, complete=total)

    return run


def _wait(address: Any, write: Any, key: Any, parity: bool, blocking: bool) -> Step | Blocking:
    def completed(batch: Any, lanes: Lanes) -> np.ndarray:
        words, _ = barrier_words(batch, lanes, address(batch, lanes))
        phase = words >> np.uint64(63)
        token = key(batch, lanes)
        awaited = token.astype(np.uint64) & 1 if parity else token >> np.uint64(63)
        return phase != awaited

    def ready(batch: Any, waiting: np.ndarray, pc: int) -> np.ndarray:
        return narrow(waiting, completed(batch, waiting))

    def passed(batch: Any, lanes: Lanes) -> None:
        write(batch, lanes, np.ones(len(numbers_of(batch, lanes)), bool))

    if blocking:
        return Blocking(ready, passed)

    def test(batch: Any, lanes: Lanes) -> None:
        done = completed(batch, lanes)
        if not done.all() and batch.pending:
            # A lane that asks again and again must see the copies land at some time.
            batch.pending.pop(0)()
        write(batch, lanes, done)

    return test


def _copy_arrive(compiler: Compiler, item: Instruction, suffixes: Suffixes) -> Step:
    """cp.async.mbarrier.arrive: an arrival once the lane's copies so far have landed.

    Without .noinc the arrival is also added to the pending count, so that nothing changes.
    """
    compiler.track_races = False
    suffixes.take("arrive")
    counted = suffixes.flag("noinc")
    suffixes.take("shared", "shared::cta")
    suffixes.take("b64")
    suffixes.done()
    _, address = compiler.address(item.operands[0])

    def run(batch: Any, lanes: Lanes) -> None:
        numbers = numbers_of(batch, lanes)
        complete_groups(batch.copies, batch, lanes, batch.copy_group[lanes] + 1)
        _, places = barrier_words(batch, lanes, address(batch, lanes))
        if counted:
            ones = np.ones(len(numbers), np.int64)
            for place, element, (count,) in _sum_by_place(places, ones):
                update(batch, place, int(numbers[element]), count)

    return run
