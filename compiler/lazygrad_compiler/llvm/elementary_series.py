"""Functions whose number of steps depends on their arguments: the incomplete gamma functions and
the classical orthogonal polynomials.

All lanes run as many steps as the lane that needs most; a lane that is done keeps its value, so the
number of lanes changes no bit.  Double precision, in f32 rounded at the end.

gammainc and gammaincc: the power series below x = max(a, 1), the continued fraction above
(Numerical Recipes, 3rd ed., 6.2), and for the upper function below 1 a series without
cancellation (W. Gautschi, "A computational procedure for incomplete gamma functions", 1979).
x^a exp(-x) / gamma(a + 1) is taken from the deviance of x from a, which does not cancel either.
Relative error 1e-13, from a = 1e4 on 1e-12; steps grow with the root of a and end at 2^18, enough
up to a = 5e8.
Polynomials: the three-term recurrences (Abramowitz and Stegun 22.7) from degree 0 upwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.elementary_gamma import call, fitted, in_double
from lazygrad_compiler.llvm.elementary_lanes import (
    INFINITY,
    NAN,
    Lanes,
    clamp,
    fma,
    horner,
    select,
)

MOST_STEPS = 2.0**18
MOST_DEGREE = 2.0**20


def steps_of(wanted: Lanes) -> Value:
    """The largest of the lanes as i64; NaN counts as 0."""
    wanted = select(wanted > 0.0, wanted, 0.0)
    whole = wanted.convert("fptosi", "i64")
    if whole.count == 1:
        return whole.value
    return whole.function.intrinsic(f"llvm.vector.reduce.smax.v{whole.count}i64", "i64",
                                    whole.value)


# ---- incomplete gamma functions


def deviance(mu: Lanes) -> Lanes:
    """log(1 + mu) - mu without cancellation near 0."""
    s = mu / (mu + 2.0)
    z = s * s
    series = horner(z, [2.0 / (2 * k + 3) for k in range(13)])
    near = fma(s * z, series, -(mu * s))
    return select(abs(mu) < 0.3, near, call("log1p", mu) - mu)


def leading_power(a: Lanes, x: Lanes) -> Lanes:
    """x^a exp(-x) / gamma(a + 1)."""
    large = a >= 8.0
    size = select(large, a, 8.0)
    inverse = 1.0 / size
    tail = fitted("lgamma_tail", inverse * inverse) * inverse
    exponent = fma(size, deviance((x - size) * inverse), -tail)
    direct = fma(a, call("log", x), -x) - call("lgamma", a + 1.0)
    power = call("exp", select(large, exponent, direct))
    return select(large, power / (size * (2.0 * math.pi)).sqrt(), power)


def lower_series(a: Lanes, x: Lanes) -> Lanes:
    """The sum of x^k / ((a + 1) … (a + k)) over k >= 0."""
    limit = clamp(x.sqrt() * 9.5 + 40.0, 0.0, MOST_STEPS)
    one = x.constant(1.0)
    with a.function.loop(const("i64", 0), steps_of(limit), 1,
                         [one.value, one.value, x.constant(0.0).value], "series") as loop:
        total, term, k = (Lanes(a.function, value) for value in loop.carried)
        k = k + 1.0
        following = select(k <= limit, term * (x / (a + k)), 0.0)
        loop.next = [(total + following).value, following.value, k.value]
    return Lanes(a.function, loop.results[0])


def upper_fraction(a: Lanes, x: Lanes) -> Lanes:
    """The continued fraction of gamma(a, x) exp(x) / x^a, by Lentz's method."""
    limit = clamp(a.sqrt() * 9.0 + 110.0, 0.0, MOST_STEPS)
    b = x + 1.0 - a
    d = 1.0 / b
    carried = [d, d, x.constant(1e300), b, x.constant(0.0)]
    with a.function.loop(const("i64", 0), steps_of(limit), 1, [each.value for each in carried],
                         "fraction") as loop:
        h, d, c, b, k = (Lanes(a.function, value) for value in loop.carried)
        k = k + 1.0
        factor = k * (a - k)
        b = b + 2.0
        d = 1.0 / fma(factor, d, b)
        c = b + factor / c
        h = select(k <= limit, h * (d * c), h)
        loop.next = [each.value for each in (h, d, c, b, k)]
    return Lanes(a.function, loop.results[0])


