"""Arguments of operations as nodes: tensors, arrays, numbers; promotion and broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as whole_number
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor, node_of
from lazygrad._core.types import combine, float_of, promote_types, scalar_dtype, with_scalar
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node


def as_node(name: str, value: Any) -> Node:
    """The node of a tensor argument (arrays are taken in, too); TypeError for anything else."""
    if isinstance(value, Tensor):
        return node_of(value)
    if isinstance(value, numpy.ndarray):
        from lazygrad.functional.creation import from_numpy
        return node_of(from_numpy(value))
    scalar = scalar_dtype(value)
    if scalar is not None:
        return graph.const(value, scalar)
    raise fail(name, f"takes a tensor, not {type(value).__name__}",
               "Make one with lazygrad.tensor(...).", TypeError)


def result_dtype(values: Sequence[Any]) -> DType:
    """The common dtype of tensors, nodes and numbers: axes before 0-d before numbers."""
    ranks: list[DType | None] = [None, None, None]
    for value in values:
        if isinstance(value, (Tensor, Node, numpy.ndarray)):
            rank = 0 if value.ndim else 1
            dtype = value.dtype if not isinstance(value, numpy.ndarray) \
                else dtypes.dtype_of_numpy(value.dtype)
        else:
            rank, found = 2, scalar_dtype(value)
            if found is None:
                raise fail("result_type", f"{type(value).__name__} has no dtype", kind=TypeError)
            dtype = found
        have = ranks[rank]
        ranks[rank] = dtype if have is None else promote_types(have, dtype)
    result: DType | None = None
    for dtype_or_none in ranks:
        if dtype_or_none is not None:
            result = dtype_or_none if result is None else combine(result, dtype_or_none)
    assert result is not None
    return result


def pair(name: str, left: Any, right: Any) -> tuple[Node, Node]:
    """Two operands promoted and broadcast; at least one is a tensor."""
    if isinstance(left, Tensor):
        a = node_of(left)
        if isinstance(right, Tensor):
            b = node_of(right)
        elif isinstance(right, numpy.ndarray):
            b = as_node(name, right)
        else:
            dtype = with_scalar(a.dtype, right)
            if dtype is None:
                raise fail(name, f"a tensor and {type(right).__name__} do not go together",
                           kind=TypeError)
            if a.dtype is not dtype:
                a = graph.cast(a, dtype)
            return a, graph.const(right, dtype, a.shape)
    elif isinstance(right, Tensor) and not isinstance(left, numpy.ndarray):
        b = node_of(right)
        dtype = with_scalar(b.dtype, left)
        if dtype is None:
            raise fail(
                name, f"{type(left).__name__} and a tensor do not go together", kind=TypeError
            )
        if b.dtype is not dtype:
            b = graph.cast(b, dtype)
        return graph.const(left, dtype, b.shape), b
    else:
        a, b = as_node(name, left), as_node(name, right)
    if a.dtype is not b.dtype:
        first, second = a.dtype, b.dtype
        if (a.shape and b.shape) or (not a.shape and not b.shape):
            dtype = promote_types(first, second)
        else:
            dtype = combine(first, second) if a.shape else combine(second, first)
        a, b = graph.cast(a, dtype), graph.cast(b, dtype)
    if a.shape != b.shape:
        shape = graph.broadcast_shape(name, a.shape, b.shape)
        a, b = graph.broadcast(a, shape), graph.broadcast(b, shape)
    return a, b


def several(name: str, *values: Any) -> tuple[Node, ...]:
    """Operands promoted and broadcast, any number of them."""
    dtype = result_dtype(values)
    nodes = [graph.cast(as_node(name, value), dtype) for value in values]
    return graph.together(name, *nodes)


def floating(node: Node) -> Node:
    """Integers and bools as the default dtype, floats as they are."""
    dtype = float_of(node.dtype)
    return node if node.dtype is dtype else graph.cast(node, dtype)


def axis_of(name: str, dim: int, ndim: int) -> int:
    """An axis, counted from the end where negative; IndexError where there is none."""
    try:
        if dim.__class__ is bool:
            raise AttributeError
        dim = dim.__index__()
    except AttributeError:
        raise fail(
            name, f"dim is a whole number, not {type(dim).__name__}", kind=TypeError
        ) from None
    size = max(ndim, 1)
    if not -size <= dim < size:
        raise fail(name, f"dim {dim} does not exist in a tensor of {ndim} axes",
                   f"It must lie within {-size}..{size - 1}.", IndexError)
    return dim % size


def axes_of(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """Axes, ascending; all for None or ()."""
    if dim is None:
        return tuple(range(ndim))
    if isinstance(dim, int):
        axis = axis_of(name, dim, ndim)
        return (axis,) if ndim else ()
    if not hasattr(dim, "__len__") or (isinstance(dim, Tensor) and not dim.ndim):
        return axes_of(name, whole_number(dim), ndim)  # of a generator, too: it may be used up
    if isinstance(dim, (str, bytes, dict, set)):
        raise fail(name, f"dim is a whole number or a tuple of them, not {dim!r}", kind=TypeError)
    axes = [axis_of(name, each, ndim) for each in dim]
    if not axes:
        return tuple(range(ndim))
    if len(set(axes)) != len(axes):
        raise fail(name, f"dim {tuple(dim)} names an axis twice")
    return tuple(sorted(axes)) if ndim else ()


def sizes_of(name: str, arguments: tuple) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(arguments) == 1 and not isinstance(arguments[0], (int, numpy.integer)) \
            and hasattr(arguments[0], "__len__") and not (
                isinstance(arguments[0], (Tensor, str, bytes)) and not _has_axes(arguments[0])):
        arguments = tuple(arguments[0])
    try:
        if any(size.__class__ is bool for size in arguments):
            raise TypeError
        return tuple(size.__index__() for size in arguments)
    except (AttributeError, TypeError):
        raise fail(name, f"sizes are whole numbers, not {arguments!r}", kind=TypeError) from None


def _has_axes(value: Any) -> bool:
    """Whether it is a tensor that can be a sequence; text and bytes are no sizes."""
    return isinstance(value, Tensor) and bool(value.ndim)
