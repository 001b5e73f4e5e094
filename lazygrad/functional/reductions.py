"""Reductions: sums, extremes, statistics, norms."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method
from lazygrad._core.tensor import Tensor, wrap
from lazygrad._core.types import as_dtype, float_of
from lazygrad.functional._operands import as_node, axes_of, axis_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["sum", "mean", "prod", "max", "min", "amax", "amin", "aminmax", "argmax", "argmin",
           "var", "std", "var_mean", "std_mean", "any", "all", "norm", "logsumexp", "count_nonzero",
           "nansum", "nanmean"]

maximum_result = namedtuple("max",  # type: ignore[name-match]
                            ["values", "indices"])
minimum_result = namedtuple("min",  # type: ignore[name-match]
                            ["values", "indices"])
aminmax_result = namedtuple("aminmax",  # type: ignore[name-match]
                            ["min", "max"])


def _dim(dim: Any, axis: Any) -> Any:
    return axis if dim is None and axis is not None else dim


def _total_dtype(node: Node, dtype: Any) -> DType:
    if dtype is not None:
        return as_dtype(dtype)
    return node.dtype if node.dtype.is_differentiable else dtypes.int64


@method
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
        axis: Any = None) -> Tensor:
    """Total over all axes or some; integers and bools add as int64."""
    node = as_node("sum", input)
    node = graph.cast(node, _total_dtype(node, dtype))
    return wrap(graph.reduce("sum", node, axes_of("sum", _dim(dim, axis), node.ndim), keepdim))


@method
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Total of what is not NaN."""
    node = as_node("nansum", input)
    clean = graph.where(graph.make("ne", node, node), 0, node)
    clean = graph.cast(clean, _total_dtype(node, dtype))
    return wrap(graph.reduce("sum", clean, axes_of("nansum", dim, node.ndim), keepdim))


@method
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Mean of what is not NaN."""
    node = as_node("nanmean", input)
    axes = axes_of("nanmean", dim, node.ndim)
    missing = graph.make("ne", node, node)
    total = graph.reduce("sum", graph.where(missing, 0, node), axes, keepdim)
    there = graph.cast(graph.unary("not", missing), node.dtype)
    return wrap(graph.div(total, graph.reduce("sum", there, axes, keepdim)))


@method
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
         axis: Any = None) -> Tensor:
    """Mean over all axes or some, of floats."""
    node = as_node("mean", input)
    if dtype is not None:
        node = graph.cast(node, as_dtype(dtype))
    if not node.dtype.is_differentiable:
        raise fail("mean", f"needs a floating dtype, not {node.dtype.name}",
                   "Convert first: x.float().mean().")
    return wrap(graph.mean(node, axes_of("mean", _dim(dim, axis), node.ndim), keepdim))


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


def _extreme(name: str, input: Tensor, other: Any, keepdim: bool, result: Any) -> Any:
    from lazygrad.functional import elementwise, gathering
    if isinstance(other, Tensor):
        return getattr(elementwise, name + "imum")(input, other)
    node = as_node(name, input)
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
def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """Largest of all; with dim, (values, indices) along it; with a tensor, elementwise."""
    return _extreme("max", input, dim, keepdim, maximum_result)


@method
def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """Smallest of all; with dim, (values, indices) along it; with a tensor, elementwise."""
    return _extreme("min", input, dim, keepdim, minimum_result)


@method
def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Largest over some axes; equal ones share the gradient."""
    node = as_node("amax", input)
    axes = axes_of("amax", dim, node.ndim)
    _not_empty("amax", node, axes)
    return wrap(graph.reduce("max", node, axes, keepdim))


