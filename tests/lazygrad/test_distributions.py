"""Distributions: densities, moments and divergences as PyTorch's, samples with these moments."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import lazygrad as lg
from lazygrad import distributions

COVARIANCE = [[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 0.7]]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "Normal": ({"loc": [0.5, -1.0], "scale": [1.5, 0.3]}, {"loc": 0.0, "scale": [1.0, 2.0]},
               [0.2, -1.3]),
    "LogNormal": ({"loc": [0.5, -1.0], "scale": [0.5, 0.3]}, {}, [0.2, 1.3]),
    "HalfNormal": ({"scale": [1.5, 0.3]}, {}, [0.2, 0.4]),
    "Laplace": ({"loc": [0.5, -1.0], "scale": [1.5, 0.3]}, {"loc": [0.1, 0.2], "scale": [2.0, 1.0]},
                [0.2, -1.3]),
    "Cauchy": ({"loc": [0.5, -1.0], "scale": [1.5, 0.3]}, {}, [0.2, -1.3]),
    "Gumbel": ({"loc": [0.5, -1.0], "scale": [1.5, 0.3]}, {}, [0.2, -1.3]),
    "Uniform": ({"low": [0.0, -1.0], "high": [2.0, 0.5]}, {"low": [-1.0, -1.0], "high": [3.0, 1.0]},
                [0.5, 0.2]),
    "Exponential": ({"rate": [0.5, 3.0]}, {"rate": [1.0, 1.0]}, [0.2, 1.3]),
    "MultivariateNormal": ({"loc": [0.1, 0.2, 0.3], "covariance_matrix": COVARIANCE},
                           {"loc": [0.0, 0.0, 0.0], "scale_tril": [[1.0, 0, 0], [0.3, 2, 0],
                                                                   [0.1, 0.2, 1.5]]},
                           [[0.5, -0.2, 0.1], [1.0, 0.0, -1.0]]),
    "Bernoulli": ({"probs": [0.2, 0.9]}, {"logits": [0.1, -0.5]}, [1.0, 0.0]),
    "Geometric": ({"probs": [0.2, 0.9]}, {}, [3.0, 0.0]),
    "Binomial": ({"total_count": 5, "probs": [0.2, 0.9]}, {}, [3.0, 5.0]),
    "Poisson": ({"rate": [0.5, 3.0]}, {"rate": [1.0, 2.0]}, [0.0, 4.0]),
    "Categorical": ({"logits": [[0.1, 0.5, -1.0], [2.0, 0.0, 0.3]]},
                    {"probs": [[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]}, [2, 0]),
    "OneHotCategorical": ({"probs": [0.2, 0.3, 0.5]}, {"probs": [0.3, 0.3, 0.4]}, [0.0, 1.0, 0.0]),
    "Gamma": ({"concentration": [0.5, 3.0], "rate": [1.0, 2.0]},
              {"concentration": [1.0, 2.0], "rate": [0.5, 0.7]}, [0.4, 1.1]),
    "Chi2": ({"df": [3.0, 5.0]}, {}, [0.4, 1.1]),
    "StudentT": ({"df": [3.0, 5.0], "loc": [0.0, 1.0], "scale": [1.0, 2.0]}, {}, [0.4, 1.1]),
    "Dirichlet": ({"concentration": [0.5, 2.0, 3.0]}, {"concentration": [1.0, 1.0, 2.0]},
                  [0.2, 0.5, 0.3]),
    "Beta": ({"concentration1": [0.5, 2.0], "concentration0": [1.5, 3.0]},
             {"concentration1": [1.0, 1.0], "concentration0": [2.0, 1.0]}, [0.3, 0.6]),
    "Multinomial": ({"total_count": 5, "probs": [[0.2, 0.3, 0.5], [0.1, 0.9, 0.0]]}, {},
                    [[1.0, 2.0, 2.0], [1.0, 4.0, 0.0]]),
    "NegativeBinomial": ({"total_count": [5.0, 0.5], "probs": [0.4, 0.7]}, {}, [3.0, 0.0]),
    "Weibull": ({"scale": [1.0, 2.0], "concentration": [2.0, 1.5]}, {}, [0.4, 1.1]),
    "Pareto": ({"scale": [1.0, 0.5], "alpha": [6.0, 7.0]}, {}, [1.4, 0.6]),
    "HalfCauchy": ({"scale": [1.0, 2.0]}, {}, [1.4, 0.3]),
    "Kumaraswamy": ({"concentration1": [2.0, 0.7], "concentration0": [3.0, 1.5]}, {}, [0.4, 0.3]),
}
"""name -> (parameters, those of another one for the divergence, a value)."""


def made(library: Any, name: str, parameters: dict[str, Any]) -> Any:
    return getattr(library.distributions, name)(**{
        key: library.tensor(value) if isinstance(value, list) else value
        for key, value in parameters.items()})


def close(actual: Any, expected: Any, what: str) -> None:
    assert tuple(actual.shape) == tuple(expected.shape), what
    numpy.testing.assert_allclose(actual.detach().numpy(), expected.detach().numpy(), 2e-5, 2e-6,
                                  err_msg=what)


@pytest.mark.parametrize("name", CASES)
def test_densities_and_moments(name: str) -> None:
    torch = pytest.importorskip("torch")
    parameters, other, value = CASES[name]
    ours, theirs = made(lg, name, parameters), made(torch, name, parameters)
    assert tuple(ours.batch_shape) == tuple(theirs.batch_shape)
    assert tuple(ours.event_shape) == tuple(theirs.event_shape)
    close(ours.log_prob(lg.tensor(value)), theirs.log_prob(torch.tensor(value)), "log_prob")
    for what in ("mean", "variance", "stddev"):
        close(getattr(ours, what), getattr(theirs, what), what)
    for what in ("mode", "entropy"):
        try:
            mine = getattr(ours, what)
            mine = mine() if callable(mine) else mine
        except NotImplementedError:
            continue
        expected = getattr(theirs, what)
        close(mine, expected() if callable(expected) else expected, what)
    for what, argument in (("cdf", value), ("icdf", [0.2, 0.7])):
        try:
            mine = getattr(ours, what)(lg.tensor(argument))
        except NotImplementedError:
            continue
        close(mine, getattr(theirs, what)(torch.tensor(argument)), what)
    if other:
        mine = distributions.kl_divergence(ours, made(lg, name, other))
        close(mine, torch.distributions.kl_divergence(theirs, made(torch, name, other)), "kl")


@pytest.mark.parametrize("name", [name for name in CASES if "Cauchy" not in name])
def test_samples_have_the_moments(name: str) -> None:
    lg.manual_seed(7)
    distribution = made(lg, name, CASES[name][0])
    count = 20_000
    sample = distribution.sample((count,))
    assert tuple(sample.shape) == (count, *distribution.batch_shape, *distribution.event_shape)
    assert not sample.requires_grad
    if name == "Categorical":
        frequencies = lg.nn.functional.one_hot(sample, 3).float().mean(0)
        numpy.testing.assert_allclose(frequencies.numpy(), distribution.probs.numpy(), atol=0.02)
        return
    mean, deviation = distribution.mean.numpy(), distribution.stddev.numpy()
    error = numpy.abs(sample.mean(0).numpy() - mean)
    assert (error <= 5 * deviation / count**0.5 + 1e-6).all(), error
    if name not in ("StudentT", "LogNormal"):  # whose fourth moments are large
        numpy.testing.assert_allclose(sample.std(0).numpy(), deviation, rtol=0.1)


@pytest.mark.parametrize("event", [False, True])
def test_mixtures(event: bool) -> None:
    """Density, moments and distribution function as PyTorch's; samples have these moments."""
    torch = pytest.importorskip("torch")
    made = []
    for library in (torch, lg):
        d = library.distributions
        loc = library.tensor([[-1.0, 2.0, 4.0], [0.5, 0.0, -3.0]])
        logits = library.tensor([[0.1, 0.7, -0.4], [1.0, -1.0, 0.2]], requires_grad=True)
        components = d.Independent(d.Normal(library.stack([loc, -loc], -1), 0.5), 1) if event \
            else d.Normal(loc, 0.5)
        mixture = d.MixtureSameFamily(d.Categorical(logits=logits), components)
        value = library.tensor([[0.5, 1.0], [0.0, -1.0]] if event else [0.5, 0.0])
        density = mixture.log_prob(value)
        density.sum().backward()
        found = [density, mixture.mean, mixture.variance, logits.grad,
                 mixture.expand((4, 2)).log_prob(value)]
        made.append(found if event else [*found, mixture.cdf(value)])
    for mine, theirs in zip(made[1], made[0], strict=True):
        close(mine, theirs, "mixture")
    lg.manual_seed(3)
    sample = mixture.sample((20_000,))
    assert tuple(sample.shape) == (20_000, 2, 2)[:3 if event else 2]
    error = (sample.mean(0) - mixture.mean).abs() / mixture.stddev
    assert error.max().item() < 5 / 20_000**0.5
    numpy.testing.assert_allclose(sample.std(0).numpy(), mixture.stddev.detach().numpy(), rtol=0.05)


