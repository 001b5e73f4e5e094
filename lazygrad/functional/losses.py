"""Loss functions."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import several
from lazygrad.functional.activations import log_softmax_node, softplus_node
from lazygrad.functional.elementwise import clamp_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
           "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss",
           "gaussian_nll_loss", "hinge_embedding_loss", "margin_ranking_loss", "soft_margin_loss",
           "cosine_embedding_loss", "triplet_margin_loss"]


def reduced(name: str, node: Node, reduction: str) -> Tensor:
    """The losses as they are ("none"), their mean or their sum."""
    axes = tuple(range(node.ndim))
    if reduction == "mean":
        return wrap(graph.mean(node, axes))
    if reduction == "sum":
        return wrap(graph.reduce("sum", node, axes))
    if reduction == "none":
        return wrap(node)
    raise fail(name, f"reduction {reduction!r}; there are 'mean', 'sum' and 'none'")


def _same_shape(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise fail(name, f"input {listed(input.shape)} and target {listed(target.shape)} differ",
                   "They must have one shape; a missing axis is added with [..., None].")


def _picked(name: str, logs: Node, target: Tensor, weight: Tensor | None,
            ignore_index: int) -> tuple[Node, Node, Node]:
    """For class targets: picked log-probabilities, weights of the targets, and who counts."""
    axis = 1 if logs.ndim > 1 else 0
    classes = logs.shape[axis]
    expected = (*logs.shape[:axis], *logs.shape[axis + 1:])
    if tuple(target.shape) != expected:
        raise fail(
            name,
            f"classes {listed(target.shape)} for scores {listed(logs.shape)}: expected "
            f"{listed(expected)}",
            "Scores are (N, C, …), classes (N, …).",
        )
    index = graph.cast(node_of(target), dtypes.int64)
    counts = graph.binary("ne", index, ignore_index)
    safe = graph.where(counts, index, 0)
    table = graph.const(1, logs.dtype, (classes,)) if weight is None else node_of(weight)
    # The weight is looked up, so that a class out of range is reported at run time.
    scale = graph.make("gather", table, safe, attrs=((0,),))
    scale = graph.where(counts, scale, 0)
    spread = graph.broadcast(graph.unsqueeze(safe, axis), logs.shape)
    hit = graph.make("eq", spread, graph.iota(axis, logs.shape))
    picked = graph.reduce("sum", graph.where(hit, logs, 0), (axis,))
    return graph.where(counts, picked, 0), scale, counts


def _class_loss(name: str, logs: Node, target: Tensor, weight: Tensor | None, ignore_index: int,
                reduction: str, smoothing: float) -> Tensor:
    axis = 1 if logs.ndim > 1 else 0
    picked, scale, counts = _picked(name, logs, target, weight, ignore_index)
    losses = graph.unary("neg", graph.mul(picked, scale))
    if smoothing:
        classes = logs.shape[axis]
        spread = logs
        if weight is not None:
            shape = [1] * logs.ndim
            shape[axis] = classes
            spread = graph.mul(logs, graph.reshape(node_of(weight), tuple(shape)))
        smooth = graph.unary("neg", graph.reduce("sum", spread, (axis,)))
        smooth = graph.where(counts, smooth, 0)
        losses = graph.add(graph.mul(losses, 1 - smoothing), graph.mul(smooth, smoothing / classes))
    if reduction != "mean":
        return reduced(name, losses, reduction)
    axes = tuple(range(losses.ndim))
    return wrap(graph.div(graph.reduce("sum", losses, axes), graph.reduce("sum", scale, axes)))


@operation
def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
             ignore_index: int = -100, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """Minus the log-probability (given) of the target class."""
    return _class_loss("nll_loss", node_of(input), target, weight, ignore_index, reduction, 0.0)


@operation
def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                  size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """Minus the log-softmax of the target class (integers), or of target probabilities."""
    node = node_of(input)
    if not node.dtype.is_floating:
        raise fail("cross_entropy", f"scores are floating, not {node.dtype.name}")
    axis = 1 if node.ndim > 1 else 0
    logs = log_softmax_node(node, axis)
    if not target.dtype.is_floating:
        return _class_loss("cross_entropy", logs, target, weight, ignore_index, reduction,
                           label_smoothing)
    _same_shape("cross_entropy", input, target)
    shares = node_of(target)
    classes = node.shape[axis]
    if label_smoothing:
        shares = graph.add(graph.mul(shares, 1 - label_smoothing), label_smoothing / classes)
    if weight is not None:
        shape = [1] * node.ndim
        shape[axis] = classes
        logs = graph.mul(logs, graph.reshape(node_of(weight), tuple(shape)))
    losses = graph.unary("neg", graph.reduce("sum", graph.mul(logs, shares), (axis,)))
    return reduced("cross_entropy", losses, reduction)


def _pairwise(name: str, input: Tensor, target: Tensor) -> tuple[Node, Node]:
    left, right = several(name, input, target)
    return left, right


@operation
def mse_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(input - target)²."""
    a, b = _pairwise("mse_loss", input, target)
    gap = graph.sub(a, b)
    losses = graph.mul(gap, gap)
    if weight is not None:
        losses = graph.mul(losses, node_of(weight))
    return reduced("mse_loss", losses, reduction)


