"""Special functions against mpmath: the error bounds that their docstrings state, and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy
import pytest
from mpmath import mp, mpf

import lazygrad as lg

special = lg.special


def bessel(function: str, order: int) -> Callable[[Any], Any]:
    return lambda x: getattr(mp, function)(order, x)


CASES: dict[str, tuple[Callable[[Any], Any], float, float, float, float]] = {
    "airy_ai": (lambda x: mp.airyai(x), -12, 12, 2e-13, 4e-15),
    "bessel_j0": (bessel("besselj", 0), -20, 20, 1e-14, 2e-15),
    "bessel_j1": (bessel("besselj", 1), -20, 20, 1e-14, 2e-15),
    "bessel_y0": (bessel("bessely", 0), 0.01, 20, 1e-14, 2e-15),
    "bessel_y1": (bessel("bessely", 1), 0.01, 20, 1e-14, 2e-15),
    "i0": (bessel("besseli", 0), -30, 30, 4e-15, 0),
    "i1": (bessel("besseli", 1), -30, 30, 4e-15, 0),
    "i0e": (lambda x: mp.besseli(0, x) * mp.exp(-abs(x)), -30, 30, 4e-15, 0),
    "i1e": (lambda x: mp.besseli(1, x) * mp.exp(-abs(x)), -30, 30, 4e-15, 0),
    "modified_bessel_k0": (bessel("besselk", 0), 0.01, 30, 4e-15, 0),
    "modified_bessel_k1": (bessel("besselk", 1), 0.01, 30, 4e-15, 0),
    "scaled_modified_bessel_k0": (
        lambda x: mp.besselk(0, x) * mp.exp(x), 0.01, 30, 4e-15, 0),
    "scaled_modified_bessel_k1": (
        lambda x: mp.besselk(1, x) * mp.exp(x), 0.01, 30, 4e-15, 0),
    "erfcx": (lambda x: mp.erfc(x) * mp.exp(x * x), -9, 30, 3e-14, 0),
    "ndtr": (lambda x: mp.erfc(-x / mp.sqrt(2)) / 2, -12, 8, 6e-14, 0),
    "log_ndtr": (lambda x: mp.log(mp.erfc(-x / mp.sqrt(2)) / 2), -30, 5, 3e-14, 0),
    "ndtri": (lambda p: mp.sqrt(2) * mp.erfinv(2 * p - 1), 0.001, 0.999, 2e-15, 0),
    "spherical_bessel_j0": (lambda x: mp.sin(x) / x, -20, 20, 1e-13, 1e-16),
}
"""Name: truth, interval, allowed relative and absolute error."""


def points(low: float, high: float, count: int = 60) -> numpy.ndarray:
    return numpy.random.default_rng(3).uniform(low, high, count)


@pytest.mark.parametrize("name", CASES)
def test_accuracy_in_float64_and_float32(name):
    truth, low, high, relative, absolute = CASES[name]
    x = points(low, high)
    with mp.workdps(30):
        expected = [truth(mpf(float(value))) for value in x]
        got = getattr(special, name)(lg.tensor(x)).numpy()
        for value, ours, right in zip(x, got, expected, strict=True):
            error = abs(mpf(float(ours)) - right)
            assert error <= relative * abs(right) + absolute, (value, ours, float(right))
        x = x.astype(numpy.float32)
        got = getattr(special, name)(lg.tensor(x)).numpy()
        assert got.dtype == numpy.float32
        for value, ours in zip(x, got, strict=True):
            right = truth(mpf(float(value)))
            assert abs(mpf(float(ours)) - right) <= 2e-7 * abs(right) + 1e-38, (value, ours)


def test_the_inverse_of_the_normal_distribution_function_in_its_tails():
    p = numpy.asarray([1e-300, 1e-100, 1e-40, 1e-17, 1e-5])
    x = special.ndtri(lg.tensor(p))
    numpy.testing.assert_allclose(special.log_ndtr(x).numpy(), numpy.log(p), rtol=2e-14)
    assert special.ndtri(lg.tensor([0.0, 1.0, 0.5])).tolist() == [-numpy.inf, numpy.inf, 0.0]
    assert numpy.isnan(special.ndtri(lg.tensor([-0.1, 1.1])).numpy()).all()


@pytest.mark.parametrize("name", [
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "modified_bessel_i0",
    "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0",
    "scaled_modified_bessel_k1", "spherical_bessel_j0"])
def test_gradients_that_torch_lacks(name):
    """Against mpmath's derivatives, on both sides of each border between formulas."""
    truth = {"modified_bessel_i0": bessel("besseli", 0), "modified_bessel_i1": bessel("besseli", 1),
             }.get(name) or CASES[name][0]
    x = numpy.asarray([0.3, 1.1, 1.9, 2.2, 4.4, 5.3, 7.7, 9.1])
    if name == "airy_ai":
        x = numpy.concatenate([x, -x])
    leaf = lg.tensor(x, requires_grad=True)
    (gradient,) = lg.autograd.grad(getattr(special, name)(leaf).sum(), leaf)
    with mp.workdps(30):
        expected = [float(mp.diff(truth, mpf(float(value)))) for value in x]
    numpy.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-11, atol=1e-13)


POLYNOMIALS = {
    "chebyshev_polynomial_t": lambda n, x: mp.chebyt(n, x),
    "chebyshev_polynomial_u": lambda n, x: mp.chebyu(n, x),
    "hermite_polynomial_h": lambda n, x: mp.hermite(n, x),
    "laguerre_polynomial_l": lambda n, x: mp.laguerre(n, 0, x),
    "legendre_polynomial_p": lambda n, x: mp.legendre(n, x),
}


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_gradients_of_orthogonal_polynomials(name):
    x, degrees = numpy.asarray([-0.7, 0.2, 0.9, 1.4]), numpy.asarray([[0.0], [1.0], [2.0], [7.0]])
    leaf = lg.tensor(x, requires_grad=True)
    value = getattr(special, name)(leaf, lg.tensor(degrees))
    for row, n in enumerate((0, 1, 2, 7)):
        (gradient,) = lg.autograd.grad(value[row].sum(), leaf, retain_graph=True)
        expected = [float(mp.diff(partial(POLYNOMIALS[name], n), mpf(float(v)))) for v in x]
        numpy.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name, expected", [
    ("chebyshev_polynomial_u", 5 * 6 * 7 / 3), ("legendre_polynomial_p", 15.0)])
def test_slopes_at_the_ends_of_the_interval(name, expected):
    leaf = lg.tensor([1.0, -1.0], dtype=lg.float64, requires_grad=True)
    (gradient,) = lg.autograd.grad(getattr(special, name)(leaf, 5).sum(), leaf)
    assert gradient.tolist() == [pytest.approx(expected), pytest.approx(expected)]


def test_zeta_has_no_gradient_in_its_order():
    order = lg.tensor([2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="zeta"):
        special.zeta(order, lg.tensor([1.0])).sum().backward()


def test_a_function_is_few_nodes():
    """Recording stays cheap: one node for what has an op of its own."""
    from lazygrad._core.tensor import node_of
    from lazygrad_compiler.ir.node import Graph
    x = lg.zeros(3) + 0.5
    lg.synchronize()
    for function, most in ((lg.lgamma, 2), (lg.erfinv, 2), (lg.sigmoid, 2), (special.i0e, 30)):
        assert len(Graph([node_of(function(x))]).nodes()) <= most
