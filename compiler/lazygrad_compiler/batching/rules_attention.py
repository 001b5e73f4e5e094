"""Batching rules of attention: the items' axis joins the batch."""

from __future__ import annotations

from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.batching.rules import Flags, Inputs, Rule, repeated
from lazygrad_compiler.ir.node import Node


def attention(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """Operands of four axes or three, (batch, …), become (items * batch, …); a mask that all share
    stays as it is.
    """
    batch = node.shape[0]
    masked = len(inputs) in (4, 7)
    joined = []
    for number, (value, flag) in enumerate(zip(inputs, flags, strict=True)):
        if masked and number == len(inputs) - 1:
            if not flag and value.shape[0] == 1:
                joined.append(value)
                continue
            value = value if flag else repeated(at, value, size)
            value = at.expand(value, (size, batch, *value.shape[2:]))
        elif not flag:
            value = repeated(at, value, size)
        joined.append(at.reshape(value, (size * batch, *value.shape[2:])))
    result = at.op(node.op, *joined, attrs=node.attrs)
    return at.reshape(result, (size, *node.shape))


RULES: dict[str, Rule] = {
    "attention": attention,
    "attention_logsumexp": attention,
    "attention_grad": attention,
}
