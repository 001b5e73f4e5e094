"""Functions of complex numbers as formulas in their real and imaginary part.

Each takes and gives a `Pair`.  Errors are a few ulp of the result's size |f(z)|, not of each part.
Branch cuts and signed zeros on them are those of C99 and NumPy.  Infinities are, too, except that
functions through sin and cos of an infinite part give NaN in both parts, as does what has a NaN
beside an infinity in most functions.

Sources: division after Smith (CACM 5, 1962) with the divisor scaled; inverse functions after Kahan,
"Branch cuts for complex elementary functions" (1987), whose products of square roots add only terms
of one sign; tanh from sin, cos, sinh, cosh of its parts, where the denominator is a sum of squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from lazygrad_compiler.passes.complex_values import Pair, Real

INFINITY = math.inf


# ---- scaling


class Scales(NamedTuple):
    """Powers of two that keep squares in range: numbers above 2**large are multiplied by
    2**shrink, numbers below 2**small by 2**grow (the last two even, so that they have roots).

    exp(x) is computed as exp(x - shift) * e**shift for x above `steep`; tanh(x) is 1 beyond `flat`.
    """

    large: int
    shrink: int
    small: int
    grow: int
    steep: float
    shift: float
    flat: float
    tiny: float


SINGLE = Scales(62, -70, -50, 100, 86.0, 24.0, 40.0, 1e-15)
DOUBLE = Scales(510, -600, -450, 700, 700.0, 64.0, 300.0, 1e-140)


def scales(z: Pair) -> Scales:
    return DOUBLE if z.is_double else SINGLE


class Scaled(NamedTuple):
    """A pair times a power of two: large, small where it was taken, and |z|² of the scaled pair."""

    pair: Pair
    large: Real
    small: Real
    limits: Scales

    def by_scale(self, of_exponent: Callable[[int], float]) -> Real:
        """A constant for each element, from the exponent that it was scaled by."""
        of_small = self.small.choose(
            self.pair.real.like(of_exponent(self.limits.grow)), of_exponent(0)
        )
        return self.large.choose(of_exponent(self.limits.shrink), of_small)

    def square(self) -> Real:
        a, b = self.pair
        return a * a + b * b


def scaled(z: Pair) -> Scaled:
    """z by a power of two so that the squares of its parts neither overflow nor vanish."""
    limits = scales(z)
    size = abs(z.real).op("maximum", abs(z.imaginary))
    large, small = size > 2.0**limits.large, size < 2.0**limits.small
    result = Scaled(z, large, small, limits)
    return result._replace(pair=z * result.by_scale(lambda exponent: 2.0**exponent))


def has_infinity(z: Pair) -> Real:
    return abs(z.real).equals(INFINITY) | abs(z.imaginary).equals(INFINITY)


def scaled_size(z: Pair) -> tuple[Scaled, Real]:
    """z scaled, and the size of that; infinite where a part is, whatever the other."""
    small = scaled(z)
    return small, has_infinity(z).choose(INFINITY, small.square().op("sqrt"))


def size(z: Pair) -> Real:
    """|z|, without overflow on the way."""
    small, root = scaled_size(z)
    return root * small.by_scale(lambda exponent: 2.0**-exponent)


def direction(z: Pair) -> Pair:
    """z / |z|; 0 of 0."""
    small, root = scaled_size(z)
    divisor = root.equals(0.0).choose(1.0, root)
    return Pair(small.pair.real / divisor, small.pair.imaginary / divisor)


# ---- arithmetic


def divide(z: Pair, w: Pair) -> Pair:
    """Smith's algorithm: the divisor's smaller part over its larger one never overflows."""
    small = scaled(w)
    c, d = small.pair
    by_real = abs(d) <= abs(c)
    larger, smaller = by_real.choose(c, d), by_real.choose(d, c)
    zero = larger.equals(0.0)
    ratio = zero.choose(0.0, smaller / larger)
    divisor = zero.choose(0.0, larger + smaller * ratio)
    first = by_real.choose(z.real, z.imaginary)
    second = by_real.choose(z.imaginary, z.real)
    real = (first + second * ratio) / divisor
    turned = (second - first * ratio) / divisor
    quotient = Pair(real, by_real.choose(turned, -turned))
    return quotient * small.by_scale(lambda exponent: 2.0**exponent)


def whole_power(z: Pair, exponent: int) -> Pair:
    """By repeated squaring."""
    result: Pair | None = None
    left = abs(exponent)
    while left:
        if left & 1:
            result = z if result is None else result * z
        left >>= 1
        if left:
            z = z * z
    if result is None:
        return z.number(1.0)
    return divide(z.number(1.0), result) if exponent < 0 else result


MOST_SQUARED = 64
"""Whole exponents up to this size are multiplied out."""


def power(z: Pair, w: Pair) -> Pair:
    """z ** w = |z|**c e**(-d t) at the angle c t + d ln |z|, for w = c + id and the angle t of z.

    1 for w = 0; 0 for z = 0 where the real part of w is positive, NaN where it is not.
    """
    if w.real.node.op == "const" and w.imaginary.node.op == "const":
        exponent, imaginary = w.real.node.attrs[0], w.imaginary.node.attrs[0]
        if imaginary == 0 and exponent == 0.5:
            return square_root(z)
        if imaginary == 0 and exponent == int_or_none(exponent) and abs(exponent) <= MOST_SQUARED:
            return whole_power(z, int(exponent))
    c, d = w
    angle = z.imaginary.op("atan2", z.real)
    length = size(z).op("pow", c) * (-(d * angle)).op("exp")
    turn = c * angle + d * logarithm_of_size(z)
    result = Pair(length * turn.op("cos"), length * turn.op("sin"))
    nothing = z.real.equals(0.0) & z.imaginary.equals(0.0)
    of_zero = (c > 0.0).choose(c.like(0.0), math.nan)
    result = Pair(of_zero, of_zero).choose(nothing, result)
    to_zero = c.equals(0.0) & d.equals(0.0)
    return z.number(1.0).choose(to_zero, result)


def int_or_none(value: float) -> int | None:
    return int(value) if math.isfinite(value) and value == int(value) else None


def square_root(z: Pair) -> Pair:
    """The root with a real part of at least 0, and the sign of the imaginary part of z."""
    small, root = scaled_size(z)
    half = ((abs(small.pair.real) + root) * 0.5).op("sqrt")
    across = abs(small.pair.imaginary)
    other = half.equals(0.0).choose(across, across / (half + half))
    left = z.real < 0.0
    back = small.by_scale(lambda exponent: 2.0 ** (-exponent // 2))
    real, imaginary = left.choose(other, half) * back, left.choose(half, other) * back
    upright = across.equals(INFINITY)
    return Pair(
        upright.choose(INFINITY, real),
        upright.choose(INFINITY, imaginary).with_sign_of(z.imaginary),
    )


# ---- exponential and logarithm


def _growth(x: Real, limits: Scales) -> tuple[Real, Real]:
    """x and a factor such that e**x is their exponential times product, the factor only where e**x
    might overflow alone.
    """
    steep = x > limits.steep
    return steep.choose(x - limits.shift, x), steep.choose(x.like(math.exp(limits.shift)), 1.0)


def exponential(z: Pair) -> Pair:
    exponent, factor = _growth(z.real, scales(z))
    length = exponent.op("exp")
    a = length * z.imaginary.op("cos") * factor
    b = length * z.imaginary.op("sin") * factor
    return Pair(a, z.imaginary.equals(0.0).choose(z.imaginary, b))


def exponential_of_two(z: Pair) -> Pair:
    length, angle = z.real.op("exp2"), z.imaginary * math.log(2.0)
    real, imaginary = length * angle.op("cos"), length * angle.op("sin")
    return Pair(real, z.imaginary.equals(0.0).choose(z.imaginary, imaginary))


def exponential_minus_one(z: Pair) -> Pair:
    """e**a cos b - 1 = (e**a - 1) cos b - 2 sin²(b / 2): nothing cancels near 0."""
    half = (z.imaginary * 0.5).op("sin")
    near = z.real.op("expm1") * z.imaginary.op("cos") - half * half * 2.0
    full = exponential(z)
    return Pair((z.real > 1.0).choose(full.real - 1.0, near), full.imaginary)


def logarithm_of_size(z: Pair) -> Real:
    """ln |z| = ln(|z|²) / 2; near 1 with |z|² - 1 = (a - 1)(a + 1) + b² as the correction."""
    small = scaled(z)
    a, b = abs(small.pair.real), abs(small.pair.imaginary)
    longer, shorter = a.op("maximum", b), a.op("minimum", b)
    square = small.square()
    excess = (longer - 1.0) * (longer + 1.0) + shorter * shorter
    near = (square > 0.25) & (square < 2.25)
    rounded = excess + 1.0
    correction = near.choose((excess - (rounded - 1.0)) / rounded, 0.0)
    logarithm = (near.choose(rounded, square).op("log") + correction) * 0.5
    result = logarithm - small.by_scale(lambda exponent: exponent * math.log(2.0))
    return has_infinity(z).choose(INFINITY, result)


def angle(z: Pair) -> Real:
    return z.imaginary.op("atan2", z.real)


def logarithm(z: Pair) -> Pair:
    return Pair(logarithm_of_size(z), angle(z))


def logarithm_of_one_more(z: Pair) -> Pair:
    """ln(1 + z); near 0 with |1 + z|² - 1 = a (2 + a) + b²."""
    more = Pair(z.real + 1.0, z.imaginary)
    small = (abs(z.real) < 0.5) & (abs(z.imaginary) < 0.5)
    excess = z.real * (z.real + 2.0) + z.imaginary * z.imaginary
    near = excess.op("log1p") * 0.5
    return Pair(small.choose(near, logarithm_of_size(more)), angle(more))


# ---- trigonometric and hyperbolic


def _hyperbolic(x: Real, limits: Scales) -> tuple[Real, Real, Real]:
    """cosh, sinh, and a factor for both where they might overflow alone."""
    steep = abs(x) > limits.steep
    nearer = (x < 0.0).choose(x + limits.shift, x - limits.shift)
    x = steep.choose(nearer, x)
    factor = steep.choose(x.like(math.exp(limits.shift)), 1.0)
    return x.op("cosh"), x.op("sinh"), factor


def sinh(z: Pair) -> Pair:
    along, across, factor = _hyperbolic(z.real, scales(z))
    real = across * z.imaginary.op("cos") * factor
    imaginary = along * z.imaginary.op("sin") * factor
    return Pair(real, z.imaginary.equals(0.0).choose(z.imaginary, imaginary))


def cosh(z: Pair) -> Pair:
    along, across, factor = _hyperbolic(z.real, scales(z))
    real = along * z.imaginary.op("cos") * factor
    imaginary = across * z.imaginary.op("sin") * factor
    level = (z.real < 0.0).choose(-z.imaginary, z.imaginary)
    return Pair(real, z.imaginary.equals(0.0).choose(level, imaginary))


def tanh(z: Pair) -> Pair:
    """(sinh a cosh a + i sin b cos b) / (sinh² a + cos² b)."""
    flat = scales(z).flat
    x = z.real.op("minimum", flat).op("maximum", -flat)
    along, across = x.op("cosh"), x.op("sinh")
    cosine, sine = z.imaginary.op("cos"), z.imaginary.op("sin")
    divisor = across * across + cosine * cosine
    endless = abs(z.real).equals(INFINITY)
    return Pair(
        endless.choose(x * (1.0 / flat), across * along / divisor),
        endless.choose(0.0, sine * cosine / divisor),
    )


# ---- inverse functions


class _Roots(NamedTuple):
    """sqrt(1 - z) and sqrt(1 + z)."""

    minus: Pair
    plus: Pair


def _roots(z: Pair) -> _Roots:
    return _Roots(
        square_root(Pair(1.0 - z.real, -z.imaginary)),
        square_root(Pair(z.real + 1.0, z.imaginary)),
    )


def asin(z: Pair) -> Pair:
    (p, q), (r, s) = _roots(z)
    level = abs(z.real).equals(INFINITY) & (abs(z.imaginary) < INFINITY)
    other = level.choose(1.0, p * r - q * s)  # not 0 times infinity
    return Pair(z.real.op("atan2", other), (p * s - q * r).op("asinh"))


def _twice_the_angle(z: Pair, y: Real, x: Real) -> Real:
    """2 atan2(y, x); the angle of z itself where both of its parts are infinite."""
    corner = abs(z.real).equals(INFINITY) & abs(z.imaginary).equals(INFINITY)
    half = corner.choose(z.imaginary, y).op("atan2", corner.choose(z.real, x))
    return corner.choose(half, half + half)


def acos(z: Pair) -> Pair:
    (p, q), (r, s) = _roots(z)
    return Pair(abs(_twice_the_angle(z, p, r)), (r * q - s * p).op("asinh"))


def acosh(z: Pair) -> Pair:
    p, q = square_root(Pair(z.real - 1.0, z.imaginary))
    r, s = square_root(Pair(z.real + 1.0, z.imaginary))
    return Pair((p * r + q * s).op("asinh"), _twice_the_angle(z, q, r))


def atanh(z: Pair) -> Pair:
    """ln(1 + 4 |a| / ((1 - |a|)² + b²)) / 4, and half the angle of 1 - |z|² + 2ib."""
    a, b = z
    far = abs(a)
    gap = size(Pair(1.0 - far, b))
    close = gap < scales(z).tiny
    square = gap * gap
    grown = close.choose(2.0 / gap, far * 4.0 / close.choose(1.0, square))
    grown = gap.equals(INFINITY).choose(0.0, grown)
    real = grown.op("log1p") * close.choose(a.like(0.5), 0.25)
    bounded = b.op("minimum", 1e30).op("maximum", -1e30)  # beside -b², any large number will do
    double = bounded.op("atan2", ((1.0 - a) * (a + 1.0) - b * b) * 0.5)
    return Pair(real.with_sign_of(a), double * 0.5)


def _times(function: Callable[[Pair], Pair], factor: float) -> Callable[[Pair], Pair]:
    return lambda z: function(z) * factor


def _turned(function: Callable[[Pair], Pair]) -> Callable[[Pair], Pair]:
    """z -> f(iz) / i."""
    return lambda z: function(z.times_i()).over_i()


FUNCTIONS: dict[str, Callable[[Pair], Pair]] = {
    "sqrt": square_root,
    "sign": direction,
    "exp": exponential,
    "exp2": exponential_of_two,
    "expm1": exponential_minus_one,
    "log": logarithm,
    "log2": _times(logarithm, 1.0 / math.log(2.0)),
    "log10": _times(logarithm, 1.0 / math.log(10.0)),
    "log1p": logarithm_of_one_more,
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
    "sin": _turned(sinh),
    "cos": lambda z: cosh(z.times_i()),
    "tan": _turned(tanh),
    "asin": asin,
    "acos": acos,
    "atan": _turned(atanh),
    "asinh": _turned(asin),
    "acosh": acosh,
    "atanh": atanh,
}
"""Unary functions with a complex result."""
