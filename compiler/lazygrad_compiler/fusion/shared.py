"""Elementwise values that several kernels want: stored once, or computed in each.

Computing is cheap, memory is not, so bytes decide.  Two rules, besides that of `choose_roots`
(what takes more than a few instructions is stored):

A value that its readers can compute from what they read anyway is not stored (`not_stored`).
Typical is a part of an activation over the border between forward and backward: gelu's 1 + erf(h)
would be kept for the backward pass beside h, which is read there, too.  Computing it twice costs
instructions and no traffic, keeping it a write and a read of the whole array, and its memory from
one end of the program to the other.

A value that is all that anybody wants of a product is stored in its place (`instead_of_products`),
however cheap it is.  Typical is the sum along residual connections: x + h @ w + b takes two
instructions, and each of its readers, forward and backward, would read x and the product, further
down the product of each layer so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lazygrad_compiler.fusion.reads import reads as values_read
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS

LEAST_BYTES = 2 << 20
"""Smaller values stay in a cache and are no matter for memory."""
MOST_COST = 32
"""Instructions for a vector that are worth doing twice: 16 float32 to memory and back take as long.
"""
MOST_READERS = 3


def is_large(value: Node) -> bool:
    return value.nbytes >= LEAST_BYTES


def not_stored(
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
    wanted = [v for v in shared if is_large(v) and cost[v] <= MOST_COST]
    if not wanted:
        return set()

    def stored(value: Node) -> bool:
        return value.op == "input" or value in kept

    reads = {root: set(values_read(root, stored)) for root in kept}
    found: set[Node] = set()
    for value in wanted:
        readers = [root for root, read in reads.items() if value in read]
        needed = {source for source in reads[value] if is_large(source)}
        if not needed or len(readers) > MOST_READERS:
            continue
        if all(needed <= reads[reader] for reader in readers) and allowed(value):
            found.add(value)
            kept.remove(value)
            for reader in readers:
                reads[reader] = (reads[reader] - {value}) | reads[value]
    return found


def instead_of_products(
    roots: Iterable[Node], users: Callable[[Node], set[Node]], outputs: set[Node]
) -> set[Node]:
    """The values to store besides `roots`, so that the products that they are made of need not be.
    users: of a value, index maps not counted.
    """
    stored = set(roots)
    found: set[Node] = set()
    for product in roots:
        if OPS[product.op].kind != "contraction" or product in outputs:
            continue
        value = product
        while len(readers := users(value)) == 1:
            (reader,) = readers
            if (OPS[reader.op].kind != "elementwise" or reader in stored
                    or reader.size != product.size or reader.nbytes > product.nbytes):
                break
            value = reader
        if value is not product and len(readers) > 1:
            found.add(value)
    return found