@method
def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Smallest over some axes; equal ones share the gradient."""
    node = as_node("amin", input)
    axes = axes_of("amin", dim, node.ndim)
    _not_empty("amin", node, axes)
    return wrap(graph.reduce("min", node, axes, keepdim))


@method
def aminmax(input: Tensor, *, dim: Any = None, keepdim: bool = False) -> Any:
    return aminmax_result(amin(input, dim, keepdim), amax(input, dim, keepdim))


def _arg(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    node = as_node(name, input)
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


def variance(
    node: Node, axes: tuple[int, ...], correction: float, keepdim: bool
) -> tuple[Node, Node]:
    """Variance and mean in two passes: the mean, then squares of the differences."""
    count = math.prod(node.shape[axis] for axis in axes)
    center = graph.mean(node, axes, True)
    apart = graph.sub(node, center)
    total = graph.reduce("sum", graph.mul(apart, apart), axes, keepdim)
    degrees = count - correction
    result = graph.div(total, float(degrees)) if degrees > 0 else graph.mul(
        graph.div(total, 0.0), 1.0)
    if not keepdim:
        center = graph.reshape(center, result.shape)
    return result, center


def _variance(name: str, input: Tensor, dim: Any, unbiased: Any, keepdim: bool,
              correction: Any) -> tuple[Node, Node]:
    node = as_node(name, input)
    if not node.dtype.is_floating:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}", "Convert with .float().")
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    return variance(node, axes_of(name, dim, node.ndim), correction, keepdim)


@method
def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: Any = None) -> Tensor:
    """Variance; divided by the count less `correction` (1 unless given)."""
    return wrap(_variance("var", input, dim, unbiased, keepdim, correction)[0])


@method
def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: Any = None) -> Tensor:
    """Standard deviation: the root of `var`."""
    return wrap(graph.unary("sqrt", _variance("std", input, dim, unbiased, keepdim, correction)[0]))


@method
def var_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    spread, center = _variance("var_mean", input, dim, unbiased, keepdim, correction)
    return wrap(spread), wrap(center)


@method
def std_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    spread, center = _variance("std_mean", input, dim, unbiased, keepdim, correction)
    return wrap(graph.unary("sqrt", spread)), wrap(center)


@method
def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether any value is not zero."""
    node = graph.cast(as_node("any", input), dtypes.bool_)
    return wrap(graph.reduce("max", node, axes_of("any", dim, node.ndim), keepdim))


@method
def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all values are not zero."""
    node = graph.cast(as_node("all", input), dtypes.bool_)
    return wrap(graph.reduce("min", node, axes_of("all", dim, node.ndim), keepdim))


@method
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many values are not zero."""
    node = graph.cast(graph.cast(as_node("count_nonzero", input), dtypes.bool_), dtypes.int64)
    return wrap(graph.reduce("sum", node, axes_of("count_nonzero", dim, node.ndim)))


def norm_node(node: Node, p: Any, axes: tuple[int, ...], keepdim: bool) -> Node:
    """The p-norm over axes."""
    size = graph.unary("abs", node)
    if p == math.inf:
        return graph.reduce("max", size, axes, keepdim)
    if p == -math.inf:
        return graph.reduce("min", size, axes, keepdim)
    if p == 0:
        there = graph.cast(graph.cast(node, dtypes.bool_), node.dtype)
        return graph.reduce("sum", there, axes, keepdim)
    if p == 1:
        return graph.reduce("sum", size, axes, keepdim)
    if p == 2:
        total = graph.reduce("sum", graph.mul(node, node), axes, keepdim)
        # The root's slope at 0 is infinite; the norm's is taken as 0 there, as PyTorch does.
        zero = graph.binary("eq", total, 0)
        return graph.where(zero, 0, graph.unary("sqrt", graph.where(zero, 1, total)))
    total = graph.reduce("sum", graph.binary("pow", size, float(p)), axes, keepdim)
    return graph.binary("pow", total, 1.0 / p)


@method
def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, *,
         dtype: Any = None) -> Tensor:
    """The p-norm of all values or along axes (2 unless given)."""
    node = as_node("norm", input)
    node = node if dtype is None else graph.cast(node, as_dtype(dtype))
    if not node.dtype.is_floating:
        raise fail(
            "norm", f"needs a floating dtype, not {node.dtype.name}", "Convert with .float()."
        )
    return wrap(norm_node(node, 2 if p in ("fro", None) else p, axes_of("norm", dim, node.ndim),
                          keepdim))


def logsumexp_node(node: Node, axes: tuple[int, ...], keepdim: bool) -> Node:
    """log(sum(exp(x))), shifted by the largest value (0 where that is infinite)."""
    top = graph.stop_gradient(graph.reduce("max", node, axes, True))
    infinite = graph.binary("eq", graph.unary("abs", top), math.inf)
    top = graph.where(infinite, 0, top)
    total = graph.reduce("sum", graph.unary("exp", graph.sub(node, top)), axes, True)
    result = graph.add(graph.unary("log", total), top)
    if not keepdim:
        result = graph.reshape(result, tuple(s for k, s in enumerate(node.shape) if k not in axes))
    return result


@method
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over axes, without overflow."""
    node = as_node("logsumexp", input)
    node = graph.cast(node, float_of(node.dtype))
    return wrap(logsumexp_node(node, axes_of("logsumexp", dim, node.ndim), keepdim))
