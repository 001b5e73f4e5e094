"""What updates are written with: node functions that several optimisers share."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad_compiler.ir.dtypes import DType, float32
from lazygrad_compiler.ir.inference_complex import PART
from lazygrad_compiler.ir.node import Node


def compute_dtype(value: Node | lg.Tensor) -> DType:
    """What an update computes in: 16-bit floats are updated in float32 and rounded once, complex
    numbers as two real ones.
    """
    dtype = PART.get(value.dtype, value.dtype)
    return float32 if dtype.bits == 16 else dtype


def widened(*values: Node) -> list[Node]:
    """Values in the dtype that the update computes in."""
    return [graph.cast(value, compute_dtype(value)) for value in values]


def descent(value: Node, gradient: Node, maximize: bool, weight_decay: Any) -> Node:
    """The gradient in the value's dtype; negated where maximising, plus weight decay."""
    gradient = graph.cast(gradient, value.dtype)
    if maximize:
        gradient = graph.unary("neg", gradient)
    if isinstance(weight_decay, Node) or weight_decay != 0:
        gradient = graph.add(gradient, graph.mul(value, weight_decay))
    return gradient


def shrunk(value: Node, lr: Node, weight_decay: Any) -> Node:
    """The value with its decoupled decay taken off: value * (1 - lr * weight_decay)."""
    if not isinstance(weight_decay, Node) and weight_decay == 0:
        return value
    return graph.mul(value, graph.sub(graph.like(1.0, lr), graph.mul(lr, weight_decay)))


def number_node(value: Any, dtype: DType) -> Node:
    """A 0-d node of a number, or of a node already 0-d."""
    return graph.cast(value, dtype) if isinstance(value, Node) else graph.const(value, dtype)


def power(base: Node, exponent: Node) -> Node:
    """base ** exponent of 0-d nodes."""
    return graph.binary("pow", base, exponent)


def rounded(dtype: DType, *values: Node) -> list[Node]:
    """Values in the dtype that they are kept in."""
    return [graph.cast(value, dtype) for value in values]


def complement(node: Node) -> Node:
    """1 - node."""
    return graph.sub(graph.like(1.0, node), node)


def reciprocal(node: Node) -> Node:
    """1 / node."""
    return graph.div(graph.like(1.0, node), node)