def upper_below_one(a: Lanes, x: Lanes) -> Lanes:
    """gamma(a, x) / gamma(a) for x < 1."""
    exponent = fma(a, call("log", x), -call("lgamma", a + 1.0))
    total, term = x.constant(0.0), x.constant(1.0)
    for k in range(1, 20):
        term = term * (x * (-1.0 / k))
        total = total + term * (a / (a + float(k)))
    return -call("expm1", exponent) - call("exp", exponent) * total


def incomplete(a: Lanes, x: Lanes, upper: bool) -> Lanes:
    legal = (a > 0.0) & (x > 0.0) & (a < INFINITY) & (x < INFINITY)
    first, second = select(legal, a, 1.0), select(legal, x, 1.0)
    below = (second < 1.0) | (second < first)
    lead = leading_power(first, second)
    # each branch is given harmless arguments where the other one counts
    small = select(below, second, 0.5)
    lower = lead * lower_series(first, small)
    far = lead * first * upper_fraction(select(below, 1.0, first), select(below, 2.0, second))
    if upper:
        tiny = second < 1.0
        near = upper_below_one(select(tiny, first, 1.0), select(tiny, second, 0.5))
        # for large a the lower function is far below 1, and its complement the better one
        result = select(below, select(tiny & (first < 1.0), near, 1.0 - lower), far)
    else:
        result = select(below, lower, 1.0 - far)
    bottom, top = (1.0, 0.0) if upper else (0.0, 1.0)
    edge = select(x.equals(0.0) | a.equals(INFINITY), x.constant(bottom), top)
    undefined = (a < 0.0) | (x < 0.0) | a.is_nan() | x.is_nan() | (
        a.equals(0.0) & x.equals(0.0)) | (a.equals(INFINITY) & x.equals(INFINITY))
    return select(legal, result, select(undefined, NAN, edge))


@in_double
def gammainc(a: Lanes, x: Lanes) -> Lanes:
    """The regularised lower incomplete gamma function."""
    return incomplete(a, x, upper=False)


@in_double
def gammaincc(a: Lanes, x: Lanes) -> Lanes:
    """The regularised upper incomplete gamma function."""
    return incomplete(a, x, upper=True)


# ---- orthogonal polynomials

Step = Callable[[Lanes, Lanes, Lanes, Lanes], Lanes]
"""(x, k, of degree k, of degree k - 1) -> of degree k + 1."""


def _chebyshev(x: Lanes, k: Lanes, current: Lanes, before: Lanes) -> Lanes:
    return fma(x + x, current, -before)


def _hermite_h(x: Lanes, k: Lanes, current: Lanes, before: Lanes) -> Lanes:
    return (x + x) * current - (k + k) * before


def _hermite_he(x: Lanes, k: Lanes, current: Lanes, before: Lanes) -> Lanes:
    return x * current - k * before


def _laguerre(x: Lanes, k: Lanes, current: Lanes, before: Lanes) -> Lanes:
    return ((k + k + 1.0 - x) * current - k * before) / (k + 1.0)


def _legendre(x: Lanes, k: Lanes, current: Lanes, before: Lanes) -> Lanes:
    return ((k + k + 1.0) * x * current - k * before) / (k + 1.0)