@operation
def l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
            reduction: str = "mean") -> Tensor:
    """|input - target|."""
    a, b = _pairwise("l1_loss", input, target)
    return reduced("l1_loss", graph.unary("abs", graph.sub(a, b)), reduction)


@operation
def smooth_l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Squares below beta (over 2 beta), absolute differences (less beta / 2) beyond."""
    a, b = _pairwise("smooth_l1_loss", input, target)
    gap = graph.sub(a, b)
    size = graph.unary("abs", gap)
    if beta == 0:
        return reduced("smooth_l1_loss", size, reduction)
    near = graph.div(graph.mul(graph.mul(gap, gap), 0.5), beta)
    losses = graph.where(graph.binary("lt", size, beta), near, graph.sub(size, 0.5 * beta))
    return reduced("smooth_l1_loss", losses, reduction)


@operation
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """Half squares up to delta, lines beyond."""
    a, b = _pairwise("huber_loss", input, target)
    gap = graph.sub(a, b)
    size = graph.unary("abs", gap)
    near = graph.mul(graph.mul(gap, gap), 0.5)
    far = graph.mul(graph.sub(size, 0.5 * delta), delta)
    losses = graph.where(graph.binary("le", size, delta), near, far)
    if weight is not None:
        losses = graph.mul(losses, node_of(weight))
    return reduced("huber_loss", losses, reduction)


@operation
def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                         size_average: Any = None, reduce: Any = None,
                         reduction: str = "mean") -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), logarithms no lower than -100."""
    _same_shape("binary_cross_entropy", input, target)
    p, t = _pairwise("binary_cross_entropy", input, target)
    one = graph.like(1, p)
    yes = clamp_node(graph.unary("log", p), -100.0, None)
    no = clamp_node(graph.unary("log", graph.sub(one, p)), -100.0, None)
    losses = graph.unary("neg", graph.add(graph.mul(t, yes), graph.mul(graph.sub(one, t), no)))
    if weight is not None:
        losses = graph.mul(losses, node_of(weight))
    return reduced("binary_cross_entropy", losses, reduction)


@operation
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: Any = None, reduce: Any = None,
                                     reduction: str = "mean",
                                     pos_weight: Tensor | None = None) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow."""
    _same_shape("binary_cross_entropy_with_logits", input, target)
    x, t = _pairwise("binary_cross_entropy_with_logits", input, target)
    down = graph.sub(graph.like(1, t), t)
    minus_log = softplus_node(graph.unary("neg", x))  # -log(sigmoid(x)); -log(1 - …) is that plus x
    if pos_weight is None:
        losses = graph.add(graph.mul(down, x), minus_log)
    else:
        factor = graph.add(graph.mul(t, graph.sub(node_of(pos_weight), 1)), 1)
        losses = graph.add(graph.mul(down, x), graph.mul(factor, minus_log))
    if weight is not None:
        losses = graph.mul(losses, node_of(weight))
    return reduced("binary_cross_entropy_with_logits", losses, reduction)


@operation
def kl_div(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
           reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log(target) - input), input being log-probabilities."""
    logs, t = _pairwise("kl_div", input, target)
    if log_target:
        losses = graph.mul(graph.unary("exp", t), graph.sub(t, logs))
    else:
        there = graph.binary("lt", graph.like(0, t), t)
        own = graph.mul(t, graph.unary("log", graph.where(there, t, 1)))
        losses = graph.sub(own, graph.mul(t, logs))
    if reduction == "batchmean":
        total = graph.reduce("sum", losses, tuple(range(losses.ndim)))
        return wrap(graph.div(total, logs.shape[0] if logs.ndim else 1))
    return reduced("kl_div", losses, reduction)


