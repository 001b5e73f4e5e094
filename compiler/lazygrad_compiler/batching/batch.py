"""Batching: a graph for one item becomes a graph for many, without a loop.

In: output nodes, and for some of the nodes below them (the items' inputs) what they become: a node
with one more axis, the batch, in front.  Out: the outputs with that axis in front, where they
depend on an item; the others are as they were.  Each op has a rule in `RULES`; nodes that no item
reaches are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.batching import rules, rules_attention, rules_indexed, rules_loop
from lazygrad_compiler.batching.rules import Rule
from lazygrad_compiler.ir.node import IRError, Node, topological

RULES: dict[str, Rule] = {
    **rules.RULES,
    **rules_indexed.RULES,
    **rules_attention.RULES,
    **rules_loop.RULES,
}


def batch(
    outputs: Sequence[Node], items: Mapping[Node, Node], size: int
) -> list[tuple[Node, bool]]:
    """Each output for all `size` items, and whether it has a batch axis.

    Raises IRError where an op cannot be batched.
    """
    batched: dict[Node, Node] = dict(items)
    for current in topological(outputs, stop=lambda node: node in items):
        if current in batched or not any(value in batched for value in current.inputs):
            continue
        rule = RULES.get(current.op)
        if rule is None:
            raise IRError(f"[{current.op}] cannot be batched")
        at = Builder(current.location)
        flags = tuple(value in batched for value in current.inputs)
        inputs = tuple(batched.get(value, value) for value in current.inputs)
        batched[current] = rule(at, current, inputs, flags, size)
    return [(batched.get(output, output), output in batched) for output in outputs]
