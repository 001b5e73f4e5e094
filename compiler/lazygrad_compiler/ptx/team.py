"""Teams: the threads that work on one row together, and how their accumulators become one.

A team of up to 32 neighbours in a warp combines by shuffles, a larger one is a whole block: each
warp by shuffles, then the warps' results through shared memory by shuffles again.  Where
neighbours in a warp work on neighbouring rows (`across`), teams combine through shared memory
alone.  Either way the tree depends on the team's size only: the same program gives the same bits.
Every member ends with the same value, since lower lanes always stand on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import reduce
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.ptx.builder import WARP, KernelFunction, element_bytes

Values = list[Value]
Combine = Callable[[Values, Values], Values]


@dataclass(frozen=True, slots=True)
class Team:
    """size: threads a row.  rows: teams of a block.  across: whether neighbouring threads belong to
    neighbouring teams.  rank: of the thread in its team; place: of its team in the block (i32).
    """

    size: int
    rows: int
    across: bool
    rank: Value
    place: Value

    @staticmethod
    def of(f: KernelFunction, size: int, rows: int, across: bool) -> Team:
        thread = f.thread()
        zero = const("i32", 0)
        if across:
            rank, place = f.udiv(thread, rows), f.urem(thread, rows)
        else:
            rank, place = f.urem(thread, size), f.udiv(thread, size)
        return Team(
            size, rows, across, zero if size == 1 else rank, zero if rows == 1 else place
        )

    def leader(self, f: KernelFunction) -> Value | None:
        """Whether the thread is the team's first; None where each team is one thread."""
        return None if self.size == 1 else f.icmp("eq", self.rank, 0)

    def meet(self, f: KernelFunction) -> None:
        """All members are here: what they have read may be written over."""
        if self.size == 1:
            return
        if self.across or self.size > WARP:
            f.barrier()
        else:
            f.warp_barrier()

    def combine(self, f: KernelFunction, op: str, dtype: DType, values: Values) -> Values:
        """The accumulators of all members as one, for each of them.  dtype: the wide one."""

        def join(left: Values, right: Values) -> Values:
            return reduce.combine(f, op, dtype, left, right)

        if self.size == 1:
            return values
        if self.across:
            return _through_columns(f, self, values, join)
        ordered = op not in ("sum", "prod")
        values = shuffled(f, min(self.size, WARP), values, join, ordered)
        if self.size > WARP:
            values = through_warps(f, self.size // WARP, values, join, ordered)
        return values


def shuffled(
    f: KernelFunction, size: int, values: Values, join: Combine, ordered: bool = True
) -> Values:
    """Among `size` neighbouring lanes: halves fold onto each other.  ordered: a join of b and a may
    differ from that of a and b, as the maximum of 0.0 and -0.0 does.
    """
    lane = f.and_(f.thread(), WARP - 1)
    distance = size // 2
    while distance:
        others = [f.shuffle_xor(value, distance) for value in values]
        if not ordered:
            values = join(values, others)
            distance //= 2
            continue
        upper = f.icmp("ne", f.and_(lane, distance), 0)
        left = [f.select(upper, b, a) for a, b in zip(values, others, strict=True)]
        right = [f.select(upper, a, b) for a, b in zip(values, others, strict=True)]
        values = join(left, right)
        distance //= 2
    return values


def through_warps(
    f: KernelFunction, warps: int, values: Values, join: Combine, ordered: bool = True
) -> Values:
    """One value a warp, the same in all of its lanes, to one for the block.  warps: a power of two,
    32 at most.
    """
    thread = f.thread()
    lane, warp = f.and_(thread, WARP - 1), f.lshr(thread, 5)
    slots = [_Slots.of(f, value.type, warps) for value in values]
    with f.when(f.icmp("eq", lane, 0), "warp"):
        for slot, value in zip(slots, values, strict=True):
            slot.write(f, warp, value)
    f.barrier()
    mine = f.and_(lane, warps - 1)
    values = [slot.read(f, mine) for slot in slots]
    return shuffled(f, warps, values, join, ordered)


def _through_columns(f: KernelFunction, team: Team, values: Values, join: Combine) -> Values:
    """Members lie `rows` threads apart; each adds up what all have left in shared memory."""
    slots = [_Slots.of(f, value.type, team.size * team.rows) for value in values]
    thread = f.thread()
    for slot, value in zip(slots, values, strict=True):
        slot.write(f, thread, value)
    f.barrier()
    parts = []
    for member in range(team.size):
        number = f.add(team.place, member * team.rows) if member else team.place
        parts.append([slot.read(f, number) for slot in slots])
    return _folded(parts, join)


def _folded(parts: Sequence[Values], join: Combine) -> Values:
    """Neighbours first, as a balanced tree."""
    level = list(parts)
    while len(level) > 1:
        level = [
            join(level[k], level[k + 1]) if k + 1 < len(level) else level[k]
            for k in range(0, len(level), 2)
        ]
    return level[0]


@dataclass(frozen=True, slots=True)
class _Slots:
    """An array in shared memory."""

    base: Value
    type: str

    @staticmethod
    def of(f: KernelFunction, type_: str, count: int) -> _Slots:
        memory = "i8" if type_ == "i1" else type_
        place = f.module.shared(count * element_bytes(memory))
        return _Slots(f.shared_address(place), type_)

    def write(self, f: KernelFunction, number: Value, value: Value) -> None:
        memory = "i8" if self.type == "i1" else self.type
        if self.type == "i1":
            value = f.convert("zext", value, "i8")
        f.store(value, f.offset(self.base, number, memory), element_bytes(memory))

    def read(self, f: KernelFunction, number: Value) -> Value:
        memory = "i8" if self.type == "i1" else self.type
        value = f.load(memory, f.offset(self.base, number, memory), element_bytes(memory))
        return f.icmp("ne", value, 0) if self.type == "i1" else value
