"""Groups that are alike, as those of a model's equal layers are: one is lowered, all are known.

In: a group and what lies in memory.  Out: a key of all that lowering a row kernel or a contraction
looks at, and the nodes in the order in which the key counts them.  The groups of one key have the
same kernels, and the nodes that these read and write correspond, number by number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lazygrad_compiler.ir.node import Node, topological
from lazygrad_compiler.loops.arrays import temporary
from lazygrad_compiler.loops.kernel import Launch
from lazygrad_compiler.loops.lower import Group


def structure(group: Group, stored: Callable[[Node], bool]) -> tuple[tuple, list[Node]]:
    """The key of a group, and its nodes: what it computes, and what it reads from memory."""
    members = set(group.roots)
    memory: set[Node] = set()

    def is_read(node: Node) -> bool:
        if node not in members and stored(node):
            memory.add(node)
            return True
        return False

    nodes = topological(group.roots, stop=is_read)
    number = {node: place for place, node in enumerate(nodes)}
    parts: list[tuple] = [
        (node.dtype, node.shape) if node in memory
        else (node.op, node.identity, node.dtype, node.shape,
              *[number[value] for value in node.inputs])
        for node in nodes
    ]
    placed = []
    for root, (whole, axis, start) in group.placed.items():
        if whole not in number:
            number[whole] = len(nodes)
            nodes.append(whole)
        placed.append((number[root], number[whole], whole.shape, axis, start))
    key = (
        group.kind, group.rows, group.inner, tuple([number[root] for root in group.roots]),
        tuple([root in group.outputs for root in group.roots]),
        tuple([root in group.columns for root in group.roots]),
        -1 if group.anchor is None else number[group.anchor], tuple(placed), tuple(parts),
    )
    return key, nodes


def moved(
    launches: Sequence[Launch], nodes: Sequence[Node], others: Sequence[Node]
) -> list[Launch]:
    """The launches of a group, for one that is alike: with its nodes, and temporaries of its own.

    nodes, others: as `structure` gave them for the one and for the other.
    """
    other = dict(zip(nodes, others, strict=True))
    result = []
    for launch in launches:
        for argument in launch.arguments:
            if argument not in other:
                other[argument] = temporary(argument.dtype, argument.shape)
        result.append(replace(
            launch,
            arguments=tuple([other[argument] for argument in launch.arguments]),
            sources=tuple([other[source] for source in launch.sources]),
            checked=tuple([other[reader] for reader in launch.checked]),
        ).located())
    return result