def test_a_mixture_needs_a_component_for_each_probability() -> None:
    normal = distributions.Normal(lg.zeros(3), 1.0)
    with pytest.raises(ValueError, match=r"\[MixtureSameFamily\] 2 prob.*\(3,\)"):
        distributions.MixtureSameFamily(distributions.Categorical(lg.ones(2)), normal)


def test_relaxed_choices() -> None:
    """Densities as PyTorch's; samples sum to 1, carry gradients, and mostly pick as the choice."""
    torch = pytest.importorskip("torch")
    found = []
    for library in (torch, lg):
        d, logits = library.distributions, library.tensor([0.3, -1.0, 0.8], requires_grad=True)
        binary = d.RelaxedBernoulli(library.tensor(0.7), logits=logits)
        soft = d.RelaxedOneHotCategorical(library.tensor(0.7), logits=logits)
        found.append([binary.log_prob(library.tensor([0.2, 0.9, 0.5])),
                      soft.log_prob(library.tensor([0.2, 0.5, 0.3]))])
    for mine, theirs in zip(found[1], found[0], strict=True):
        close(mine, theirs, "density")
    lg.manual_seed(0)
    sample = soft.rsample((4000,))
    numpy.testing.assert_allclose(sample.sum(-1).detach().numpy(), 1, rtol=1e-5)
    picked = lg.nn.functional.one_hot(sample.argmax(-1), 3).float().mean(0)
    numpy.testing.assert_allclose(picked.numpy(), soft.probs.detach().numpy(), atol=0.04)
    above = (binary.rsample((4000,)) > 0.5).float().mean(0)
    numpy.testing.assert_allclose(above.numpy(), binary.probs.detach().numpy(), atol=0.04)
    sample[:, 0].sum().backward()
    assert logits.grad is not None and logits.grad.abs().min().item() > 0


