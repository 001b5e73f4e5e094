"""Reading and writing at positions held in tensors: gather, scatter, index_select, embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.context import TensorTypeError, fail, method, operation
from lazygrad._core.tensor import Tensor, array_of, node_of, shape_of, wrap, write
from lazygrad.functional._operands import as_node, axis_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["gather", "scatter", "scatter_add", "scatter_reduce", "index_select", "index_add",
           "index_copy", "index_fill", "index_reduce", "put", "take", "take_along_dim",
           "one_hot"]


def index_node(name: str, index: Any, from_the_end: bool = False) -> Node:
    """An index tensor as int64.

    from_the_end: whether negative indices count from the end.  Otherwise they are out of range:
    without their sign bit they are larger than any axis, and the error puts it back.
    """
    node = as_node(name, index)
    if not node.dtype.is_integer:
        raise fail(name, f"indices are integers, not {node.dtype.name}", "Convert with .long().",
                   IndexError)
    places = graph.cast(node, dtypes.int64)
    if from_the_end or node.dtype.kind == "unsigned":
        return places
    return refused_below(places)


def refused_below(places: Node) -> Node:
    """Indices of which the negative ones are out of range, and are named in the error."""
    # Far below zero the cleared number would be a small one again, hence the floor.
    return graph.binary("and", graph.binary("maximum", places, -(2**61)), 2**63 - 1)


def _all_axes(index: Node, axis: int) -> list[Node]:
    """Indices for every axis: the one given for `axis`, counting for the others."""
    return [index if k == axis else graph.iota(k, index.shape) for k in range(index.ndim)]


def gather_along(node: Node, axis: int, index: Node) -> Node:
    """node[..., index, ...] with the other axes counted along; shapes as of torch.gather."""
    return graph.make("gather", node, *_all_axes(index, axis), attrs=(tuple(range(node.ndim)),))


def _check_along(name: str, node: Node, index: Node, axis: int) -> None:
    if 0 in index.shape:
        return
    if node.ndim != index.ndim or any(
        i > n for k, (i, n) in enumerate(zip(index.shape, node.shape, strict=True)) if k != axis
    ):
        raise fail(
            name,
            f"the index {listed(index.shape)} does not fit {listed(node.shape)} along axis {axis}",
            "It needs as many axes, none longer except that one.",
        )


@method
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """input[i][index[i][j]]… along one axis; the result has the index's shape."""
    node, places = node_of(input), index_node("gather", index)
    axis = axis_of("gather", dim, node.ndim)
    if not places.size:
        return wrap(graph.const(0, node.dtype, places.shape))
    if not node.ndim or not places.ndim:
        if max(node.ndim, places.ndim) > 1:
            _check_along("gather", node, places, axis)
        node, places = graph.reshape(node, (node.size,)), graph.reshape(places, (places.size,))
        return wrap(graph.reshape(gather_along(node, 0, places), shape_of(index)))
    _check_along("gather", node, places, axis)
    return wrap(gather_along(node, axis, places))


@method
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """gather with the other axes broadcast."""
    node, places = node_of(input), index_node("take_along_dim", indices)
    if dim is None:
        return wrap(gather_along(graph.reshape(node, (node.size,)), 0,
                                 graph.reshape(places, (places.size,))))
    axis = axis_of("take_along_dim", dim, node.ndim)
    if node.ndim != places.ndim:
        raise fail("take_along_dim", f"the index {listed(places.shape)} and the input "
                   f"{listed(node.shape)} have different numbers of axes")
    others = graph.broadcast_shape(
        "take_along_dim",
        (*node.shape[:axis], 1, *node.shape[axis + 1 :]),
        (*places.shape[:axis], 1, *places.shape[axis + 1 :]),
    )
    node = graph.broadcast(node, (*others[:axis], node.shape[axis], *others[axis + 1:]))
    places = graph.broadcast(places, (*others[:axis], places.shape[axis], *others[axis + 1:]))
    return wrap(gather_along(node, axis, places))


