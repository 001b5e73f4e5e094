"""`vmap`: a function of one item applied to many at once, without a loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, now, operation
from lazygrad._core.nests import parts_of, replace, tensors_in
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad._core.traced import trace
from lazygrad_compiler.ir.inference_attention import drawn
from lazygrad_compiler.ir.node import IRError, Node, topological

RANDOMNESS = ("error", "different", "same")


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """The function applied to every item along an axis of its arguments, batched.

    in_dims: the axis of each argument (an int, None for the same value for all items, or a nest of
    those that fits the arguments).  out_dims: the axis of each result that counts items.
    randomness: whether random numbers inside are refused ("error"), the same for all items, or
    different.  chunk_size: so many items at a time, to bound memory.

    Raises TensorError where sizes differ, where nothing is mapped, and where the function looks at
    values of an item.
    """
    if randomness not in RANDOMNESS:
        raise ValueError(f"[vmap] randomness is one of {', '.join(RANDOMNESS)}, not {randomness!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"[vmap] chunk_size {chunk_size} is no positive number of items")

    @functools.wraps(func)
    def mapped(*arguments: Any, **keywords: Any) -> Any:
        return _mapped(func, arguments, keywords, in_dims, out_dims, randomness, chunk_size)

    return mapped


def _mapped(
    func: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    in_dims: Any,
    out_dims: Any,
    randomness: str,
    chunk_size: int | None,
) -> Any:
    axes = _axes_of(arguments, in_dims)
    mapped = [(tensor, _axis(tensor, axis)) for tensor, axis in axes if axis is not None]
    mapped += [(tensor, _axis(tensor, 0)) for tensor in tensors_in(keywords)]
    if not mapped:
        raise fail("vmap", "nothing is mapped: in_dims gives no tensor an axis", kind=ValueError)
    sizes = {tensor.shape[axis] for tensor, axis in mapped}
    if len(sizes) > 1:
        raise fail("vmap", "the mapped axes have different sizes: "
                   + ", ".join(f"{tensor.shape[axis]} (axis {axis} of {tuple(tensor.shape)})"
                               for tensor, axis in mapped), kind=ValueError)
    size = sizes.pop()
    if chunk_size is not None and chunk_size < size:
        return _in_chunks(func, arguments, keywords, in_dims, out_dims, randomness, chunk_size,
                          size)
    return _batched(func, arguments, keywords, axes, out_dims, randomness, size)


def _axes_of(arguments: Any, dims: Any) -> list[tuple[Tensor, int | None]]:
    """Each tensor of the arguments with its axis."""
    if isinstance(arguments, Tensor):
        if dims is not None and not isinstance(dims, int):
            raise fail("vmap", f"in_dims {dims!r} does not fit a tensor", kind=ValueError)
        return [(arguments, dims)]
    items = parts_of(arguments)
    if items is None:
        if dims is not None and not (isinstance(dims, int) and dims == 0):
            raise fail("vmap", f"in_dims {dims!r} asks to map a {type(arguments).__name__}, which "
                       "is no tensor", "Give None for it.", ValueError)
        return []
    if dims is None or isinstance(dims, int):
        nested: list[Any] = [dims] * len(items)
    else:
        given = parts_of(dims)
        if given is None or len(given) != len(items):
            raise fail("vmap", f"in_dims {dims!r} does not fit {len(items)} arguments",
                       "Give an axis (or None) for each.", ValueError)
        nested = given
    return [pair for item, axis in zip(items, nested, strict=True) for pair in _axes_of(item, axis)]


def _axis(tensor: Tensor, axis: int) -> int:
    if not -tensor.ndim <= axis < tensor.ndim:
        raise fail("vmap", f"axis {axis} does not exist in {tuple(tensor.shape)}", kind=ValueError)
    return axis % tensor.ndim


def _front(node: Node, axis: int) -> Node:
    return graph.permute(node, [axis, *(k for k in range(node.ndim) if k != axis)])


@operation
def _batched(
    func: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    axes: list[tuple[Tensor, int | None]],
    out_dims: Any,
    randomness: str,
    size: int,
) -> Any:
    from lazygrad_compiler.batching.batch import batch

    in_order = iter(axes)  # one tensor may be given twice, with different axes
    items: dict[Node, Node] = {}
    line, name = now.location, now.operation
    now.location = ()  # what the function records has lines of its own
    with trace("vmap") as room:

        def next_stand_in(tensor: Tensor) -> Tensor:
            return stand_in(tensor, next(in_order)[1])

        def stand_in(tensor: Tensor, axis: int | None = 0) -> Tensor:
            if axis is None:
                return tensor
            value = _front(node_of(tensor), axis % tensor.ndim)
            made = room.stand_in(value, value.shape[1:])
            items[made] = value
            return wrap(made)

        try:
            results = func(*replace(list(arguments), next_stand_in), **replace(keywords, stand_in))
        finally:
            now.location, now.operation = line, name
        nodes = [node_of(tensor) for tensor in _tensors_only(results)]
    items.update(_random_items(nodes, items, randomness, size))
    try:
        made = batch(nodes, items, size)
    except IRError as error:
        raise fail("vmap", f"{error}", "Call the operation outside of vmap.") from None
    placed = iter(
        [_placed(node, flag, axis, size)
         for (node, flag), axis in zip(made, _out_axes(results, out_dims), strict=True)]
    )
    return replace(results, lambda _: wrap(next(placed)))


def _tensors_only(results: Any) -> list[Tensor]:
    """The results' tensors; TypeError for anything else among them."""
    if isinstance(results, Tensor):
        return [results]
    items = parts_of(results)
    if items is None:
        raise fail("vmap", f"the function returns a {type(results).__name__}",
                   "Return tensors, or tuples, lists and dicts of them.", TypeError)
    return [tensor for item in items for tensor in _tensors_only(item)]


