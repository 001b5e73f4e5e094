"""lgamma, digamma, erfinv and the Hurwitz zeta function.

All are computed in double precision: in f32 the result is the double's rounding.  Polynomials come
from `special_coefficients.py`.

lgamma: t P(t) on 1.5..2.5 (t = x - 2), carried to 0..8 by the recurrence, Stirling's series beyond;
negative arguments by reflection.  Errors: 4 ulp, near the zeros at negative arguments 1e-15 of the
terms that cancel there.
digamma: (x - root) P(x) on 1..3, carried to 0..10 by the recurrence, the asymptotic series beyond.
erfinv: x times a polynomial in w = -log(1 - x²), or in the root of w (M. Giles, "Approximating the
erfinv function", 2010).
zeta: Euler and Maclaurin's sum after nine terms (Abramowitz and Stegun 23.1.30).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.elementary_lanes import (
    INFINITY,
    NAN,
    Lanes,
    fma,
    horner,
    select,
)
from lazygrad_compiler.llvm.special_coefficients import DIGAMMA_ROOT, INTERVALS, POLYNOMIALS

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
HALF_ROOT_PI = 0.5 * math.sqrt(math.pi)
WHOLE = 2.0**52  # from here on every double is a whole number


def in_double(rule: Callable[..., Lanes]) -> Callable[..., Lanes]:
    """The rule of doubles, for floats as well."""

    def apply(*arguments: Lanes) -> Lanes:
        if arguments[0].element == "double":
            return rule(*arguments)
        wide = [argument.convert("fpext", "double") for argument in arguments]
        return rule(*wide).convert("fptrunc", "float")

    apply.__name__ = rule.__name__
    return apply


def call(name: str, *arguments: Lanes) -> Lanes:
    """Another elementary function, as the function of its own that the module has of it."""
    from lazygrad_compiler.llvm.elementary import emit_elementary

    function = arguments[0].function
    return Lanes(function, emit_elementary(name, function, *[each.value for each in arguments]))


def even_odd(t: Lanes, coefficients: tuple[float, ...]) -> Lanes:
    """A long polynomial by its even and odd orders: half the latency."""
    square = t * t
    return fma(horner(square, coefficients[1::2]), t, horner(square, coefficients[0::2]))


def fitted(name: str, x: Lanes) -> Lanes:
    """A polynomial of `special_coefficients` at x, which is mapped onto -1..1 first."""
    low, high = INTERVALS[name]
    scale, shift = 2.0 / (high - low), -(low + high) / (high - low)
    t = fma(x, scale, shift) if shift else x * scale
    return even_odd(t, POLYNOMIALS[name])


def nearest_whole(x: Lanes) -> Lanes:
    return Lanes(x.function, x.function.overloaded("llvm.roundeven", x.value))


def _positive_lgamma(y: Lanes) -> Lanes:
    """lgamma of y > 0."""
    below, near, large = y < 0.5, y < 1.5, y >= 8.0
    z, factor = select(y < 8.0, y, 2.0), y.constant(1.0)
    for _ in range(6):
        above = z > 2.5
        z = select(above, z - 1.0, z)
        factor = select(above, factor * z, factor)
    t = select(below, y, select(near, y - 1.0, z - 2.0))
    inside = select(below, y * (y + 1.0), select(near, y, factor))
    logarithm = call("log", select(large, y, inside))
    small = fma(t, fitted("lgamma", t), select(near, -logarithm, logarithm))
    inverse = 1.0 / y
    tail = fitted("lgamma_tail", inverse * inverse) * inverse
    stirling = fma(y - 0.5, logarithm - 1.0, tail + (HALF_LOG_TWO_PI - 0.5))
    return select(large, stirling, small)


@in_double
def lgamma(x: Lanes) -> Lanes:
    """log |gamma(x)|; infinite at 0, -1, -2, … and at both infinities."""
    y = abs(x)
    positive = _positive_lgamma(y)
    rest = y - nearest_whole(y)
    sine = abs(call("sin", rest * math.pi))
    reflected = call("log", math.pi / (y * sine)) - positive
    reflected = select(y < 1e-30, positive, reflected)
    reflected = select(y >= WHOLE, INFINITY, reflected)
    result = select(x < 0.0, reflected, positive)
    return select(y.equals(INFINITY), INFINITY, select(x.is_nan(), x, result))


@in_double
def digamma(x: Lanes) -> Lanes:
    """The logarithmic derivative of gamma; -inf and inf at 0.0 and -0.0, NaN at -1, -2, …"""
    y = abs(x)
    lifted = x < 1.0  # digamma(y + 1) is computed
    q = select(lifted, y + 1.0, x)
    large = q >= 10.0
    z = select(large, 2.5, q)
    numerator, denominator = x.constant(0.0), x.constant(1.0)
    for _ in range(7):
        above = z >= 3.0
        z = select(above, z - 1.0, z)
        numerator = select(above, fma(numerator, z, denominator), numerator)
        denominator = select(above, denominator * z, denominator)
    root, root_low = DIGAMMA_ROOT
    untouched = lifted & (q < 3.0)
    distance = select(untouched, y - (root - 1.0), z - root) - root_low
    small = distance * fitted("digamma", select(untouched, y + 1.0, z)) + numerator / denominator
    inverse = 1.0 / q
    square = inverse * inverse
    asymptotic = call("log", q) + fma(fitted("digamma_tail", square), square, inverse * -0.5)
    value = select(large, asymptotic, small)
    rest = y - nearest_whole(y)
    reflected = value + math.pi / call("tan", rest * math.pi)
    reflected = select(rest.equals(0.0) | (y >= WHOLE), NAN, reflected)
    result = select(x < 0.0, reflected, select(lifted, value - 1.0 / y, value))
    result = select(x.equals(0.0), -x.constant(INFINITY).with_sign_of(x), result)
    return select(x.equals(INFINITY), x, result)


@in_double
def erfinv(x: Lanes) -> Lanes:
    """The y with erf(y) = x; infinite at -1 and 1, NaN beyond."""
    size = abs(x)
    central = call("log1p", -(size * size))
    outer = call("log", (1.0 - size) * (1.0 + size))
    w = -select(size < 0.5, central, outer)
    root = w.sqrt()
    near = select(w < 3.0, w, 0.0)
    factor = select(w < 3.0, fma(near, fitted("erfinv", near), HALF_ROOT_PI),
                    fitted("erfinv_middle", select(w < 16.0, root, 2.0)))
    factor = select(w < 16.0, factor, root * fitted("erfinv_far", select(root < 9.0, root, 5.0)))
    result = x * factor
    poles = select(size.equals(1.0), x.constant(INFINITY).with_sign_of(x), NAN)
    return select(size < 1.0, result, poles)


def _bernoulli(count: int) -> list[Fraction]:
    """B(2), B(4), … by the recurrence of the binomial sums."""
    numbers = [Fraction(1)]
    for order in range(1, 2 * count + 1):
        total = sum((math.comb(order + 1, k) * numbers[k] for k in range(order)), Fraction(0))
        numbers.append(-total / (order + 1))
    return numbers[2::2]


ZETA_TERMS = 9
MACLAURIN = [float(number / math.factorial(2 * k + 2))
             for k, number in enumerate(_bernoulli(12))]


def zeta_positive(s: Lanes, q: Lanes) -> Lanes:
    """The sum of (q + k)^-s over k >= 0, for s > 1 and q > 0, in double precision."""
    end = q + float(ZETA_TERMS)
    power = call("pow", end, -s)
    inverse = 1.0 / end
    factor = s * power * inverse
    correction = factor * MACLAURIN[0]
    for k in range(1, len(MACLAURIN)):
        factor = factor * (s + (2 * k - 1.0)) * (s + 2.0 * k) * inverse * inverse
        correction = fma(factor, MACLAURIN[k], correction)
    # where the power is gone, so is all that it is multiplied by
    rest = power * end / (s - 1.0) + (power * 0.5 + correction)
    total = select(power > 0.0, rest, 0.0)
    for k in reversed(range(ZETA_TERMS)):
        total = total + call("pow", q + float(k), -s)
    return total


@in_double
def zeta(s: Lanes, q: Lanes) -> Lanes:
    """The Hurwitz zeta function of s > 1 (infinite at s = 1, NaN below).

    For q < 0 and whole s the sum up to the first positive q + k is a difference of two others;
    infinite at q = 0, -1, -2, …; NaN where q < 0 and s is no whole number.
    """
    function = s.function
    negative = q < 0.0
    below = Lanes(function, function.overloaded("llvm.floor", q.value))
    fraction = q - below
    positive = call("zeta_positive", s, select(negative, fraction, q))
    flipped = Value("i64", "0")
    flipped = function.convert("zext", negative.any(), "i64")
    with function.loop(const("i64", 0), flipped, 1, [s.constant(0.0).value], "reflect") as loop:
        first = call("zeta_positive", s, (below + 1.0) - q)
        second = call("zeta_positive", s, 1.0 - q)
        loop.next = [(first - second).value]
    mirrored = Lanes(function, loop.results[0])
    half = s * 0.5
    odd = ~half.trunc().equals(half)
    result = positive + select(negative, select(odd, -mirrored, mirrored), 0.0)
    whole_s, whole_q = s.trunc().equals(s), fraction.equals(0.0)
    result = select(negative & ~whole_s, NAN, result)
    result = select((q <= 0.0) & whole_q, INFINITY, result)
    result = select(s < 1.0, NAN, select(s.equals(1.0), INFINITY, result))
    return select(s.is_nan() | q.is_nan(), NAN, result)
