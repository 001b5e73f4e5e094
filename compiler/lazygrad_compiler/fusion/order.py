"""The order in which kernels run: memory is given back as soon as it can be.

In: what each group writes and reads, and which groups have to run before it.  Out: the groups'
numbers in order.  It is the order of the groups, which follows the graph, but for one thing: a
group that gives back as much memory as it takes runs as soon as all that it reads is there.
Typical is the gradient of a weight.  The order of the graph, which goes from one output to the
next, has the gradients of all activations first, and both operands of all weights' gradients would
be kept until then, long out of every cache.  A group that replaces an input, as an update does a
weight, waits for the input's other readers, so that it can be written over it.

A training step of a small GPT (6 layers of 384, 8 x 256 tokens) takes 1.7 % less time so and 295
MiB between its kernels instead of 307, one of a ViT-tiny (8 images) 1.7 % and 225 instead of 231.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lazygrad_compiler.ir.node import Node

SMALL = 4096
"""Bytes that do not count: else a step's counters would run late, and all that reads them."""


def in_order(
    written: Sequence[set[Node]], before: Sequence[int], readers: Mapping[Node, set[int]],
    replaced: Mapping[int, set[Node]],
) -> list[int]:
    """written: of each group, what it writes and nobody outside of the program wants.  before: the
    groups that have to run first, as bits.  readers: the groups that read a value.  replaced: the
    inputs that a group may write over, see `in_place.py`.
    """
    left = {value: len(numbers) for value, numbers in readers.items()}
    inside = {value for made in written for value in made}
    reads: list[list[Node]] = [[] for _ in written]
    for value, numbers in readers.items():
        for number in numbers:
            reads[number].append(value)
    takes = [sum(value.nbytes for value in made) for made in written]
    waiting = list(range(len(written)))
    ready: list[int] = []
    done = 0
    order: list[int] = []

    def gives_back(number: int) -> bool:
        if any(left[value] > 1 for value in replaced.get(number, ())):
            return False
        freed = sum(value.nbytes for value in reads[number]
                    if left[value] == 1 and value in inside)
        return freed + SMALL >= takes[number]

    while len(order) < len(written):
        ready += [number for number in waiting if not before[number] & ~done]
        ready.sort()
        waiting = [number for number in waiting if before[number] & ~done]
        assert ready, "the groups depend on each other in a circle"
        chosen = next(filter(gives_back, ready), ready[0])
        ready.remove(chosen)
        order.append(chosen)
        done |= 1 << chosen
        for value in reads[chosen]:
            left[value] -= 1
    return order
