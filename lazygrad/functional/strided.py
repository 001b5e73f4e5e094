"""Views that are more than a box of places: windows, diagonals, arbitrary strides, other dtypes.

Each is a chain of movement steps on the cell, so it shares memory, can be written through, costs an
index map when it is read, and has its gradient from the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as whole_number
from typing import Any

from lazygrad._core import graph
from lazygrad._core.cell import View
from lazygrad._core.context import fail, method, now, operation
from lazygrad._core.recast import RECAST, recast
from lazygrad._core.tensor import (
    Tensor,
    contiguous_strides,
    handle,
    make_views,
    node_of,
    shape_of,
    strides_of,
    wrap,
    write,
)
from lazygrad._core.types import as_dtype
from lazygrad.functional._operands import as_node, axis_of, sizes_of
from lazygrad.functional.views import shape_changing
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Shape
from lazygrad_compiler.ir.ops import OPS, listed

__all__ = ["diagonal", "as_strided", "as_strided_scatter", "diagonal_scatter", "select_scatter",
           "slice_scatter", "empty_strided", "empty_permuted"]

Steps = list[tuple[str, tuple]]


def _entries(steps: Steps) -> tuple:
    return tuple((OPS[name], attrs, now.location) for name, attrs in steps)


@method
def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` places along an axis, every `step` places: a view, with the places within
    a window as a new last axis.
    """
    shape, strides = shape_of(input), strides_of(input)
    axis = axis_of("unfold", dimension, len(shape))
    size, step = whole_number(size), whole_number(step)
    if not shape:
        return unfold(input.reshape(1), 0, size, step)[0]
    if not 0 <= size <= shape[axis] or step < 1:
        raise fail("unfold", f"windows of {size} every {step} places do not fit into axis {axis} "
                   f"of {listed(shape)}", "size must be at most that of the axis, step at least 1.")
    count = (shape[axis] - size) // step + 1
    result = (*shape[:axis], count, *shape[axis + 1:], size)
    if not size:
        return wrap(graph.const(0, input.dtype, result))
    return make_views(
        input, _entries([("window", ((axis,), (size,), (step,), (1,)))]), result,
        (*strides[:axis], strides[axis] * step, *strides[axis + 1:], strides[axis]))


@method
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two axes, as the last axis: a view."""
    shape, strides = shape_of(input), strides_of(input)
    first, second = (axis_of("diagonal", dim, len(shape)) for dim in (dim1, dim2))
    offset = whole_number(offset)
    if first == second:
        raise fail("diagonal", f"dim1 and dim2 are both {dim1}", "A diagonal runs in two axes.")
    rest = [axis for axis in range(len(shape)) if axis not in (first, second)]
    order = (*rest, first, second)
    outer = tuple(shape[axis] for axis in rest)
    rows, columns = shape[first], shape[second]
    count = max(min(rows + min(offset, 0), columns - max(offset, 0)), 0)
    down, right = (max(-offset, 0), max(offset, 0)) if count else (0, 0)
    zeros, ones = (0,) * len(rest), (1,) * len(rest)
    # Row k of the diagonal block starts at k * count, its diagonal element at k * (count + 1).
    steps: Steps = [
        ("permute", (order,)),
        ("slice", ((*zeros, down, right), (*outer, down + count, right + count), (*ones, 1, 1))),
        ("reshape", ((*outer, count * count),)),
        ("slice", ((*zeros, 0), (*outer, count * count), (*ones, count + 1))),
    ]
    return make_views(input, _entries(steps), (*outer, count),
                      (*(strides[axis] for axis in rest), strides[first] + strides[second]))


def _strided_steps(count: int, size: Shape, strides: Sequence[int], offset: int) -> Steps:
    """From a flat axis of `count` elements to any sizes and strides (not negative).

    The axis of the largest stride is taken first: windows every `stride` places, as wide as the
    remaining axes reach; then the next within these windows.  Axes of stride 0 are expanded.
    """
    moving = [axis for axis in range(len(size)) if strides[axis] and size[axis] != 1]
    moving.sort(key=lambda axis: -strides[axis])
    reach = 1 + sum((size[axis] - 1) * strides[axis] for axis in moving)
    steps: Steps = [("reshape", ((count,),)), ("slice", ((offset,), (offset + reach,), (1,)))]
    shape: list[int] = []
    for axis in moving:
        rest = reach - (size[axis] - 1) * strides[axis]
        steps.append(("window", ((len(shape),), (rest,), (strides[axis],), (1,))))
        shape.append(size[axis])
        reach = rest
    steps.append(("reshape", (tuple(shape),)))
    ascending = sorted(moving)
    steps.append(("permute", (tuple(moving.index(axis) for axis in ascending),)))
    standing = tuple(size[axis] if axis in moving else 1 for axis in range(len(size)))
    steps.append(("reshape", (standing,)))
    if standing != tuple(size):
        steps.append(("expand", (tuple(size),)))
    return steps


def _nothing(dtype: DType, shape: Shape, strides: Shape) -> Tensor:
    """No elements, with strides that say nothing but may be asked for."""
    return make_views(wrap(graph.const(0, dtype, shape)), _entries([("reshape", (shape,))]), shape,
                      strides)


@method
def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the memory of `input` with the sizes, strides and first element given.

    Memory is that of the base tensor, row-major.  Where several places are one element (strides
    that overlap), the last write in row-major order stays; a stride of 0 refuses writes.
    """
    shape = sizes_of("as_strided", (size,))
    strides = sizes_of("as_strided", (stride,))
    view = input._view
    base = input._cell.node
    offset = input.storage_offset() if storage_offset is None \
        else whole_number(storage_offset)
    if len(shape) != len(strides):
        raise fail("as_strided", f"sizes {listed(shape)} and strides {listed(strides)} differ in "
                   "length")
    if min((*shape, *strides, offset), default=0) < 0:
        raise fail("as_strided", f"sizes {listed(shape)}, strides {listed(strides)} and offset "
                   f"{offset} must not be negative", "Use .flip(...) to reverse.")
    if 0 in shape:
        return _nothing(input.dtype, shape, strides)
    graph.const(0, input.dtype, shape)  # refuses what no memory holds
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if last >= base.size:
        raise fail("as_strided", f"sizes {listed(shape)}, strides {listed(strides)} and offset "
                   f"{offset} reach element {last}, and the memory has {base.size}")
    steps = _strided_steps(base.size, shape, strides, offset)
    dtype = None
    if view is not None and view.dtype is not None and view.dtype.itemsize != base.dtype.itemsize:
        raise fail("as_strided", f"the memory holds {base.dtype.name}, read as {view.dtype.name}",
                   "Take as_strided of a .clone().")
    if view is not None and view.dtype is not None:
        dtype = view.dtype
        steps.insert(0, ("bitcast", (dtype,)))
    marked = view is not None and view.uid is not None and now.grad
    if marked and view is not None and view.depth:
        raise fail("as_strided", "this leaf is itself a view of another tensor's memory",
                   "Take as_strided of that tensor, or of a .clone().")
    seen = View(_entries(steps), shape, strides,
                view.uid if marked and view is not None else None, 0, dtype)
    return handle(input._cell, seen, input._detached or not now.grad)