@method
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements by their row-major number."""
    node, places = node_of(input), index_node("take", index, True)
    return wrap(graph.make("gather", graph.reshape(node, (node.size,)), places, attrs=((0,),)))


def _scattered(name: str, input: Tensor, dim: int, index: Tensor, src: Any, mode: str) -> Node:
    node, places = node_of(input), index_node(name, index)
    axis = axis_of(name, dim, node.ndim)
    if node.dtype.is_complex and mode not in ("set", "add"):
        raise fail(name, f"complex numbers are written or added, not combined by {mode}",
                   kind=TensorTypeError)
    if not places.size:
        return node
    flat = not (node.ndim and places.ndim)
    if flat and max(node.ndim, places.ndim) <= 1:  # a 0-d tensor counts as one of one element
        shape, node = node.shape, graph.reshape(node, (node.size,))
        places = graph.reshape(places, (places.size,))
    else:
        shape = node.shape
    _check_along(name, node, places, axis)
    if isinstance(src, Tensor):
        updates = node_of(src)
        if updates.dtype is not node.dtype:
            raise fail(name, f"input is {node.dtype.name}, src {updates.dtype.name}",
                       "Convert one with .to(...).")
        if flat and updates.ndim <= 1:
            updates = graph.reshape(updates, (updates.size,))
        if updates.ndim != places.ndim or any(
                i > s for i, s in zip(places.shape, updates.shape, strict=True)):
            raise fail(name, f"src {listed(updates.shape)} is smaller than the index "
                       f"{listed(places.shape)}", "It needs as many axes, none shorter.")
        if updates.shape != places.shape:
            updates = graph.make("slice", updates, attrs=(
                (0,) * updates.ndim, places.shape, (1,) * updates.ndim))
    else:
        if not isinstance(src, (int, float, complex, numpy.generic)):
            raise fail(name, f"src is a tensor or a number, not {type(src).__name__}",
                       kind=TypeError)
        updates = graph.const(src, node.dtype, places.shape)
    result = graph.make("scatter", node, updates, *_all_axes(places, axis),
                        attrs=(tuple(range(node.ndim)), mode))
    return graph.reshape(result, shape)


def _mode(name: str, reduce: str | None, allowed: tuple[str | None, ...]) -> str:
    if reduce not in allowed:
        raise fail(name, f"reduce is {reduce!r}",
                   f"It is one of {', '.join(str(each) for each in allowed if each)}.")
    return _REDUCTIONS[reduce]


_REDUCTIONS = {None: "set", "add": "add", "multiply": "mul", "sum": "add", "prod": "mul",
               "amax": "max", "amin": "min", "mean": "add"}
_COMBINING = ("sum", "prod", "mean", "amax", "amin")


@method
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
            reduce: str | None = None) -> Tensor:
    """A copy with `src` (a tensor or a number) written at the index along one axis."""
    given = value if src is None else src
    mode = _mode("scatter", reduce, (None, "add", "multiply"))
    return wrap(_scattered("scatter", input, dim, index, given, mode))


@method
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with `src` added at the index along one axis."""
    return wrap(_scattered("scatter_add", input, dim, index, src, "add"))


def _neutral(reduce: str, dtype: DType) -> Any:
    """What an element starts from where its own value does not count."""
    if reduce in ("amax", "amin"):
        low, high = (False, True) if dtype.kind == "bool" else dtype.limits()
        start = low if reduce == "amax" else high
        return int(start) if dtype.is_integer else start
    return 1 if reduce == "prod" else 0


