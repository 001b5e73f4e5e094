"""Samples of distributions: bernoulli, multinomial, poisson, and tensors filled with draws.

Everything is a formula of uniform numbers, so it is drawn inside the kernel that uses it: inversion
of the distribution function where that has a formula (L. Devroye, "Non-Uniform Random Variate
Generation", 1986, ch. 2), exponential races for choices without replacement.  16-bit floats are
drawn in float32 and rounded.  No gradients flow to the parameters.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import METHODS, fail, method, operation
from lazygrad._core.tensor import Tensor, node_of, shape_of, wrap, write
from lazygrad.functional._operands import as_node
from lazygrad.functional.generators import Generator
from lazygrad.functional.random import bits_node, integers_node, normal_node, uniform_node
from lazygrad_compiler.ir import dtypes, requirements
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["bernoulli", "binomial", "multinomial", "poisson", "gumbel_softmax"]


def _wide(dtype: DType) -> DType:
    """What draws of the dtype are computed in."""
    return dtypes.float64 if dtype is dtypes.float64 else dtypes.float32


def _weights(name: str, input: Any) -> Node:
    node = graph.stop_gradient(as_node(name, input))
    if not node.dtype.is_floating:
        raise fail(name, f"takes floating numbers, not {node.dtype.name}",
                   "Convert with .float().")
    return node


@operation
def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None
) -> Tensor:
    """1 with the probability in each place (or p everywhere), else 0."""
    if p is not None:
        node = as_node("bernoulli", input)
        _check_chance("bernoulli", p)
        chance = graph.const(p, dtypes.float32, node.shape)
    else:
        node = _weights("bernoulli", input)
        chance = _chances(graph.cast(node, _wide(node.dtype)))
    hit = graph.make("lt", uniform_node(node.shape, chance.dtype, generator), chance)
    return wrap(graph.cast(hit, node.dtype))


def _chances(chance: Node) -> Node:
    return graph.required(chance, (graph.within(chance, 0, 1), requirements.PROBABILITIES))


def _check_chance(name: str, p: Any) -> None:
    if not isinstance(p, Tensor) and not 0 <= p <= 1:
        raise fail(name, f"p is a probability, and {p} does not lie in 0..1")


@operation
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:
    """Indices drawn in proportion to each row's weights, which need not add up to 1.

    With replacement: the place of a uniform number among the running totals.  Without: the first
    finishers of an exponential race, that is, the largest of log(weight) + Gumbel noise
    (P. S. Efraimidis and P. G. Spirakis, "Weighted random sampling with a reservoir", 2006); where
    fewer weights are positive than draws are asked for, others come last.
    """
    weights = _weights("multinomial", input)
    if weights.ndim not in (1, 2):
        raise fail("multinomial", f"takes one row of weights or several, not "
                   f"{listed(weights.shape)}")
    classes = weights.shape[-1]
    if num_samples <= 0:
        raise fail("multinomial", f"num_samples is {num_samples}", "Draw at least one.")
    if not classes:
        raise fail("multinomial", "there are no classes to draw from")
    if not replacement and num_samples > classes:
        raise fail("multinomial", f"{num_samples} draws without replacement from {classes} classes")
    wide = graph.cast(weights, dtypes.float64)
    most = graph.broadcast(graph.unsqueeze(graph.reduce("max", wide, (weights.ndim - 1,)),
                                           weights.ndim - 1), wide.shape)
    wide = graph.required(
        wide, (graph.binary("ne", most, 0), requirements.SUM),
        (graph.within(wide, 0, sys.float_info.max), requirements.WEIGHTS))
    if replacement:
        totals = graph.make("scan", wide, attrs=(weights.ndim - 1, "add", False))
        shape = (*weights.shape[:-1], num_samples)
        last = graph.slice_axis(totals, weights.ndim - 1, classes - 1, classes)
        place = graph.mul(uniform_node(shape, dtypes.float64, generator),
                          graph.broadcast(last, shape))
        index = graph.make("searchsorted", totals, place, attrs=("right",))
        return wrap(graph.binary("minimum", index, classes - 1))
    draw = uniform_node(weights.shape, dtypes.float64, generator)
    race = graph.unary("log", graph.sub(graph.like(1, draw), draw))  # minus an exponential number
    noise = graph.unary("log", graph.unary("neg", race))
    keys = graph.sub(graph.unary("log", wide), noise)
    return wrap(graph.make("top_k", keys, attrs=(num_samples, True)))


@operation
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers with the rate in each place, by inversion (op `poisson_quantile`).

    Exact below a rate of 64.  From there on the quantile is Giles' expansion, which is off by one
    with a chance of at most 2e-5.
    """
    rate = _weights("poisson", input)
    wide = graph.cast(rate, dtypes.float64)
    wide = graph.required(wide, (graph.within(wide, 0), requirements.RATES))
    draw = uniform_node(rate.shape, dtypes.float64, generator)
    return wrap(graph.cast(graph.make("poisson_quantile", wide, draw), rate.dtype))


