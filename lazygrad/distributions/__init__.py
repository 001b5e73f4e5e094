"""Probability distributions under PyTorch's names: drawing, densities, moments, divergences.

Parameters broadcast to `batch_shape`; everything is lazy and differentiable.  Whether parameters
and values lie where they must is not looked at (that would compute them): outside of its support a
density is what its formula gives, NaN or -inf mostly.
"""

from lazygrad.distributions.base import Distribution, Independent
from lazygrad.distributions.counts import (
    Bernoulli,
    Binomial,
    Categorical,
    Geometric,
    OneHotCategorical,
    Poisson,
)
from lazygrad.distributions.divergence import kl_divergence, register_kl
from lazygrad.distributions.gammas import Beta, Chi2, Dirichlet, Gamma, StudentT
from lazygrad.distributions.real_line import (
    Cauchy,
    Exponential,
    Gumbel,
    HalfNormal,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    Uniform,
)
from lazygrad.distributions.transformed import TransformedDistribution

from lazygrad.distributions import transforms  # isort: skip
from lazygrad.distributions.transforms import (  # isort: skip
    AffineTransform,
    ExpTransform,
    SigmoidTransform,
    TanhTransform,
)

__all__ = [
    "AffineTransform", "Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2",
    "Dirichlet", "Distribution", "ExpTransform", "Exponential", "Gamma", "Geometric", "Gumbel",
    "HalfNormal", "Independent", "Laplace", "LogNormal", "MultivariateNormal", "Normal",
    "OneHotCategorical", "Poisson", "SigmoidTransform", "StudentT", "TanhTransform",
    "TransformedDistribution", "Uniform", "kl_divergence", "register_kl", "transforms",
]