RECURRENCES: dict[str, tuple[Callable[[Lanes], Lanes], Step]] = {
    "chebyshev_t": (lambda x: x, _chebyshev),
    "chebyshev_u": (lambda x: x + x, _chebyshev),
    "chebyshev_v": (lambda x: x + x - 1.0, _chebyshev),
    "chebyshev_w": (lambda x: x + x + 1.0, _chebyshev),
    "hermite_h": (lambda x: x + x, _hermite_h),
    "hermite_he": (lambda x: x, _hermite_he),
    "laguerre": (lambda x: 1.0 - x, _laguerre),
    "legendre": (lambda x: x, _legendre),
}
"""Name: the polynomial of degree 1, and the recurrence."""


def orthogonal(name: str) -> Callable[[Lanes, Lanes], Lanes]:
    """(x, n) -> the polynomial of degree n (cut to a whole number; 0 below 0) at x."""
    first_degree, step = RECURRENCES[name]

    @in_double
    def rule(x: Lanes, n: Lanes) -> Lanes:
        degree = n.trunc()
        limit = clamp(degree, 0.0, MOST_DEGREE)
        carried = [x.constant(1.0), first_degree(x), x.constant(1.0)]
        count = steps_of(limit - 1.0)
        with x.function.loop(const("i64", 0), count, 1, [each.value for each in carried],
                             name) as loop:
            before, current, k = (Lanes(x.function, value) for value in loop.carried)
            active = k < limit
            following = step(x, k, current, before)
            loop.next = [each.value for each in (
                select(active, current, before), select(active, following, current), k + 1.0)]
        result = select(limit >= 1.0, Lanes(x.function, loop.results[1]), 1.0)
        result = select(degree > MOST_DEGREE, NAN, select(degree < 0.0, 0.0, result))
        return select(n.is_nan(), NAN, result)

    return rule


ORTHOGONAL = {name: orthogonal(name) for name in RECURRENCES}


# ---- the quantile function of Poisson numbers


EXPANSION_FROM = 64.0


@in_double
def poisson_quantile(rate: Lanes, u: Lanes) -> Lanes:
    """The least k with P(Poisson(rate) <= k) > u, for u in [0, 1).

    By adding up probabilities below a rate of 64; from there on by the expansion of M. B. Giles
    ("Algorithm 955: approximation of the inverse Poisson cumulative distribution function", 2016,
    Q_N3), whose error below 1e-4 shifts the rounding of few numbers.
    """
    large = rate >= EXPANSION_FROM
    legal = (rate >= 0.0) & (rate < EXPANSION_FROM)
    small = select(legal, rate, 0.0)
    limit = small + small.sqrt() * 10.0 + 24.0
    start = call("exp", -small)
    carried = [start, start, rate.constant(0.0), rate.constant(0.0)]
    with rate.function.loop(const("i64", 0), steps_of(limit), 1, [each.value for each in carried],
                            "poisson") as loop:
        term, total, k, found = (Lanes(rate.function, value) for value in loop.carried)
        beyond = (total <= u) & (k < limit)
        k = k + 1.0
        found = select(beyond, k, found)
        term = term * (small / k)
        loop.next = [each.value for each in (term, total + term, k, found)]
    counted = Lanes(rate.function, loop.results[3])

    size = select(large & (rate < INFINITY), rate, EXPANSION_FROM)
    inside = select(u > 0.0, u, 2.0**-54)
    w = call("erfinv", inside * 2.0 - 1.0) * math.sqrt(2.0)
    root = size.sqrt()
    square = w * w
    first = square * (1.0 / 6.0) + 1.0 / 3.0
    second = w * (square * (-1.0 / 72.0) - 1.0 / 36.0) / root
    third = (square * (square * (1.0 / 270.0) + 7.0 / 810.0) - 8.0 / 405.0) / size
    expanded = size + (root * w + (first + (second + third)))
    expanded = Lanes(rate.function, rate.function.overloaded("llvm.floor", expanded.value))
    expanded = select(expanded > 0.0, expanded, 0.0)
    result = select(large, expanded, counted)
    result = select(rate.equals(INFINITY), rate, result)
    return select(legal | large, result, NAN)
