"""Batching rules of attention: the items' axis joins the batch; and of random bits."""

from __future__ import annotations

from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.batching.rules import Flags, Inputs, Rule, repeated
from lazygrad_compiler.ir import node as ir
from lazygrad_compiler.ir.inference_attention import optional_operands
from lazygrad_compiler.ir.node import IRError, Node


def attention(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """Operands of four axes or three, (batch, …), become (items * batch, …); a mask that all share
    stays as it is.  A random state that all share gives all items the same numbers; one of each
    item (`random_bits`) is the start of all numbers, item after item.
    """
    batch = node.shape[0]
    mask, state = optional_operands(node.op, range(len(inputs)), node.attrs)
    joined, attrs = [], node.attrs
    for number, (value, flag) in enumerate(zip(inputs, flags, strict=True)):
        if number == state:
            if flag:
                value, (p, factor, draws) = shared_state(value), attrs[4]
                if draws != batch:
                    raise IRError(f"[{node.op}] dropout that items share cannot be batched")
                attrs = (*attrs[:4], (p, factor, size * draws), *attrs[5:])
            joined.append(value)
            continue
        if number == mask:
            if not flag and value.shape[0] == 1:
                joined.append(value)
                continue
            value = value if flag else repeated(at, value, size)
            value = at.expand(value, (size, batch, *value.shape[2:]))
        elif not flag:
            value = repeated(at, value, size)
        joined.append(at.reshape(value, (size * batch, *value.shape[2:])))
    result = at.op(node.op, *joined, attrs=attrs)
    return at.reshape(result, (size, *node.shape))


def shared_state(value: Node) -> Node:
    """The one state behind those of all items."""
    if value.op != "expand" or value.inputs[0].size != 2:
        raise IRError("[random_bits] states that differ from item to item cannot be batched")
    base = value.inputs[0]
    return ir.node("reshape", base, shape=(2,))


def random_bits(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """A state for each item, the same: their bits follow one another."""
    return at.op("random_bits", shared_state(inputs[0]), attrs=((size, *node.shape),))


RULES: dict[str, Rule] = {
    "attention": attention,
    "random_bits": random_bits,
    "attention_logsumexp": attention,
    "attention_grad": attention,
}
