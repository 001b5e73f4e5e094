"""Tensors put together, repeated, turned, cut to triangles."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as whole_number
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.cell import is_freed, leaf_of_array
from lazygrad._core.context import fail, method, now, operation
from lazygrad._core.folding import folded
from lazygrad._core.tensor import Tensor, array_of, node_of, shape_of, wrap
from lazygrad._core.types import promote_types
from lazygrad.functional._operands import as_node, axis_of, sizes_of
from lazygrad.functional.elementwise import INPLACE
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack",
           "tile", "flip", "fliplr", "flipud", "roll", "rot90", "tril", "triu", "tril_indices",
           "triu_indices", "meshgrid", "repeat_interleave", "broadcast_tensors", "block_diag",
           "diag", "diag_embed", "trace"]


def _common(name: str, tensors: Sequence[Tensor]) -> list[Node]:
    """The nodes in their common dtype."""
    nodes = [as_node(name, each) for each in tensors]
    if not nodes:
        raise fail(name, "needs at least one tensor")
    dtype = nodes[0].dtype
    for node in nodes[1:]:
        dtype = promote_types(dtype, node.dtype)
    return [graph.cast(node, dtype) for node in nodes]


FEWEST_ARRAYS, LARGEST_JOINED = 4, 1 << 20


def _arrays(tensors: Any) -> list[numpy.ndarray] | None:
    """The values of small tensors of one dtype and shape that are all there, to be joined at once.

    As part of a program each would be an input of its own, and which of them are the same tensor
    would be part of the program: a batch drawn from a memory of transitions, where one's next state
    is another's state, would be compiled anew each time.
    """
    if tensors.__class__ not in (list, tuple) or len(tensors) < FEWEST_ARRAYS \
            or now.recording is not None or now.traced is not None:
        return None
    first = tensors[0]
    for each in tensors:
        if each.__class__ is not Tensor or each.requires_grad or each.dtype is not first.dtype:
            return None
        value = each._cell.node
        if value.payload is None or value.payload.device is not None or is_freed(value) \
                or shape_of(each) != shape_of(first):
            return None
    if len(tensors) * first.numel() * first.dtype.itemsize > LARGEST_JOINED or not first.numel():
        return None
    return [array_of(each) for each in tensors]


@operation
def cat(
    tensors: Sequence[Tensor], dim: int = 0, *, axis: int | None = None, out: Any = None
) -> Tensor:
    """One after the other along an axis."""
    axis = dim if axis is None else axis
    there = _arrays(tensors)
    if there is not None and axis.__class__ is int and -there[0].ndim <= axis < there[0].ndim:
        return wrap(leaf_of_array(numpy.concatenate(there, axis)))
    return _cat(tensors, axis)


@folded
def _cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    nodes = _common("cat", tensors)
    # PyTorch lets empty vectors join anything.
    filled = [node for node in nodes if node.shape != (0,)] or nodes[:1]
    if not filled[0].shape:
        raise fail("cat", "0-d tensors have no axis to join along", "Use stack.")
    where = axis_of("cat", dim, filled[0].ndim)
    for node in filled[1:]:
        if node.ndim != filled[0].ndim or any(
                a != b for k, (a, b) in enumerate(zip(node.shape, filled[0].shape, strict=True))
                if k != where):
            raise fail("cat", f"{listed(filled[0].shape)} and {listed(node.shape)} differ off axis "
                       f"{where}", "All other sizes must be equal.")
    return wrap(graph.concat(filled, where))


concat = concatenate = cat


@operation
def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Any = None) -> Tensor:
    """Side by side along a new axis."""
    there = _arrays(tensors)
    if there is not None and dim.__class__ is int and -there[0].ndim <= dim + 1 \
            and dim <= there[0].ndim:
        return wrap(leaf_of_array(numpy.stack(there, dim)))
    return _stack(tensors, dim)


@folded
def _stack(tensors: Sequence[Tensor], dim: int) -> Tensor:
    nodes = _common("stack", tensors)
    axis = axis_of("stack", dim, nodes[0].ndim + 1)
    for node in nodes:
        if node.shape != nodes[0].shape:
            raise fail("stack", f"{listed(nodes[0].shape)} and {listed(node.shape)} differ",
                       "All shapes must be equal; cat joins along an axis that is there.")
    return wrap(graph.concat([graph.unsqueeze(node, axis) for node in nodes], axis))


@operation
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Side by side: along axis 1, or 0 of vectors."""
    from lazygrad.functional.views import atleast_1d
    tensors = [atleast_1d(each) for each in tensors]
    return cat(tensors, 0 if tensors[0].ndim == 1 else 1)


