"""Seams: where a value goes through memory from one kernel to another, why, and what that costs.

In: a partition.  Out: one `Seam` for each pair of values that are neighbours (the second is
computed from the first, with nothing stored in between) and live in different kernels; of a loop,
those of one step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lazygrad_compiler.fusion.near_attention import Attends, everything, regions
from lazygrad_compiler.fusion.partition import Partition, Reason
from lazygrad_compiler.fusion.reads import reads
from lazygrad_compiler.ir.loop import Loop
from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_compiler.loops.lower import Group


@dataclass(frozen=True, slots=True)
class Seam:
    """producer, consumer: values of two kernels, which are lowered from `groups`.  reason: None
    would be a gap in the partition's notes; tests assert that there is none.  saved_bytes: memory
    traffic that fusing the two would save: the read, and the write where nobody else needs the
    value.  loops: those that it is in, the outermost first; the bytes are those of one step.
    """

    producer: Node
    consumer: Node
    groups: tuple[Group, Group]
    reason: Reason | None
    saved_bytes: int
    loops: tuple[Loop, ...] = ()


def refusals(
    graph: Graph, parts: Partition, attends: Attends = everything
) -> list[tuple[Node, Node, Reason]]:
    """The pairs that the partition did not fuse, then those of its loops' steps; within what is
    attention but has no kernel of it, the reason is that.  attends: which the target has kernels of
    attention for, see `Backend`.
    """
    found = list(parts.refused)
    for region in regions(graph, attends):
        found = [
            (producer, consumer, region.reason if region.has(producer, consumer) else reason)
            for producer, consumer, reason in found
        ]
    for body in parts.bodies:
        found += refusals(body.graph, body.parts, attends)
    return found


def seams(graph: Graph, parts: Partition, attends: Attends = everything) -> list[Seam]:
    """All seams, in the order of the reading kernels; those of the loops' steps at the end."""
    home = {root: group for group in parts.groups for root in group.roots}
    reasons: dict[tuple[Node, Node], Reason] = {}
    for producer, consumer, reason in refusals(graph, parts, attends):
        reasons.setdefault((producer, consumer), reason)
    pairs = [(producer, root, (home[producer], group))
             for group in parts.groups for root in group.roots
             for producer in reads(root, home.__contains__) if home[producer] is not group]
    readers: dict[Node, set[int]] = {}
    for producer, _, (_, reader) in pairs:
        readers.setdefault(producer, set()).add(id(reader))
    outputs = set(graph.outputs)
    found = [
        Seam(producer, consumer, groups, reasons.get((producer, consumer)),
             producer.nbytes * (
                 2 if len(readers[producer]) == 1 and producer not in outputs else 1))
        for producer, consumer, groups in pairs
    ]
    for body in parts.bodies:
        loop = Loop.of(body.group.roots[0])
        found += [replace(seam, loops=(loop, *seam.loops))
                  for seam in seams(body.graph, body.parts, attends)]
    return found