def _reduced(input: Tensor, reduce: str, include_self: bool,
             scatter_into: Callable[[Tensor, Any, str], Node]) -> Tensor:
    """`scatter_into(base, updates, mode)` for each way to combine; None stands for the updates
    given, a number for itself.
    """
    dtype, shape = input.dtype, shape_of(input)
    base = input
    if not include_self:
        touched = scatter_into(wrap(graph.const(0, dtypes.int64, shape)), 1, "set")
        base = wrap(graph.where(graph.cast(touched, dtypes.bool_), _neutral(reduce, dtype),
                                node_of(input)))
    mode = _REDUCTIONS["sum" if reduce == "mean" else reduce]
    total = scatter_into(base, None, mode)
    if reduce != "mean":
        return wrap(total)
    counting = dtypes.int64 if dtype.is_integer else dtype
    counts = wrap(graph.const(int(include_self), counting, shape))
    count = graph.binary("maximum", scatter_into(counts, 1, "add"), 1)
    if not dtype.is_integer:
        return wrap(graph.div(total, count))
    # Integers are divided downwards, as PyTorch does here.
    from lazygrad.functional.elementwise import floor_divide  # type: ignore[attr-defined]
    return wrap(graph.cast(node_of(floor_divide(wrap(graph.cast(total, counting)), wrap(count))),
                           dtype))


@method
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """A copy with `src` combined in: reduce is "sum", "prod", "mean", "amax" or "amin"."""
    _mode("scatter_reduce", reduce, _COMBINING)

    def into(base: Tensor, updates: Any, mode: str) -> Node:
        return _scattered("scatter_reduce", base, dim, index,
                          src if updates is None else updates, mode)

    return _reduced(input, reduce, include_self, into)


def gather_rows(node: Node, axis: int, places: Node) -> Node:
    """node indexed on one axis, the index's axes in its place."""
    result = graph.make("gather", node, places, attrs=((axis,),))
    order = [*range(places.ndim, places.ndim + axis), *range(places.ndim),
             *range(places.ndim + axis, result.ndim)]
    return graph.permute(result, order)


@method
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Places of one axis, in the order of the index."""
    node, places = node_of(input), index_node("index_select", index)
    axis = axis_of("index_select", dim, node.ndim)
    if places.ndim > 1:
        raise fail("index_select", f"the index is a vector, not {listed(places.shape)}",
                   "Use x[index] for others.", IndexError)
    if not node.ndim:
        flat = gather_rows(graph.reshape(node, (1,)), 0, graph.reshape(places, (places.size,)))
        return wrap(graph.reshape(flat, ()) if places.size == 1 else flat)
    return wrap(gather_rows(node, axis, graph.reshape(places, (places.size,))))


def _rows_written(
    name: str, input: Tensor, dim: int, index: Tensor, source: Any, mode: str
) -> Node:
    """Rows of `source` (a node; a number stands for all of them) at places of one axis."""
    node, places = node_of(input), index_node(name, index, name == "index_fill")
    shape = node.shape
    axis = axis_of(name, dim, node.ndim)
    if places.ndim > 1:
        raise fail(name, f"the index is a vector, not {listed(places.shape)}", kind=IndexError)
    places = graph.reshape(places, (places.size,))
    if not shape:
        node = graph.reshape(node, (1,))
    expected = (*node.shape[:axis], places.size, *node.shape[axis + 1:])
    if not isinstance(source, Node):
        source = graph.const(source, node.dtype, expected)
    if source.dtype is not node.dtype:
        raise fail(name, f"input is {node.dtype.name}, source {source.dtype.name}",
                   "Convert one with .to(...).")
    if source.shape != expected and source.size == places.size and node.ndim == 1:
        source = graph.reshape(source, expected)
    if source.shape != expected:
        raise fail(name, f"source is {listed(source.shape)} and should be {listed(expected)}: "
                   "the input's shape with one row for each index", kind=IndexError)
    front = graph.permute(source, (axis, *(k for k in range(node.ndim) if k != axis)))
    result = graph.make("scatter", node, front, places, attrs=((axis,), mode))
    return graph.reshape(result, shape)


@method
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy with rows of `source` added at places of one axis."""
    rows = node_of(source)
    rows = rows if alpha == 1 else graph.mul(rows, alpha)
    return wrap(_rows_written("index_add", input, dim, index, rows, "add"))


