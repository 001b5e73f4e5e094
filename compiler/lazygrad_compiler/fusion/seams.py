"""Seams: where a value goes through memory from one kernel to another, why, and what that costs.

In: a partition.  Out: one `Seam` for each pair of values that are neighbours (the second is
computed from the first, with nothing stored in between) and live in different kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lazygrad_compiler.fusion.partition import Partition, Reason
from lazygrad_compiler.ir.node import Graph, Node


@dataclass(frozen=True, slots=True)
class Seam:
    """producer, consumer: values of two kernels, by number in `kernels`.  reason: None would be a
    gap in the partition's notes; tests assert that there is none.  saved_bytes: memory traffic that
    fusing the two would save: the read, and the write where nobody else needs the value.
    """

    producer: Node
    consumer: Node
    kernels: tuple[int, int]
    reason: Reason | None
    saved_bytes: int


def seams(graph: Graph, parts: Partition) -> list[Seam]:
    """All seams, in the order of the reading kernels."""
    home = {root: number for number, group in enumerate(parts.groups) for root in group.roots}
    reasons: dict[tuple[Node, Node], Reason] = {}
    for producer, consumer, reason in parts.refused:
        reasons.setdefault((producer, consumer), reason)
    pairs = [(producer, root, (home[producer], number))
             for number, group in enumerate(parts.groups) for root in group.roots
             for producer in _reads(root, home) if home[producer] != number]
    readers: dict[Node, set[int]] = {}
    for producer, _, (_, reader) in pairs:
        readers.setdefault(producer, set()).add(reader)
    outputs = set(graph.outputs)
    return [
        Seam(producer, consumer, kernels, reasons.get((producer, consumer)),
             producer.nbytes * (
                 2 if len(readers[producer]) == 1 and producer not in outputs else 1))
        for producer, consumer, kernels in pairs
    ]


def _reads(root: Node, home: Iterable[Node]) -> list[Node]:
    """The values of kernels that a value is computed from directly."""
    found: dict[Node, None] = {}
    stack, seen = list(reversed(root.inputs)), set()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in home:
            found[current] = None
        else:
            stack += reversed(current.inputs)
    return list(found)