@operation
def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """Hits in so many trials of a chance, each place by itself; the two broadcast.

    Drawn by NumPy under a key that comes from the generator.  0 where the count or the chance is
    negative; a chance above 1 counts as 1.
    """
    trials, chance = _weights("binomial", count), _weights("binomial", prob)
    if trials.dtype is not chance.dtype:
        raise fail("binomial", f"count is {trials.dtype.name}, prob {chance.dtype.name}",
                   "Convert one with .to(...).")
    trials, chance = graph.together("binomial", trials, chance)
    dtype = trials.dtype
    wide = _wide(dtype)
    drawn = graph.make("library", graph.cast(trials, wide), graph.cast(chance, wide),
                       bits_node((4,), generator), attrs=("binomial", (), 0))
    return wrap(graph.cast(drawn, dtype))


@operation
def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10,
                   dim: int = -1) -> Tensor:
    """A softmax of noisy logits; `hard`: one-hot forward, soft backward (Jang et al. 2017)."""
    from lazygrad.functional.activations import softmax
    wide = _wide(logits.dtype)
    draw = uniform_node(shape_of(logits), wide)
    # the middle of the 2**-24 (2**-53) wide step that was drawn: neither 0 nor 1
    draw = graph.add(draw, 2.0**-54 if wide is dtypes.float64 else 2.0**-25)
    noise = graph.unary("log", graph.unary("neg", graph.unary("log", draw)))
    soft = softmax((logits - wrap(graph.cast(noise, logits.dtype))) / tau, dim)
    if not hard:
        return soft
    index = soft.argmax(dim, keepdim=True)
    return soft.detach().zero_().scatter(dim, index, 1.0) - soft.detach() + soft


# ---- in place


Draw = Callable[..., Node]
"""(shape, wide dtype, generator, parameters …) -> the draws."""


def _uniform(shape: tuple[int, ...], dtype: DType, source: Any, a: float = 0.0, b: float = 1.0,
             **names: float) -> Node:
    a, b = names.get("from", a), names.get("to", b)
    if not a <= b:
        raise fail("uniform_", f"there are no numbers from {a} to {b}")
    draw = uniform_node(shape, dtype, source)
    return graph.add(graph.mul(draw, b - a), a) if (a, b) != (0.0, 1.0) else draw


def _normal(shape: tuple[int, ...], dtype: DType, source: Any, mean: float = 0.0,
            std: float = 1.0) -> Node:
    if std < 0:
        raise fail("normal_", f"the standard deviation is {std}")
    draw = normal_node(shape, dtype, source)
    draw = draw if std == 1 else graph.mul(draw, std)
    return draw if mean == 0 else graph.add(draw, mean)


def _log_normal(shape: tuple[int, ...], dtype: DType, source: Any, mean: float = 1.0,
                std: float = 2.0) -> Node:
    if std <= 0:
        raise fail("log_normal_", f"the standard deviation is {std}")
    return graph.unary("exp", _normal(shape, dtype, source, mean, std))


def _exponential(shape: tuple[int, ...], dtype: DType, source: Any, lambd: float = 1.0) -> Node:
    if not lambd > 0:
        raise fail("exponential_", f"the rate lambd is {lambd}", "It must be positive.")
    draw = uniform_node(shape, dtype, source)
    logs = graph.unary("log1p", graph.unary("neg", draw))
    return graph.mul(logs, -1.0 / lambd)


def _cauchy(shape: tuple[int, ...], dtype: DType, source: Any, median: float = 0.0,
            sigma: float = 1.0) -> Node:
    if not sigma > 0:
        raise fail("cauchy_", f"sigma is {sigma}", "It must be positive.")
    draw = graph.sub(uniform_node(shape, dtype, source), 0.5)
    angle = graph.unary("tan", graph.mul(draw, math.pi))
    return graph.add(graph.mul(angle, sigma), median)


