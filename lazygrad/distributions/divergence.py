"""Kullback-Leibler divergences, as a table by the types of the two distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.distributions import counts, gammas, real_line
from lazygrad.distributions.base import Distribution, Independent, sum_last
from lazygrad.nn import functional as F

TABLE: dict[tuple[type, type], Callable[[Any, Any], lg.Tensor]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Any], Any]:
    """Decorator: the function of (p, q) that `kl_divergence` calls for these types."""
    def register(function: Callable[[Any, Any], lg.Tensor]) -> Callable[[Any, Any], lg.Tensor]:
        TABLE[type_p, type_q] = function
        return function
    return register


def kl_divergence(p: Distribution, q: Distribution) -> lg.Tensor:
    """KL(p || q), by the closest entry for the two types: of shape batch_shape."""
    for left in type(p).__mro__:
        for right in type(q).__mro__:
            if (left, right) in TABLE:
                return TABLE[left, right](p, q)
    raise fail("kl_divergence", f"there is no formula for {type(p).__name__} and "
               f"{type(q).__name__}", "Add one with register_kl, or average p.log_prob(x) - "
               "q.log_prob(x) over samples x of p.", NotImplementedError)


@register_kl(real_line.Normal, real_line.Normal)
def _normal(p: real_line.Normal, q: real_line.Normal) -> lg.Tensor:
    ratio = (p.scale / q.scale).square()
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).square() - 1 - ratio.log())


@register_kl(real_line.MultivariateNormal, real_line.MultivariateNormal)
def _multivariate(p: real_line.MultivariateNormal, q: real_line.MultivariateNormal) -> lg.Tensor:
    solved = lg.linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False)
    distance = lg.linalg.solve_triangular(q.scale_tril, (q.loc - p.loc).unsqueeze(-1), upper=False)
    logs = q._half_log_determinant() - p._half_log_determinant()
    return logs + 0.5 * (solved.square().sum((-2, -1)) + distance.square().sum((-2, -1))
                         - p.event_shape[0])


@register_kl(real_line.Uniform, real_line.Uniform)
def _uniform(p: real_line.Uniform, q: real_line.Uniform) -> lg.Tensor:
    outside = (q.low > p.low) | (q.high < p.high)
    return lg.where(outside, math.inf, ((q.high - q.low) / (p.high - p.low)).log())


@register_kl(real_line.Exponential, real_line.Exponential)
def _exponential(p: real_line.Exponential, q: real_line.Exponential) -> lg.Tensor:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1


@register_kl(real_line.Laplace, real_line.Laplace)
def _laplace(p: real_line.Laplace, q: real_line.Laplace) -> lg.Tensor:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * (-distance / p.scale).exp() - 1


@register_kl(counts.Bernoulli, counts.Bernoulli)
def _bernoulli(p: counts.Bernoulli, q: counts.Bernoulli) -> lg.Tensor:
    success = F.softplus(-q.logits) - F.softplus(-p.logits)
    failure = F.softplus(q.logits) - F.softplus(p.logits)
    return p.probs * success + (1 - p.probs) * failure


@register_kl(counts.Categorical, counts.Categorical)
@register_kl(counts.OneHotCategorical, counts.OneHotCategorical)
def _categorical(p: counts.Categorical, q: counts.Categorical) -> lg.Tensor:
    terms = lg.where(p.probs == 0, 0.0, p.probs * (p.logits - q.logits))
    return terms.sum(-1)


@register_kl(counts.Poisson, counts.Poisson)
def _poisson(p: counts.Poisson, q: counts.Poisson) -> lg.Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(gammas.Gamma, gammas.Gamma)
def _gamma(p: gammas.Gamma, q: gammas.Gamma) -> lg.Tensor:
    a, b = p.concentration, q.concentration
    return (b * (p.rate / q.rate).log() + lg.lgamma(b) - lg.lgamma(a) + (a - b) * lg.digamma(a)
            + a * (q.rate / p.rate - 1))


@register_kl(gammas.Dirichlet, gammas.Dirichlet)
def _dirichlet(p: gammas.Dirichlet, q: gammas.Dirichlet) -> lg.Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    expected_logs = lg.digamma(a) - lg.digamma(total).unsqueeze(-1)
    return (lg.lgamma(total) - lg.lgamma(b.sum(-1)) - (lg.lgamma(a) - lg.lgamma(b)).sum(-1)
            + ((a - b) * expected_logs).sum(-1))


@register_kl(gammas.Beta, gammas.Beta)
def _beta(p: gammas.Beta, q: gammas.Beta) -> lg.Tensor:
    return _dirichlet(p._dirichlet(), q._dirichlet())


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> lg.Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise fail("kl_divergence", f"events of {p.reinterpreted_batch_ndims} and "
                   f"{q.reinterpreted_batch_ndims} reinterpreted axes")
    return sum_last(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)
