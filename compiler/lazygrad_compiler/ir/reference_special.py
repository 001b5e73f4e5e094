"""What the special functions mean, in NumPy: slow, plain, in double precision or better.

`FUNCTIONS[op](*arrays)` takes float32 or float64 arrays and gives one of the first one's dtype.
The methods are not those of the compiled code: the libraries' lgamma, recurrences up to large
arguments, bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy

Array = numpy.ndarray

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


def _each(function: Callable[..., float]) -> Callable[..., Array]:
    """A function of Python floats on arrays."""

    def apply(*arrays: Array) -> Array:
        dtype = arrays[0].dtype
        return numpy.vectorize(function, otypes=[numpy.float64])(
            *(array.astype(numpy.float64) for array in arrays)).astype(dtype)

    return apply


def lgamma(x: float) -> float:
    if x != x:
        return x
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


def digamma(x: float) -> float:
    if x == 0:
        return -math.copysign(math.inf, x)
    if x != x or x == math.inf:
        return x
    if x < 0:
        if x == math.floor(x):
            return math.nan
        return digamma(1 - x) - math.pi / math.tan(math.pi * (x - round(x)))
    if x < 1e-8:
        return -1 / x - 0.5772156649015329 if x > 1e-308 else -math.inf
    total = 0.0
    while x < 30:
        total -= 1 / x
        x += 1
    total += math.log(x) - 0.5 / x
    return total - sum(b / ((2 * k + 2) * x ** (2 * k + 2)) for k, b in enumerate(BERNOULLI))


def erfinv(x: float) -> float:
    if x != x or abs(x) > 1:
        return math.nan
    if abs(x) == 1:
        return math.copysign(math.inf, x)
    size, low, high = abs(x), 0.0, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        below = math.erf(middle) < size if size < 0.5 else math.erfc(middle) > 1 - size
        low, high = (middle, high) if below else (low, middle)
    if size < 0.5:  # bisection leaves an absolute error: two steps of Newton
        root = size * math.sqrt(math.pi) / 2 if size < 1e-4 else (low + high) / 2
        for _ in range(3):
            error = math.erf(root) - size
            root -= error * math.sqrt(math.pi) / 2 * math.exp(root * root)
        return math.copysign(root, x)
    return math.copysign((low + high) / 2, x)


def zeta(s: float, q: float) -> float:
    if s != s or q != q or s < 1:
        return math.nan
    if s == 1:
        return math.inf
    if q <= 0 and q == math.floor(q):
        return math.inf
    if q < 0 and s != math.floor(s):
        return math.nan
    if q == math.inf:
        return 0.0
    terms = []
    while q < 20:
        try:
            terms.append(q ** -s)
        except (OverflowError, ZeroDivisionError):
            return math.inf
        q += 1
    power, factor = q ** -s, s
    terms += [power * q / (s - 1), power / 2]
    for k, b in enumerate(BERNOULLI):
        terms.append(b / math.factorial(2 * k + 2) * factor * power * q ** -(2 * k + 1))
        factor *= (s + 2 * k + 1) * (s + 2 * k + 2)
    return math.fsum(terms)


def _gamma_parts_of_large(a: float, x: float) -> tuple[float, float]:
    """The first two terms of Temme's expansion (DLMF 8.12.3, 8.12.4); its error is of order 1/a."""
    gap = (x - a) / a
    if abs(gap) < 0.05:  # gap - log(1 + gap), without cancellation
        half_square = math.fsum((-gap) ** n / n for n in range(2, 20))
    else:
        half_square = gap - math.log1p(gap)
    root = math.copysign(math.sqrt(2 * half_square), gap)
    first = 1 / gap - 1 / root if abs(gap) > 1e-3 else -1 / 3 + gap / 12
    rest = math.exp(-a * half_square) / math.sqrt(2 * math.pi * a) * first
    spread = root * math.sqrt(a / 2)
    return math.erfc(-spread) / 2 - rest, math.erfc(spread) / 2 + rest