def test_straight_through_samples() -> None:
    """One-hot forward, the probabilities' gradient backward."""
    logits = lg.tensor([[0.3, -1.0, 0.8]], requires_grad=True)
    sample = distributions.OneHotCategoricalStraightThrough(logits=logits).rsample((6,))
    assert set(sample.detach().numpy().ravel().round(6)) <= {0.0, 1.0}
    weight = lg.tensor([1.0, 2.0, 4.0])
    (sample * weight).sum().backward()
    mine, logits.grad = logits.grad, None
    (6 * (logits.softmax(-1) * weight).sum()).backward()
    numpy.testing.assert_allclose(mine.numpy(), logits.grad.numpy(), rtol=1e-5)


def test_transforms_invert_and_compose() -> None:
    """The logistic distribution as flows write it: a uniform one through an inverted sigmoid."""
    torch = pytest.importorskip("torch")
    found = []
    for library in (torch, lg):
        d = library.distributions
        logistic = d.TransformedDistribution(
            d.Uniform(library.zeros(3), library.ones(3)),
            [d.SigmoidTransform().inv, d.AffineTransform(1.0, 2.0)])
        x = library.tensor([0.4, 1.0, 2.5])
        chain = d.ComposeTransform([d.SoftplusTransform(), d.PowerTransform(2.0),
                                    d.AffineTransform(0.5, 3.0)])
        y = chain(x)
        found.append([logistic.log_prob(library.tensor([0.3, -2.0, 5.0])), y, chain.inv(y),
                      chain.log_abs_det_jacobian(x, y), chain.inv.log_abs_det_jacobian(y, x)])
        assert chain.inv.inv is chain
    for mine, theirs in zip(found[1], found[0], strict=True):
        close(mine, theirs, "transforms")


def test_gradients_flow_through_rsample() -> None:
    loc, scale = lg.tensor(1.0, requires_grad=True), lg.tensor(2.0, requires_grad=True)
    sample = distributions.Normal(loc, scale).rsample((50,))
    sample.sum().backward()
    assert loc.grad is not None and loc.grad.item() == 50
    assert scale.grad is not None
    numpy.testing.assert_allclose(
        scale.grad.item(), ((sample.detach() - 1) / 2).sum().item(), rtol=1e-4)
    with pytest.raises(NotImplementedError, match=r"\[Categorical.rsample\].*log_prob"):
        distributions.Categorical(lg.ones(3)).rsample()


def test_independent_transformed_and_expanded() -> None:
    torch = pytest.importorskip("torch")
    found = []
    for library in (torch, lg):
        d = library.distributions
        normal = d.Normal(library.zeros(2, 3), library.full((2, 3), 0.5))
        squashed = d.TransformedDistribution(normal, [
            d.TanhTransform(cache_size=1), d.AffineTransform(1.0, 3.0)])
        value = library.tensor([[0.5, 1.0, 2.0], [0.0, -1.0, 3.0]])
        independent = d.Independent(normal, 1)
        found.append([
            squashed.log_prob(value), independent.log_prob(value), independent.entropy(),
            normal.expand((4, 2, 3)).log_prob(value),
            d.kl_divergence(independent, d.Independent(d.Normal(value, 1.0), 1)),
            library.zeros(tuple(squashed.rsample((5,)).shape)),
            library.zeros(tuple(d.Categorical(library.ones(2, 3)).expand((4, 2)).sample().shape)),
        ])
        assert "Normal(loc: " in repr(normal)
    for mine, theirs in zip(found[1], found[0]):
        close(mine, theirs, "both")


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[Categorical\] needs either probs or logits"):
        distributions.Categorical()
    with pytest.raises(ValueError, match="one of covariance_matrix, .* and scale_tril"):
        distributions.MultivariateNormal(lg.zeros(2))
    with pytest.raises(NotImplementedError, match="no formula for Normal and Uniform.*register_kl"):
        distributions.kl_divergence(distributions.Normal(0.0, 1.0), distributions.Uniform(0, 1))
    with pytest.raises(NotImplementedError, match=r"\[Poisson.entropy\]"):
        distributions.Poisson(1.0).entropy()
