"""Distributions over real numbers that are drawn by a formula, hence differentiably."""

from __future__ import annotations

import math
from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.distributions.base import Distribution, broadcast, checked, positive

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
EULER = 0.57721566490153286  # Euler's constant


class _LocationScale(Distribution):
    """`loc + scale * z` for a standard `z`."""

    has_rsample = True
    arg_names = ("loc", "scale")

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        loc, scale = broadcast(loc, scale)
        name = type(self).__name__
        self.loc = checked(name, loc, loc == loc, validate_args)
        self.scale = positive(name, scale, validate_args)
        super().__init__(self.loc.shape)

    def _uniform(self, shape: tuple[int, ...]) -> lg.Tensor:
        """In (0, 1), both ends excluded."""
        tiny = lg.finfo(self.loc.dtype).tiny
        return lg.rand(shape, dtype=self.loc.dtype).clamp(min=tiny)

    @property
    def mean(self) -> lg.Tensor:
        return self.loc

    @property
    def mode(self) -> lg.Tensor:
        return self.loc

    def _standard(self, value: Any) -> lg.Tensor:
        standard: lg.Tensor = (value - self.loc) / self.scale
        return standard


class Normal(_LocationScale):
    """The normal distribution of mean `loc` and standard deviation `scale`."""

    @property
    def variance(self) -> lg.Tensor:
        return self.scale.square()

    @property
    def stddev(self) -> lg.Tensor:
        return self.scale

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return self.loc + self.scale * lg.randn(shape, dtype=self.loc.dtype)

    def log_prob(self, value: Any) -> lg.Tensor:
        return -0.5 * self._standard(value).square() - self.scale.log() - HALF_LOG_TWO_PI

    def cdf(self, value: Any) -> lg.Tensor:
        return 0.5 * (1 + lg.erf(self._standard(value) * math.sqrt(0.5)))

    def icdf(self, value: Any) -> lg.Tensor:
        return self.loc + self.scale * math.sqrt(2) * lg.erfinv(2 * value - 1)

    def entropy(self) -> lg.Tensor:
        return 0.5 + HALF_LOG_TWO_PI + self.scale.log()


class LogNormal(Normal):
    """exp of a normal variable; `loc` and `scale` are those of the logarithm."""

    @property
    def mean(self) -> lg.Tensor:
        return (self.loc + self.scale.square() / 2).exp()

    @property
    def mode(self) -> lg.Tensor:
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> lg.Tensor:
        square = self.scale.square()
        return square.expm1() * (2 * self.loc + square).exp()

    @property
    def stddev(self) -> lg.Tensor:
        return self.variance.sqrt()

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return super()._draw(shape).exp()

    def log_prob(self, value: Any) -> lg.Tensor:
        return super().log_prob(value.log()) - value.log()

    def cdf(self, value: Any) -> lg.Tensor:
        return super().cdf(value.log())

    def icdf(self, value: Any) -> lg.Tensor:
        return super().icdf(value).exp()

    def entropy(self) -> lg.Tensor:
        return super().entropy() + self.loc


class HalfNormal(Distribution):
    """The absolute value of a normal variable of mean 0."""

    has_rsample = True
    arg_names = ("scale",)

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        scale, = broadcast(scale)
        self.scale = positive("HalfNormal", scale, validate_args)
        super().__init__(self.scale.shape)

    @property
    def mean(self) -> lg.Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> lg.Tensor:
        return self.scale.square() * (1 - 2 / math.pi)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return (self.scale * lg.randn(shape, dtype=self.scale.dtype)).abs()

    def log_prob(self, value: Any) -> lg.Tensor:
        inside = Normal(lg.zeros_like(self.scale), self.scale).log_prob(value) + math.log(2)
        return lg.where(lg.as_tensor(value) >= 0, inside, -math.inf)

    def entropy(self) -> lg.Tensor:
        return 0.5 + HALF_LOG_TWO_PI - math.log(2) + self.scale.log()


class Laplace(_LocationScale):
    """The double exponential distribution."""

    @property
    def variance(self) -> lg.Tensor:
        return 2 * self.scale.square()

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        centred = self._uniform(shape) - 0.5
        return self.loc - self.scale * centred.sign() * lg.log1p(-2 * centred.abs())

    def log_prob(self, value: Any) -> lg.Tensor:
        return -self._standard(value).abs() - (2 * self.scale).log()

    def cdf(self, value: Any) -> lg.Tensor:
        standard = self._standard(value)
        return 0.5 - 0.5 * standard.sign() * lg.expm1(-standard.abs())

    def icdf(self, value: Any) -> lg.Tensor:
        centred = value - 0.5
        return self.loc - self.scale * centred.sign() * lg.log1p(-2 * centred.abs())

    def entropy(self) -> lg.Tensor:
        return 1 + (2 * self.scale).log()


class Cauchy(_LocationScale):
    """The ratio of two normal variables; it has no mean."""

    @property
    def mean(self) -> lg.Tensor:
        return lg.full_like(self.loc, math.nan)

    @property
    def variance(self) -> lg.Tensor:
        return lg.full_like(self.loc, math.inf)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return self.icdf(self._uniform(shape))

    def log_prob(self, value: Any) -> lg.Tensor:
        return -math.log(math.pi) - self.scale.log() - self._standard(value).square().log1p()

    def cdf(self, value: Any) -> lg.Tensor:
        return lg.atan(self._standard(value)) / math.pi + 0.5

    def icdf(self, value: Any) -> lg.Tensor:
        return lg.tan(math.pi * (value - 0.5)) * self.scale + self.loc

    def entropy(self) -> lg.Tensor:
        return math.log(4 * math.pi) + self.scale.log()