@operation
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """One above the other: along axis 0, vectors as rows."""
    from lazygrad.functional.views import atleast_2d
    return cat([atleast_2d(each) for each in tensors], 0)


@operation
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along a third axis."""
    from lazygrad.functional.views import atleast_3d
    return cat([atleast_3d(each) for each in tensors], 2)


@operation
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors as columns."""
    return cat([each.reshape(-1, 1) if each.ndim < 2 else each for each in tensors], 1)


def tile_node(node: Node, counts: Sequence[int]) -> Node:
    """The node repeated so many times along its axes; more counts than axes add leading ones."""
    node = graph.reshape(node, (1,) * (len(counts) - node.ndim) + node.shape)
    apart: list[int] = []
    wide: list[int] = []
    for size, count in zip(node.shape, counts, strict=True):
        apart += [1, size]
        wide += [count, size]
    node = graph.broadcast(graph.reshape(node, tuple(apart)), tuple(wide))
    return graph.reshape(node, tuple(a * b for a, b in zip(wide[::2], wide[1::2], strict=True)))


@method
def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """Copies side by side along each axis."""
    counts = sizes_of("repeat", repeats)
    if len(counts) < input.ndim:
        raise fail(
            "repeat",
            f"{len(counts)} counts for the {input.ndim} axes of {listed(input.shape)}",
            "Give one count for each axis (tile fills up).",
        )
    return wrap(tile_node(node_of(input), counts))


@method
def tile(input: Tensor, *dims: Any) -> Tensor:
    """Like repeat; missing counts are 1."""
    if not dims:
        raise fail("tile", "needs dims", "Say how often each axis is repeated.", TypeError)
    counts = sizes_of("tile", dims)
    return wrap(tile_node(node_of(input), (1,) * (input.ndim - len(counts)) + counts))


@method
def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *,
                      output_size: int | None = None) -> Tensor:
    """Every element (or row along dim) repeated in place, as often as `repeats` says: a number, or
    a tensor with one for each, which is looked at.  Of one tensor: the numbers of its elements,
    each so often.
    """
    if repeats is None:
        if input.ndim != 1:
            raise fail("repeat_interleave", f"repeats are a vector, not {listed(input.shape)}")
        return _repeated_rows(None, 0, input)
    node = node_of(input)
    if dim is None:
        node, dim = graph.reshape(node, (node.size,)), 0
    axis = axis_of("repeat_interleave", dim, node.ndim)
    if isinstance(repeats, (list, tuple)):
        from lazygrad.functional.creation import tensor
        repeats = tensor(repeats)
    if isinstance(repeats, Tensor) and repeats.numel() != 1:
        if repeats.ndim != 1 or repeats.numel() != node.shape[axis]:
            raise fail("repeat_interleave", f"repeats {listed(repeats.shape)} for axis {axis} of "
                       f"{listed(node.shape)}", "Give a number, or a vector with one for each.")
        return _repeated_rows(node, axis, repeats)
    count = whole_number(repeats)
    if count < 0:
        raise fail("repeat_interleave", f"{count} repeats", "There must be at least 0.")
    shape = node.shape or (1,)
    node = graph.reshape(node, shape)
    node = graph.broadcast(graph.unsqueeze(node, axis + 1),
                           (*shape[:axis + 1], count, *shape[axis + 1:]))
    return wrap(graph.reshape(node, (*shape[:axis], shape[axis] * count, *shape[axis + 1:])))


