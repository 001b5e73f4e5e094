"""Gradients of gather and scatter: each other's transpose.

Where several updates of a scatter meet in one place: `set` gives the gradient to the last (the
one that stayed), `max` and `min` share it among ties (the base included), `mul` gives each the
product of the others.
"""

from __future__ import annotations

import math

from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.autodiff.vjp_reduction import came_from, counting_dtype
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node

Axes = tuple[int, ...]
Indices = tuple[Node, ...]


def taken(at: Builder, value: Node, indices: Indices, axes: Axes) -> Node:
    return at.op("gather", value, *indices, attrs=(axes,))


def put(at: Builder, base: Node, updates: Node, indices: Indices, axes: Axes, mode: str) -> Node:
    return at.op("scatter", base, updates, *indices, attrs=(axes, mode))


def surely_distinct(indices: Indices) -> bool:
    """True where no place can be indexed twice, as far as the shape of the graph tells."""
    index = indices[0]
    return math.prod(index.shape) <= 1 or any(
        candidate.op == "iota" and candidate.ndim == 1 for candidate in indices)


def gather(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    value, *indices = forward.inputs
    added = put(at, at.zeros(value), g, tuple(indices), forward.attrs[0], "add")
    return (added, *(None for _ in indices))


def scatter_add(at: Builder, forward: Node, g: Node, indices: Indices, axes: Axes,
                needed: Needed) -> Gradients:
    return g, taken(at, g, indices, axes) if needed[1] else None


def last_written(at: Builder, base: Node, updates: Node, indices: Indices, axes: Axes) -> Node:
    """bool like the updates: whether an update is the one that stays.

    Writes the updates' numbers where the updates went, and looks which can be read back.
    """
    index_shape = indices[0].shape
    count = math.prod(index_shape)
    numbers = at.reshape(at.op("iota", attrs=(0, dtypes.int64, (count,))), index_shape)
    board = at.const(0, dtypes.int64, tuple(base.shape[axis] for axis in axes))
    board_axes = tuple(range(len(axes)))
    board = put(at, board, numbers, indices, board_axes, "set")
    stays = at.compare("eq", taken(at, board, indices, board_axes), numbers)
    tail = (1,) * (updates.ndim - len(index_shape))
    return at.expand(at.reshape(stays, (*index_shape, *tail)), updates.shape)


def scatter_set(at: Builder, forward: Node, g: Node, indices: Indices, axes: Axes,
                needed: Needed) -> Gradients:
    base, updates = forward.inputs[:2]
    of_base = put(at, g, at.zeros(updates), indices, axes, "set") if needed[0] else None
    if not needed[1]:
        return of_base, None
    of_updates = taken(at, g, indices, axes)
    if not surely_distinct(indices):
        stays = last_written(at, base, updates, indices, axes)
        of_updates = at.where(stays, of_updates, at.zeros(updates))
    return of_base, of_updates


def scatter_mul(at: Builder, forward: Node, g: Node, indices: Indices, axes: Axes,
                needed: Needed) -> Gradients:
    """The base's gradient is multiplied as the base was.  An update that is 0 gets the product of
    the non-zero ones if it is the only 0 in its place; any other, the result divided by itself.

    Derivatives of second order lack the term of two zeros in the same place.
    """
    base, updates = forward.inputs[:2]
    of_base = put(at, g, updates, indices, axes, "mul") if needed[0] else None
    if not needed[1]:
        return of_base, None
    if surely_distinct(indices):
        return of_base, taken(at, at.mul(g, base), indices, axes)
    is_zero, one, zero = at.compare("eq", updates, 0), at.like(updates, 1), at.zeros(updates)
    real = dtypes.float64 if base.dtype.itemsize >= 8 else dtypes.float32
    counts = put(at, at.const(0, real, base.shape), at.cast(is_zero, real), indices, axes, "add")
    alone = at.compare("eq", taken(at, counts, indices, axes), 1)
    nonzero = at.where(is_zero, one, updates)
    without_zeros = taken(at, put(at, base, nonzero, indices, axes, "mul"), indices, axes)
    others = at.where(is_zero, at.where(alone, without_zeros, zero),
                      at.div(taken(at, forward, indices, axes), nonzero))
    return of_base, at.mul(taken(at, g, indices, axes), others)


def scatter_extremum(at: Builder, forward: Node, g: Node, indices: Indices, axes: Axes,
                     needed: Needed) -> Gradients:
    base, updates = forward.inputs[:2]
    counting = counting_dtype(g.dtype)
    base_chosen = came_from(at, base, forward)
    chosen = came_from(at, updates, taken(at, forward, indices, axes))
    ties = put(at, at.cast(base_chosen, counting), at.cast(chosen, counting), indices, axes, "add")
    share = at.cast(at.div(at.cast(g, counting), ties), g.dtype)
    return (at.where(base_chosen, share, at.zeros(base)) if needed[0] else None,
            at.where(chosen, taken(at, share, indices, axes), at.zeros(updates))
            if needed[1] else None)


SCATTERS = {"add": scatter_add, "set": scatter_set, "mul": scatter_mul,
            "max": scatter_extremum, "min": scatter_extremum}


def scatter(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    axes, mode = forward.attrs
    indices = forward.inputs[2:]
    gradients = SCATTERS[mode](at, forward, g, indices, axes, needed)
    return (*gradients, *(None for _ in indices))


RULES: dict[str, Rule] = {"gather": gather, "scatter": scatter}
