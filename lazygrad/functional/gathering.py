"""Reading and writing at positions held in tensors: gather, scatter, index_select, embedding."""

from __future__ import annotations

from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.context import fail, method, operation
from lazygrad._core.tensor import Tensor, array_of, node_of, shape_of, wrap, write
from lazygrad.functional._operands import as_node, axis_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["gather", "scatter", "scatter_add", "scatter_reduce", "index_select", "index_add",
           "index_copy", "index_fill", "take", "take_along_dim", "nonzero", "argwhere",
           "masked_select", "embedding", "one_hot", "bincount", "isin"]


def index_node(name: str, index: Any) -> Node:
    """An index tensor as int64."""
    node = as_node(name, index)
    if not node.dtype.is_integer:
        raise fail(name, f"indices are integers, not {node.dtype.name}", "Convert with .long().",
                   IndexError)
    return graph.cast(node, dtypes.int64)


def _all_axes(index: Node, axis: int) -> list[Node]:
    """Indices for every axis: the one given for `axis`, counting for the others."""
    return [index if k == axis else graph.iota(k, index.shape) for k in range(index.ndim)]


def gather_along(node: Node, axis: int, index: Node) -> Node:
    """node[..., index, ...] with the other axes counted along; shapes as of torch.gather."""
    return graph.make("gather", node, *_all_axes(index, axis), attrs=(tuple(range(node.ndim)),))


def _check_along(name: str, node: Node, index: Node, axis: int) -> None:
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
    if not node.ndim:
        node, places = graph.reshape(node, (1,)), graph.reshape(places, (places.size,))
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
    node, places = node_of(input), index_node("take", index)
    return wrap(graph.make("gather", graph.reshape(node, (node.size,)), places, attrs=((0,),)))


def _scattered(name: str, input: Tensor, dim: int, index: Tensor, src: Any, mode: str) -> Node:
    node, places = node_of(input), index_node(name, index)
    axis = axis_of(name, dim, node.ndim)
    _check_along(name, node, places, axis)
    if isinstance(src, Tensor):
        updates = node_of(src)
        if updates.dtype is not node.dtype:
            raise fail(name, f"input is {node.dtype.name}, src {updates.dtype.name}",
                       "Convert one with .to(...).")
        if updates.ndim != places.ndim or any(
                i > s for i, s in zip(places.shape, updates.shape, strict=True)):
            raise fail(name, f"src {listed(updates.shape)} is smaller than the index "
                       f"{listed(places.shape)}")
        if updates.shape != places.shape:
            updates = graph.make("slice", updates, attrs=(
                (0,) * updates.ndim, places.shape, (1,) * updates.ndim))
    else:
        updates = graph.const(src, node.dtype, places.shape)
    return graph.make("scatter", node, updates, *_all_axes(places, axis),
                      attrs=(tuple(range(node.ndim)), mode))


_REDUCTIONS = {None: "set", "add": "add", "multiply": "mul", "sum": "add", "prod": "mul",
               "amax": "max", "amin": "min"}


@method
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
            reduce: str | None = None) -> Tensor:
    """A copy with `src` (a tensor or a number) written at the index along one axis."""
    given = value if src is None else src
    return wrap(_scattered("scatter", input, dim, index, given, _REDUCTIONS[reduce]))


@method
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with `src` added at the index along one axis."""
    return wrap(_scattered("scatter_add", input, dim, index, src, "add"))


@method
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """A copy with `src` combined in: reduce is "sum", "prod", "mean", "amax" or "amin"."""
    if not include_self or reduce == "mean":
        start: Any = {"sum": 0, "mean": 0, "prod": 1}.get(reduce)
        if not include_self:
            if start is None:
                low, high = input.dtype.limits()
                start = int(low) if input.dtype.is_integer and reduce == "amax" else \
                    int(high) if input.dtype.is_integer else (low if reduce == "amax" else high)
            touched = _scattered(
                "scatter_reduce",
                wrap(graph.const(0, dtypes.int64, shape_of(input))),
                dim,
                index,
                1,
                "set",
            )
            base = wrap(graph.where(graph.cast(touched, dtypes.bool_), start, node_of(input)))
        else:
            base = input
        if reduce == "mean":
            total = _scattered("scatter_reduce", base, dim, index, src, "add")
            counts = wrap(graph.const(1 if include_self else 0, input.dtype, shape_of(input)))
            count = _scattered("scatter_reduce", counts, dim, index, 1, "add")
            count = graph.binary("maximum", count, 1)
            return wrap(graph.div(total, count)) if input.dtype.is_floating else \
                wrap(graph.binary("idiv", total, count))
        input = base
    return wrap(_scattered("scatter_reduce", input, dim, index, src, _REDUCTIONS[reduce]))


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
    if not node.ndim:
        return wrap(node)
    return wrap(gather_rows(node, axis, graph.reshape(places, (places.size,))))


def _rows_written(
    name: str, input: Tensor, dim: int, index: Tensor, source: Node, mode: str
) -> Node:
    node, places = node_of(input), index_node(name, index)
    axis = axis_of(name, dim, node.ndim)
    places = graph.reshape(places, (places.size,))
    source = graph.broadcast(source, (*node.shape[:axis], places.size, *node.shape[axis + 1:]))
    front = graph.permute(source, (axis, *(k for k in range(node.ndim) if k != axis)))
    return graph.make("scatter", node, front, places, attrs=((axis,), mode))


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
    fill = graph.cast(node_of(value), input.dtype) if isinstance(value, Tensor) \
        else graph.const(value, input.dtype)
    return wrap(_rows_written("index_fill", input, dim, index, fill, "set"))


@method
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy with the elements of `source`, in order, where the mask holds (looks at the mask)."""
    places = numpy.flatnonzero(numpy.broadcast_to(array_of(mask), input.shape))
    index = wrap(_known(places))
    flat = graph.reshape(node_of(source), (source.numel(),))
    rows = graph.slice_axis(flat, 0, 0, len(places))
    base = wrap(graph.reshape(node_of(input), (input.numel(),)))
    return wrap(graph.reshape(_rows_written("masked_scatter", base, 0, index, rows, "set"),
                              shape_of(input)))


