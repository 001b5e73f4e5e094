"""Loss functions."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation, warn
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node, several
from lazygrad.functional.activations import log_softmax_node, softplus_node
from lazygrad.functional.gathering import index_node
from lazygrad.functional.ternary import clamp_node
from lazygrad_compiler.ir import dtypes, requirements
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["cross_entropy", "nll_loss", "linear_cross_entropy", "mse_loss", "l1_loss",
           "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
           "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss", "gaussian_nll_loss"]

REDUCTIONS = ("none", "mean", "sum")


def reduction_of(name: str, reduction: str, size_average: Any = None, reduce: Any = None,
                 allowed: tuple[str, ...] = REDUCTIONS) -> str:
    """How losses are combined, PyTorch's old arguments size_average and reduce included."""
    if size_average is not None or reduce is not None:
        if reduce is not None and not reduce:
            return "none"
        return "mean" if size_average is None or size_average else "sum"
    if reduction not in allowed:
        raise fail(name, f"reduction {reduction!r} is not a valid value for reduction; there are "
                   f"{', '.join(map(repr, allowed))}", kind=ValueError)
    return reduction


def reduced(name: str, node: Node, reduction: str) -> Tensor:
    """The losses as they are ("none"), their mean or their sum."""
    axes = tuple(range(node.ndim))
    if reduction_of(name, reduction) == "none":
        return wrap(node)
    return wrap(graph.mean(node, axes) if reduction == "mean" else graph.reduce("sum", node, axes))


