"""Shapes and views: reshape, axes, slices.  A view shares memory with what it was taken from."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from operator import index as whole_number
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method, operation
from lazygrad._core.tensor import (
    Tensor,
    contiguous_strides,
    make_view,
    node_of,
    shape_of,
    strides_of,
    wrap,
)
from lazygrad.functional._operands import axis_of, sizes_of
from lazygrad_compiler.ir.ops import listed

__all__ = ["reshape", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "permute",
           "transpose", "swapaxes", "swapdims", "t", "movedim", "moveaxis", "broadcast_to",
           "narrow", "select", "split", "chunk", "unbind", "tensor_split", "hsplit", "vsplit",
           "atleast_1d", "atleast_2d", "atleast_3d"]


def slice_view(tensor: Tensor, starts: Sequence[int], stops: Sequence[int],
               steps: Sequence[int]) -> Tensor:
    """x[start:stop:step] along every axis, as a view (steps positive)."""
    shape = tuple(-(-(stop - start) // step)
                  for start, stop, step in zip(starts, stops, steps, strict=True))
    strides = tuple(old * step for old, step in zip(strides_of(tensor), steps, strict=True))
    return make_view(tensor, "slice", (tuple(starts), tuple(stops), tuple(steps)), shape, strides)


def slice_one(tensor: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """A slice of one axis, as a view."""
    shape = shape_of(tensor)
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[axis], stops[axis], steps[axis] = start, max(stop, start), step
    return slice_view(tensor, starts, stops, steps)


def view_strides(shape: Sequence[int], strides: Sequence[int],
                 wanted: Sequence[int]) -> tuple[int, ...] | None:
    """Strides under which the same memory has another shape; None where it takes a copy.

    Runs of axes that lie densely in one another may be split and merged; others may not.
    """
    if 0 in shape:
        return contiguous_strides(tuple(wanted))
    runs: list[list[int]] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == stride * size:
            runs[-1] = [runs[-1][0] * size, stride]
        else:
            runs.append([size, stride])
    result: list[int] = []
    position = len(runs) - 1
    left = 1
    for size in reversed(wanted):
        if size == 1:
            result.append(result[-1] if result else 1)
            continue
        if left == 1:
            if position < 0:
                return None
            left, stride = runs[position]
            position -= 1
        if left % size:
            return None
        result.append(stride)
        stride *= size
        left //= size
    return tuple(reversed(result))


def _infer(name: str, shape: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes with a -1 filled in; TensorError where the number of elements differs."""
    count = math.prod(shape)
    if -1 in sizes:
        if sizes.count(-1) > 1:
            raise fail(name, f"{listed(sizes)} leaves more than one size open")
        rest = -math.prod(sizes)
        if rest == 0 or count % rest:
            raise fail(
                name, f"{listed(shape)} has {count} elements, which do not fill {listed(sizes)}"
            )
        sizes = tuple(count // rest if size == -1 else size for size in sizes)
    if any(size < 0 for size in sizes) or math.prod(sizes) != count:
        raise fail(
            name,
            f"{listed(shape)} has {count} elements, {listed(sizes)} {math.prod(sizes)}",
            "One size may be -1, to be worked out.",
        )
    return sizes


def reshape_view(tensor: Tensor, sizes: tuple[int, ...]) -> Tensor | None:
    """The view of that shape, or None where memory does not allow one."""
    shape = shape_of(tensor)
    if tensor._view is None or tensor._view.strides is None:
        strides: tuple[int, ...] | None = contiguous_strides(sizes)
    else:
        strides = view_strides(shape, strides_of(tensor), sizes)
    return None if strides is None else make_view(tensor, "reshape", (sizes,), sizes, strides)


@method
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: a view where memory allows, else a copy."""
    sizes = _infer("reshape", shape_of(input), sizes_of("reshape", shape))
    result = reshape_view(input, sizes)
    return wrap(graph.reshape(node_of(input), sizes)) if result is None else result


@method
def view(input: Tensor, *shape: Any) -> Tensor:
    """A view in another shape; with a dtype, the same bits read as that."""
    if len(shape) == 1 and not isinstance(shape[0], (int, tuple, list, Tensor)):
        from lazygrad.functional.strided import reinterpret
        return reinterpret(input, shape[0])
    sizes = _infer("view", shape_of(input), sizes_of("view", shape))
    result = reshape_view(input, sizes)
    if result is None:
        raise fail(
            "view",
            f"memory of {listed(input.shape)} with strides {input.stride()} is not laid "
            f"out as {listed(sizes)}",
            "Use .reshape(...), which copies where it must.",
        )
    return result


@method
def view_as(input: Tensor, other: Tensor) -> Tensor:
    return view(input, tuple(other.shape))


@method
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    return reshape(input, tuple(other.shape))


@method
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim to end_dim merged into one."""
    shape = shape_of(input)
    first, last = (axis_of("flatten", dim, len(shape)) for dim in (start_dim, end_dim))
    if not shape:
        return reshape(input, 1)
    if first > last:
        raise fail("flatten", f"start_dim {start_dim} comes after end_dim {end_dim}")
    if first == last:
        return input
    return reshape(input, (*shape[:first], math.prod(shape[first:last + 1]), *shape[last + 1:]))


@method
def ravel(input: Tensor) -> Tensor:
    """All elements in one axis."""
    return reshape(input, -1)


@method
def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """One axis split into several."""
    shape = shape_of(input)
    axis = axis_of("unflatten", dim, len(shape))
    inner = _infer("unflatten", (shape[axis],), sizes_of("unflatten", (sizes,)))
    return reshape(input, (*shape[:axis], *inner, *shape[axis + 1:]))


@method
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Axes of size 1 taken out: all, or those named."""
    shape = shape_of(input)
    if dim is None:
        gone = [axis for axis, size in enumerate(shape) if size == 1]
    else:
        dims = [dim] if isinstance(dim, int) else list(dim)
        if len({axis_of("squeeze", each, len(shape)) for each in dims}) != len(dims):
            raise fail("squeeze", f"dim {tuple(dims)} names an axis twice")
        gone = [axis for each in dims if shape
                and shape[axis := axis_of("squeeze", each, len(shape))] == 1]
    strides = strides_of(input)
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    sizes = tuple(shape[axis] for axis in kept)
    return make_view(input, "reshape", (sizes,), sizes, tuple(strides[axis] for axis in kept))


@method
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A new axis of size 1."""
    shape, strides = shape_of(input), strides_of(input)
    axis = axis_of("unsqueeze", dim, len(shape) + 1)
    sizes = (*shape[:axis], 1, *shape[axis:])
    stride = strides[axis] * shape[axis] if axis < len(shape) else 1
    return make_view(input, "reshape", (sizes,), sizes, (*strides[:axis], stride, *strides[axis:]))


@method
def permute(input: Tensor, *dims: Any) -> Tensor:
    """Axes in another order."""
    shape, strides = shape_of(input), strides_of(input)
    order = tuple(axis_of("permute", dim, len(shape)) for dim in sizes_of("permute", dims))
    if sorted(order) != list(range(len(shape))):
        raise fail("permute", f"{listed(order)} is not an order of the axes of {listed(shape)}")
    return make_view(input, "permute", (order,), tuple(shape[axis] for axis in order),
                     tuple(strides[axis] for axis in order))


@method
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged."""
    ndim = input.ndim
    first, second = axis_of("transpose", dim0, ndim), axis_of("transpose", dim1, ndim)
    order = list(range(ndim))
    if ndim:
        order[first], order[second] = second, first
    return permute(input, order)


swapaxes = swapdims = transpose


@method
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix (vectors stay)."""
    if input.ndim > 2:
        raise fail(
            "t", f"takes at most 2 axes, not {listed(input.shape)}", "Use .mT or .transpose."
        )
    return permute(input, tuple(range(input.ndim))[::-1])


@method
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Axes moved to other places, the rest in order."""
    ndim = input.ndim
    sources, places = (
        [axis_of("movedim", dim, ndim) for dim in ([dims] if isinstance(dims, int) else dims)]
        for dims in (source, destination)
    )
    if len(sources) != len(places) or len(set(sources)) != len(sources) \
            or len(set(places)) != len(places):
        raise fail("movedim", f"moves axes {source} to {destination}",
                   "Name as many places as axes, each once.")
    if not ndim:
        return permute(input, ())
    rest = iter(axis for axis in range(ndim) if axis not in sources)
    moved = dict(zip(places, sources, strict=True))
    return permute(
        input, tuple(moved[axis] if axis in moved else next(rest) for axis in range(ndim))
    )


moveaxis = movedim


@method
def expand(input: Tensor, *size: Any) -> Tensor:
    """Axes of size 1 repeated, and new leading axes, without a copy."""
    shape = shape_of(input)
    sizes = sizes_of("expand", size)
    missing = len(sizes) - len(shape)
    if missing < 0:
        raise fail("expand", f"{listed(shape)} has more axes than {listed(sizes)}")
    target = tuple(shape[axis - missing] if want == -1 and axis >= missing else want
                   for axis, want in enumerate(sizes))
    if min(target, default=0) < 0 or math.prod(target) > sys.maxsize:
        raise fail("expand", f"{listed(shape)} does not expand to {listed(sizes)}: -1 keeps the "
                   "size of an axis that is there, and sizes are at least 0 and fit into memory")
    for have, want in zip(shape, target[missing:], strict=True):
        if have not in (1, want):
            raise fail(
                "expand",
                f"{listed(shape)} does not expand to {listed(sizes)}: only axes of size 1 do",
            )
    strides = (0,) * missing + strides_of(input)
    if missing:
        full = (1,) * missing + shape
        input = make_view(input, "reshape", (full,), full, strides)
        shape = full
    strides = tuple(stride if have == want else 0
                    for stride, have, want in zip(strides, shape, target, strict=True))
    return make_view(input, "expand", (target,), target, strides)


@method
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    return expand(input, tuple(other.shape))


@method
def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """`expand` as a function."""
    return expand(input, size)


@method
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` places of one axis from `start`."""
    axis = axis_of("narrow", dim, input.ndim)
    size, start = shape_of(input)[axis], whole_number(start)
    length = whole_number(length)
    start = start + size if start < 0 else start
    if not 0 <= start <= start + length <= size:
        raise fail(
            "narrow",
            f"{start}:{start + length} does not lie within axis {axis} of size {size}",
            kind=IndexError,
        )
    return slice_one(input, axis, start, start + length)


def drop_axis(tensor: Tensor, axis: int) -> Tensor:
    """A view without an axis of size 1."""
    shape, strides = shape_of(tensor), strides_of(tensor)
    sizes = (*shape[:axis], *shape[axis + 1:])
    return make_view(tensor, "reshape", (sizes,), sizes, (*strides[:axis], *strides[axis + 1:]))


@method
def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """One place of an axis, which goes away."""
    shape = shape_of(input)
    axis, index = axis_of("select", dim, len(shape)), whole_number(index)
    if not shape or not -shape[axis] <= index < shape[axis]:
        raise fail("select", f"index {index} is out of range for axis {dim} of {listed(shape)}",
                   kind=IndexError)
    index %= shape[axis]
    return drop_axis(slice_one(input, axis, index, index + 1), axis)


@method
def split(input: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces: of one size (the last may be smaller), or of the sizes given."""
    axis = _axis_to_split("split", input, dim)
    size = shape_of(input)[axis]
    if isinstance(split_size_or_sections, int):
        step = split_size_or_sections
        if step < 0 or (step == 0 and size):
            raise fail("split", f"pieces of size {step}")
        sizes = [min(step, size - start) for start in range(0, size, step)] if size else [0]
    else:
        sizes = list(sizes_of("split", (split_size_or_sections,)))
        if sum(sizes) != size or min(sizes, default=0) < 0:
            raise fail("split", f"sizes {sizes} add up to {sum(sizes)}, axis {dim} has {size}",
                       "They must be at least 0 and add up to the axis.")
    pieces, start = [], 0
    for length in sizes:
        pieces.append(slice_one(input, axis, start, start + length))
        start += length
    return tuple(pieces)


@method
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size (the last may be smaller)."""
    if chunks < 1:
        raise fail("chunk", f"{chunks} pieces", "There must be at least one.")
    axis = _axis_to_split("chunk", input, dim)
    size = shape_of(input)[axis]
    if size == 0:
        return split(input, [0] * chunks, dim)
    return split(input, -(-size // chunks), dim)


def _axis_to_split(name: str, input: Tensor, dim: int) -> int:
    if not shape_of(input):
        raise fail(name, "a 0-d tensor has no axis to split", "Add one with unsqueeze.")
    return axis_of(name, dim, input.ndim)


@method
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces as equal as can be, or between the indices given."""
    axis = _axis_to_split("tensor_split", input, dim)
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    size = shape_of(input)[axis]
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        if count < 1:
            raise fail("tensor_split", f"{count} pieces", "There must be at least one.")
        if count > 1 << 20 and count > size:
            raise fail("tensor_split", f"{count} pieces of an axis of size {size}, most of them "
                       "empty", kind=MemoryError)
        small, larger = divmod(size, count)
        return split(input, [small + (k < larger) for k in range(count)], dim)
    places = [whole_number(cut) for cut in indices_or_sections]
    cuts = [0, *(min(max(cut if cut >= 0 else cut + size, 0), size) for cut in places), size]
    return tuple(slice_one(input, axis, start, stop) for start, stop in itertools.pairwise(cuts))


def split_evenly(name: str, input: Tensor, cuts: Any, axis: int) -> tuple[Tensor, ...]:
    """`tensor_split`, where a number of pieces must divide the axis."""
    if isinstance(cuts, int) and (cuts < 1 or shape_of(input)[axis] % cuts):
        raise fail(name, f"{listed(input.shape)} does not split evenly into {cuts} along axis "
                   f"{axis}", "Use tensor_split for pieces of different sizes.")
    return tensor_split(input, cuts, axis)


@method
def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Pieces along axis 1, or 0 of vectors."""
    _axis_to_split("hsplit", input, 0)
    return split_evenly("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1)


@method
def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Pieces along axis 0 of tensors with at least 2 axes."""
    if input.ndim < 2:
        raise fail("vsplit", f"needs at least 2 axes, not {listed(input.shape)}")
    return split_evenly("vsplit", input, indices_or_sections, 0)


@method
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All places of an axis, one view each."""
    axis = _axis_to_split("unbind", input, dim)
    return tuple(select(input, axis, index) for index in range(shape_of(input)[axis]))


def _at_least(ndim: int, name: str) -> Any:
    def widen(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
            tensors = tuple(tensors[0])
        results = []
        for each in tensors:
            shape = shape_of(each)
            if len(shape) < ndim:
                missing = ndim - len(shape)
                ahead = missing if len(shape) < 2 and ndim < 3 else (1 if len(shape) < 2 else 0)
                if len(shape) == 0:
                    ahead = missing
                each = reshape(each, (1,) * ahead + shape + (1,) * (missing - ahead))
            results.append(each)
        return results[0] if len(results) == 1 else tuple(results)
    widen.__name__ = widen.__qualname__ = name
    widen.__doc__ = f"Tensors with axes of size 1 added up to {ndim}."
    return operation(widen)


atleast_1d, atleast_2d, atleast_3d = (_at_least(n, f"atleast_{n}d") for n in (1, 2, 3))


def _transposed(name: str) -> property:
    def get(self: Tensor) -> Tensor:
        if name in ("mT", "mH") or self.ndim == 2:
            if self.ndim < 2:
                raise fail(name, f"needs at least 2 axes, not {listed(self.shape)}")
            turned = transpose(self, -2, -1)
        elif name == "H" and self.ndim:
            raise fail(name, f"is of matrices, not of {listed(self.shape)}", "Use .mH for batches.")
        else:
            turned = permute(self, tuple(range(self.ndim))[::-1])
        if name in ("H", "mH") and self.dtype.is_complex:
            from lazygrad.functional.complex_numbers import conj
            return conj(turned)
        return turned
    return property(operation(get))


for _name in ("T", "mT", "H", "mH"):
    setattr(Tensor, _name, _transposed(_name))
for _name, _alias in (("swapaxes", transpose), ("swapdims", transpose), ("moveaxis", movedim)):
    setattr(Tensor, _name, _alias)


def shape_changing(name: str, function: Any) -> Any:
    """unsqueeze_ and its kin: the handle itself becomes the view."""
    def apply(self: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        result = function(self, *arguments, **keywords)
        self._view = result._view
        return self
    apply.__name__ = name
    return operation(apply)


_RESHAPING: dict[str, Any] = {
    "unsqueeze_": unsqueeze, "squeeze_": squeeze, "t_": t, "transpose_": transpose,
    "swapaxes_": transpose, "swapdims_": transpose}
for _name, _function in _RESHAPING.items():
    setattr(Tensor, _name, shape_changing(_name, _function))
