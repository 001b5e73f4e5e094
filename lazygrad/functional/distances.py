"""Distances and angles between vectors."""

from __future__ import annotations

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import axis_of, floating, several
from lazygrad.functional.norms import norm_node

__all__ = ["cosine_similarity", "pairwise_distance"]


@operation
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along an axis; lengths count as at least eps."""
    a, b = several("cosine_similarity", x1, x2)
    a, b = floating(a), floating(b)
    axes = (axis_of("cosine_similarity", dim, a.ndim),) if a.ndim else ()
    dot = graph.reduce("sum", graph.mul(a, b), axes)
    lengths = [graph.binary("maximum", norm_node(each, 2, axes, False), eps) for each in (a, b)]
    return wrap(graph.div(dot, graph.mul(*lengths)))


@operation
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6,
                      keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last axis; leading axes broadcast."""
    a, b = several("pairwise_distance", x1, x2)
    if not a.ndim:
        raise fail("pairwise_distance", "takes vectors, (…, features), not 0-d tensors")
    gap = graph.add(graph.sub(floating(a), floating(b)), eps)
    return wrap(norm_node(gap, p, (a.ndim - 1,), keepdim))
