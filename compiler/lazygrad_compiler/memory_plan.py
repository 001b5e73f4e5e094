"""The memory plan: where each intermediate value lies in the program's one arena.

In: launches in order.  Out: offsets, 64-byte aligned, such that two values share memory only if
they are never alive together; and the arena's size, known before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.loops.kernel import Launch

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A value is alive from the launch that writes it first to the last one that reads it."""

    node: Node
    first: int
    last: int
    nbytes: int
    offset: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    lifetimes: tuple[Lifetime, ...]
    arena_bytes: int

    def offsets(self) -> dict[Node, int]:
        return {lifetime.node: lifetime.offset for lifetime in self.lifetimes}


def plan_memory(launches: Sequence[Launch], external: set[Node]) -> MemoryPlan:
    """Places every value that launches touch and that is not external (an input or an output of the
    program).

    Longest values first, each at the lowest offset that is free throughout its life.
    """
    first: dict[Node, int] = {}
    last: dict[Node, int] = {}
    for number, launch in enumerate(launches):
        for node in launch.arguments:
            if node not in external:
                first.setdefault(node, number)
                last[node] = number
    placed: list[Lifetime] = []
    order = sorted(first, key=lambda node: (-node.nbytes, first[node]))
    for node in order:
        size = max(-(-node.nbytes // ALIGNMENT) * ALIGNMENT, ALIGNMENT)
        neighbours = sorted(
            (p.offset, p.offset + p.nbytes)
            for p in placed
            if p.first <= last[node] and first[node] <= p.last
        )
        offset = 0
        for begin, end in neighbours:
            if offset + size <= begin:
                break
            offset = max(offset, end)
        placed.append(Lifetime(node, first[node], last[node], size, offset))
    placed.sort(key=lambda p: (p.first, p.offset))
    return MemoryPlan(tuple(placed), max((p.offset + p.nbytes for p in placed), default=0))