@method
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with rows of `source` put at places of one axis."""
    return wrap(_rows_written("index_copy", input, dim, index, node_of(source), "set"))


@method
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with one value at places of one axis."""
    if not isinstance(value, Tensor):
        return wrap(_rows_written("index_fill", input, dim, index, value, "set"))
    if value.ndim:
        raise fail("index_fill", f"the value is one number, not {listed(value.shape)}")
    if value.dtype.is_complex and not input.dtype.is_complex:
        raise fail("index_fill", f"a complex number does not become {input.dtype.name}",
                   "Take .real first.")
    axis = axis_of("index_fill", dim, input.ndim)
    shape = shape_of(input) or (1,)
    rows = graph.broadcast(graph.cast(node_of(value), input.dtype),
                           (*shape[:axis], index.numel(), *shape[axis + 1:]))
    return wrap(_rows_written("index_fill", input, dim, index, rows, "set"))


@method
def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
                 include_self: bool = True) -> Tensor:
    """A copy with rows of `source` combined in: reduce is "prod", "mean", "amax" or "amin"."""
    _mode("index_reduce", reduce, _COMBINING[1:])
    rows = node_of(source)

    def into(base: Tensor, updates: Any, mode: str) -> Node:
        return _rows_written("index_reduce", base, dim, index,
                             rows if updates is None else updates, mode)

    return _reduced(input, reduce, include_self, into)


@method
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with the elements of `source` at row-major numbers; they add up with accumulate."""
    node, places, values = node_of(input), index_node("put", index, True), node_of(source)
    if values.size != places.size:
        raise fail("put", f"{values.size} values for {places.size} indices", kind=IndexError)
    if values.dtype is not node.dtype:
        raise fail("put", f"input is {node.dtype.name}, source {values.dtype.name}",
                   "Convert one with .to(...).")
    count = places.size
    result = graph.make("scatter", graph.reshape(node, (node.size,)),
                        graph.reshape(values, (count,)), graph.reshape(places, (count,)),
                        attrs=((0,), "add" if accumulate else "set"))
    return wrap(graph.reshape(result, node.shape))


@operation
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the class, 0 elsewhere, along a new last axis; -1 classes looks at the values.

    A class that is negative or not below num_classes is an IndexError once values are computed.
    """
    if tensor.dtype is not dtypes.int64:
        raise fail("one_hot", f"classes are int64, not {tensor.dtype.name}",
                   "Convert with .long().")
    places = index_node("one_hot", tensor)
    if num_classes == -1:
        if not tensor.numel():
            raise fail(
                "one_hot", "the number of classes of no values is unknown", "Give num_classes."
            )
        lowest, highest = int(array_of(tensor).min()), int(array_of(tensor).max())
        if lowest < 0:
            raise fail("one_hot", f"class {lowest} is negative", "Classes count from 0.")
        num_classes = highest + 1
    if num_classes < 1 and (tensor.numel() or num_classes < 0):
        raise fail("one_hot", f"num_classes is {num_classes}", "It must be positive, or -1.")
    nothing = graph.const(0, dtypes.int64, (*places.shape, num_classes))
    index = graph.reshape(places, (*places.shape, 1))
    return wrap(graph.make("scatter", nothing, graph.const(1, dtypes.int64, index.shape),
                           *_all_axes(index, places.ndim),
                           attrs=(tuple(range(index.ndim)), "set")))


def _writer(name: str, function: Any) -> None:
    def apply(self: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        return write(self, name, node_of(function(self, *arguments, **keywords)))
    apply.__name__ = apply.__qualname__ = name
    method(apply)


for _function in (scatter, scatter_add, scatter_reduce, index_add, index_copy, index_fill,
                  index_reduce, put):
    _writer(_function.__name__ + "_", _function)
