"""Losses over pairs, margins and rankings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of
from lazygrad.functional._operands import as_node, several
from lazygrad.functional.activations import softplus_node
from lazygrad.functional.distances import pairwise_distance
from lazygrad.functional.gathering import gather_along, index_node, refused_below
from lazygrad.functional.losses import REDUCTIONS, reduced, reduction_of, same_shape
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["soft_margin_loss", "hinge_embedding_loss", "margin_ranking_loss",
           "cosine_embedding_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss",
           "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss"]


def _above_zero(node: Node) -> Node:
    """max(0, x), its slope at 0 being 1, as clamp's."""
    return graph.where(graph.binary("lt", node, 0), 0, node)


@operation
def soft_margin_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                     reduction: str = "mean") -> Tensor:
    """log(1 + exp(-t x))."""
    reduction = reduction_of("soft_margin_loss", reduction, size_average, reduce)
    x, t = several("soft_margin_loss", input, target)
    if x.shape != tuple(input.shape):
        raise fail("soft_margin_loss", f"target {listed(target.shape)} does not broadcast to the "
                   f"input {listed(input.shape)}")
    return reduced(
        "soft_margin_loss", softplus_node(graph.unary("neg", graph.mul(t, x))), reduction
    )


@operation
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    reduction = reduction_of("hinge_embedding_loss", reduction, size_average, reduce)
    x, t = several("hinge_embedding_loss", input, target)
    apart = _above_zero(graph.sub(graph.like(margin, x), x))
    losses = graph.add(graph.where(graph.binary("eq", t, 1), 0, apart),
                       graph.where(graph.binary("eq", t, -1), 0, x))
    return reduced("hinge_embedding_loss", losses, reduction)


@operation
def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                        size_average: Any = None, reduce: Any = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, -t (x1 - x2) + margin)."""
    name = "margin_ranking_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    if not input1.ndim == input2.ndim == target.ndim:
        raise fail(name, f"input1 {listed(input1.shape)}, input2 {listed(input2.shape)} and target "
                   f"{listed(target.shape)} do not have as many axes")
    a, b, t = several(name, input1, input2, target)
    gap = graph.add(graph.unary("neg", graph.mul(t, graph.sub(a, b))), margin)
    return reduced(name, _above_zero(gap), reduction)


@operation
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                          size_average: Any = None, reduce: Any = None,
                          reduction: str = "mean") -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1.

    inputs: (N, features) and target (N,), or (features,) and ().
    """
    name = "cosine_embedding_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    a, b = several(name, input1, input2)
    if a.ndim not in (1, 2) or not input1.ndim == input2.ndim == target.ndim + 1:
        raise fail(name, f"inputs {listed(input1.shape)} and {listed(input2.shape)} with target "
                   f"{listed(target.shape)} do not fit",
                   "They are (N, features) and (N,), or (features,) and ().")
    last = (a.ndim - 1,)

    def total(left: Node, right: Node) -> Node:
        return graph.reduce("sum", graph.mul(left, right), last)

    # PyTorch's guard against vectors of length 0: 1e-12 added to both squared lengths.
    lengths = graph.mul(graph.add(total(a, a), 1e-12), graph.add(total(b, b), 1e-12))
    cosine = graph.div(total(a, b), graph.unary("sqrt", lengths))
    t = as_node(name, target)
    t = graph.cast(t, dtypes.int64) if t.dtype.kind == "bool" else t
    together = graph.where(graph.binary("eq", t, 1), graph.sub(graph.like(1, cosine), cosine), 0)
    apart = graph.where(graph.binary("eq", t, -1), _above_zero(graph.sub(cosine, margin)), 0)
    return reduced(name, graph.add(together, apart), reduction)


def _triplet(name: str, tensors: tuple[Tensor, Tensor, Tensor], margin: float, swap: bool,
             reduction: str, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin)."""
    anchor, positive, negative = tensors
    if margin <= 0:
        raise fail(name, f"margin must be greater than 0, got {margin}", kind=ValueError)
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise fail(name, f"anchor {listed(anchor.shape)}, positive {listed(positive.shape)} and "
                   f"negative {listed(negative.shape)} do not have as many axes")
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return reduced(name, _above_zero(node_of(near - far + margin)), reduction)


@operation
def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2.0, eps: float = 1e-6, swap: bool = False,
                        size_average: Any = None, reduce: Any = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d the p-norm of the difference.

    swap: the smaller of d(anchor, negative) and d(positive, negative) counts.
    """
    name = "triplet_margin_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    return _triplet(name, (anchor, positive, negative), margin, swap, reduction,
                    lambda a, b: pairwise_distance(a, b, p, eps))


