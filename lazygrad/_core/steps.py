"""The steps of a view: read on arrays, undone for writing, followed back to an address.

A view is a list of movement ops (`Cell.read` builds their nodes).  Writing through it undoes them
from the last to the first, so that the graph stays functional; what a step takes only in part is
put into the old value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy

from lazygrad._core import graph
from lazygrad._core.cell import Cell, View
from lazygrad._core.context import fail, now
from lazygrad._core.recast import RECAST, recast, take_step
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node, Shape, build
from lazygrad_compiler.ir.ops import OpDef

Positions = tuple[int, ...]


# ---- arrays


def _window(array: numpy.ndarray, attrs: tuple) -> numpy.ndarray:
    axes, sizes, strides, dilations = attrs
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    result = numpy.lib.stride_tricks.sliding_window_view(array, reach, axes)
    select = [slice(None)] * result.ndim
    for k, axis in enumerate(axes):
        select[axis] = slice(None, None, strides[k])
        select[array.ndim + k] = slice(None, None, dilations[k])
    return result[tuple(select)]


_ON_ARRAYS: dict[str, Callable[[numpy.ndarray, tuple], numpy.ndarray]] = {
    "reshape": lambda array, attrs: array.reshape(attrs[0]),
    "permute": lambda array, attrs: array.transpose(attrs[0]),
    "expand": lambda array, attrs: numpy.broadcast_to(array, attrs[0]),
    "slice": lambda array, attrs: array[tuple(map(slice, *attrs))],
    "flip": lambda array, attrs: numpy.flip(array, attrs[0]),
    "bitcast": lambda array, attrs: array.view(attrs[0].numpy),
    "recast": lambda array, attrs: array.view(attrs[0].numpy),
    "window": _window,
    "conj": lambda array, attrs: numpy.asarray(numpy.conj(array)),
    "view_as_real": lambda array, attrs: array[..., None].view(array.real.dtype),
    "view_as_complex": lambda array, attrs: array.view(
        numpy.result_type(array, numpy.complex64))[..., 0],
}


def view_array(array: numpy.ndarray, steps: tuple) -> numpy.ndarray:
    """Applies a view's steps to an array: movement only, nothing is computed."""
    for definition, attrs, _ in steps:
        array = _ON_ARRAYS[definition.name](array, attrs)
    return array


# ---- addresses


def _unravel(number: int, shape: Shape) -> Positions:
    result = []
    for size in reversed(shape):
        number, place = divmod(number, size)
        result.append(place)
    return tuple(reversed(result))


def _ravel(place: Positions, shape: Shape) -> int:
    number = 0
    for position, size in zip(place, shape, strict=True):
        number = number * size + position
    return number


def _before(name: str, attrs: tuple, old: Shape, new: Shape, place: Positions) -> Positions:
    """Where in `old` the element lies that a step puts to `place` of `new`."""
    if name == "reshape":
        return _unravel(_ravel(place, new), old)
    if name == "permute":
        return tuple(place[attrs[0].index(axis)] for axis in range(len(old)))
    if name == "expand":
        return tuple(0 if size == 1 else k for size, k in zip(old, place, strict=True))
    if name == "slice":
        starts, _, steps = attrs
        return tuple(start + k * step
                     for start, k, step in zip(starts, place, steps, strict=True))
    if name == "flip":
        return tuple(old[axis] - 1 - k if axis in attrs[0] else k for axis, k in enumerate(place))
    if name == "window":
        result = list(place[:len(old)])
        for k, (axis, _, stride, dilation) in enumerate(zip(*attrs, strict=True)):
            result[axis] = result[axis] * stride + place[len(old) + k] * dilation
        return tuple(result)
    return place


