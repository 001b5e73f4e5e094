"""Activations and dropouts that draw: rrelu, and alpha dropout of whole channels."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap, write
from lazygrad.functional._operands import as_node
from lazygrad.functional.dropouts import SELU_FLOOR
from lazygrad.functional.generators import Generator
from lazygrad.functional.random import uniform_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.ops import listed

__all__ = ["rrelu", "rrelu_", "feature_alpha_dropout", "feature_alpha_dropout_"]


@operation
def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False, generator: Generator | None = None) -> Tensor:
    """ReLU whose negative slope is drawn from lower..upper (their mean outside training)."""
    node = as_node("rrelu", input)
    if not node.dtype.is_floating:
        raise fail("rrelu", f"needs a floating dtype, not {node.dtype.name}",
                   "Convert with .float().")
    if lower > upper:
        raise fail("rrelu", f"lower {lower} is above upper {upper}")
    slope: Any = (lower + upper) / 2
    if training:
        slope = graph.add(graph.mul(uniform_node(node.shape, node.dtype, generator), upper - lower),
                          lower)
    result = graph.where(graph.binary("lt", graph.like(0, node), node), node,
                         graph.mul(node, slope))
    return write(input, "rrelu", result) if inplace else wrap(result)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3,
           training: bool = False, generator: Generator | None = None) -> Tensor:
    """`rrelu`, written into the tensor."""
    return rrelu(input, lower, upper, training, True, generator)


@operation
def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False,
                          inplace: bool = False) -> Tensor:
    """Alpha dropout of whole channels (axis 1): mean and variance of SELU networks stay."""
    name = "feature_alpha_dropout"
    if not 0 <= p <= 1:
        raise fail(name, f"p is a probability, and {p} does not lie in 0..1")
    if not training or p == 0:
        return input
    node = as_node(name, input)
    if node.ndim < 2:
        raise fail(name, f"takes (N, C, *space), not {listed(node.shape)}")
    draw = uniform_node((*node.shape[:2], *(1,) * (node.ndim - 2)), dtypes.float32)
    keep = graph.broadcast(graph.binary("le", graph.like(p, draw), draw), node.shape)
    scale = 1 / math.sqrt((1 - p) * (1 + p * SELU_FLOOR**2)) if p < 1 else 0.0
    mixed = graph.where(keep, node, SELU_FLOOR)
    result = graph.add(graph.mul(mixed, scale), -scale * p * SELU_FLOOR)
    return write(input, name, result) if inplace else wrap(result)


def feature_alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`feature_alpha_dropout`, written into the tensor."""
    return feature_alpha_dropout(input, p, train, True)
