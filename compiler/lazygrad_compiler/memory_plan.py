"""The memory plan: where each intermediate value lies in the program's one arena.

In: launches in order.  Out: offsets, 64-byte aligned, such that two values share memory only if
they are never alive together, or if one is written over the other in place by the last launch that
reads it; and the arena's size, known before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.in_place import in_place
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.loops.kernel import Launch
from lazygrad_compiler.loops.repeat import touched

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
    for number, node in touched(launches):
        if node not in external:
            first.setdefault(node, number)
            last[node] = number
    blocks = _blocks(launches, first, last)
    begin = {block: min(first[node] for node in members) for block, members in blocks.items()}
    end = {block: max(last[node] for node in members) for block, members in blocks.items()}
    offsets: dict[Node, int] = {}
    placed: list[tuple[Node, int, int]] = []  # block, offset, bytes
    for block in sorted(blocks, key=lambda node: (-node.nbytes, first[node])):
        size = max(-(-block.nbytes // ALIGNMENT) * ALIGNMENT, ALIGNMENT)
        neighbours = sorted(
            (offset, offset + nbytes)
            for other, offset, nbytes in placed
            if begin[other] <= end[block] and begin[block] <= end[other]
        )
        offset = 0
        for taken, free in neighbours:
            if offset + size <= taken:
                break
            offset = max(offset, free)
        placed.append((block, offset, size))
        offsets.update(dict.fromkeys(blocks[block], offset))
    lifetimes = [
        Lifetime(
            node,
            first[node],
            last[node],
            max(-(-node.nbytes // ALIGNMENT) * ALIGNMENT, ALIGNMENT),
            offsets[node],
        )
        for node in first
    ]
    lifetimes.sort(key=lambda p: (p.first, p.offset))
    return MemoryPlan(tuple(lifetimes), max((p.offset + p.nbytes for p in lifetimes), default=0))


def _blocks(
    launches: Sequence[Launch], first: dict[Node, int], last: dict[Node, int]
) -> dict[Node, list[Node]]:
    """Values by the piece of memory that they share, named after the first of them: each is written
    over the one before.
    """
    home = {node: node for node in first}
    taken: set[Node] = set()
    for number, launch in enumerate(launches):
        for place, node in enumerate(launch.arguments):
            if first.get(node) != number or home[node] is not node:
                continue
            for other, operand in enumerate(launch.arguments):
                if (
                    last.get(operand) == number
                    and first[operand] < number
                    and operand not in taken
                    and in_place(launch, other, place)
                ):
                    home[node] = home[operand]
                    taken.add(operand)
                    break
    blocks: dict[Node, list[Node]] = {}
    for node in first:
        blocks.setdefault(home[node], []).append(node)
    return blocks
