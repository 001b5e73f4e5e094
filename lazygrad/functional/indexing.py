"""x[index] and x[index] = value: numbers, slices, None, ..., masks and index tensors, mixed.

The basic part (numbers, slices, None, ...) makes a view.  Index tensors then gather from the view,
or scatter into it.  A mask on its own is written by `where`, without looking at it.
"""

from __future__ import annotations

from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.cell import leaf_of_array
from lazygrad._core.context import TensorTypeError, fail, method, now, operation
from lazygrad._core.folding import folded
from lazygrad._core.tensor import (
    Tensor,
    make_views,
    node_of,
    shape_of,
    strides_of,
    wrap,
    write,
)
from lazygrad.functional._operands import as_node
from lazygrad.functional.masking import places_by_axis, rows_where
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS, listed

_SLICE, _RESHAPE = OPS["slice"], OPS["reshape"]


def _place(tensor: Tensor, index: int) -> Tensor:
    """x[number], by far the most frequent form."""
    shape, strides = shape_of(tensor), strides_of(tensor)
    if not shape or not -shape[0] <= index < shape[0]:
        raise fail("index", f"index {index} is out of range for axis 0 of {listed(shape)}",
                   kind=IndexError)
    index %= shape[0]
    rest = shape[1:]
    zeros, ones, location = (0,) * len(rest), (1,) * len(shape), now.location
    return make_views(tensor, ((_SLICE, ((index, *zeros), (index + 1, *rest), ones), location),
                               (_RESHAPE, (rest,), location)), rest, strides[1:])


def _as_tuple(index: Any) -> tuple:
    if isinstance(index, tuple):
        return index
    # PyTorch's rule for lists that stand for tuples.
    if isinstance(index, list) and len(index) < 32 and any(
        isinstance(each, (slice, type(None), type(...), list, tuple, range, Tensor, numpy.ndarray))
        for each in index
    ):
        return tuple(index)
    return (index,)


def _is_number(item: Any) -> bool:
    return isinstance(item, (int, numpy.integer)) and not isinstance(item, (bool, numpy.bool_))


def _as_index_tensor(item: Any) -> Any:
    """Lists, arrays and ranges as tensors; tensors as they are."""
    if isinstance(item, Tensor):
        return item
    from lazygrad.functional.creation import tensor
    if isinstance(item, (bool, numpy.bool_)):
        return tensor(bool(item))
    if isinstance(item, (list, tuple, range, numpy.ndarray)):
        made = tensor(list(item) if isinstance(item, range) else item)
        return made.long() if made.numel() == 0 and made.dtype.is_floating else made
    raise fail("index", f"{type(item).__name__} is no index",
               "Indices are numbers, slices, None, ..., masks and integer tensors.", IndexError)


def _masks_to_indices(items: list[Any]) -> list[Any]:
    """Bool tensors as one index tensor for each of their axes; this looks at their values."""
    result: list[Any] = []
    for item in items:
        if isinstance(item, Tensor) and item.dtype in (dtypes.bool_, dtypes.uint8):
            if not item.ndim:
                result.append(_Fresh(
                    wrap(leaf_of_array(numpy.zeros(int(bool(item)), numpy.int64)))))
                continue
            places = places_by_axis(graph.cast(node_of(item), dtypes.bool_))
            result += [_Masked(wrap(each), size)
                       for each, size in zip(places, item.shape, strict=True)]
        else:
            result.append(item)
    return result


class _Fresh:
    """The index that a 0-d mask is: it takes or leaves a new axis of size 1."""

    def __init__(self, index: Tensor) -> None:
        self.index = index


class _Masked:
    """An index that came from a mask, and the size of axis that the mask is for."""

    def __init__(self, index: Tensor, size: int) -> None:
        self.index, self.size = index, size


def _one_ellipsis(items: list[Any], left: int) -> list[Any]:
    """PyTorch takes a second '...' where no axis is left for it or no index comes after it."""
    places = [k for k, item in enumerate(items) if item is ...]
    if len(places) < 2:
        return items
    if left and any(item is not None and item is not ... for item in items[places[1]:]):
        raise fail("index", "there is more than one '...'", kind=IndexError)
    return [item for k, item in enumerate(items) if item is not ... or k == places[0]]


