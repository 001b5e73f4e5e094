"""Reductions: sums, products, extremes, truth.  Spread and norms: `statistics`, `norms`."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import TensorTypeError, fail, method
from lazygrad._core.tensor import Tensor, wrap
from lazygrad._core.types import as_dtype
from lazygrad.functional._operands import as_node, axes_of, axis_of
from lazygrad.functional.norms import widened
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["sum", "mean", "prod", "max", "min", "amax", "amin", "aminmax", "argmax", "argmin",
           "any", "all", "count_nonzero", "nansum", "nanmean"]

maximum_result = namedtuple("max",  # type: ignore[name-match]
                            ["values", "indices"])
minimum_result = namedtuple("min",  # type: ignore[name-match]
                            ["values", "indices"])
aminmax_result = namedtuple("aminmax",  # type: ignore[name-match]
                            ["min", "max"])


def _total_dtype(node: Node, dtype: Any) -> DType:
    if dtype is not None:
        return as_dtype(dtype)
    return node.dtype if node.dtype.is_differentiable else dtypes.int64


@method
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Total over all axes or some; integers and bools add as int64."""
    node = as_node("sum", input)
    node = graph.cast(node, _total_dtype(node, dtype))
    return wrap(graph.reduce("sum", node, axes_of("sum", dim, node.ndim), keepdim))


@method
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Total of what is not NaN."""
    node = as_node("nansum", input)
    clean = graph.where(graph.make("ne", node, node), 0, node)
    clean = graph.cast(clean, _total_dtype(node, dtype))
    return wrap(graph.reduce("sum", clean, axes_of("nansum", dim, node.ndim), keepdim))


@method
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean of what is not NaN; NaN where all is."""
    node = _floats("nanmean", input, dtype)
    axes = axes_of("nanmean", dim, node.ndim)
    wide = widened(node)
    missing = graph.make("ne", wide, wide)
    total = graph.reduce("sum", graph.where(missing, 0, wide), axes, keepdim)
    there = graph.cast(graph.unary("not", missing), wide.dtype)
    count = graph.reduce("sum", there, axes, keepdim)
    return wrap(graph.cast(graph.div(total, count), node.dtype))


def _floats(name: str, input: Any, dtype: Any) -> Node:
    node = as_node(name, input)
    if dtype is not None:
        node = graph.cast(node, as_dtype(dtype))
    if not node.dtype.is_differentiable:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}",
                   f"Convert first: x.float().{name}().")
    return node


@method
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean over all axes or some, of floats; 16-bit floats add up in float32."""
    node = _floats("mean", input, dtype)
    axes = axes_of("mean", dim, node.ndim)
    return wrap(graph.cast(graph.mean(widened(node), axes, keepdim), node.dtype))


@method
def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """Product over all axes or one."""
    node = as_node("prod", input)
    node = graph.cast(node, _total_dtype(node, dtype))
    return wrap(graph.reduce("prod", node, axes_of("prod", dim, node.ndim), keepdim))


def _not_empty(name: str, node: Node, axes: tuple[int, ...]) -> None:
    if 0 in [node.shape[axis] for axis in axes]:
        raise fail(name, f"of no elements is not defined: {listed(node.shape)} over {axes}",
                   kind=IndexError)


def _ordered(name: str, input: Any) -> Node:
    node = as_node(name, input)
    if node.dtype.is_complex:
        raise fail(name, f"is not defined for {node.dtype.name}: complex numbers have no order",
                   kind=TensorTypeError)
    return node


def _extreme(name: str, input: Tensor, other: Any, keepdim: bool, result: Any) -> Any:
    from lazygrad.functional import elementwise, gathering
    if isinstance(other, Tensor):
        return getattr(elementwise, name + "imum")(input, other)
    node = _ordered(name, input)
    if other is None:
        axes = tuple(range(node.ndim))
        _not_empty(name, node, axes)
        return wrap(graph.reduce(name, node, axes))
    axis = axis_of(name, other, node.ndim)
    if not node.ndim:
        return result(wrap(node), wrap(graph.const(0, dtypes.int64)))
    _not_empty(name, node, (axis,))
    index = graph.reduce("arg" + name, node, (axis,), True)
    if node.differentiable:
        values = gathering.gather_along(node, axis, index)
    else:
        values = graph.reduce(name, node, (axis,), True)
    if not keepdim:
        shape = (*node.shape[:axis], *node.shape[axis + 1:])
        values, index = graph.reshape(values, shape), graph.reshape(index, shape)
    return result(wrap(values), wrap(index))


@method
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Largest of all; with dim, (values, indices) along it; with a tensor, elementwise."""
    return _extreme("max", input, other if dim is None else dim, keepdim, maximum_result)


@method
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Smallest of all; with dim, (values, indices) along it; with a tensor, elementwise."""
    return _extreme("min", input, other if dim is None else dim, keepdim, minimum_result)


@method
def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Largest over some axes; equal ones share the gradient."""
    node = _ordered("amax", input)
    axes = axes_of("amax", dim, node.ndim)
    _not_empty("amax", node, axes)
    return wrap(graph.reduce("max", node, axes, keepdim))


@method
def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Smallest over some axes; equal ones share the gradient."""
    node = _ordered("amin", input)
    axes = axes_of("amin", dim, node.ndim)
    _not_empty("amin", node, axes)
    return wrap(graph.reduce("min", node, axes, keepdim))


@method
def aminmax(input: Tensor, *, dim: Any = None, keepdim: bool = False) -> Any:
    """(min, max) of all, or along an axis; equal ones share the gradient."""
    return aminmax_result(amin(input, dim, keepdim), amax(input, dim, keepdim))


def _arg(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    node = _ordered(name, input)
    axes = axes_of(name, dim, node.ndim)
    if not axes:
        return wrap(graph.const(0, dtypes.int64, node.shape))
    _not_empty(name, node, axes)
    return wrap(graph.reduce(name, node, axes, keepdim))


@method
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Position of the first largest, along dim or in row-major order."""
    return _arg("argmax", input, dim, keepdim)


@method
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Position of the first smallest, along dim or in row-major order."""
    return _arg("argmin", input, dim, keepdim)


def _truth(name: str, reduction: str, input: Any, dim: Any, keepdim: bool) -> Tensor:
    """Bool; of uint8 uint8, as PyTorch has it."""
    node = as_node(name, input)
    holds = graph.cast(node, dtypes.bool_)
    result = graph.reduce(reduction, holds, axes_of(name, dim, node.ndim), keepdim)
    return wrap(graph.cast(result, node.dtype) if node.dtype is dtypes.uint8 else result)


@method
def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether any value is not zero."""
    return _truth("any", "max", input, dim, keepdim)


@method
def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all values are not zero; so they are where there is none."""
    return _truth("all", "min", input, dim, keepdim)


@method
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many values are not zero."""
    node = graph.cast(graph.cast(as_node("count_nonzero", input), dtypes.bool_), dtypes.int64)
    return wrap(graph.reduce("sum", node, axes_of("count_nonzero", dim, node.ndim)))