def _repeated_rows(node: Node | None, axis: int, repeats: Tensor) -> Tensor:
    """Rows repeated by a vector of counts (their numbers, for no node)."""
    import numpy

    from lazygrad.functional.creation import from_numpy
    from lazygrad.functional.gathering import index_select
    if not repeats.dtype.is_integer:
        raise fail("repeat_interleave", f"repeats are integers, not {repeats.dtype.name}")
    counts = array_of(repeats)
    if counts.size and counts.min() < 0:
        raise fail("repeat_interleave", f"{counts.min()} repeats", "There must be at least 0.")
    graph.const(0, repeats.dtype, (sum(counts.tolist()),))  # refuses what no memory holds
    index = from_numpy(numpy.repeat(numpy.arange(counts.size), counts))
    return index if node is None else index_select(wrap(node), axis, index)


@method
def flip(input: Tensor, *dims: Any) -> Tensor:
    """Axes reversed."""
    if not dims:
        raise fail("flip", "needs dims", "Say x.flip(0), or x.flip(tuple(range(x.ndim))) for all.",
                   TypeError)
    node = node_of(input)
    axes = tuple(axis_of("flip", dim, node.ndim) for dim in sizes_of("flip", dims))
    if not node.ndim:
        return wrap(node)
    return wrap(graph.make("flip", node, attrs=(tuple(sorted(axes)),)) if axes else node)


@method
def fliplr(input: Tensor) -> Tensor:
    return flip(input, 1)


@method
def flipud(input: Tensor) -> Tensor:
    if not input.ndim:
        raise fail("flipud", "needs at least 1 axis, and the tensor has none")
    return flip(input, 0)


@method
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements moved along axes, those pushed off the end coming in at the start."""
    node = node_of(input)
    if dims is None or dims == ():
        flat = roll(wrap(graph.reshape(node, (node.size,))), shifts, 0)
        return wrap(graph.reshape(node_of(flat), node.shape))
    places = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if len(places) != len(axes):
        raise fail("roll", f"{len(places)} shifts for {len(axes)} dims", "Give one for each.")
    for shift, dim in zip(places, axes, strict=True):
        axis = axis_of("roll", dim, node.ndim)
        size = node.shape[axis]
        at = -shift % size if size else 0
        if at:
            node = graph.concat([graph.slice_axis(node, axis, at, size),
                                 graph.slice_axis(node, axis, 0, at)], axis)
    return wrap(node)


@method
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by quarter turns in the plane of two axes."""
    if len(dims) != 2:
        raise fail("rot90", f"turns in the plane of two axes, not of {tuple(dims)}")
    first, second = (axis_of("rot90", dim, input.ndim) for dim in dims)
    if first == second:
        raise fail("rot90", f"the axes of the plane are both {first}")
    for _ in range(k % 4):
        input = flip(input, second).transpose(first, second)
    return input


def triangle(rows_axis: int, shape: tuple[int, ...], diagonal: int, lower: bool) -> Node:
    """The mask of a triangle of the last two axes."""
    rows, columns = graph.iota(rows_axis, shape), graph.iota(rows_axis + 1, shape)
    rows = graph.add(rows, diagonal)
    return graph.make("le", columns, rows) if lower else graph.make("le", rows, columns)


def _triangular(name: str, input: Tensor, diagonal: int) -> Tensor:
    node = node_of(input)
    if node.ndim < 2:
        raise fail(name, f"needs at least 2 axes, not {listed(node.shape)}")
    (diagonal,) = sizes_of(name, (diagonal,))
    mask = triangle(0, node.shape[-2:], diagonal, name == "tril")
    return wrap(graph.where(mask, node, 0))


@method
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """What lies on and below a diagonal, the rest 0."""
    return _triangular("tril", input, diagonal)


@method
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """What lies on and above a diagonal, the rest 0."""
    return _triangular("triu", input, diagonal)


_MOST_INDICES = 1 << 30
"""Of a triangle: 16 GiB of row and column numbers, and as many seconds."""


def _triangle_indices(name: str, row: int, col: int, offset: int, dtype: Any,
                      device: Any) -> Tensor:
    import numpy

    from lazygrad._core.types import as_dtype
    from lazygrad._core.values import check_device
    from lazygrad.functional.creation import from_numpy
    check_device(device, name)
    row, col, offset = sizes_of(name, (row, col, offset))
    if row < 0 or col < 0:
        raise fail(name, f"{row} rows and {col} columns", "Sizes are at least 0.")
    if min(row, _MOST_INDICES) * min(col, _MOST_INDICES) > 2 * _MOST_INDICES:
        raise fail(name, f"{row} rows and {col} columns are too many places to list",
                   kind=MemoryError)
    choose = numpy.tril_indices if name == "tril_indices" else numpy.triu_indices
    target = numpy.int64 if dtype is None else as_dtype(dtype).numpy
    offset = max(min(offset, col + 1), -row - 1)
    return from_numpy(numpy.stack(choose(row, offset, col)).astype(target))


