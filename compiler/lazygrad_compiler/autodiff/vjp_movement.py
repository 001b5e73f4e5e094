"""Gradients of movement ops: the transpose of moving data is moving it back and adding up.

`window` reads elements several times, so its gradient folds: the overlapping windows are added,
one axis after the other.
"""

from __future__ import annotations

from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.ir.node import Node

MOST_TERMS = 16
"""Up to this window size a fold is a sum written out; beyond, one reduction over a skewed view."""


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The order that undoes a permute."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def reshape(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.reshape(g, forward.inputs[0].shape),)


def permute(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.permute(g, inverse(forward.attrs[0])),)


def expand(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    shape = forward.inputs[0].shape
    axes = [axis for axis, (old, new) in enumerate(zip(shape, g.shape, strict=True)) if old != new]
    return (at.reshape(at.sum(g, axes), shape),)


def slice_(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    starts, _, steps = forward.attrs
    low, high = [], []
    shape = forward.inputs[0].shape
    for start, step, count, size in zip(starts, steps, g.shape, shape, strict=True):
        covered = (count - 1) * step + 1 if count else 0
        low.append(start)
        high.append(size - start - covered)
    return (at.pad(g, low, high, [step - 1 for step in steps]),)


def pad(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    low, _, interior, _ = forward.attrs
    shape = forward.inputs[0].shape
    stops = [start + ((size - 1) * (gap + 1) + 1 if size else 0)
             for start, size, gap in zip(low, shape, interior, strict=True)]
    # An axis of one element has no gaps: a step of 1 says so, and may leave nothing to slice.
    steps = [gap + 1 if size > 1 else 1 for size, gap in zip(shape, interior, strict=True)]
    return (at.slice(g, low, stops, steps),)


def flip(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.flip(g, forward.attrs[0]),)


def concat(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    axis, = forward.attrs
    start, gradients = 0, []
    for value, wanted in zip(forward.inputs, needed, strict=True):
        stop = start + value.shape[axis]
        gradients.append(at.slice_axis(g, axis, start, stop) if wanted else None)
        start = stop
    return tuple(gradients)


# ---- window


def fold_by_terms(at: Builder, g: Node, axis: int, size: int, stride: int, dilation: int) -> Node:
    """Adds the windows of one axis, offset by offset.  Offsets are g's last axis, and disappear."""
    offsets = g.shape[-1]
    covered = (g.shape[axis] - 1) * stride + 1
    total: Node | None = None
    for offset in range(offsets):
        term = at.reshape(at.slice_axis(g, g.ndim - 1, offset, offset + 1), g.shape[:-1])
        low = offset * dilation
        term = at.pad_axis(term, axis, low, size - covered - low, stride - 1)
        total = term if total is None else at.add(total, term)
    assert total is not None
    return total


def fold_by_skewing(at: Builder, g: Node, axis: int, size: int, stride: int,
                    dilation: int) -> Node:
    """The same as one sum, in as many nodes for any window size.

    Rows, one an offset, are padded to `size + dilation` places.  Read again in rows of `size`
    places, row k has moved by k * dilation: its elements stand where they are to be added.
    """
    offsets = g.shape[-1]
    rest = [k for k in range(g.ndim - 1) if k != axis]
    rows = at.permute(g, (*rest, g.ndim - 1, axis))
    outer = rows.shape[:-2]
    covered = (rows.shape[-1] - 1) * stride + 1
    rows = at.pad_axis(rows, rows.ndim - 1, 0, size + dilation - covered, stride - 1)
    flat = at.reshape(rows, (*outer, offsets * (size + dilation)))
    flat = at.slice_axis(flat, flat.ndim - 1, 0, offsets * size)
    total = at.sum(at.reshape(flat, (*outer, offsets, size)), (len(outer),))
    return at.permute(total, inverse((*rest, axis)))


def fold_apart(at: Builder, g: Node, axes: list[int], strides: list[int],
               shape: tuple[int, ...]) -> Node:
    """Windows that do not overlap lie side by side: permute, reshape, zeros for what was unread."""
    ndim = len(shape)
    gaps = [stride - size for stride, size in zip(strides, g.shape[ndim:], strict=True)]
    g = at.pad(g, [0] * g.ndim, [0] * ndim + gaps)
    order: list[int] = []
    merged: list[int] = []
    for axis in range(ndim):
        order.append(axis)
        merged.append(g.shape[axis])
        if axis in axes:
            offset_axis = ndim + axes.index(axis)
            order.append(offset_axis)
            merged[-1] *= g.shape[offset_axis]
    g = at.reshape(at.permute(g, order), merged)
    g = at.slice(g, [0] * ndim, [min(have, want) for have, want in zip(merged, shape, strict=True)])
    return at.pad(g, [0] * ndim, [want - have for have, want in zip(g.shape, shape, strict=True)])


def window(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    value = forward.inputs[0]
    axes, sizes, strides, dilations = forward.attrs
    ndim = value.ndim
    apart: list[int] = []
    overlapping: list[int] = []
    for k, (size, stride, dilation) in enumerate(zip(sizes, strides, dilations, strict=True)):
        side_by_side = size == 1 or (dilation == 1 and stride >= size)
        (apart if side_by_side else overlapping).append(k)
    g = at.permute(g, (*range(ndim), *(ndim + k for k in (*apart, *overlapping))))
    for k in reversed(overlapping):
        fold = fold_by_terms if sizes[k] <= MOST_TERMS else fold_by_skewing
        g = fold(at, g, axes[k], value.shape[axes[k]], strides[k], dilations[k])
    if apart:
        g = fold_apart(at, g, [axes[k] for k in apart], [strides[k] for k in apart], value.shape)
    return (g,)


RULES: dict[str, Rule] = {
    "reshape": reshape, "permute": permute, "expand": expand, "slice": slice_, "pad": pad,
    "flip": flip, "concat": concat, "window": window,
}
