"""Special functions of the compiler: accuracy against mpmath, special values, lane counts.

They are computed in double precision in either format, so f64 is what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from lazygrad_compiler.ir import reference_special
from lazygrad_compiler.llvm import special_fit
from lazygrad_compiler.llvm.elementary import SPECIAL
from lazygrad_compiler.llvm.special_coefficients import INTERVALS, POLYNOMIALS
from tests.compiler import test_elementary

INF, NAN = math.inf, math.nan
NAMES = sorted(SPECIAL)

_compiled: dict[tuple[str, int], test_elementary.Compiled] = {}


def compiled(element: str, lanes: int, monkeypatch: pytest.MonkeyPatch) -> test_elementary.Compiled:
    if (element, lanes) not in _compiled:
        monkeypatch.setattr(test_elementary, "NAMES", NAMES)
        _compiled[element, lanes] = test_elementary.Compiled(element, lanes)
    return _compiled[element, lanes]


def log_gamma(x: Any) -> Any:
    return mp.log(abs(mp.gamma(x))) if abs(x) < 1e4 else mp.loggamma(x)


def zeta_of_any(s: Any, q: Any) -> Any:
    with mp.workdps(120):  # mpmath counts absolute digits here
        return mp.zeta(s, q)


def lower(a: Any, x: Any) -> Any:
    return mp.gammainc(a, 0, x, regularized=True)


def upper(a: Any, x: Any) -> Any:
    return mp.gammainc(a, x, mp.inf, regularized=True)


Interval = tuple[float, float]
ACCURACY: list[tuple[str, Callable[..., Any], list[Interval], float]] = [
    ("lgamma", log_gamma, [(1e-9, 0.5)], 2.0), ("lgamma", log_gamma, [(0.5, 1.5)], 4.0),
    ("lgamma", log_gamma, [(1.5, 8.5)], 2.0), ("lgamma", log_gamma, [(8.0, 1e6)], 2.0),
    ("digamma", mp.digamma, [(1e-9, 1.0)], 2.0), ("digamma", mp.digamma, [(1.0, 3.0)], 2.0),
    ("digamma", mp.digamma, [(3.0, 12.0)], 2.5), ("digamma", mp.digamma, [(10.0, 1e6)], 2.0),
    ("erfinv", mp.erfinv, [(-1.0, 1.0)], 2.0), ("erfinv", mp.erfinv, [(0.9999, 1.0)], 2.0),
    ("zeta", zeta_of_any, [(1.01, 40.0), (0.01, 40.0)], 13.0),
    ("gammainc", lower, [(0.01, 30.0), (0.01, 50.0)], 450.0),
    ("gammaincc", upper, [(0.01, 30.0), (0.01, 50.0)], 450.0),
    ("gammainc", lower, [(400.0, 500.0), (400.0, 500.0)], 450.0),
]
"""Name, truth, intervals of the arguments, allowed error in ulp."""


@pytest.mark.parametrize("name, truth, intervals, most", ACCURACY)
def test_accuracy(name, truth, intervals, most, monkeypatch):
    random = np.random.default_rng(5)
    arguments = [random.uniform(low, high, 96) for low, high in intervals]
    got = compiled("double", 8, monkeypatch)(name, *arguments)
    with mp.workdps(40):
        for *point, value in zip(*arguments, got, strict=True):
            right = truth(*(mpf(float(each)) for each in point))
            unit = np.spacing(abs(float(right)))
            assert abs(mpf(float(value)) - right) <= most * unit, (point, value, float(right))


def test_lgamma_and_digamma_of_negative_numbers(monkeypatch):
    """Near zeros the terms cancel: errors are relative to them."""
    x = np.random.default_rng(6).uniform(-20, 0, 200)
    run = compiled("double", 8, monkeypatch)
    for name, truth in (("lgamma", log_gamma), ("digamma", mp.digamma)):
        for value, got in zip(x, run(name, x), strict=True):
            right = truth(mpf(float(value)))
            size = abs(truth(1 - mpf(float(value)))) + abs(right) + abs(
                mp.pi / mp.sin(mp.pi * mpf(float(value))) ** 2 if name == "digamma" else 0)
            assert abs(mpf(float(got)) - right) <= 2e-15 * (1 + size), (name, value, got)


SPECIAL_VALUES = [
    ("lgamma", [0.0, -0.0, -1.0, -3.0, INF, -INF, NAN, 1.0, 2.0, 1e308, -1e300],
     [INF, INF, INF, INF, INF, INF, NAN, 0.0, 0.0, INF, INF]),
    ("digamma", [0.0, -0.0, -1.0, INF, -INF, NAN, -1e300], [-INF, INF, NAN, INF, NAN, NAN, NAN]),
    ("erfinv", [0.0, -0.0, 1.0, -1.0, 1.5, NAN], [0.0, -0.0, INF, -INF, NAN, NAN]),
]


@pytest.mark.parametrize("name, arguments, expected", SPECIAL_VALUES)
@pytest.mark.parametrize("element", ["float", "double"])
def test_special_values(name, arguments, expected, element, monkeypatch):
    with np.errstate(over="ignore"):
        x = np.asarray(arguments).astype(test_elementary.DTYPES[element])
    got = compiled(element, test_elementary.VECTOR[element], monkeypatch)(name, x)
    np.testing.assert_array_equal(got, np.asarray(expected, got.dtype))
    np.testing.assert_array_equal(np.signbit(got[~np.isnan(got)]),
                                  np.signbit(np.asarray(expected)[~np.isnan(expected)]))


def test_special_values_of_zeta_and_the_incomplete_gamma_functions(monkeypatch):
    run = compiled("double", 8, monkeypatch)
    s, q = np.asarray([[1, 1], [0.5, 1], [2, 0], [2, -1], [2.5, -1.5], [2, INF], [3, -0.5]]).T
    np.testing.assert_allclose(run("zeta", s, q), [INF, NAN, INF, INF, NAN, 0, 8.4143983221 - 8],
                               rtol=1e-9)
    a, x = np.asarray([[0, 0], [0, 1], [1, 0], [1, INF], [INF, 1], [-1, 1], [1, -1]]).T
    np.testing.assert_array_equal(run("gammainc", a, x), [NAN, 1, 0, 1, 0, NAN, NAN])
    np.testing.assert_array_equal(run("gammaincc", a, x), [NAN, 0, 1, 0, 1, NAN, NAN])


def arguments_of(name: str) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    low, high = {"erfinv": (-1.0, 1.0), "lgamma": (-9.0, 30.0), "digamma": (-9.0, 30.0),
                 "zeta": (1.1, 9.0), "zeta_positive": (1.1, 9.0), "gammainc": (0.1, 30.0),
                 "gammaincc": (0.1, 30.0), "poisson_quantile": (0.0, 90.0)}.get(name, (-2.0, 2.0))
    first = random.uniform(low, high, 160)
    second = {"poisson_quantile": random.uniform(0, 1, 160), "zeta": random.uniform(0.1, 9, 160),
              "zeta_positive": random.uniform(0.1, 9, 160)}.get(name, random.integers(0, 12, 160))
    arity = test_elementary.ARITY[name]
    return [first.astype(np.float32).astype(float), np.asarray(second, np.float32)][:arity]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_in_any_lane_count_and_rounded_in_float(name, monkeypatch):
    arguments = arguments_of(name)
    wide = compiled("double", 8, monkeypatch)(name, *arguments)
    assert test_elementary.same_values(wide, compiled("double", 1, monkeypatch)(name, *arguments))
    if name == "zeta_positive":  # only of doubles
        return
    for lanes in (1, 16):
        narrow = compiled("float", lanes, monkeypatch)(name, *arguments)
        assert test_elementary.same_values(narrow, wide.astype(np.float32))


@pytest.mark.parametrize("name", sorted(reference_special.FUNCTIONS))
def test_the_interpreter_agrees(name, monkeypatch):
    arguments = [np.asarray(each, float) for each in arguments_of(name)]
    got = compiled("double", 8, monkeypatch)(name, *arguments)
    expected = reference_special.FUNCTIONS[name](*arguments)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    scale = 1.0 + np.abs(expected[finite])
    assert (np.abs(got[finite] - expected[finite]) <= 1e-11 * scale).all()


@pytest.mark.parametrize("name", ["lgamma", "erfinv", "j0", "airy_tail"])
def test_the_coefficients_are_those_of_the_fit(name):
    _, low, high = special_fit.FITS[name]
    assert INTERVALS[name] == (float(low), float(high))
    with mp.workdps(special_fit.DIGITS):
        coefficients, left_out = special_fit.solve(name)
    assert tuple(coefficients) == POLYNOMIALS[name]
    assert left_out < 3e-18