def _random_items(
    nodes: list[Node], items: dict[Node, Node], randomness: str, size: int
) -> dict[Node, Node]:
    """Random numbers drawn inside (that is, after the stand-ins), as they are for all items."""
    begin = min(node.serial for node in items)
    found = [drawn(node) for node in topological(nodes, stop=lambda node: node.serial <= begin)
             if node.serial > begin]
    states = dict(each for each in found if each is not None)
    if not states or randomness == "same":
        return {}
    if randomness == "error":
        raise fail("vmap", "the function draws random numbers, which may mean the same or "
                   "different ones for all items",
                   'Say randomness="same" or randomness="different".')
    from lazygrad.functional.random import state_node

    return {
        state: graph.broadcast(graph.reshape(state_node((size, *shape)), (1, 2)), (size, 2))
        for state, shape in states.items()
    }


def _out_axes(results: Any, dims: Any) -> list[int | None]:
    """The batch axis of each result."""
    if isinstance(results, Tensor):
        if dims is not None and not isinstance(dims, int):
            raise fail("vmap", f"out_dims {dims!r} does not fit one result", kind=ValueError)
        return [dims]
    items = parts_of(results) or []
    nested = parts_of(dims) or [dims] * len(items)
    if len(nested) != len(items):
        raise fail("vmap", f"out_dims {dims!r} does not fit {len(items)} results", kind=ValueError)
    return [axis for item, dim in zip(items, nested, strict=True) for axis in _out_axes(item, dim)]


def _placed(node: Node, batched: bool, axis: int | None, size: int) -> Node:
    """A result with its batch axis where it is wanted."""
    if axis is None:
        if batched:
            raise fail("vmap", "out_dims is None for a result that differs from item to item",
                       kind=ValueError)
        return node
    if not batched:
        node = graph.broadcast(graph.reshape(node, (1, *node.shape)), (size, *node.shape))
    if not -node.ndim <= axis < node.ndim:
        raise fail("vmap", f"out_dims {axis} does not exist in {node.shape}", kind=ValueError)
    order = list(range(1, node.ndim))
    order.insert(axis % node.ndim, 0)
    return graph.permute(node, order)


def _in_chunks(
    func: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    in_dims: Any,
    out_dims: Any,
    randomness: str,
    chunk_size: int,
    size: int,
) -> Any:
    """So many items at a time, and the results together."""
    from lazygrad.functional.joining import cat

    axes = _axes_of(arguments, in_dims)
    axes += [(tensor, 0) for tensor in tensors_in(keywords)]
    parts = []
    for start in range(0, size, chunk_size):
        count = min(chunk_size, size - start)
        cut = iter([tensor if axis is None else tensor.narrow(axis, start, count)
                    for tensor, axis in axes])

        def next_cut(_: Tensor, cut: Iterator[Tensor] = cut) -> Tensor:
            return next(cut)

        parts.append(_mapped(func, tuple(replace(list(arguments), next_cut)),
                             replace(keywords, next_cut), in_dims, out_dims, randomness, None))
    out_axes = _out_axes(parts[0], out_dims)
    columns = zip(*[list(tensors_in(part)) for part in parts], strict=True)
    joined = iter([column[0] if axis is None else cat(list(column), axis)
                   for column, axis in zip(columns, out_axes, strict=True)])
    return replace(parts[0], lambda _: next(joined))
