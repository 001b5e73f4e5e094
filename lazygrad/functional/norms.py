"""Norms and distances of whole tensors or along axes."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method
from lazygrad._core.tensor import Tensor, wrap
from lazygrad._core.types import as_dtype
from lazygrad.functional._operands import as_node, axes_of, axis_of, floating, pair
from lazygrad.functional.elementwise import INPLACE
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference_complex import PART
from lazygrad_compiler.ir.node import Node

__all__ = ["dist", "norm", "renorm"]

INPLACE.append("renorm")

RENORM_EPSILON = 1e-7
"""What PyTorch adds to a norm before it divides by it in `renorm`."""


def widened(node: Node) -> Node:
    """16-bit floats as float32, in which sums of many are taken."""
    narrow = node.dtype.is_floating and node.dtype.bits == 16
    return graph.cast(node, dtypes.float32) if narrow else node


def safe_root(total: Node) -> Node:
    """The square root, with slope 0 at 0, where the root's own is infinite."""
    zero = graph.binary("eq", total, 0)
    return graph.where(zero, 0, graph.unary("sqrt", graph.where(zero, 1, total)))


def _power(size: Node, exponent: float) -> Node:
    """size ** exponent of what is not negative, with slope 0 at 0."""
    zero = graph.binary("eq", size, 0)
    at_zero = 0.0 if exponent > 0 else math.inf
    return graph.where(zero, at_zero, graph.binary("pow", graph.where(zero, 1, size), exponent))


def _norm(node: Node, p: float, axes: tuple[int, ...], keepdim: bool) -> Node:
    if p == 0:
        there = graph.cast(graph.cast(node, dtypes.bool_), node.dtype)
        return graph.reduce("sum", there, axes, keepdim)
    if p == 2:
        return safe_root(graph.reduce("sum", graph.mul(node, node), axes, keepdim))
    size = graph.unary("abs", node)
    if math.isinf(p):
        return graph.reduce("max" if p > 0 else "min", size, axes, keepdim)
    if p == 1:
        return graph.reduce("sum", size, axes, keepdim)
    return _power(graph.reduce("sum", _power(size, p), axes, keepdim), 1.0 / p)


def norm_node(node: Node, p: Any, axes: tuple[int, ...], keepdim: bool) -> Node:
    """The p-norm over axes; of complex numbers, that of their sizes.

    Gradients at elements and norms of 0 are 0, as PyTorch has it.  16-bit floats add up in float32.
    """
    if node.dtype.is_complex:
        if p == 2:  # by the squares, which have derivatives of every order at 0
            squares = graph.unary("real", graph.mul(node, graph.unary("conj", node)))
            return safe_root(graph.reduce("sum", squares, axes, keepdim))
        node = graph.unary("abs", node)
    return graph.cast(_norm(widened(node), float(p), axes, keepdim), node.dtype)


def _floating_input(name: str, input: Any, dtype: Any) -> Node:
    node = as_node(name, input)
    if dtype is not None:
        wanted: DType = as_dtype(dtype)
        if not wanted.is_differentiable or (node.dtype.is_complex and not wanted.is_complex):
            raise fail(name, f"of {node.dtype.name} cannot be computed in {wanted.name}")
        node = graph.cast(node, wanted)
    if not node.dtype.is_differentiable:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}", "Convert with .float().")
    return node


@method
def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, *,
         dtype: Any = None) -> Tensor:
    """The p-norm of all values or along axes: (sum |x|^p)^(1/p); 2 unless given.

    p: a number, inf, -inf, "fro" (the same as 2), or "nuc", the sum of the singular values.
    """
    node = _floating_input("norm", input, dtype)
    if p == "nuc":
        from lazygrad import linalg
        axes = axes_of("norm", dim, node.ndim)
        return linalg.matrix_norm(wrap(node), "nuc", axes, keepdim)
    if isinstance(p, str) and p != "fro":
        raise fail("norm", f"there is no norm {p!r}", "p is a number, 'fro' or 'nuc'.")
    axes = axes_of("norm", dim, node.ndim)
    _not_empty_for(node, p, axes)
    return wrap(norm_node(node, 2 if p in ("fro", None) else p, axes, keepdim))


def _not_empty_for(node: Node, p: Any, axes: tuple[int, ...]) -> None:
    """Refuses the norms that no elements do not have: those by a largest, a smallest, a negative
    power.
    """
    if p not in ("fro", None) and (p < 0 or math.isinf(p)) \
            and 0 in [node.shape[axis] for axis in axes]:
        raise fail("norm", f"of no elements is not defined for p = {p}: {node.shape}")


@method
def dist(input: Tensor, other: Tensor, p: Any = 2) -> Tensor:
    """The p-norm of input - other; the two broadcast."""
    left, right = (floating(each) for each in pair("dist", input, other))
    difference = graph.sub(left, right)
    if not difference.size:
        return wrap(graph.const(0, PART.get(difference.dtype, difference.dtype)))
    return wrap(norm_node(difference, p, tuple(range(difference.ndim)), False))


@method
def renorm(input: Tensor, p: Any, dim: int, maxnorm: Any) -> Tensor:
    """Each slice along `dim` scaled down to the p-norm `maxnorm` where its own is larger."""
    node = _floating_input("renorm", input, None)
    if node.ndim < 2:
        raise fail("renorm", f"needs at least two axes, and the input has {node.ndim}")
    if not p > 0:
        raise fail("renorm", f"p is {p}", "It must be positive.")
    if not maxnorm >= 0:
        raise fail("renorm", f"maxnorm is {maxnorm}", "It is at least 0.")
    axis = axis_of("renorm", dim, node.ndim)
    others = tuple(k for k in range(node.ndim) if k != axis)
    if not node.size:
        return wrap(node)
    sizes = norm_node(node, p, others, True)
    above = graph.binary("lt", graph.like(float(maxnorm), sizes), sizes)
    factor = graph.div(graph.like(float(maxnorm), sizes), graph.add(sizes, RENORM_EPSILON))
    factor = graph.where(above, factor, 1)
    return wrap(graph.mul(node, graph.cast(factor, node.dtype)))
