"""Building nodes: broadcasting, constants, and the small compositions that functions share.

Everything here takes and gives nodes.  The user's line comes from `now.location`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lazygrad._core.context import fail, now
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node, Shape, build, named, recorded_leaf
from lazygrad_compiler.ir.ops import OPS, listed
from lazygrad_compiler.ir.requirements import index_of

_CONST, _IOTA = OPS["const"], OPS["iota"]
_EXPAND, _RESHAPE, _CAST = OPS["expand"], OPS["reshape"], OPS["cast"]
_STOP = OPS["stop_gradient"]


def make(name: str, *inputs: Node, attrs: tuple = ()) -> Node:
    """The node of an op by name, attributes in the table's order."""
    definition = OPS[name]
    location = now.location
    if definition.kind == "indexed":
        location = named(location, now.operation)
    return build(definition, inputs, attrs, location)


def const(value: Any, dtype: DType, shape: Shape = ()) -> Node:
    """One number in every place of a shape."""
    kind = dtype.kind
    if kind == "float":
        value = float(value)
    elif kind == "signed" or kind == "unsigned":
        value = int(value)
        low, high = dtype.limits()
        if not low <= value <= high:
            value = (value - int(low)) % (1 << dtype.bits) + int(low)
    elif kind == "bool":
        value = bool(value)
    else:
        value = complex(value)
    return recorded_leaf(_CONST, (value, dtype, shape), now.location)


def like(value: Any, node: Node) -> Node:
    """A constant of a node's dtype and shape."""
    return const(value, node.dtype, node.shape)


def cast(node: Node, dtype: DType) -> Node:
    if node.dtype is dtype:
        return node
    if node.op == "const" and not (node.dtype.is_differentiable and dtype.is_integer):
        value = node.attrs[0]
        if not (isinstance(value, complex) and not dtype.is_complex):
            return const(value, dtype, node.shape)
    return build(_CAST, (node,), (dtype,), now.location)


def reshape(node: Node, shape: Shape) -> Node:
    if node.shape == shape:
        return node
    return build(_RESHAPE, (node,), (shape,), now.location)


def permute(node: Node, order: Sequence[int]) -> Node:
    order = tuple(order)
    if order == tuple(range(len(order))):
        return node
    return make("permute", node, attrs=(order,))


def broadcast(node: Node, shape: Shape) -> Node:
    """The node repeated to a shape that it broadcasts to."""
    if node.shape == shape:
        return node
    if node.op == "const":
        return const(node.attrs[0], node.dtype, shape)
    missing = len(shape) - len(node.shape)
    if missing:
        node = build(_RESHAPE, (node,), ((1,) * missing + node.shape,), now.location)
    if node.shape == shape:
        return node
    return build(_EXPAND, (node,), (shape,), now.location)


def broadcast_shape(name: str, *shapes: Shape) -> Shape:
    """The common shape, aligned at the last axis; TensorError names what does not fit."""
    first = shapes[0]
    for shape in shapes:
        if shape != first:
            break
    else:
        return first
    result: list[Any] = list(max(shapes, key=len))  # type: ignore[arg-type]
    for shape in shapes:
        offset = len(result) - len(shape)
        for axis, size in enumerate(shape):
            have = result[offset + axis]
            if have == 1:
                result[offset + axis] = size
            elif size != 1 and size != have:
                raise fail(name, " and ".join(map(listed, shapes)) + " do not broadcast: sizes "
                           f"{have} and {size} differ at axis {offset + axis - len(result)}",
                           "Sizes must be equal or 1, counted from the last axis; "
                           "add an axis with [None] or unsqueeze.")
    return tuple(result)


def together(name: str, *nodes: Node) -> tuple[Node, ...]:
    """The nodes broadcast to their common shape."""
    shape = broadcast_shape(name, *(node.shape for node in nodes))
    return tuple(broadcast(node, shape) for node in nodes)


def binary(name: str, left: Node, right: Any) -> Node:
    """An elementwise op of two nodes of one dtype, or of a node and a number; broadcasts."""
    if not isinstance(right, Node):
        right = const(right, left.dtype, left.shape)
    elif not isinstance(left, Node):
        left = const(left, right.dtype, right.shape)
    if left.shape != right.shape:
        left, right = together(name, left, right)
    return build(OPS[name], (left, right), (), now.location)


def add(left: Node, right: Any) -> Node:
    return binary("add", left, right)


def sub(left: Node, right: Any) -> Node:
    return binary("sub", left, right)


def mul(left: Node, right: Any) -> Node:
    return binary("mul", left, right)


def div(left: Node, right: Any) -> Node:
    return binary("div", left, right)


