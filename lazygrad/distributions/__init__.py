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
    Multinomial,
    NegativeBinomial,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
    Poisson,
)
from lazygrad.distributions.divergence import kl_divergence, register_kl
from lazygrad.distributions.gammas import Beta, Chi2, Dirichlet, Gamma, StudentT
from lazygrad.distributions.mixtures import MixtureSameFamily
from lazygrad.distributions.positive import HalfCauchy, Kumaraswamy, Pareto, Weibull
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
from lazygrad.distributions.relaxed import RelaxedBernoulli, RelaxedOneHotCategorical
from lazygrad.distributions.transformed import TransformedDistribution

from lazygrad.distributions import transforms  # isort: skip
from lazygrad.distributions.transforms import (  # isort: skip
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    SoftplusTransform,
    TanhTransform,
    Transform,
)

__all__ = [
    "AffineTransform", "Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2",
    "ComposeTransform", "Dirichlet", "Distribution", "ExpTransform", "Exponential", "Gamma",
    "Geometric", "Gumbel", "HalfCauchy", "HalfNormal", "Independent", "Kumaraswamy", "Laplace",
    "LogNormal", "MixtureSameFamily", "Multinomial", "MultivariateNormal", "NegativeBinomial",
    "Normal", "OneHotCategorical", "OneHotCategoricalStraightThrough", "Pareto", "Poisson",
    "PowerTransform", "RelaxedBernoulli", "RelaxedOneHotCategorical", "SigmoidTransform",
    "SoftplusTransform", "StudentT", "TanhTransform", "Transform", "TransformedDistribution",
    "Uniform", "Weibull", "kl_divergence", "register_kl", "transforms",
]