@method
def as_strided_(self: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """Turns this tensor into that view of its memory; refused where it collects gradients."""
    if self.requires_grad and self.is_leaf:
        raise fail("as_strided_", "a leaf that requires gradients keeps its shape",
                   "Use x.as_strided(...), which is a view.")
    made = as_strided(self, size, stride, storage_offset)
    self._cell, self._view, self._detached = made._cell, made._view, made._detached
    return self


# ---- the same bits as another dtype


def reinterpret(input: Tensor, dtype: Any) -> Tensor:
    """The bits of `input` as another dtype: a view.  Where elements change their size the last axis
    gets longer or shorter; its elements have to be neighbours in memory, else it is a copy.
    """
    target, source = as_dtype(dtype), input.dtype
    if target is source:
        return make_views(input, _entries([("reshape", (shape_of(input),))]), shape_of(input),
                          strides_of(input))
    if "bool" in (target.kind, source.kind):
        if target.itemsize != 1 or source.itemsize != 1:
            raise fail("view", f"{source.name} and {target.name} differ in size",
                       "Convert with .to(...).")
        if source.kind == "bool":
            number = graph.cast(node_of(input), dtypes.uint8)
            return wrap(number if target is dtypes.uint8
                        else graph.make("bitcast", number, attrs=(target,)))
        return wrap(graph.cast(node_of(input), dtypes.bool_))
    shape = shape_of(input)
    if target.itemsize == source.itemsize and not (source.is_complex or target.is_complex):
        result = make_views(input.detach(), _entries([("bitcast", (target,))]), shape,
                            strides_of(input))
        made = result._view
        assert made is not None
        made.dtype = target
        return result
    if source.is_complex or target.is_complex:
        raise fail("view", f"{source.name} bits as {target.name}",
                   "Use view_as_real and view_as_complex.")
    if not shape or (target.itemsize > source.itemsize
                     and shape[-1] % (target.itemsize // source.itemsize)):
        raise fail("view", f"{source.name} {listed(shape)} does not divide into {target.name}",
                   "The last axis must hold a whole number of the larger elements.")
    wide, narrow = (max(source.itemsize, target.itemsize), min(source.itemsize, target.itemsize))
    parts, strides = wide // narrow, strides_of(input)
    if target.itemsize < source.itemsize:
        result_shape = (*shape[:-1], shape[-1] * parts)
        stepped = tuple(step * parts for step in strides[:-1])
    else:
        result_shape = (*shape[:-1], shape[-1] // parts)
        stepped = tuple(step // parts for step in strides[:-1])
        if any(step % parts and size > 1
               for step, size in zip(strides[:-1], shape[:-1], strict=True)):
            return wrap(recast(node_of(input), target))
        if input.numel() and input.storage_offset() % parts:
            return wrap(recast(node_of(input), target))
    if strides[-1] != 1 and shape[-1] != 1:
        return wrap(recast(node_of(input), target))
    entries: Any = ((RECAST, (target,), now.location),)
    result = make_views(input.detach(), entries, result_shape, (*stepped, 1))
    made = result._view
    assert made is not None
    made.dtype = target
    return result


# ---- a copy with a view of it overwritten


def _scattered(name: str, input: Tensor, src: Tensor, view: Any) -> Tensor:
    copy = input.clone()
    place = view(copy)
    node = as_node(name, src)
    if node.shape != shape_of(place):
        raise fail(name, f"src is {listed(node.shape)}, and the place for it "
                   f"{listed(shape_of(place))}", "They must have the same shape.")
    write(place, name, graph.cast(node, copy.dtype))
    return copy


@method
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0,
                     dim2: int = 1) -> Tensor:
    """A copy with `src` on a diagonal."""
    return _scattered("diagonal_scatter", input, src,
                      lambda copy: diagonal(copy, offset, dim1, dim2))


@method
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy with `src` at one place of an axis."""
    return _scattered("select_scatter", input, src, lambda copy: copy.select(dim, index))


@method
def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None,
                  end: int | None = None, step: int = 1) -> Tensor:
    """A copy with `src` in a slice of one axis."""
    axis = axis_of("slice_scatter", dim, input.ndim)
    if step < 1:
        raise fail("slice_scatter", f"slices step forward, and {step} does not")
    return _scattered("slice_scatter", input, src,
                      lambda copy: copy[(slice(None),) * axis + (slice(start, end, step),)])


@method
def as_strided_scatter(input: Tensor, src: Tensor, size: Any, stride: Any,
                       storage_offset: int | None = None) -> Tensor:
    """A copy with `src` in the elements that `as_strided` of it would show."""
    return _scattered("as_strided_scatter", input, src,
                      lambda copy: as_strided(copy, size, stride, storage_offset))


# ---- memory of a chosen layout


def _with_strides(name: str, size: Any, stride: Any, node: Any, requires_grad: bool) -> Tensor:
    shape, strides = sizes_of(name, (size,)), sizes_of(name, (stride,))
    if len(shape) != len(strides) or min((*shape, *strides), default=0) < 0:
        raise fail(name, f"sizes {listed(shape)} and strides {listed(strides)}: as many of one as "
                   "of the other, none negative")
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if strides == contiguous_strides(shape):
        result = wrap(node(shape))
    elif 0 in shape:
        result = _nothing(node(()).dtype, shape, strides)
    else:
        result = as_strided(wrap(node((reach,))), shape, strides, 0)
    return result.requires_grad_() if requires_grad else result


@operation
def empty_strided(size: Any, stride: Any, *, dtype: Any = None, layout: Any = None,
                  device: Any = None, requires_grad: bool = False,
                  pin_memory: bool = False) -> Tensor:
    """Zeros of the sizes given, with these strides in memory."""
    from lazygrad._core.types import default
    from lazygrad._core.values import check_device
    check_device(device, "empty_strided")
    target = default.dtype if dtype is None else as_dtype(dtype)
    return _with_strides("empty_strided", size, stride,
                         lambda shape: graph.const(0, target, shape), requires_grad)


@operation
def empty_permuted(size: Any, physical_layout: Any, *, dtype: Any = None, layout: Any = None,
                   device: Any = None, requires_grad: bool = False,
                   pin_memory: bool = False) -> Tensor:
    """Zeros of the sizes given, whose axes lie in memory in the order `physical_layout`."""
    shape = sizes_of("empty_permuted", (size,))
    order = sizes_of("empty_permuted", (physical_layout,))
    if sorted(order) != list(range(len(shape))):
        raise fail("empty_permuted", f"{listed(order)} is not an order of the axes of "
                   f"{listed(shape)}")
    inner = contiguous_strides(tuple(shape[axis] for axis in order))
    strides = tuple(inner[order.index(axis)] for axis in range(len(shape)))
    return empty_strided(shape, strides, dtype=dtype, device=device, requires_grad=requires_grad)


@method
def new_empty_strided(input: Tensor, size: Any, stride: Any, *, dtype: Any = None,
                      layout: Any = None, device: Any = None, requires_grad: bool = False,
                      pin_memory: bool = False) -> Tensor:
    return empty_strided(size, stride, dtype=dtype or input.dtype, device=device,
                         requires_grad=requires_grad)


setattr(Tensor, "as_strided_", shape_changing("as_strided_", as_strided))  # noqa: B010