@operation
def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: Any = None, eps: float = 1e-8, reduce: Any = None,
                     reduction: str = "mean") -> Tensor:
    """exp(x) - t x (x the log-rate), or x - t log(x + eps)."""
    x, t = _pairwise("poisson_nll_loss", input, target)
    if log_input:
        losses = graph.sub(graph.unary("exp", x), graph.mul(t, x))
    else:
        losses = graph.sub(x, graph.mul(t, graph.unary("log", graph.add(x, eps))))
    if full:
        many = graph.binary("lt", graph.like(1, t), t)
        safe = graph.where(many, t, 1)
        log = graph.unary("log", safe)
        stirling = graph.add(graph.sub(graph.mul(safe, log), safe),
                             graph.mul(graph.add(log, math.log(2 * math.pi)), 0.5))
        losses = graph.add(losses, graph.where(many, stirling, 0))
    return reduced("poisson_nll_loss", losses, reduction)


@operation
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log(var) + (input - target)² / var) / 2."""
    x, t, spread = several("gaussian_nll_loss", input, target, var)
    bounded = graph.where(graph.binary("lt", spread, eps), eps, spread)
    gap = graph.sub(x, t)
    losses = graph.mul(graph.add(graph.unary("log", bounded),
                                 graph.div(graph.mul(gap, gap), bounded)), 0.5)
    if full:
        losses = graph.add(losses, 0.5 * math.log(2 * math.pi))
    return reduced("gaussian_nll_loss", losses, reduction)


@operation
def soft_margin_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                     reduction: str = "mean") -> Tensor:
    """log(1 + exp(-t x))."""
    x, t = _pairwise("soft_margin_loss", input, target)
    return reduced(
        "soft_margin_loss", softplus_node(graph.unary("neg", graph.mul(t, x))), reduction
    )


def _above_zero(node: Node) -> Node:
    return graph.where(graph.binary("lt", node, 0), 0, node)


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
    x, t = _pairwise("hinge_embedding_loss", input, target)
    apart = _above_zero(graph.sub(graph.like(margin, x), x))
    losses = graph.where(
        graph.binary("eq", t, 1), x, graph.where(graph.binary("eq", t, -1), apart, 0)
    )
    return reduced("hinge_embedding_loss", losses, reduction)


@operation
def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                        size_average: Any = None, reduce: Any = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, -t (x1 - x2) + margin)."""
    a, b, t = several("margin_ranking_loss", input1, input2, target)
    gap = graph.add(graph.unary("neg", graph.mul(t, graph.sub(a, b))), margin)
    return reduced("margin_ranking_loss", _above_zero(gap), reduction)


@operation
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                          size_average: Any = None, reduce: Any = None,
                          reduction: str = "mean") -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1."""
    from lazygrad.functional.activations import cosine_similarity
    cosine = node_of(cosine_similarity(input1, input2, -1))
    together = graph.sub(graph.like(1, cosine), cosine)
    apart = _above_zero(graph.sub(cosine, margin))
    losses = graph.where(graph.binary("eq", node_of(target), 1), together, apart)
    return reduced("cosine_embedding_loss", losses, reduction)


@operation
def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2.0, eps: float = 1e-6, swap: bool = False,
                        size_average: Any = None, reduce: Any = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin)."""
    from lazygrad.functional.activations import pairwise_distance
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return reduced("triplet_margin_loss", _above_zero(node_of(near - far + margin)), reduction)