def same_shape(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise fail(name, f"input {listed(input.shape)} and target {listed(target.shape)} differ",
                   "They must have one shape; a missing axis is added with [..., None].")


def _weighted(name: str, losses: Node, weight: Tensor | None) -> Node:
    """Losses times a weight that broadcasts to them."""
    if weight is None:
        return losses
    factor = as_node(name, weight)
    if graph.broadcast_shape(name, losses.shape, factor.shape) != losses.shape:
        raise fail(name, f"the weight {listed(factor.shape)} does not fit the losses "
                   f"{listed(losses.shape)}")
    return graph.mul(losses, graph.cast(factor, losses.dtype))


def _picked(name: str, logs: Node, target: Tensor, weight: Tensor | None,
            ignore_index: int) -> tuple[Node, Node, Node]:
    """For class targets: picked log-probabilities, weights of the targets, and who counts."""
    if logs.ndim == 0:
        raise fail(name, "scores have at least 1 axis, the classes", kind=ValueError)
    if not logs.dtype.is_floating:
        raise fail(name, f"scores are floating, not {logs.dtype.name}", "Convert with .float().")
    if not target.dtype.is_integer:
        raise fail(name, f"classes are whole numbers, not {target.dtype.name}",
                   "Convert with .long().")
    axis = 1 if logs.ndim > 1 else 0
    classes = logs.shape[axis]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise fail(name, f"the weight {listed(weight.shape)} does not have one number for each of "
                   f"the {classes} classes")
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
    # As an index a class below 0 is out of range; it does not count from the end.
    safe = graph.where(counts, index_node(name, target), 0)
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
    reduction_of(name, reduction)
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
    """Minus the log-probability (given) of the target class.

    input: (C,), (N, C) or (N, C, *space) log-probabilities; target: (), (N,) or (N, *space) class
    numbers; weight: (C,).  Targets ignore_index do not count.
    """
    reduction = reduction_of("nll_loss", reduction, size_average, reduce)
    return _class_loss("nll_loss", node_of(input), target, weight, ignore_index, reduction, 0.0)


@operation
def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                  size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """Minus the log-softmax of the target class (integers), or of target probabilities.

    input: (C,), (N, C) or (N, C, *space) scores; target: class numbers as in `nll_loss`, or
    probabilities of the input's shape.
    """
    reduction = reduction_of("cross_entropy", reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise fail("cross_entropy", f"label_smoothing {label_smoothing} must be between 0 and 1")
    node = as_node("cross_entropy", input)
    if not node.ndim:
        raise fail("cross_entropy", "scores have at least 1 axis, the classes", kind=ValueError)
    if not node.dtype.is_floating:
        raise fail("cross_entropy", f"scores are floating, not {node.dtype.name}")
    axis = 1 if node.ndim > 1 else 0
    logs = log_softmax_node(node, axis)
    if not target.dtype.is_floating:
        return _class_loss("cross_entropy", logs, target, weight, ignore_index, reduction,
                           label_smoothing)
    if input.shape != target.shape and target.ndim == input.ndim - 1:
        raise fail("cross_entropy", "class numbers are whole, and the target "
                   f"{listed(target.shape)} is {target.dtype.name}", "Convert it: target.long().")
    same_shape("cross_entropy", input, target)
    if ignore_index >= 0:
        raise fail("cross_entropy", "ignore_index is for class numbers, and the target holds "
                   "probabilities")
    shares = graph.cast(node_of(target), node.dtype)
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
    """Both broadcast, with PyTorch's warning where that changes anything."""
    if isinstance(input, Tensor) and isinstance(target, Tensor) and input.shape != target.shape:
        warn(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}). This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.")
    left, right = several(name, input, target)
    return left, right


def _weighted_mean(name: str, losses: Node, weight: Tensor | None, reduction: str) -> Tensor:
    """Losses times weights of their shape; the mean is over the sum of the weights."""
    if weight is None:
        return reduced(name, losses, reduction)
    if tuple(weight.shape) != losses.shape:
        raise fail(name, f"weight {listed(weight.shape)} and input {listed(losses.shape)} must "
                   "have the same size", kind=ValueError)
    factor = graph.cast(node_of(weight), losses.dtype)
    losses = graph.mul(losses, factor)
    if reduction != "mean":
        return reduced(name, losses, reduction)
    axes = tuple(range(losses.ndim))
    return wrap(graph.div(graph.reduce("sum", losses, axes), graph.reduce("sum", factor, axes)))


@operation
def mse_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(input - target)²; with a weight, the mean is the weighted one."""
    reduction = reduction_of("mse_loss", reduction, size_average, reduce)
    a, b = _pairwise("mse_loss", input, target)
    gap = graph.sub(a, b)
    return _weighted_mean("mse_loss", graph.mul(gap, gap), weight, reduction)


@operation
def l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
            reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """|input - target|; with a weight, the mean is the weighted one."""
    reduction = reduction_of("l1_loss", reduction, size_average, reduce)
    a, b = _pairwise("l1_loss", input, target)
    return _weighted_mean("l1_loss", graph.unary("abs", graph.sub(a, b)), weight, reduction)


@operation
def smooth_l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Squares below beta (over 2 beta), absolute differences (less beta / 2) beyond."""
    reduction = reduction_of("smooth_l1_loss", reduction, size_average, reduce)
    if beta < 0:
        raise fail("smooth_l1_loss", f"beta {beta} is below 0")
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
    if delta <= 0:
        raise fail("huber_loss", f"delta {delta} is not above 0")
    a, b = _pairwise("huber_loss", input, target)
    gap = graph.sub(a, b)
    size = graph.unary("abs", gap)
    near = graph.mul(graph.mul(gap, gap), 0.5)
    far = graph.mul(graph.sub(size, 0.5 * delta), delta)
    losses = graph.where(graph.binary("le", size, delta), near, far)
    if weight is not None and tuple(weight.shape) != losses.shape:
        raise fail("huber_loss", f"weight {listed(weight.shape)} and input {listed(losses.shape)} "
                   "must have the same size", kind=ValueError)
    return reduced("huber_loss", _weighted("huber_loss", losses, weight), reduction)


@operation
def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                         size_average: Any = None, reduce: Any = None,
                         reduction: str = "mean") -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), logarithms no lower than -100.

    Inputs and targets outside of 0..1 are a ValueError once values are computed.
    """
    name = "binary_cross_entropy"
    reduction = reduction_of(name, reduction, size_average, reduce)
    same_shape(name, input, target)
    p, t = several(name, input, target)
    if not p.dtype.is_floating:
        raise fail(name, f"probabilities are floating, not {p.dtype.name}")
    one = graph.like(1, p)
    yes = clamp_node(graph.unary("log", p), -100.0, None)
    no = clamp_node(graph.unary("log", graph.sub(one, p)), -100.0, None)
    losses = graph.unary("neg", graph.add(graph.mul(t, yes), graph.mul(graph.sub(one, t), no)))
    result = reduced(name, _weighted(name, losses, weight), reduction)
    conditions = [(graph.within(t, 0, 1), requirements.TARGETS),
                  (graph.within(p, 0, 1), requirements.INPUTS)]
    if reduction != "none":  # one check of all instead of one for each vector
        conditions = [(graph.reduce("min", holds, tuple(range(p.ndim))), requirement)
                      for holds, requirement in conditions]
    return wrap(graph.attached(node_of(result), *conditions))


@operation
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: Any = None, reduce: Any = None,
                                     reduction: str = "mean",
                                     pos_weight: Tensor | None = None) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow.

    pos_weight: a factor for the positive term, broadcast (one for each class, last).
    """
    name = "binary_cross_entropy_with_logits"
    reduction = reduction_of(name, reduction, size_average, reduce)
    same_shape(name, input, target)
    x, t = several(name, input, target)
    if not x.dtype.is_floating:
        raise fail(name, f"logits are floating, not {x.dtype.name}")
    down = graph.sub(graph.like(1, t), t)
    minus_log = softplus_node(graph.unary("neg", x))  # -log(sigmoid(x)); -log(1 - …) is that plus x
    if pos_weight is None:
        losses = graph.add(graph.mul(down, x), minus_log)
    else:
        positive = graph.cast(as_node(name, pos_weight), x.dtype)
        factor = graph.add(graph.mul(t, graph.sub(positive, 1)), 1)
        losses = graph.add(graph.mul(down, x), graph.mul(factor, minus_log))
    return reduced(name, _weighted(name, losses, weight), reduction)