def _geometric(shape: tuple[int, ...], dtype: DType, source: Any, p: float) -> Node:
    """Trials up to and with the first hit: 1, 2, …"""
    if not 0 < p < 1:
        raise fail("geometric_", f"p is {p}", "It must lie between 0 and 1.")
    draw = uniform_node(shape, dtypes.float64, source)
    logs = graph.unary("log1p", graph.unary("neg", draw))
    count = graph.unary("ceil", graph.mul(logs, 1.0 / math.log1p(-p)))
    return graph.binary("maximum", count, 1)


def _in_place(name: str, make: Draw, about: str, floats_only: bool = True) -> None:
    def apply(self: Tensor, *arguments: Any, generator: Generator | None = None,
              **keywords: Any) -> Tensor:
        if floats_only and not self.dtype.is_floating:
            raise fail(name, f"draws floating numbers, and the tensor is {self.dtype.name}",
                       "Convert with .float().")
        made = make(shape_of(self), _wide(self.dtype), generator, *arguments, **keywords)
        return write(self, name, graph.cast(made, self.dtype))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = about
    method(apply)


_in_place("uniform_", _uniform, "Uniform in a..b, written into the tensor.")
_in_place("log_normal_", _log_normal, "exp of normal numbers, written into the tensor.")
_in_place("exponential_", _exponential, "Exponential with a rate, written into the tensor.")
_in_place("cauchy_", _cauchy, "Cauchy with median and scale, written into the tensor.")
_in_place("geometric_", _geometric, "Trials up to the first hit of chance p, written into the "
          "tensor.", floats_only=False)


@method
def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *,
            generator: Generator | None = None) -> Tensor:
    """Normal with mean and std, written into the tensor; complex numbers have a mean square of
    std² in all.
    """
    dtype, shape = self.dtype, shape_of(self)
    if not dtype.is_differentiable:
        raise fail("normal_", f"draws floating numbers, and the tensor is {dtype.name}",
                   "Convert with .float().")
    if dtype.is_complex:
        part = dtypes.float64 if dtype is dtypes.complex128 else dtypes.float32
        real, imaginary = (_normal(shape, part, generator, 0.0, std * math.sqrt(0.5))
                           for _ in range(2))
        return write(self, "normal_",
                     graph.add(graph.make("complex", real, imaginary), mean))
    drawn = _normal(shape, _wide(dtype), generator, mean, std)
    return write(self, "normal_", graph.cast(drawn, dtype))


@method
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """1 with chance p (a number, or a tensor that broadcasts), else 0, written into the tensor."""
    _check_chance("bernoulli_", p)
    double = isinstance(p, Tensor) and p.dtype is dtypes.float64
    wide = dtypes.float64 if double else dtypes.float32
    draw = uniform_node(shape_of(self), wide, generator)
    chance = _chances(graph.cast(graph.stop_gradient(node_of(p)), wide)) \
        if isinstance(p, Tensor) else p
    return write(self, "bernoulli_", graph.cast(graph.binary("lt", draw, chance), self.dtype))


@method
def random_(self: Tensor, *bounds: Any, generator: Generator | None = None,
            **names: Any) -> Tensor:
    """Whole numbers from `from` (0) to before `to`; without bounds, all that the dtype has from 0
    on (floats: all that it holds exactly).
    """
    dtype = self.dtype
    low, high = (0, bounds[0]) if len(bounds) == 1 else bounds if bounds else (0, None)
    low, high = names.get("from", low), names.get("to", high)
    if dtype.is_floating:
        digits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[dtype.name]
        top = 2**digits + 1
    else:
        top = int(dtype.limits()[1]) + 1
    high = top if high is None else int(high)
    if high <= low:
        raise fail("random_", f"there is no number from {low} to before {high}")
    if high > top or (not dtype.is_floating and low < dtype.limits()[0]):
        raise fail("random_", f"{low} to before {high} does not fit into {dtype.name}")
    drawn = integers_node(int(low), high, shape_of(self), generator)
    return write(self, "random_", graph.cast(drawn, dtype))


METHODS["bernoulli"], METHODS["multinomial"] = bernoulli, multinomial
