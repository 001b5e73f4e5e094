"""simplify-reductions: reductions, contractions and indexing that do less than they say.

Sums of floats are never regrouped.  A contraction takes its operands in any order of axes, so a
permute above it is a change of its axis numbers; gathers at known places are slices.
"""

from __future__ import annotations

from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.passes.canonicalise import canonical_number
from lazygrad_compiler.passes.movement import slice_or_same
from lazygrad_compiler.passes.rewrite import (
    Any,
    Const,
    Op,
    RewriteRules,
    expand,
    full_like,
    is_discrete,
    make,
    permute,
    reshape,
)

rules = RewriteRules("simplify-reductions")

FOLDS = ("sum", "prod", "max", "min")


@rules.add(Op(FOLDS, Any("x"), name="root"))
def reduction_of_unit_axes(root: Node, x: Node) -> Node | None:
    """Axes of size 1 are reshaped away.  A sum starts from 0.0, so the sum of -0.0 alone is 0.0."""
    axes = root.attrs[0]
    longer = [axis for axis in axes if x.shape[axis] != 1]
    if len(longer) == len(axes) and axes:
        return None
    kept = [axis for axis in range(x.ndim) if axis in longer or axis not in axes]
    flat = reshape(x, [x.shape[axis] for axis in kept])
    if longer:
        return make(root.op, flat, axes=tuple(kept.index(axis) for axis in longer))
    if root.op == "sum" and not is_discrete(x):
        return make("add", flat, full_like(flat, canonical_number(0, x.dtype)))
    return flat


@rules.add(Op(("argmax", "argmin"), Any("x"), name="root"))
def place_in_unit_axes(root: Node, x: Node) -> Node | None:
    return full_like(root, 0) if all(x.shape[axis] == 1 for axis in root.attrs[0]) else None


@rules.add(Op(FOLDS, Op(FOLDS, Any("x"), name="inner"), name="root"))
def reduction_twice(root: Node, inner: Node, x: Node) -> Node | None:
    """Of one kind, where the order does not matter: integers, and the largest and smallest."""
    if root.op != inner.op or not (is_discrete(x) or root.op in ("max", "min")):
        return None
    kept = [axis for axis in range(x.ndim) if axis not in inner.attrs[0]]
    axes = sorted((*inner.attrs[0], *(kept[axis] for axis in root.attrs[0])))
    return make(root.op, x, axes=tuple(axes))


@rules.add(Op(("max", "min"), Op("expand", Any("x"), name="inner"), name="root"))
def extreme_of_repeated(root: Node, inner: Node, x: Node) -> Node | None:
    """The largest of copies is the one that was copied, if there are any."""
    axes = root.attrs[0]
    if 0 in inner.shape or not any(x.shape[axis] != inner.shape[axis] for axis in axes):
        return None
    shape = [x.shape[axis] if axis in axes else inner.shape[axis] for axis in range(x.ndim)]
    return make(root.op, expand(x, shape), axes=axes)


# ---- contractions


def remapped(order: tuple[int, ...], batch: tuple[int, ...], contract: tuple[int, ...],
             ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The axes before a permute; None where the free axes would come in another order."""
    free = [order[axis] for axis in range(len(order)) if axis not in batch and axis not in contract]
    if free != sorted(free):
        return None
    return tuple(order[axis] for axis in batch), tuple(order[axis] for axis in contract)


@rules.add(Op("dot", Op("permute", Any("x"), name="moved"), Any("y"), name="root"))
def dot_of_permuted_left(root: Node, moved: Node, x: Node, y: Node) -> Node | None:
    left_batch, right_batch, left_contract, right_contract = root.attrs
    axes = remapped(moved.attrs[0], left_batch, left_contract)
    if axes is None:
        return None
    return make("dot", x, y, left_batch=axes[0], right_batch=right_batch,
                left_contract=axes[1], right_contract=right_contract)


@rules.add(Op("dot", Any("x"), Op("permute", Any("y"), name="moved"), name="root"))
def dot_of_permuted_right(root: Node, moved: Node, x: Node, y: Node) -> Node | None:
    left_batch, right_batch, left_contract, right_contract = root.attrs
    axes = remapped(moved.attrs[0], right_batch, right_contract)
    if axes is None:
        return None
    return make("dot", x, y, left_batch=left_batch, right_batch=axes[0],
                left_contract=left_contract, right_contract=axes[1])


# ---- gather


@rules.add(Op("gather", Any("x"), Op("iota"), name="root"))
def gather_of_everything(root: Node, x: Node) -> Node | None:
    """Places 0, 1, 2, … along an axis: that axis to the front, cut to their number."""
    axis, index = root.attrs[0][0], root.inputs[1]
    if index.ndim != 1 or index.shape[0] > x.shape[axis]:
        return None
    stops = [index.shape[0] if k == axis else size for k, size in enumerate(x.shape)]
    taken = slice_or_same(x, [0] * x.ndim, stops, [1] * x.ndim)
    return permute(taken, [axis, *(k for k in range(x.ndim) if k != axis)])


@rules.add(Op("gather", Any("x"), Const(name="index"), name="root"))
def gather_of_one_place(root: Node, x: Node, index: Node) -> Node | None:
    """One known place: a slice, repeated in the shape of the indices."""
    axis, place = root.attrs[0][0], index.attrs[0]
    size = x.shape[axis]
    if not -size <= place < size:
        return None
    place %= size
    starts = [place if k == axis else 0 for k in range(x.ndim)]
    stops = [place + 1 if k == axis else length for k, length in enumerate(x.shape)]
    taken = slice_or_same(x, starts, stops, [1] * x.ndim)
    rest = [length for k, length in enumerate(x.shape) if k != axis]
    return expand(reshape(taken, [1] * index.ndim + rest), root.shape)


# ---- scatter


@rules.add(Op("scatter", ..., name="root"))
def scatter_of_nothing(root: Node) -> Node | None:
    """No index: the base.  (Where there are places, they are checked, whatever is put there.)"""
    return root.inputs[0] if 0 in root.inputs[2].shape else None