def _gamma_parts(a: float, x: float) -> tuple[float, float]:
    """Lower and upper, by the series or by the continued fraction."""
    if a != a or x != x or a < 0 or x < 0 or (a == 0 == x) or (a == math.inf == x):
        return math.nan, math.nan
    if x == 0 or a == math.inf:
        return 0.0, 1.0
    if a == 0 or x == math.inf:
        return 1.0, 0.0
    if a > 1e8:
        return _gamma_parts_of_large(a, x)
    lead = math.exp(a * math.log(x) - x - math.lgamma(a + 1))
    if x < max(a, 1):
        total = term = 1.0
        k = 0
        while term > 1e-18 * total:
            k += 1
            term *= x / (a + k)
            total += term
        lower = lead * total
        if x < 1 and a < 1:
            exponent = a * math.log(x) - math.lgamma(a + 1)
            rest = math.fsum((-x) ** n / math.factorial(n) * a / (a + n) for n in range(1, 25))
            return lower, -math.expm1(exponent) - math.exp(exponent) * rest
        return lower, 1 - lower
    b = x + 1 - a
    c, d = 1e300, 1 / b
    h = d
    for k in range(1, 100_000):
        b += 2
        d = 1 / (k * (a - k) * d + b)
        c = b + k * (a - k) / c
        h *= d * c
        if abs(d * c - 1) < 1e-16:
            break
    upper = lead * a * h
    return 1 - upper, upper


def _recurrence(
    first: Callable[[float], float], step: Callable[[float, int, float, float], float]
) -> Callable[[float, float], float]:
    def value(x: float, n: float) -> float:
        if n != n or n > 2**20:
            return math.nan
        degree = math.trunc(max(n, -1.0))
        if degree <= 0:
            return 1.0 if degree == 0 else 0.0
        before, current = 1.0, first(x)
        for k in range(1, degree):
            before, current = current, step(x, k, current, before)
        return current

    return value


def _doubled(x: float, k: int, current: float, before: float) -> float:
    return 2 * x * current - before


def poisson_quantile(rate: float, u: float) -> float:
    if not rate >= 0:
        return math.nan
    if rate == math.inf:
        return rate
    if rate >= 64:
        w = erfinv(2 * max(u, 2.0**-54) - 1) * math.sqrt(2)
        slow = rate + math.sqrt(rate) * w + 1 / 3 + w * w / 6
        slow -= (w / 36 + w**3 / 72) / math.sqrt(rate)
        slow += (w**4 / 270 + 7 * w * w / 810 - 8 / 405) / rate
        return max(math.floor(slow), 0.0)
    term = total = math.exp(-rate)
    k = 0
    limit = rate + math.sqrt(rate) * 10 + 24
    while total <= u and k < limit:
        k += 1
        term *= rate / k
        total += term
    return float(k)


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "lgamma": _each(lgamma),
    "digamma": _each(digamma),
    "erfinv": _each(erfinv),
    "zeta": _each(zeta),
    "gammainc": _each(lambda a, x: _gamma_parts(a, x)[0]),
    "gammaincc": _each(lambda a, x: _gamma_parts(a, x)[1]),
    "poisson_quantile": _each(poisson_quantile),
    "chebyshev_t": _each(_recurrence(lambda x: x, _doubled)),
    "chebyshev_u": _each(_recurrence(lambda x: 2 * x, _doubled)),
    "chebyshev_v": _each(_recurrence(lambda x: 2 * x - 1, _doubled)),
    "chebyshev_w": _each(_recurrence(lambda x: 2 * x + 1, _doubled)),
    "hermite_h": _each(_recurrence(lambda x: 2 * x, lambda x, k, p, q: 2 * x * p - 2 * k * q)),
    "hermite_he": _each(_recurrence(lambda x: x, lambda x, k, p, q: x * p - k * q)),
    "laguerre": _each(_recurrence(
        lambda x: 1 - x, lambda x, k, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1))),
    "legendre": _each(_recurrence(
        lambda x: x, lambda x, k, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1))),
}