@operation
def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with any distance (`pairwise_distance` unless given)."""
    name = "triplet_margin_with_distance_loss"
    reduction_of(name, reduction)
    return _triplet(name, (anchor, positive, negative), margin, swap, reduction,
                    distance_function or pairwise_distance)


# ---- several classes


def _scores(name: str, input: Tensor) -> tuple[Node, bool]:
    """Scores (N, C), and whether they came with a batch axis."""
    node = as_node(name, input)
    if node.ndim not in (1, 2) or not node.shape[-1]:
        raise fail(name, f"takes scores (N, C) or (C,), not {listed(node.shape)}")
    if not node.dtype.is_floating:
        raise fail(name, f"scores are floating, not {node.dtype.name}", "Convert with .float().")
    return (node, True) if node.ndim == 2 else (graph.unsqueeze(node, 0), False)


def _classes(name: str, input: Tensor, target: Tensor, shape: tuple[int, ...],
             may_be_negative: bool = False) -> Node:
    classes = index_node(name, target, may_be_negative)
    if classes.shape == (1,) and not shape:
        classes = graph.reshape(classes, ())
    if classes.shape != shape:
        raise fail(name, f"the target {listed(target.shape)} for scores {listed(input.shape)} is "
                   f"not {listed(shape)}")
    return classes


def _finished(name: str, losses: Node, batched: bool, reduction: str) -> Tensor:
    return reduced(name, losses if batched else graph.reshape(losses, losses.shape[1:]), reduction)


@operation
def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0,
                      weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
                      reduction: str = "mean") -> Tensor:
    """The mean over classes i of max(0, margin - x[target] + x[i]) ** p, the target's own apart.

    input: (N, C) or (C,); target: (N,) or (); p: 1 or 2; weight: (C,), by the target's class.
    """
    name = "multi_margin_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    if p not in (1, 2):
        raise fail(name, f"only p = 1 and p = 2 are supported, not {p}", kind=ValueError)
    x, batched = _scores(name, input)
    classes = _classes(name, input, target, tuple(input.shape[:-1]))
    column = graph.reshape(classes, (x.shape[0], 1))
    gap = _above_zero(graph.add(graph.sub(x, gather_along(x, 1, column)), margin))
    gap = graph.mul(gap, gap) if p == 2 else gap
    if weight is not None:
        if tuple(weight.shape) != (x.shape[1],):
            raise fail(name, f"the weight {listed(weight.shape)} does not have one number for each "
                       f"of the {x.shape[1]} classes")
        gap = graph.mul(gap, graph.make("gather", node_of(weight), column, attrs=((0,),)))
    own = graph.make("eq", graph.iota(1, x.shape), graph.broadcast(column, x.shape))
    total = graph.reduce("sum", graph.where(own, 0, gap), (1,))
    return _finished(name, graph.div(total, x.shape[1]), batched, reduction)


@operation
def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: Any = None,
                           reduce: Any = None, reduction: str = "mean") -> Tensor:
    """The sum over targets j and other classes i of max(0, 1 - x[j] + x[i]), over the classes.

    input and target: (N, C) or (C,); a row of the target lists its classes, up to the first -1.
    """
    name = "multilabel_margin_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    x, batched = _scores(name, input)
    classes = graph.reshape(_classes(name, input, target, tuple(input.shape), True), x.shape)
    count = x.shape[1]
    number = graph.iota(1, x.shape)
    ended = graph.where(graph.binary("lt", classes, 0), number, count)
    end = graph.reduce("min", ended, (1,), True)
    listed_ = graph.binary("lt", number, end)
    # -1 ends a list, and what comes after is not read; anything lower is an index out of range.
    below = graph.binary("lt", classes, -1)
    first_below = graph.binary("le", number, end)
    safe = graph.where(listed_, classes, 0)
    safe = graph.where(graph.make("and", below, first_below), refused_below(classes), safe)
    cube = (x.shape[0], count, count)  # sample, entry of the list, class

    def by_entry(node: Node) -> Node:
        return graph.broadcast(graph.unsqueeze(node, 2), cube)

    def by_class(node: Node) -> Node:
        return graph.broadcast(graph.unsqueeze(node, 1), cube)

    named = graph.make("and", by_entry(listed_),
                       graph.make("eq", by_entry(safe), graph.iota(2, cube)))
    is_target = graph.reduce("max", named, (1,))
    gap = graph.sub(by_class(x), by_entry(gather_along(x, 1, safe)))
    gap = _above_zero(graph.add(gap, 1))
    counts = graph.make("and", by_entry(listed_), by_class(graph.unary("not", is_target)))
    total = graph.reduce("sum", graph.where(counts, gap, 0), (1, 2))
    return _finished(name, graph.div(total, count), batched, reduction)


@operation
def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                size_average: Any = None, reduce: Any = None,
                                reduction: str = "mean") -> Tensor:
    """Binary cross entropy of logits, its mean over the classes (last axis); weight: (C,)."""
    name = "multilabel_soft_margin_loss"
    reduction = reduction_of(name, reduction, size_average, reduce, REDUCTIONS)
    same_shape(name, input, target)
    x, t = several(name, input, target)
    down = graph.sub(graph.like(1, t), t)
    losses = graph.add(graph.mul(down, x), softplus_node(graph.unary("neg", x)))
    if weight is not None:
        losses = graph.mul(losses, graph.cast(node_of(weight), losses.dtype))
    return reduced(name, graph.mean(losses, (losses.ndim - 1,)), reduction)
