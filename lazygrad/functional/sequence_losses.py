"""Connectionist temporal classification (Graves et al. 2006).

The forward recursion over time is a loop of the program; a step handles all samples and all labels
at once and is some ten nodes, which fuse into one kernel.  Backward is derived from that: the
recursion in the other direction, over values that the steps kept.  Work and memory grow with
T * batch * (2 * labels + 1), compile time with nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.looped import loop
from lazygrad._core.tensor import Tensor, array_of, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional._windows import known
from lazygrad.functional.gathering import gather_along, index_node
from lazygrad.functional.losses import reduced, reduction_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["ctc_loss"]

NAME = "ctc_loss"


def _lengths(what: str, given: Any, batch: int, most: int | None) -> Node:
    """Lengths (N,) as nodes; plain numbers are checked at once."""
    if isinstance(given, Tensor):
        node = index_node(NAME, given)
        node = graph.reshape(node, (1,)) if not node.ndim else node
        if most is not None:  # looked up, so that one beyond it is an index out of range
            node = graph.make("gather", known(range(most + 1)), node, attrs=((0,),))
    else:
        numbers = [given] if hasattr(given, "__index__") else list(given)
        numbers = [each.__index__() for each in numbers]
        if numbers and (min(numbers) < 0 or (most is not None and max(numbers) > most)):
            raise fail(NAME, f"{what} {tuple(numbers)} must lie within 0..{most}")
        node = known(numbers)
    if node.shape != (batch,):
        raise fail(NAME, f"{what} {listed(node.shape)}: there are {batch} samples",
                   "Give one length for each sample.")
    return node


def _padded_targets(targets: Node, lengths: Any, batch: int) -> Node:
    """Labels (N, S) from labels one sample after the other; looks at the lengths."""
    counts = array_of(lengths) if isinstance(lengths, Tensor) else numpy.asarray(lengths)
    counts = counts.astype(numpy.int64).reshape(-1)
    if len(counts) != batch or counts.sum() != targets.size or (counts < 0).any():
        raise fail(NAME, f"{targets.size} targets in one axis for target_lengths "
                   f"{tuple(counts.tolist())} of {batch} samples",
                   "Their sum is the number of targets.")
    starts = numpy.concatenate([[0], counts.cumsum()[:-1]])
    places = starts[:, None] + numpy.arange(int(counts.max(initial=0)))
    places = numpy.minimum(places, max(targets.size - 1, 0))
    if not places.size:
        return graph.const(0, dtypes.int64, places.shape)
    return graph.make("gather", targets, known(places), attrs=((0,),))


def _shifted(alpha: Node, by: int) -> Node:
    """Moved to the right along the labels; -inf comes in."""
    count = alpha.shape[1]
    if by >= count:
        return graph.like(-math.inf, alpha)
    return graph.pad(graph.slice_axis(alpha, 1, 0, count - by), (0, by), (0, 0), -math.inf)


def _log_of_sum(terms: Sequence[Node]) -> Node:
    """log(sum(exp(terms))); -inf, with a gradient of 0, where all are -inf."""
    top = terms[0]
    for term in terms[1:]:
        top = graph.binary("maximum", top, term)
    top = graph.stop_gradient(top)
    dead = graph.binary("eq", top, -math.inf)
    shift = graph.where(dead, 0, top)
    total = None
    for term in terms:
        power = graph.unary("exp", graph.sub(term, shift))
        total = power if total is None else graph.add(total, power)
    assert total is not None
    logs = graph.unary("log", graph.where(dead, 1, total))
    return graph.where(dead, -math.inf, graph.add(logs, shift))


def _at(alpha: Node, places: Node) -> Node:
    """alpha[n, places[n]]."""
    column = graph.reshape(places, (alpha.shape[0], 1))
    return graph.reshape(gather_along(alpha, 1, column), (alpha.shape[0],))


def _negative_log_likelihood(logs: Node, labels: Node, frames: Node, lengths: Node,
                             blank: int) -> Node:
    """For each sample; logs (T, N, C), labels (N, S)."""
    time, batch, _ = logs.shape
    states = 2 * labels.shape[1] + 1
    shape = (batch, states)
    # blank, first label, blank, second label, ..., blank
    blanks = graph.const(blank, dtypes.int64, (*labels.shape, 1))
    pairs = graph.concat([blanks, graph.unsqueeze(labels, 2)], 2)
    extended = graph.reshape(pairs, (batch, states - 1))
    extended = graph.concat([extended, graph.const(blank, dtypes.int64, (batch, 1))], 1)
    before = graph.pad(extended, (0, 2), (0, -2) if states > 2 else (0, 0), blank)
    before = graph.slice_axis(before, 1, 0, states)
    skips = graph.make("and", graph.binary("ne", extended, blank),
                       graph.make("ne", extended, before))
    spread = graph.broadcast(graph.unsqueeze(extended, 0), (time, *shape))
    scores = gather_along(logs, 2, spread)

    starts = graph.binary("lt", graph.iota(1, shape), 2)
    nothing = graph.const(-math.inf, logs.dtype, shape)
    first = graph.reshape(graph.slice_axis(scores, 0, 0, 1), shape) if time else nothing
    alpha = graph.where(starts, first, nothing)
    running = graph.broadcast(graph.unsqueeze(frames, 1), shape)

    def step(states: list[Node], steps: list[Node]) -> tuple[list[Node], list[Node]]:
        (alpha,), (score, number) = states, steps
        skipped = graph.where(skips, _shifted(alpha, 2), -math.inf)
        following = graph.add(_log_of_sum([alpha, _shifted(alpha, 1), skipped]), score)
        going = graph.binary("lt", graph.reshape(number, (1, 1)), running)
        return [graph.where(going, following, alpha)], []

    if time > 1:
        number_of = graph.add(graph.iota(0, (time - 1,)), 1)
        series = [graph.slice_axis(scores, 0, 1, time), number_of]
        (alpha,), _ = loop(NAME, step, [alpha], series, time - 1)
    last = graph.mul(lengths, 2)
    in_blank = _at(alpha, last)
    in_label = _at(alpha, graph.binary("maximum", graph.sub(last, 1), 0))
    in_label = graph.where(graph.binary("eq", lengths, 0), -math.inf, in_label)
    result = graph.unary("neg", _log_of_sum([in_blank, in_label]))
    # No frames: certain if there are no labels either, else impossible.
    none = graph.binary("eq", frames, 0)
    empty = graph.where(graph.binary("eq", lengths, 0), graph.like(0, result),
                        graph.like(math.inf, result))
    return graph.where(none, empty, result)


@operation
def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any,
             blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """Minus the log-probability of the targets under all alignments with blanks and repetitions.

    log_probs: (T, N, C) or (T, C), from log_softmax.  targets: (N, S), or all samples' labels in
    one axis (then target_lengths are looked at).  input_lengths, target_lengths: (N,), tensors or
    numbers.  reduction "mean": each loss over its target length, then the mean over the batch.
    zero_infinity: infinite losses (a target longer than its frames allow) count as 0, without
    gradient.

    Gradients are those of this function of log_probs.  (PyTorch's are those of the logits ahead of
    a log_softmax; after that log_softmax both agree.)
    """
    reduction = reduction_of(NAME, reduction)
    logs, labels = as_node(NAME, log_probs), index_node(NAME, targets)
    if logs.ndim not in (2, 3) or not logs.dtype.is_floating:
        raise fail(NAME, f"log_probs are floating, (T, N, C) or (T, C), not {logs.dtype.name} "
                   f"{listed(logs.shape)}")
    batched = logs.ndim == 3
    if not batched:
        logs = graph.unsqueeze(logs, 1)
        labels = graph.reshape(labels, (1, labels.size))
    time, batch, classes = logs.shape
    if not time and batch:
        raise fail(NAME, f"log_probs {listed(log_probs.shape)} have no frames")
    if not 0 <= blank < classes:
        raise fail(NAME, f"blank {blank} is none of the {classes} classes")
    if labels.ndim == 1:
        labels = _padded_targets(labels, target_lengths, batch)
    if labels.ndim != 2 or labels.shape[0] != batch:
        raise fail(NAME, f"targets {listed(targets.shape)} for log_probs {listed(log_probs.shape)}",
                   "They are (N, S), or all labels in one axis.")
    frames = _lengths("input_lengths", input_lengths, batch, time)
    lengths = _lengths("target_lengths", target_lengths, batch, labels.shape[1])
    # Labels beyond a target's length may be anything.
    within = graph.binary("lt", graph.iota(1, labels.shape),
                          graph.broadcast(graph.unsqueeze(lengths, 1), labels.shape))
    labels = graph.where(within, labels, blank)
    losses = _negative_log_likelihood(logs, labels, frames, lengths, blank)
    if zero_infinity:
        losses = graph.where(graph.binary("eq", losses, math.inf), 0, losses)
    if reduction == "mean":
        losses = graph.div(losses, graph.cast(graph.binary("maximum", lengths, 1), losses.dtype))
    if not batched and reduction == "none":
        return wrap(graph.reshape(losses, ()))
    return reduced(NAME, losses, reduction)
