"""Gradients of attention: a kernel of its own, from the output and the row statistics.

Gradients of masks, of the statistics, and of the gradients go through the ops that attention can be
written in (`attention_parts.py`), whose rules are there already.
"""

from __future__ import annotations

from lazygrad_compiler.autodiff.attention_parts import composed
from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.ir.inference_attention import (
    GRADIENTS,
    optional_operands,
    statistics_dtype,
)
from lazygrad_compiler.ir.node import Node, node, rebuild, topological

FIRST_LEAF = -1_000_000
"""Numbers of leaves that stand for operands while a formula is differentiated."""


def attention(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    q, k, v, *others = forward.inputs
    mask, _ = optional_operands(forward.op, forward.inputs, forward.attrs)
    wide = statistics_dtype(forward.dtype)
    gradients: list[Node | None] = [None] * len(forward.inputs)
    if any(needed[:3]):
        statistics = at.op("attention_logsumexp", *forward.inputs, attrs=forward.attrs)
        delta = at.sum(at.mul(at.cast(g, wide), at.cast(forward, wide)), (3,))
        operands = (q, k, v, g, statistics, delta, *others)
        for number, part in enumerate(GRADIENTS):
            if needed[number]:
                attrs = (*forward.attrs, part)
                gradients[number] = at.op("attention_grad", *operands, attrs=attrs)
    if mask is not None and needed[3]:
        gradients[3] = through_parts(at, forward, g, (False, False, False, True))[3]
    return tuple(gradients)


def through_parts(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """The gradients of the op's formula.

    It is differentiated over leaves that stand for the operands, which do not know of each other:
    a cotangent must not flow on from one operand into another here.
    """
    from lazygrad_compiler.autodiff.backward import backward

    values = (*forward.inputs, g)
    leaves = [
        node("input", index=FIRST_LEAF - number, dtype=value.dtype, shape=value.shape)
        for number, value in enumerate(values)
    ]
    formula = composed(forward, tuple(leaves[:-1]))
    wanted = [leaf for leaf, needs in zip(leaves, needed, strict=False) if needs]
    found = backward([formula], [leaves[-1]], wanted)
    replaced = dict(zip(leaves, values, strict=True))
    for current in topological([each for each in found if each is not None]):
        if current not in replaced:
            replaced[current] = rebuild(current, [replaced[value] for value in current.inputs])
    results = iter(found)
    gradients: list[Node | None] = []
    for needs in needed:
        gradient = next(results) if needs else None
        gradients.append(None if gradient is None else replaced[gradient])
    return tuple(gradients)


RULES: dict[str, Rule] = {
    "attention": attention,
    "attention_logsumexp": through_parts,
    "attention_grad": through_parts,
}