@operation
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None,
                 requires_grad: bool = False) -> Tensor:
    """Row and column numbers of a lower triangle."""
    made = _triangle_indices("tril_indices", row, col, offset, dtype, device)
    return made.requires_grad_() if requires_grad else made


@operation
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None,
                 requires_grad: bool = False) -> Tensor:
    """Row and column numbers of an upper triangle."""
    made = _triangle_indices("triu_indices", row, col, offset, dtype, device)
    return made.requires_grad_() if requires_grad else made


@operation
def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Vectors spread over a common grid."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if not tensors:
        raise fail("meshgrid", "needs at least one vector")
    if indexing == "xy" and len(tensors) > 1:
        first, second, *rest = meshgrid(tensors[1], tensors[0], *tensors[2:])
        return second, first, *rest
    for each in tensors:
        if each.ndim > 1:
            raise fail("meshgrid", f"takes vectors, not {listed(each.shape)}")
    if indexing not in ("ij", "xy"):
        raise fail("meshgrid", f"indexing is {indexing!r}", "It is 'ij' or 'xy'.")
    if len({each.dtype for each in tensors}) > 1:
        raise fail("meshgrid", "dtypes differ: " + ", ".join(each.dtype.name for each in tensors),
                   "Convert with .to(...).")
    sizes = tuple(each.numel() for each in tensors)
    return tuple(each.reshape([-1 if k == axis else 1 for k in range(len(sizes))]).expand(sizes)
                 for axis, each in enumerate(tensors))


@operation
def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All in their common shape."""
    shape = graph.broadcast_shape("broadcast_tensors", *(tuple(each.shape) for each in tensors))
    return tuple(each.expand(shape) for each in tensors)


@operation
def block_diag(*tensors: Tensor) -> Tensor:
    """Matrices along a diagonal, zeros elsewhere; vectors count as rows, 0-d tensors as 1 x 1."""
    if not tensors:
        from lazygrad.functional.creation import zeros
        return zeros(1, 0)
    nodes = []
    for node in _common("block_diag", tensors):
        if node.ndim > 2:
            raise fail("block_diag", f"takes matrices, not {listed(node.shape)}")
        nodes.append(graph.reshape(node, (1,) * (2 - node.ndim) + node.shape))
    width = sum(node.shape[1] for node in nodes)
    rows, left = [], 0
    for node in nodes:
        rows.append(graph.pad(node, (0, left), (0, width - left - node.shape[1])))
        left += node.shape[1]
    return wrap(graph.concat(rows, 0))


@method
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The last axis put on a diagonal of two new last axes."""
    node = node_of(input)
    size = node.shape[-1] + abs(offset)
    if offset:
        low = [0] * node.ndim
        low[-1] = abs(offset)
        node = graph.pad(node, low, [0] * node.ndim) if offset > 0 else \
            graph.pad(node, [0] * node.ndim, low)
    wide = graph.broadcast(graph.unsqueeze(node, node.ndim - 1), (*node.shape[:-1], size, size))
    square = (size, size)
    same = graph.make("eq", graph.add(graph.iota(0, square), offset), graph.iota(1, square))
    result = wrap(graph.where(same, wide, 0))
    return result if (dim1, dim2) == (-2, -1) else result.movedim((-2, -1), (dim1, dim2))


@method
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or a matrix with the vector as its diagonal."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise fail("diag", f"takes a vector or a matrix, not {listed(input.shape)}",
                   "Use diagonal or diag_embed.")
    return wrap(node_of(input.diagonal(diagonal)))


@method
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal."""
    if input.ndim != 2:
        raise fail("trace", f"takes a matrix, not {listed(input.shape)}",
                   "Use x.diagonal(dim1=-2, dim2=-1).sum(-1) for batches.")
    return input.diagonal().sum()


INPLACE += ["tril", "triu"]
