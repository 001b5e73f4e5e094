"""Gamma distributions and those made of them.

Drawn by rejection: G. Marsaglia, W. W. Tsang, A Simple Method for Generating Gamma Variables, ACM
TOMS 26 (2000).  Each element makes its attempts at once and the first that is accepted is taken, so
that nothing has to be looked at.  No gradient flows through a sample.
"""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad.distributions.base import Distribution, broadcast, positive

ATTEMPTS = 12
"""At least 95 % of the attempts are accepted, so all of them fail for one element in 4e15."""


def standard_gamma(shape_parameter: lg.Tensor) -> lg.Tensor:
    """One gamma variable of rate 1 for each element of its shape parameter."""
    given = shape_parameter.double()
    raised = lg.where(given < 1, given + 1, given)  # their section 6
    d = raised - 1 / 3
    normal = lg.randn(ATTEMPTS, *given.shape, dtype=given.dtype)
    cube = (1 + normal / (3 * d.sqrt())) ** 3
    uniform = 1 - lg.rand(ATTEMPTS, *given.shape, dtype=given.dtype)
    bound = 0.5 * normal.square() + d * (1 - cube + cube.clamp(min=1e-300).log())
    accepted = (cube > 0) & (uniform.log() < bound)
    first = accepted.to(lg.int8).argmax(0, keepdim=True)
    drawn = d * cube.gather(0, first).squeeze(0)
    boost = (1 - lg.rand(given.shape, dtype=given.dtype)) ** (1 / given)
    result: lg.Tensor = lg.where(given < 1, drawn * boost, drawn)
    return result.to(shape_parameter.dtype).clamp(min=lg.finfo(shape_parameter.dtype).tiny)


class Gamma(Distribution):
    """Sums of waiting times: `concentration` of them, of events that come at `rate`."""

    arg_names: tuple[str, ...] = ("concentration", "rate")

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = (positive(type(self).__name__, each, validate_args)
                                         for each in broadcast(concentration, rate))
        super().__init__(self.concentration.shape)

    @property
    def mean(self) -> lg.Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> lg.Tensor:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> lg.Tensor:
        return self.concentration / self.rate.square()

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return standard_gamma(self.concentration.expand(shape)) / self.rate

    def log_prob(self, value: Any) -> lg.Tensor:
        value = lg.as_tensor(value)
        return (lg.xlogy(self.concentration, self.rate) + lg.xlogy(self.concentration - 1, value)
                - self.rate * value - lg.lgamma(self.concentration))

    def entropy(self) -> lg.Tensor:
        a = self.concentration
        return a - self.rate.log() + lg.lgamma(a) + (1 - a) * lg.digamma(a)


class Chi2(Gamma):
    """The sum of squares of `df` standard normal variables."""

    arg_names = ("df",)

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        self.df, = broadcast(df)
        super().__init__(0.5 * self.df, 0.5, validate_args)

    def expand(self, batch_shape: Any) -> Chi2:
        return Chi2(self.df.expand(*batch_shape))


class StudentT(Distribution):
    """A normal variable over the root of a mean of `df` squares of others."""

    arg_names = ("df", "loc", "scale")

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0,
                 validate_args: bool | None = None) -> None:
        df, self.loc, scale = broadcast(df, loc, scale)
        self.df, self.scale = (positive("StudentT", each, validate_args) for each in (df, scale))
        super().__init__(self.df.shape)

    @property
    def mean(self) -> lg.Tensor:
        return lg.where(self.df > 1, self.loc, lg.nan)

    @property
    def mode(self) -> lg.Tensor:
        return self.loc

    @property
    def variance(self) -> lg.Tensor:
        finite = self.scale.square() * self.df / (self.df - 2)
        return lg.where(self.df > 2, finite, lg.where(self.df > 1, lg.inf, lg.nan))

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        normal = lg.randn(shape, dtype=self.df.dtype)
        mean_square = 2 * standard_gamma((self.df / 2).expand(shape)) / self.df
        return self.loc + self.scale * normal / mean_square.sqrt()

    def log_prob(self, value: Any) -> lg.Tensor:
        standard = (value - self.loc) / self.scale
        constant = (self.scale.log() + 0.5 * self.df.log() + 0.5 * lg.log(lg.tensor(lg.pi))
                    + lg.lgamma(0.5 * self.df) - lg.lgamma(0.5 * (self.df + 1)))
        return -0.5 * (self.df + 1) * lg.log1p(standard.square() / self.df) - constant


class Dirichlet(Distribution):
    """Vectors of fractions of 1, by `concentration`: (..., K)."""

    arg_names = ("concentration",)

    def __init__(self, concentration: lg.Tensor, validate_args: bool | None = None) -> None:
        concentration, = broadcast(concentration)
        self.concentration = positive("Dirichlet", concentration, validate_args)
        super().__init__(self.concentration.shape[:-1], self.concentration.shape[-1:])

    @property
    def mean(self) -> lg.Tensor:
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def mode(self) -> lg.Tensor:
        """Where all concentrations are below 1, each corner is one: the first, as in PyTorch."""
        above = (self.concentration - 1).clamp(min=0)
        inside = above / above.sum(-1, keepdim=True)
        corner = lg.zeros_like(inside)
        corner[..., 0] = 1
        return lg.where((self.concentration < 1).all(-1, keepdim=True), corner, inside)

    @property
    def variance(self) -> lg.Tensor:
        total = self.concentration.sum(-1, keepdim=True)
        return self.concentration * (total - self.concentration) / (total.square() * (total + 1))

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        parts = standard_gamma(self.concentration.expand(shape))
        return parts / parts.sum(-1, keepdim=True)

    def log_prob(self, value: lg.Tensor) -> lg.Tensor:
        a = self.concentration
        return (lg.xlogy(a - 1, value).sum(-1) + lg.lgamma(a.sum(-1)) - lg.lgamma(a).sum(-1))

    def entropy(self) -> lg.Tensor:
        a, total = self.concentration, self.concentration.sum(-1)
        return (lg.lgamma(a).sum(-1) - lg.lgamma(total)
                - (a.shape[-1] - total) * lg.digamma(total)
                - ((a - 1) * lg.digamma(a)).sum(-1))


class Beta(Distribution):
    """Fractions of 1: the first of two parts of `Dirichlet`."""

    arg_names = ("concentration1", "concentration0")

    def __init__(self, concentration1: Any, concentration0: Any,
                 validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = (
            positive("Beta", each, validate_args)
            for each in broadcast(concentration1, concentration0))
        super().__init__(self.concentration1.shape)

    def _dirichlet(self) -> Dirichlet:
        return Dirichlet(lg.stack([self.concentration1, self.concentration0], -1))

    @property
    def mean(self) -> lg.Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> lg.Tensor:
        return self._dirichlet().mode[..., 0]

    @property
    def variance(self) -> lg.Tensor:
        return self._dirichlet().variance[..., 0]

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return self._dirichlet()._draw((*shape, 2))[..., 0]

    def log_prob(self, value: Any) -> lg.Tensor:
        value = lg.as_tensor(value)
        return self._dirichlet().log_prob(lg.stack([value, 1.0 - value], -1))

    def entropy(self) -> lg.Tensor:
        return self._dirichlet().entropy()
