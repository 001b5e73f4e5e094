"""Variance and standard deviation, and log-sum-exp."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node, axes_of, floating
from lazygrad.functional.norms import safe_root, widened
from lazygrad_compiler.ir.node import Node

__all__ = ["logsumexp", "std", "std_mean", "var", "var_mean"]


def variance(
    node: Node, axes: tuple[int, ...], correction: float, keepdim: bool
) -> tuple[Node, Node]:
    """Variance and mean in two passes: the mean, then squares of the differences.

    Complex numbers have the variance of their parts together, a real number.  16-bit floats
    compute in float32.
    """
    spread, center = _variance(widened(node), axes, correction, keepdim)
    if node.dtype.is_floating:
        spread = graph.cast(spread, node.dtype)
    return spread, graph.cast(center, node.dtype)


def _variance(
    node: Node, axes: tuple[int, ...], correction: float, keepdim: bool
) -> tuple[Node, Node]:
    count = math.prod(node.shape[axis] for axis in axes)
    center = graph.mean(node, axes, True)
    apart = graph.sub(node, center)
    squares = graph.mul(apart, apart)
    if node.dtype.is_complex:  # of a complex number, |x|²
        squares = graph.unary("real", graph.mul(apart, graph.unary("conj", apart)))
    total = graph.reduce("sum", squares, axes, keepdim)
    result = graph.div(total, float(max(count - correction, 0)))
    if not keepdim:
        center = graph.reshape(center, result.shape)
    return result, center


def _asked(name: str, input: Tensor, dim: Any, unbiased: Any, keepdim: bool,
           correction: Any) -> tuple[Node, Node]:
    node = as_node(name, input)
    if not node.dtype.is_differentiable:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}", "Convert with .float().")
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    elif unbiased is not None:
        raise fail(name, "takes correction or unbiased, not both", kind=TypeError)
    return variance(node, axes_of(name, dim, node.ndim), correction, keepdim)


@method
def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: Any = None) -> Tensor:
    """Variance; divided by the count less `correction` (1 unless given).

    NaN where the count is not above the correction and nothing differs.
    """
    return wrap(_asked("var", input, dim, unbiased, keepdim, correction)[0])


@method
def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: Any = None) -> Tensor:
    """Standard deviation: the root of `var`, with gradient 0 where it is 0."""
    return wrap(safe_root(_asked("std", input, dim, unbiased, keepdim, correction)[0]))


@operation
def var_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    """Variance, as of `var`, and mean."""
    spread, center = _asked("var_mean", input, dim, unbiased, keepdim, correction)
    return wrap(spread), wrap(center)


@operation
def std_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    """Standard deviation, as of `std`, and mean."""
    spread, center = _asked("std_mean", input, dim, unbiased, keepdim, correction)
    return wrap(safe_root(spread)), wrap(center)


def logsumexp_node(node: Node, axes: tuple[int, ...], keepdim: bool) -> Node:
    """log(sum(exp(x))), shifted by the largest value (0 where that is infinite)."""
    if not axes:
        return node
    wide = widened(node)
    size = graph.unary("real", wide) if node.dtype.is_complex else wide
    top = graph.stop_gradient(graph.reduce("max", size, axes, True))
    infinite = graph.binary("eq", graph.unary("abs", top), math.inf)
    top = graph.cast(graph.where(infinite, 0, top), wide.dtype)
    total = graph.reduce("sum", graph.unary("exp", graph.sub(wide, top)), axes, True)
    result = graph.cast(graph.add(graph.unary("log", total), top), node.dtype)
    if not keepdim:
        result = graph.reshape(result, tuple(s for k, s in enumerate(node.shape) if k not in axes))
    return result


@method
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over axes, without overflow; integers as floats."""
    node = floating(as_node("logsumexp", input))
    return wrap(logsumexp_node(node, axes_of("logsumexp", dim, node.ndim), keepdim))