def first_byte(base: Node, view: View | None) -> int:
    """Bytes of the base tensor before a view's first element."""
    if view is None or not view.steps or math.prod(view.shape) == 0:
        return 0
    # The chain of nodes knows the shapes between the steps.
    nodes = [base]
    for definition, attrs, location in view.steps:
        nodes.append(take_step(definition, nodes[-1], attrs, location))
    place: Positions = (0,) * nodes[-1].ndim
    within = 0  # bytes into an element: the imaginary part of a complex number
    for (definition, attrs, _), old, new in zip(
        reversed(view.steps), reversed(nodes[:-1]), reversed(nodes[1:]), strict=True
    ):
        if definition.name == "view_as_real":
            place, within = place[:-1], within + place[-1] * new.dtype.itemsize
        elif definition.name == "view_as_complex":
            place = (*place, 0)
        elif definition.name == "recast":
            position = place[-1] * new.dtype.itemsize
            place = (*place[:-1], position // old.dtype.itemsize)
            within += position % old.dtype.itemsize
        else:
            place = _before(definition.name, attrs, old.shape, new.shape, place)
    return _ravel(place, base.shape) * base.dtype.itemsize + within


# ---- writing


def write_back(cell: Cell, view: View, value: Node, name: str = "in-place") -> Node:
    """The cell's new value once `value` is written through the view: the steps undone in turn."""
    before = [cell.base_for_write()]
    repeats = False
    for definition, attrs, location in view.steps:
        repeats = repeats or (definition.name == "expand" and attrs[0] != before[-1].shape)
        before.append(take_step(definition, before[-1], attrs, location))
    if repeats:
        if not _is_one_number(value) and any(
                stride == 0 and size > 1
                for stride, size in zip(view.strides or (), view.shape, strict=False)):
            raise fail(name, "several elements of an expanded view are one element in memory",
                       "Write to a .clone() of it, or to the tensor before expand.")
        if any(definition is RECAST for definition, _, _ in view.steps):
            raise fail(name, "repeats elements of a tensor whose bits are read as another dtype",
                       "Write to a .clone() of it.")
        return _by_positions(before[0], view, value)
    for (definition, attrs, _), old in zip(
        reversed(view.steps), reversed(before[:-1]), strict=True
    ):
        value = _UNDO[definition.name](definition, attrs, old, value)
    return value


def _is_one_number(node: Node) -> bool:
    """Whether all elements of a value are one number, as those that `fill_` writes."""
    while node.op in ("expand", "reshape", "cast") and node.size > 1:
        node = node.inputs[0]
    return node.size <= 1 or node.op == "const"


def _by_positions(base: Node, view: View, value: Node) -> Node:
    """The value scattered to where the steps take each element of the view from."""
    places = graph.reshape(graph.iota(0, (base.size,)), base.shape)
    for definition, attrs, location in view.steps:
        if definition.name == "bitcast":
            value = graph.make("bitcast", value, attrs=(base.dtype,))
        else:
            places = build(definition, (places,), attrs, location)
    flat = graph.make("scatter", graph.reshape(base, (base.size,)),
                      graph.reshape(value, (value.size,)), graph.reshape(places, (places.size,)),
                      attrs=((0,), "set"))
    return graph.reshape(flat, base.shape)


def _undo_permute(definition: OpDef, attrs: tuple, old: Node, value: Node) -> Node:
    order = attrs[0]
    return graph.permute(value, [order.index(axis) for axis in range(len(order))])


def _undo_slice(definition: OpDef, attrs: tuple, old: Node, value: Node) -> Node:
    if value.shape == old.shape:
        return value
    if value.size == 0:
        return old
    starts, _, steps = attrs
    high = tuple(
        size - start - (count - 1) * step - 1
        for size, start, count, step in zip(old.shape, starts, value.shape, steps, strict=True)
    )
    between = tuple(step - 1 for step in steps)
    zero = {"float": 0.0, "bool": False, "complex": 0j}.get(value.dtype.kind, 0)
    spread = graph.make("pad", value, attrs=(starts, high, between, zero))
    inside = graph.make("pad", graph.const(True, dtypes.bool_, value.shape),
                        attrs=(starts, high, between, False))
    return graph.where(inside, spread, old)


def _undo_window(definition: OpDef, attrs: tuple, old: Node, value: Node) -> Node:
    """Written where the windows read; where they overlap, the last in row-major order stays."""
    if value.size == 0:
        return old
    count = old.size
    numbers = graph.reshape(graph.iota(0, (count,)), old.shape)
    places = build(definition, (numbers,), attrs, now.location)
    flat = graph.make("scatter", graph.reshape(old, (count,)),
                      graph.reshape(value, (value.size,)), graph.reshape(places, (value.size,)),
                      attrs=((0,), "set"))
    return graph.reshape(flat, old.shape)


_UNDO: dict[str, Callable[[OpDef, tuple, Node, Node], Node]] = {
    "reshape": lambda definition, attrs, old, value: graph.reshape(value, old.shape),
    "permute": _undo_permute,
    "expand": lambda definition, attrs, old, value: value,
    "slice": _undo_slice,
    "flip": lambda definition, attrs, old, value: build(
        definition, (value,), attrs, now.location),
    "bitcast": lambda definition, attrs, old, value: graph.make(
        "bitcast", value, attrs=(old.dtype,)),
    "recast": lambda definition, attrs, old, value: recast(value, old.dtype),
    "window": _undo_window,
    "conj": lambda definition, attrs, old, value: graph.make("conj", value),
    "view_as_real": lambda definition, attrs, old, value: graph.make("view_as_complex", value),
    "view_as_complex": lambda definition, attrs, old, value: graph.make("view_as_real", value),
}

