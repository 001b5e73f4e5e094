"""merge-movement: chains of movement become one, and what moves nothing is gone.

Part of the pass canonicalise.  Movement costs nothing by itself, but every link is an index map
that later stages have to compose, and it stands between operations that could meet.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.passes.canonicalise import canonical_number
from lazygrad_compiler.passes.rewrite import (
    Any,
    Op,
    RewriteRules,
    expand,
    full_like,
    make,
    permute,
    reshape,
    same_number,
)

rules = RewriteRules("merge-movement")


# ---- reshape, permute, expand


@rules.add(Op(("reshape", "expand", "permute"), Any("x"), name="root"))
def movement_to_the_same_place(root: Node, x: Node) -> Node | None:
    if root.op == "permute":
        return x if root.attrs[0] == tuple(range(x.ndim)) else None
    return x if root.shape == x.shape else None


@rules.add(Op("reshape", Op("reshape", Any("x")), name="root"))
def reshape_twice(root: Node, x: Node) -> Node:
    return reshape(x, root.shape)


@rules.add(Op("permute", Op("permute", Any("x"), name="inner"), name="root"))
def permute_twice(root: Node, inner: Node, x: Node) -> Node:
    return permute(x, [inner.attrs[0][axis] for axis in root.attrs[0]])


@rules.add(Op("permute", Any("x"), name="root"))
def permute_of_unit_axes(root: Node, x: Node) -> Node | None:
    """Where only axes of size 1 change places, the elements stay in order."""
    moving = [axis for axis in root.attrs[0] if x.shape[axis] != 1]
    return reshape(x, root.shape) if moving == sorted(moving) else None


@rules.add(Op("expand", Op("expand", Any("x")), name="root"))
def expand_twice(root: Node, x: Node) -> Node:
    return expand(x, root.shape)


# ---- expand goes last: what stands above it then works on fewer elements


@rules.add(Op("permute", Op("expand", Any("x")), name="root"))
def permute_of_expand(root: Node, x: Node) -> Node:
    return expand(permute(x, root.attrs[0]), root.shape)


@rules.add(Op("slice", Op("expand", Any("x")), name="root"))
def slice_of_expand(root: Node, x: Node) -> Node:
    starts, stops, steps = ([0 if size == 1 else number for number, size in zip(part, x.shape)]
                            for part in root.attrs)
    for axis, size in enumerate(x.shape):
        if size == 1:
            stops[axis], steps[axis] = 1, 1
    return expand(slice_or_same(x, starts, stops, steps), root.shape)


@rules.add(Op("flip", Op("expand", Any("x")), name="root"))
def flip_of_expand(root: Node, x: Node) -> Node:
    axes = tuple(axis for axis in root.attrs[0] if x.shape[axis] != 1)
    return expand(make("flip", x, axes=axes) if axes else x, root.shape)


@rules.add(Op("reshape", Op("expand", Any("x")), name="root"))
def reshape_of_expanded_scalar(root: Node, x: Node) -> Node | None:
    if any(size != 1 for size in x.shape):
        return None
    return expand(reshape(x, (1,) * root.ndim), root.shape)


# ---- slice, flip


def canonical_slice(starts: Sequence[int], stops: Sequence[int], steps: Sequence[int],
                    ) -> tuple[tuple[int, ...], ...]:
    """The same elements, the stop right behind the last one, and step 1 where there is but one."""
    triples = []
    for start, stop, step in zip(starts, stops, steps, strict=True):
        count = -(-(stop - start) // step)
        if count == 0:
            triples.append((0, 0, 1))
        elif count == 1:
            triples.append((start, start + 1, 1))
        else:
            triples.append((start, start + (count - 1) * step + 1, step))
    return tuple(tuple(column) for column in zip(*triples)) if triples else ((), (), ())


def slice_or_same(x: Node, starts: Sequence[int], stops: Sequence[int],
                  steps: Sequence[int]) -> Node:
    """A slice in canonical form; the node itself where it takes everything."""
    starts, stops, steps = canonical_slice(starts, stops, steps)
    if stops == x.shape and not any(starts) and all(step == 1 for step in steps):
        return x
    return make("slice", x, starts=starts, stops=stops, steps=steps)


@rules.add(Op("slice", Any("x"), name="root"))
def slice_in_canonical_form(root: Node, x: Node) -> Node:
    return slice_or_same(x, *root.attrs)


@rules.add(Op("slice", Op("slice", Any("x"), name="inner"), name="root"))
def slice_twice(root: Node, inner: Node, x: Node) -> Node:
    starts, stops, steps = [], [], []
    for start, stop, step, first, _, stride in zip(*root.attrs, *inner.attrs, strict=True):
        count = -(-(stop - start) // step)
        starts.append(first + start * stride)
        stops.append(starts[-1] + ((count - 1) * step * stride + 1 if count else 0))
        steps.append(step * stride)
    return slice_or_same(x, starts, stops, steps)


@rules.add(Op("flip", Any("x"), name="root"))
def flip_in_canonical_form(root: Node, x: Node) -> Node:
    axes = tuple(sorted(axis for axis in root.attrs[0] if x.shape[axis] != 1))
    return make("flip", x, axes=axes) if axes else x


@rules.add(Op("flip", Op("flip", Any("x"), name="inner"), name="root"))
def flip_twice(root: Node, inner: Node, x: Node) -> Node:
    axes = tuple(sorted(set(root.attrs[0]) ^ set(inner.attrs[0])))
    return make("flip", x, axes=axes) if axes else x


# ---- pad


@rules.add(Op("pad", Any("x"), name="root"))
def pad_by_nothing(root: Node, x: Node) -> Node | None:
    return x if root.shape == x.shape else None


@rules.add(Op("pad", Op("pad", Any("x"), name="inner"), name="root"))
def pad_twice(root: Node, inner: Node, x: Node) -> Node | None:
    low, high, interior, value = root.attrs
    inner_low, inner_high, inner_interior, inner_value = inner.attrs
    if any(interior) or any(inner_interior) or not same_number(value, inner_value):
        return None
    return make("pad", x, low=tuple(a + b for a, b in zip(low, inner_low)),
                high=tuple(a + b for a, b in zip(high, inner_high)), interior=interior, value=value)


@rules.add(Op("slice", Op("pad", Any("x"), name="inner"), name="root"))
def slice_of_pad(root: Node, inner: Node, x: Node) -> Node | None:
    """Wholly inside: a slice of what was padded; wholly in the padding of an axis: the constant."""
    low, _, interior, value = inner.attrs
    starts, stops, steps = canonical_slice(*root.attrs)
    inside = not any(interior)
    for start, stop, below, gap, size in zip(starts, stops, low, interior, x.shape, strict=True):
        behind = below + (size + max(size - 1, 0) * gap)
        if stop <= below or start >= behind:
            return full_like(root, canonical_number(value, root.dtype))
        inside = inside and below <= start and stop <= behind
    if not inside:
        return None
    return slice_or_same(x, [a - b for a, b in zip(starts, low)],
                         [a - b for a, b in zip(stops, low)], steps)


# ---- concat


@rules.add(Op("concat", ..., name="root"))
def concat_flattened(root: Node) -> Node | None:
    """Pieces of no size are dropped, pieces that are joined along the same axis come apart."""
    axis = root.attrs[0]
    pieces: list[Node] = []
    for piece in root.inputs:
        if piece.op == "concat" and piece.attrs[0] == axis:
            pieces.extend(piece.inputs)
        elif piece.shape[axis] != 0:
            pieces.append(piece)
    if len(pieces) == 1:
        return pieces[0]
    return make("concat", *pieces, axis=axis) if tuple(pieces) != root.inputs and pieces else None


@rules.add(Op("slice", Op("concat", ..., name="joined"), name="root"))
def slice_of_concat(root: Node, joined: Node) -> Node | None:
    """A slice within one piece is a slice of that piece."""
    axis = joined.attrs[0]
    starts, stops, steps = (list(part) for part in canonical_slice(*root.attrs))
    offset = 0
    for piece in joined.inputs:
        size = piece.shape[axis]
        if offset <= starts[axis] and stops[axis] <= offset + size:
            starts[axis] -= offset
            stops[axis] -= offset
            return slice_or_same(piece, starts, stops, steps)
        offset += size
    return None


# ---- window


@rules.add(Op("window", Any("x"), name="root"))
def window_without_overlap(root: Node, x: Node) -> Node | None:
    """Windows side by side are a split of the axis; windows of one element are a slice."""
    axes, sizes, strides, dilations = root.attrs
    for size, stride, dilation in zip(sizes, strides, dilations):
        if size != 1 and (size != stride or dilation != 1):
            return None
    stops, steps = list(x.shape), [1] * x.ndim
    for axis, size, stride in zip(axes, sizes, strides):
        count = root.shape[axis]
        stops[axis] = count * size if size != 1 else (count - 1) * stride + 1
        steps[axis] = stride if size == 1 else 1
    split: list[int] = []
    places: list[int] = []
    offsets: dict[int, int] = {}
    for axis in range(x.ndim):
        places.append(len(split))
        split.append(root.shape[axis])
        if axis in axes:
            offsets[axis] = len(split)
            split.append(sizes[axes.index(axis)])
    taken = slice_or_same(x, [0] * x.ndim, stops, steps)
    return permute(reshape(taken, split), [*places, *(offsets[axis] for axis in axes)])