class Gumbel(_LocationScale):
    """The distribution of the largest of many values."""

    @property
    def mean(self) -> lg.Tensor:
        return self.loc + self.scale * EULER

    @property
    def variance(self) -> lg.Tensor:
        return self.scale.square() * (math.pi**2 / 6)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return self.loc - self.scale * (-self._uniform(shape).log()).log()

    def log_prob(self, value: Any) -> lg.Tensor:
        standard = self._standard(value)
        return -standard - (-standard).exp() - self.scale.log()

    def cdf(self, value: Any) -> lg.Tensor:
        return (-(-self._standard(value)).exp()).exp()

    def entropy(self) -> lg.Tensor:
        return self.scale.log() + (1 + EULER)


class Uniform(Distribution):
    """The uniform distribution on [low, high)."""

    has_rsample = True
    arg_names = ("low", "high")

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, high = broadcast(low, high)
        self.high = checked("Uniform", high, self.low < high, validate_args)
        super().__init__(self.low.shape)

    @property
    def mean(self) -> lg.Tensor:
        return (self.high + self.low) / 2

    @property
    def variance(self) -> lg.Tensor:
        return (self.high - self.low).square() / 12

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return self.low + lg.rand(shape, dtype=self.low.dtype) * (self.high - self.low)

    def log_prob(self, value: Any) -> lg.Tensor:
        value = lg.as_tensor(value)
        inside = (value >= self.low) & (value < self.high)
        return lg.where(inside, -(self.high - self.low).log(), -math.inf)

    def cdf(self, value: Any) -> lg.Tensor:
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Any) -> lg.Tensor:
        return value * (self.high - self.low) + self.low

    def entropy(self) -> lg.Tensor:
        return (self.high - self.low).log()


class Exponential(Distribution):
    """Waiting times of events that come `rate` to the unit of time."""

    has_rsample = True
    arg_names = ("rate",)

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        rate, = broadcast(rate)
        self.rate = positive("Exponential", rate, validate_args)
        super().__init__(self.rate.shape)

    @property
    def mean(self) -> lg.Tensor:
        return self.rate.reciprocal()

    @property
    def mode(self) -> lg.Tensor:
        return lg.zeros_like(self.rate)

    @property
    def variance(self) -> lg.Tensor:
        return self.rate.pow(-2)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return -lg.log1p(-lg.rand(shape, dtype=self.rate.dtype)) / self.rate

    def log_prob(self, value: Any) -> lg.Tensor:
        return self.rate.log() - self.rate * value

    def cdf(self, value: Any) -> lg.Tensor:
        return -lg.expm1(-self.rate * value)

    def icdf(self, value: Any) -> lg.Tensor:
        return -lg.log1p(-lg.as_tensor(value)) / self.rate

    def entropy(self) -> lg.Tensor:
        return 1.0 - self.rate.log()


class MultivariateNormal(Distribution):
    """The normal distribution over vectors, by covariance, its inverse, or a Cholesky factor.

    loc: (..., n); the matrix: (..., n, n).
    """

    has_rsample = True
    arg_names = ("loc", "scale_tril")

    def __init__(self, loc: lg.Tensor, covariance_matrix: Any = None,
                 precision_matrix: Any = None, scale_tril: Any = None,
                 validate_args: bool | None = None) -> None:
        given = [covariance_matrix, precision_matrix, scale_tril]
        if sum(each is not None for each in given) != 1:
            raise fail("MultivariateNormal", "needs one of covariance_matrix, precision_matrix and "
                       "scale_tril", kind=ValueError)
        if scale_tril is None:
            matrix = covariance_matrix if precision_matrix is None else lg.linalg.inv(
                precision_matrix)
            scale_tril = lg.linalg.cholesky(matrix)
        batch = lg.broadcast_shapes(loc.shape[:-1], scale_tril.shape[:-2])
        size = loc.shape[-1]
        self.loc = loc.expand(*batch, size)
        self.scale_tril = scale_tril.expand(*batch, size, size)
        super().__init__(batch, (size,))

    @property
    def covariance_matrix(self) -> lg.Tensor:
        return self.scale_tril @ self.scale_tril.mT

    @property
    def precision_matrix(self) -> lg.Tensor:
        return lg.cholesky_inverse(self.scale_tril)

    @property
    def mean(self) -> lg.Tensor:
        return self.loc

    @property
    def mode(self) -> lg.Tensor:
        return self.loc

    @property
    def variance(self) -> lg.Tensor:
        return self.scale_tril.square().sum(-1)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        noise = lg.randn(shape, dtype=self.loc.dtype)
        return self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def _half_log_determinant(self) -> lg.Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: lg.Tensor) -> lg.Tensor:
        difference = (value - self.loc).unsqueeze(-1)
        factor = self.scale_tril.expand(*difference.shape[:-2], *self.scale_tril.shape[-2:])
        solved = lg.linalg.solve_triangular(factor, difference, upper=False).squeeze(-1)
        return (-0.5 * solved.square().sum(-1) - self._half_log_determinant()
                - HALF_LOG_TWO_PI * self.event_shape[0])

    def entropy(self) -> lg.Tensor:
        return self._half_log_determinant() + self.event_shape[0] * (0.5 + HALF_LOG_TWO_PI)