def _basic(tensor: Tensor, items: list[Any]) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """The view of the basic part, and the index tensors with the axis of the view they apply to."""
    shape, strides = shape_of(tensor), strides_of(tensor)
    used = sum(1 for item in items
               if item is not None and item is not ... and not isinstance(item, _Fresh))
    if used > len(shape):
        raise fail("index", f"{used} indices for the {len(shape)} axes of {listed(shape)}",
                   kind=IndexError)
    items = _one_ellipsis(items, len(shape) - used)
    if not any(item is ... for item in items):
        items = [*items, ...]
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    sizes: list[int] = []
    new_strides: list[int] = []
    advanced: list[tuple[int, Tensor]] = []
    axis, changed, reshaped = 0, False, False
    for item in items:
        if item is None or isinstance(item, _Fresh):
            if item is not None:
                advanced.append((len(sizes), item.index))
            sizes.append(1)
            new_strides.append(1)
            reshaped = True
            continue
        if item is ...:
            count = len(shape) - used
            sizes += shape[axis:axis + count]
            new_strides += strides[axis:axis + count]
            axis += count
            continue
        size = shape[axis]
        if _is_number(item):
            if not -size <= item < size:
                raise fail("index", f"index {item} is out of range for axis {axis} of size {size}",
                           kind=IndexError)
            starts[axis] = int(item) % size
            stops[axis] = starts[axis] + 1
            changed = reshaped = True
        elif isinstance(item, slice):
            bounds = [None if each is None else each.__index__()
                      for each in (item.start, item.stop, item.step)]
            if (bounds[2] or 1) < 1:
                raise fail("index", f"slices step forward, and {bounds[2]} does not",
                           "Use .flip(...) to reverse.")
            start, stop, step = slice(*bounds).indices(size)
            stop = max(start, stop)
            starts[axis], stops[axis], steps[axis] = start, stop, step
            changed = changed or (start, stop, step) != (0, size, 1)
            sizes.append(-(-(stop - start) // step))
            new_strides.append(strides[axis] * step)
        else:
            if isinstance(item, _Masked):
                if item.size != size:
                    raise fail(
                        "index",
                        f"a mask of size {item.size} for axis {axis} of size {size}",
                        kind=IndexError,
                    )
                item = item.index
            advanced.append((len(sizes), item))
            sizes.append(size)
            new_strides.append(strides[axis])
        axis += 1
    entries: tuple = ()
    if changed:
        attrs = tuple(starts), tuple(stops), tuple(steps)
        entries = ((_SLICE, attrs, now.location),)
    if reshaped or not changed:
        entries = (*entries, (_RESHAPE, (tuple(sizes),), now.location))
    return make_views(tensor, entries, tuple(sizes), tuple(new_strides)), advanced


def _index_nodes(advanced: list[tuple[int, Tensor]], shape: tuple[int, ...]) -> list[Node]:
    """The index tensors as int64 nodes of their common shape."""
    nodes = []
    for _, item in advanced:
        node = node_of(item)
        if not node.dtype.is_integer:
            raise fail("index", f"index tensors are integers or bools, not {node.dtype.name}",
                       "Convert with .long().", IndexError)
        nodes.append(graph.cast(node, dtypes.int64))
    return list(graph.together("index", *nodes))


def _result_order(advanced: list[tuple[int, Tensor]], index_ndim: int,
                  ndim: int) -> list[int] | None:
    """The order that brings the axes of gather's result to NumPy's places; None: as they are.

    0-d index tensors count as numbers, as in PyTorch: their axes are gone before it is asked
    whether the others are next to each other.
    """
    gone = [axis for axis, item in advanced if not item.ndim]
    left = [axis for axis in range(ndim) if axis not in gone]
    places = [left.index(axis) for axis, item in advanced if item.ndim]
    if not places or places != list(range(places[0], places[0] + len(places))) or not places[0]:
        return None
    first, rest = places[0], ndim - len(advanced)
    return [*range(index_ndim, index_ndim + first), *range(index_ndim),
            *range(index_ndim + first, index_ndim + rest)]


def _prepare(index: Any) -> list[Any]:
    return [item if item is None or item is ... or isinstance(item, slice) or _is_number(item)
            else _as_index_tensor(item) for item in _as_tuple(index)]


MOST_VIEWS = 2048

_views: dict[tuple, tuple] = {}
"""Steps, shape and strides of basic forms, by shape, strides and index: found once each."""


def _basic_key(item: Any) -> Any:
    """Numbers, slices of numbers, None and ... as what a dictionary can hold; else NotImplemented.
    """
    kind = item.__class__
    if kind is int or item is None or item is ...:
        return item
    if kind is slice:
        bounds = (item.start, item.stop, item.step)
        if all([each is None or each.__class__ is int for each in bounds]):
            return bounds
    return NotImplemented


def _known_view(input: Tensor, index: Any) -> Any:
    """The view of a basic form, its steps taken from the time before; None for other forms."""
    items = index if index.__class__ is tuple else (index,)
    wanted = tuple([_basic_key(item) for item in items])
    if NotImplemented in wanted:
        return None
    view = input._view
    key = (shape_of(input), None if view is None else view.strides, wanted)
    found = _views.get(key)
    if found is None:
        if len(_views) >= MOST_VIEWS:
            _views.clear()
        made, _ = _basic(input, list(items))
        assert made._view is not None
        steps = made._view.steps[0 if view is None else len(view.steps):]
        _views[key] = ([step[:2] for step in steps], made._view.shape, made._view.strides)
        return made
    location = now.location
    steps, shape, strides = found
    return make_views(input, tuple([(*step, location) for step in steps]), shape, strides)


@operation
def getitem(input: Tensor, index: Any) -> Tensor:
    """x[index]: a view for the basic forms, a copy where index tensors take part."""
    if index.__class__ is int:
        return _place(input, index)
    if isinstance(index, Tensor):
        return _folded_advanced(input, index)
    view = _known_view(input, index)
    return _advanced(input, index) if view is None else view


def _advanced(input: Tensor, index: Any) -> Tensor:
    """x[index] where index tensors (or lists, arrays) take part."""
    items = _prepare(index)
    if len(items) == 1 and isinstance(items[0], Tensor):
        mask = items[0]
        if mask.ndim and mask.dtype in (dtypes.bool_, dtypes.uint8) \
                and shape_of(mask) == shape_of(input)[:mask.ndim]:
            return wrap(rows_where(node_of(input), graph.cast(node_of(mask), dtypes.bool_)))
    view, advanced = _basic(input, _masks_to_indices(items))
    if not advanced:
        return view
    node = node_of(view)
    axes = [axis for axis, _ in advanced]
    indices = _index_nodes(advanced, node.shape)
    result = graph.make("gather", node, *indices, attrs=(tuple(axes),))
    order = _result_order(advanced, indices[0].ndim, node.ndim)
    return wrap(result if order is None else graph.permute(result, order))


_folded_advanced = folded(_advanced)


def _value_node(value: Any, target: Tensor) -> Node:
    if isinstance(value, (Tensor, numpy.ndarray)):
        return as_node("setitem", value)
    if isinstance(value, (list, tuple)):
        from lazygrad.functional.creation import tensor
        return node_of(tensor(value))
    return graph.const(value, target.dtype)


def _fit(name: str, value: Node, shape: tuple[int, ...]) -> Node:
    """The value broadcast to a shape; leading axes of size 1 too many are dropped."""
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = graph.reshape(value, value.shape[1:])
    if graph.broadcast_shape(name, value.shape, shape) != shape:
        raise fail(name, f"{listed(value.shape)} does not fit into {listed(shape)}")
    return graph.broadcast(value, shape)


def _into(new: Node, dtype: DType) -> Node:
    """Values in the dtype that they are put into."""
    if new.dtype.is_complex and not dtype.is_complex:
        raise fail("setitem", f"complex numbers do not become {dtype.name}", "Take .real first.",
                   TensorTypeError)
    return graph.cast(new, dtype)


@operation
def setitem(input: Tensor, index: Any, value: Any) -> None:
    """x[index] = value, seen by all that share memory with x."""
    items = _prepare(index)
    new = _value_node(value, input)
    if len(items) == 1 and isinstance(items[0], Tensor) and items[0].dtype is dtypes.bool_:
        mask = items[0]
        rest = shape_of(input)[mask.ndim:]
        if shape_of(mask) != shape_of(input)[:mask.ndim]:
            raise fail("setitem", f"a mask {listed(mask.shape)} for {listed(input.shape)}",
                       kind=IndexError)
        if new.ndim <= len(rest) or (new.ndim == len(rest) + 1 and new.shape[0] == 1):
            new = _fit("setitem", _into(new, input.dtype), (1,) * mask.ndim + rest)
            where = graph.reshape(node_of(mask), shape_of(mask) + (1,) * len(rest))
            write(input, "setitem", graph.where(where, new, node_of(input)))
            return
    view, advanced = _basic(input, _masks_to_indices(items))
    if not advanced:
        write(view, "setitem", _fit("setitem", _into(new, input.dtype), shape_of(view)))
        return
    write(view, "setitem", _scattered(view, advanced, new, "set"))


def _scattered(view: Tensor, advanced: list[tuple[int, Tensor]], new: Node, mode: str) -> Node:
    node = node_of(view)
    axes = [axis for axis, _ in advanced]
    indices = _index_nodes(advanced, node.shape)
    index_ndim = indices[0].ndim
    rest = [size for axis, size in enumerate(node.shape) if axis not in axes]
    shape = (*indices[0].shape, *rest)
    order = _result_order(advanced, index_ndim, node.ndim)
    seen = shape if order is None else tuple(shape[axis] for axis in order)
    new = _fit("setitem", _into(new, node.dtype), seen)
    if order is not None:
        new = graph.permute(new, [order.index(axis) for axis in range(len(order))])
    return graph.make("scatter", node, new, *indices, attrs=(tuple(axes), mode))


@method
def index_put_(input: Tensor, indices: tuple[Tensor, ...], values: Any,
               accumulate: bool = False) -> Tensor:
    """x[indices] = values, or += with accumulate, where equal positions add up."""
    if not isinstance(indices, (tuple, list)):
        raise fail("index_put_", f"indices are a tuple of tensors, not {type(indices).__name__}",
                   "Of one axis: (indices,).", TypeError)
    view, advanced = _basic(input, _masks_to_indices(_prepare(tuple(indices))))
    write(view, "index_put_", _scattered(view, advanced, _value_node(values, input),
                                         "add" if accumulate else "set"))
    return input


@method
def index_put(input: Tensor, indices: tuple[Tensor, ...], values: Any,
              accumulate: bool = False) -> Tensor:
    """`index_put_` on a copy."""
    return index_put_(input.clone(), indices, values, accumulate)


setattr(Tensor, "__getitem__", getitem)  # noqa: B010
setattr(Tensor, "__setitem__", setitem)  # noqa: B010