def _known(array: numpy.ndarray) -> Node:
    from lazygrad._core.cell import leaf_of_array
    return leaf_of_array(numpy.ascontiguousarray(array, dtype=numpy.int64))


@method
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Positions of the values that are not zero; looks at the values."""
    places = numpy.nonzero(numpy.atleast_1d(array_of(input)))
    if as_tuple:
        return tuple(wrap(_known(each)) for each in places)
    if not input.ndim:
        return wrap(_known(numpy.zeros((len(places[0]), 0), numpy.int64)))
    return wrap(_known(numpy.stack(places, axis=1)))


@method
def argwhere(input: Tensor) -> Tensor:
    return nonzero(input)


@method
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask holds, in one axis; looks at the mask."""
    shape = graph.broadcast_shape("masked_select", shape_of(input), shape_of(mask))
    places = numpy.flatnonzero(numpy.broadcast_to(array_of(mask), shape))
    node = graph.broadcast(node_of(input), shape)
    return wrap(
        graph.make("gather", graph.reshape(node, (node.size,)), _known(places), attrs=((0,),))
    )


@operation
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None,
              max_norm: float | None = None, norm_type: float = 2.0,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Rows of `weight` by number; the row padding_idx gets no gradient."""
    if max_norm is not None or scale_grad_by_freq:
        raise fail("embedding", "max_norm and scale_grad_by_freq are not there yet",
                   kind=NotImplementedError)
    places, rows = index_node("embedding", input), node_of(weight)
    result = graph.make("gather", rows, places, attrs=((0,),))
    if padding_idx is not None and result.differentiable:
        padding = graph.binary("eq", places, padding_idx % rows.shape[0])
        padding = graph.reshape(padding, (*places.shape, 1))
        result = graph.where(padding, graph.stop_gradient(result), result)
    return wrap(result)


@operation
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the class, 0 elsewhere, along a new last axis; -1 classes looks at the values."""
    places = index_node("one_hot", tensor)
    if num_classes == -1:
        if not tensor.numel():
            raise fail(
                "one_hot", "the number of classes of no values is unknown", "Give num_classes."
            )
        num_classes = int(array_of(tensor).max()) + 1
    nothing = wrap(graph.const(0, dtypes.int64, (*places.shape, num_classes)))
    return scatter(nothing, -1, wrap(graph.reshape(places, (*places.shape, 1))), 1)


@method
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number occurs; looks at the values for the length."""
    places = index_node("bincount", input)
    size = max(int(array_of(input).max()) + 1 if input.numel() else 0, minlength)
    ones = graph.const(1, dtypes.int64, places.shape) if weights is None else node_of(weights)
    return wrap(graph.make("scatter", graph.const(0, ones.dtype, (size,)), ones, places,
                           attrs=((0,), "add")))


@operation
def isin(elements: Tensor, test_elements: Tensor) -> Tensor:
    """Whether each element is among the others."""
    node, others = as_node("isin", elements), as_node("isin", test_elements)
    others = graph.reshape(others, (1,) * node.ndim + (others.size,))
    a, b = graph.together("isin", graph.unsqueeze(node, node.ndim), graph.cast(others, node.dtype))
    return wrap(graph.reduce("max", graph.make("eq", a, b), (node.ndim,)))


def _writer(name: str, function: Any) -> None:
    def apply(self: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        return write(self, name, node_of(function(self, *arguments, **keywords)))
    apply.__name__ = apply.__qualname__ = name
    method(apply)


for _function in (scatter, scatter_add, scatter_reduce, index_add, index_copy, index_fill,
                  masked_scatter):
    _writer(_function.__name__ + "_", _function)