@operation
def kl_div(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
           reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log(target) - input), input being log-probabilities.

    log_target: the target is given as log-probabilities, too.  reduction "batchmean": the sum over
    the size of the first axis.
    """
    reduction = reduction_of("kl_div", reduction, size_average, reduce, (*REDUCTIONS, "batchmean"))
    logs, t = several("kl_div", input, target)
    if log_target:
        losses = graph.mul(graph.unary("exp", t), graph.sub(t, logs))
    else:
        zero = graph.binary("eq", t, 0)
        own = graph.mul(t, graph.unary("log", graph.where(zero, 1, t)))
        losses = graph.sub(own, graph.mul(t, logs))
    if reduction == "batchmean":
        total = graph.reduce("sum", losses, tuple(range(losses.ndim)))
        return wrap(graph.div(total, logs.shape[0] if logs.ndim else 1))
    return reduced("kl_div", losses, reduction)


@operation
def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: Any = None, eps: float = 1e-8, reduce: Any = None,
                     reduction: str = "mean") -> Tensor:
    """exp(x) - t x (x the log-rate), or x - t log(x + eps).

    full: with Stirling's approximation of log(t!) for targets above 1.
    """
    reduction = reduction_of("poisson_nll_loss", reduction, size_average, reduce)
    x, t = several("poisson_nll_loss", input, target)
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


def _variances(input: Tensor, var: Any) -> Any:
    """The variances with an axis for each of the input's, as PyTorch accepts them."""
    name = "gaussian_nll_loss"
    if not isinstance(var, Tensor):
        if var < 0:
            raise fail(name, f"the variance {var} is below 0", kind=ValueError)
        return var
    if var.shape == input.shape:
        return var
    if tuple(var.shape) == tuple(input.shape[:-1]):
        return var.unsqueeze(-1)
    differing = [have for want, have in zip(input.shape, var.shape) if want != have]
    if var.ndim == input.ndim and differing == [1]:
        return var
    raise fail(name, f"var {listed(var.shape)} does not fit input {listed(input.shape)}",
               "It has the input's shape, or lacks the last axis, or has one axis of size 1.",
               ValueError)


@operation
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log(var) + (input - target)² / var) / 2, with var at least eps (gradients pass that bound).

    Variances below 0 are a ValueError once values are computed.
    """
    name = "gaussian_nll_loss"
    x, t, spread = several(name, input, target, _variances(input, var))
    if eps <= 0:
        raise fail(name, f"eps {eps} is not above 0", kind=ValueError)
    spread = graph.required(spread, (graph.make("not", graph.binary("lt", spread, 0)),
                                     requirements.VARIANCES))
    lift = graph.sub(graph.like(eps, spread), graph.stop_gradient(spread))
    low = graph.binary("lt", graph.stop_gradient(spread), eps)
    bounded = graph.where(low, graph.add(spread, lift), spread)
    gap = graph.sub(x, t)
    losses = graph.mul(graph.add(graph.unary("log", bounded),
                                 graph.div(graph.mul(gap, gap), bounded)), 0.5)
    if full:
        losses = graph.add(losses, 0.5 * math.log(2 * math.pi))
    return reduced(name, losses, reduction)


@operation
def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *,
                         linear_bias: Tensor | None = None, weight: Tensor | None = None,
                         reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0, options: Any = None) -> Tensor:
    """cross_entropy of a linear layer's scores; the compiler decides what of them is stored.

    input: (in,) or (N, in); linear_weight: (C, *out, in); linear_bias: (C, *out); target as in
    `cross_entropy` for scores (N, C, *out).  options: accepted, they steer PyTorch's chunking.
    """
    name = "linear_cross_entropy"
    if input.ndim not in (1, 2) or linear_weight.ndim < 2 \
            or input.shape[-1] != linear_weight.shape[-1]:
        raise fail(name, f"input {listed(input.shape)} and linear_weight "
                   f"{listed(linear_weight.shape)} do not fit",
                   "They are (in,) or (N, in), and (C, *out, in).")
    outer = tuple(linear_weight.shape[:-1])
    if linear_bias is not None and tuple(linear_bias.shape) != outer:
        raise fail(name, f"linear_bias {listed(linear_bias.shape)} is not {listed(outer)}")
    if len(outer) > 1 and input.ndim == 1:
        raise fail(name, f"linear_weight {listed(linear_weight.shape)} needs an input with a batch "
                   f"axis, not {listed(input.shape)}")
    from lazygrad.functional.products import linear
    flat = linear(input, linear_weight.reshape(-1, input.shape[-1]),
                  None if linear_bias is None else linear_bias.reshape(-1))
    scores = flat.reshape(*input.shape[:-1], *outer)
    return cross_entropy(scores, target, weight, ignore_index=-100 if ignore_index is None
                         else ignore_index, reduction=reduction, label_smoothing=label_smoothing)