def unary(name: str, node: Node) -> Node:
    return build(OPS[name], (node,), (), now.location)


def where(condition: Node, yes: Any, no: Any) -> Node:
    """Selects; one of `yes` and `no` may be a number; broadcasts."""
    if not isinstance(yes, Node):
        yes = const(yes, no.dtype, no.shape)
    if not isinstance(no, Node):
        no = const(no, yes.dtype, yes.shape)
    if not condition.shape == yes.shape == no.shape:
        condition, yes, no = together("where", condition, yes, no)
    return build(OPS["where"], (condition, yes, no), (), now.location)


def stop_gradient(node: Node) -> Node:
    if not node.differentiable:
        return node
    return build(_STOP, (node,), (), now.location)


def reduce(name: str, node: Node, axes: Iterable[int], keepdim: bool = False) -> Node:
    """A reduction over axes (ascending, not negative)."""
    axes = tuple(axes)
    if not axes and name in ("sum", "prod", "max", "min"):
        return node
    result = make(name, node, attrs=(axes,))
    if keepdim:
        return reshape(result, tuple(1 if k in axes else s for k, s in enumerate(node.shape)))
    return result


def mean(node: Node, axes: Iterable[int], keepdim: bool = False) -> Node:
    axes = tuple(axes)
    count = math.prod(node.shape[axis] for axis in axes)
    total = reduce("sum", node, axes, keepdim)
    return div(total, count) if count else mul(total, float("nan"))


def slice_axis(node: Node, axis: int, start: int, stop: int, step: int = 1) -> Node:
    """Every step-th element from start to before stop of one axis."""
    if start == 0 and stop == node.shape[axis] and step == 1:
        return node
    starts, stops, steps = [0] * node.ndim, list(node.shape), [1] * node.ndim
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return make("slice", node, attrs=(tuple(starts), tuple(stops), tuple(steps)))


def pad(node: Node, low: Sequence[int], high: Sequence[int], value: Any = 0) -> Node:
    """A constant before and after; negative padding cuts."""
    if min((*low, *high), default=0) < 0:
        starts = tuple(max(-size, 0) for size in low)
        stops = tuple(size - max(-cut, 0) for size, cut in zip(node.shape, high, strict=True))
        node = make("slice", node, attrs=(starts, stops, (1,) * node.ndim))
        low, high = [max(size, 0) for size in low], [max(size, 0) for size in high]
    if not any(low) and not any(high):
        return node
    kind = node.dtype.kind
    value = float(value) if kind == "float" else bool(value) if kind == "bool" else \
        complex(value) if kind == "complex" else int(value)
    return make("pad", node, attrs=(tuple(low), tuple(high), (0,) * node.ndim, value))


def iota(axis: int, shape: Shape, dtype: DType = dtypes.int64) -> Node:
    """0, 1, 2, … along one axis."""
    return recorded_leaf(_IOTA, (axis, dtype, shape), now.location)


def required(value: Node, *conditions: tuple[Node, str]) -> Node:
    """The value, with the error of a requirement (`ir/requirements.py`) at run time where its
    condition is false anywhere.  conditions: each of the value's shape, and what it is for.
    """
    # what stands for a refused value is none that is refused: a choice of equals would be no choice
    other = like(0.7236328125 if value.dtype.is_floating else 1, value)
    return make("where", _checked(value.shape, conditions), value, other)


def attached(value: Node, *conditions: tuple[Node, str]) -> Node:
    """Like `required` for a floating value, whose gradient does not wait for the check; -0.0
    becomes 0.0.
    """
    nothing = make("not", _checked(value.shape, conditions))
    return make("add", value, cast(nothing, value.dtype))


def _checked(shape: Shape, conditions: Sequence[tuple[Node, str]]) -> Node:
    """True in every place of a shape, or an error."""
    index = const(0, dtypes.int64, shape)
    for holds, requirement in conditions:
        broken = const(index_of(requirement), dtypes.int64, shape)
        index = make("where", holds, index, broken)
    return make("gather", const(True, dtypes.bool_, (1,)), index, attrs=((0,),))


def within(value: Node, low: Any, high: Any = None) -> Node:
    """Where a value is from low to high; NaN is not."""
    above = binary("le", like(low, value), value)
    return above if high is None else make("and", above, binary("le", value, high))


def concat(nodes: Sequence[Node], axis: int) -> Node:
    return nodes[0] if len(nodes) == 1 else make("concat", *nodes, attrs=(axis,))


def unsqueeze(node: Node, axis: int) -> Node:
    return reshape(node, (*node.shape[:axis], 1, *node.shape[axis:]))
