"""Distributions of positive numbers that are drawn by inverting their distribution function."""

from __future__ import annotations

import math
from typing import Any

import numpy

import lazygrad as lg
from lazygrad.distributions.base import Distribution, broadcast, positive


def _uniform(like: lg.Tensor, shape: tuple[int, ...]) -> lg.Tensor:
    """Draws from 0 (excluded) to 1."""
    return 1 - lg.rand(shape, dtype=like.dtype)


class Weibull(Distribution):
    """Lifetimes: rates of failure that grow (concentration > 1) or fall with age."""

    has_rsample = True
    arg_names = ("scale", "concentration")

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = (positive("Weibull", each, validate_args)
                                          for each in broadcast(scale, concentration))
        super().__init__(self.scale.shape)

    def _moment(self, order: int) -> lg.Tensor:
        return self.scale ** order * lg.lgamma(1 + order / self.concentration).exp()

    @property
    def mean(self) -> lg.Tensor:
        return self._moment(1)

    @property
    def mode(self) -> lg.Tensor:
        k = self.concentration
        return self.scale * ((k - 1) / k).clamp(min=0) ** (1 / k)

    @property
    def variance(self) -> lg.Tensor:
        return self._moment(2) - self._moment(1).square()

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return self.scale * (-_uniform(self.scale, shape).log()) ** (1 / self.concentration)

    def log_prob(self, value: Any) -> lg.Tensor:
        ratio = lg.as_tensor(value) / self.scale
        k = self.concentration
        return (k / self.scale).log() + (k - 1) * ratio.log() - ratio ** k

    def cdf(self, value: Any) -> lg.Tensor:
        return -(-((lg.as_tensor(value) / self.scale) ** self.concentration)).expm1()

    def entropy(self) -> lg.Tensor:
        k = self.concentration
        return numpy.euler_gamma * (1 - 1 / k) + (self.scale / k).log() + 1


class Pareto(Distribution):
    """Of at least `scale`; the tail falls with the power `alpha`."""

    has_rsample = True
    arg_names = ("scale", "alpha")

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = (positive("Pareto", each, validate_args)
                                  for each in broadcast(scale, alpha))
        super().__init__(self.scale.shape)

    @property
    def mean(self) -> lg.Tensor:
        return lg.where(self.alpha > 1, self.alpha * self.scale / (self.alpha - 1), lg.inf)

    @property
    def mode(self) -> lg.Tensor:
        return self.scale

    @property
    def variance(self) -> lg.Tensor:
        a = self.alpha
        return lg.where(a > 2, self.scale.square() * a / ((a - 1).square() * (a - 2)), lg.inf)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return self.scale * _uniform(self.scale, shape) ** (-1 / self.alpha)

    def log_prob(self, value: Any) -> lg.Tensor:
        value = lg.as_tensor(value)
        density = self.alpha.log() + self.alpha * self.scale.log() - (self.alpha + 1) * value.log()
        return lg.where(value >= self.scale, density, -lg.inf)

    def cdf(self, value: Any) -> lg.Tensor:
        return (1 - (self.scale / lg.as_tensor(value)) ** self.alpha).clamp(min=0)

    def entropy(self) -> lg.Tensor:
        return (self.scale / self.alpha).log() + 1 + 1 / self.alpha


class HalfCauchy(Distribution):
    """The size of a Cauchy variable around 0; it has no mean."""

    has_rsample = True
    arg_names = ("scale",)

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        self.scale = positive("HalfCauchy", broadcast(scale)[0], validate_args)
        super().__init__(self.scale.shape)

    @property
    def mean(self) -> lg.Tensor:
        return lg.full_like(self.scale, lg.inf)

    variance = mean

    @property
    def mode(self) -> lg.Tensor:
        return lg.zeros_like(self.scale)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return self.icdf(lg.rand(shape, dtype=self.scale.dtype))

    def log_prob(self, value: Any) -> lg.Tensor:
        value = lg.as_tensor(value)
        density = math.log(2 / math.pi) - self.scale.log() \
            - (value / self.scale).square().log1p()
        return lg.where(value >= 0, density, -lg.inf)

    def cdf(self, value: Any) -> lg.Tensor:
        return 2 / math.pi * (lg.as_tensor(value) / self.scale).atan()

    def icdf(self, value: Any) -> lg.Tensor:
        return self.scale * (math.pi / 2 * lg.as_tensor(value)).tan()

    def entropy(self) -> lg.Tensor:
        return (2 * math.pi * self.scale).log()


class Kumaraswamy(Distribution):
    """From 0 to 1, shaped as a beta distribution, and drawn with gradients."""

    has_rsample = True
    arg_names = ("concentration1", "concentration0")

    def __init__(self, concentration1: Any, concentration0: Any,
                 validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = (
            positive("Kumaraswamy", each, validate_args)
            for each in broadcast(concentration1, concentration0))
        super().__init__(self.concentration1.shape)

    def _moment(self, order: int) -> lg.Tensor:
        first = 1 + order / self.concentration1
        b = self.concentration0
        return b * (lg.lgamma(first) + lg.lgamma(b) - lg.lgamma(first + b)).exp()

    @property
    def mean(self) -> lg.Tensor:
        return self._moment(1)

    @property
    def variance(self) -> lg.Tensor:
        return self._moment(2) - self._moment(1).square()

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        uniform = _uniform(self.concentration1, shape)
        return (1 - uniform ** (1 / self.concentration0)) ** (1 / self.concentration1)

    def log_prob(self, value: Any) -> lg.Tensor:
        value = lg.as_tensor(value)
        a, b = self.concentration1, self.concentration0
        return a.log() + b.log() + (a - 1) * value.log() + (b - 1) * (-(value ** a)).log1p()

    def entropy(self) -> lg.Tensor:
        a, b = self.concentration1, self.concentration0
        harmonic = lg.digamma(b + 1) + numpy.euler_gamma
        return (1 - 1 / b) + (1 - 1 / a) * harmonic - a.log() - b.log()
