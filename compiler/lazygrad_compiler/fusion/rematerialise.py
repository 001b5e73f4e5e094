"""Rematerialisation: a large value that its readers can compute again from what they read anyway.

In: the values that kernels were going to store.  Out: those of them that none should.  Typical is a
part of an activation over the border between forward and backward: gelu's 1 + erf(h) would be kept
for the backward pass beside h, which is read there, too.  Computing it twice costs instructions and
no traffic, keeping it a write and a read of the whole array, and its memory from one end of the
program to the other.

(A minimum cut over the values' bytes would say the same here: h is in the cut already, since it is
a contraction's result, so whatever is elementwise in h costs nothing on the far side.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lazygrad_compiler.ir.node import Node

LEAST_BYTES = 2 << 20
"""Smaller values stay in a cache and are no matter for memory."""
MOST_COST = 32
"""Instructions for a vector that are worth doing twice: 16 float32 to memory and back take as long.
"""
MOST_READERS = 3


def rematerialised(
    shared: Iterable[Node],
    roots: Iterable[Node],
    cost: Mapping[Node, int],
    allowed: Callable[[Node], bool],
) -> set[Node]:
    """The values among `shared` (stored for no reason but that several kernels want them) to be
    computed in each reader.  roots: all that would be stored.  cost: of each from what is stored.
    allowed: asked last.
    """
    kept = set(roots)
    wanted = [v for v in shared if v.nbytes >= LEAST_BYTES and cost[v] <= MOST_COST]
    if not wanted:
        return set()
    reads = {root: _reads(root, kept) for root in kept}
    found: set[Node] = set()
    for value in wanted:
        readers = [root for root, read in reads.items() if value in read]
        needed = {source for source in reads[value] if source.nbytes >= LEAST_BYTES}
        if not needed or len(readers) > MOST_READERS:
            continue
        if all(needed <= reads[reader] for reader in readers) and allowed(value):
            found.add(value)
            kept.remove(value)
            for reader in readers:
                reads[reader] = (reads[reader] - {value}) | reads[value]
    return found


def _reads(root: Node, stored: set[Node]) -> set[Node]:
    """The stored values and inputs that a value is computed from."""
    found: set[Node] = set()
    stack, seen = list(root.inputs), set()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in stored or current.op == "input":
            found.add(current)
        else:
            stack += current.inputs
    return found
