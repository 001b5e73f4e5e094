"""log, log2, log10, log1p, pow, asinh, acosh and atanh.

x = 2**e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = f + remainder(f), where the
remainder is small enough that its rounding errors hardly count.  In f32 the remainder is a
polynomial in f, in f64 one in s = f / (2 + f), whose series converges three times faster (P. T.
P. Tang, "Table-driven implementation of the logarithm function in IEEE floating-point
arithmetic", 1990, without the tables).  pow carries the logarithm as a pair, with the division for
s and the leading terms of the series done in pairs.
"""

from __future__ import annotations

import math

from lazygrad_compiler.llvm.elementary_exponential import exp_unscaled
from lazygrad_compiler.llvm.elementary_lanes import (
    INFINITY,
    NAN,
    Lanes,
    Pair,
    clamp,
    constant_parts,
    fma,
    polynomial,
    power_of_two,
    product,
    product_of_pairs,
    scale,
    select,
    sum_of_ordered,
    tiny,
)


def split_exponent(x: Lanes) -> tuple[Lanes, Lanes]:
    """(e, m) with x = m * 2**e and m in [sqrt(1/2), sqrt(2)), of normal positive x."""
    format_ = x.format
    start = format_.bits(math.sqrt(0.5))
    bits = x.bits() - start
    exponent = bits.shift_signed(format_.mantissa)
    return exponent, ((bits & ((1 << format_.mantissa) - 1)) + start).from_bits(x.element)


def split_exponent_of_any(x: Lanes) -> tuple[Lanes, Lanes]:
    """As `split_exponent`, for subnormal x as well."""
    subnormal = x < x.format.smallest_normal
    lift = x.format.precision
    exponent, m = split_exponent(select(subnormal, x * 2.0**lift, x))
    return select(subnormal, exponent - lift, exponent).convert("sitofp", x.element), m


def remainder(f: Lanes) -> Lanes:
    """log(1 + f) - f."""
    if f.element == "float":
        return f * f * polynomial("log", f)
    s = f / (f + 2.0)
    half_square = f * f * 0.5
    z = s * s
    return fma(s, fma(z, polynomial("log", z), half_square), -half_square)


def log_of_parts(exponent: Lanes, f: Lanes, f_low: Lanes | None = None) -> Lanes:
    """exponent * ln 2 + log(1 + f + f_low)."""
    high, low, _ = constant_parts("ln2", f)
    rest = remainder(f)
    if f_low is not None:
        rest = rest + fma(-f_low, f, f_low)  # f_low / (1 + f), near enough
    return fma(exponent, high, f + fma(exponent, low, rest))


def at_the_borders(x: Lanes, result: Lanes, zero: float = 0.0) -> Lanes:
    """The result where x > zero and finite; a logarithm's -inf, NaN and inf elsewhere."""
    poles = select(x.equals(zero), x.constant(-INFINITY), NAN)
    return select(x.equals(INFINITY), x, select(x > zero, result, poles))


def log(x: Lanes) -> Lanes:
    exponent, m = split_exponent_of_any(x)
    return at_the_borders(x, log_of_parts(exponent, m - 1.0))


def log2(x: Lanes) -> Lanes:
    exponent, m = split_exponent_of_any(x)
    f = m - 1.0
    high, low, _ = constant_parts("log2_e", x)
    return at_the_borders(x, fma(f, high, fma(f, low, remainder(f) * high)) + exponent)


def log10(x: Lanes) -> Lanes:
    exponent, m = split_exponent_of_any(x)
    f = m - 1.0
    high, low, _ = constant_parts("log10_e", x)
    exponent_high, exponent_low, _ = constant_parts("log10_2", x)
    correction = fma(exponent, exponent_low, fma(f, low, remainder(f) * high))
    return at_the_borders(x, fma(exponent, exponent_high, fma(f, high, correction)))


def log1p_of_pair(x: Lanes, low: Lanes | None = None) -> Lanes:
    """log(1 + x + low) for 1 + x above zero and finite."""
    sum_ = x + 1.0
    exponent, m = split_exponent(sum_)
    # f = 2**-e (1 + x) - 1 as a pair: 1 + x itself has lost bits of x.
    power = power_of_two(-exponent, x.element)
    scaled = x * power
    f, f_low = sum_of_ordered(power - 1.0, scaled)  # exact: power - 1 is a multiple of ulp(scaled)
    if low is not None:
        rounded = fma(power, low, f)
        f, f_low = rounded, fma(power, low, f - rounded) + f_low
    huge = sum_ > 2.0 ** (x.format.precision + 2)
    f, f_low = select(huge, m - 1.0, f), select(huge, 0.0, f_low)
    return log_of_parts(exponent.convert("sitofp", x.element), f, f_low)


def log1p(x: Lanes) -> Lanes:
    return select(tiny(x), x, at_the_borders(x, log1p_of_pair(x), -1.0))


def log_pair(x: Lanes) -> Pair:
    """log(x) of positive finite x as a pair: relative error 2**-36 in f32, 2**-68 in f64."""
    exponent, m = split_exponent_of_any(x)
    f = m - 1.0
    divisor = f + 2.0
    divisor_low = f - (divisor - 2.0)
    inverse = 1.0 / divisor
    s = f * inverse
    s_pair = (s, fma(-s, divisor_low, fma(-s, divisor, f)) * inverse)
    square = product_of_pairs(s_pair, s_pair)
    # log((1+s)/(1-s)) = 2s + s**3 (2/3 + z (2/5 + ...)), z = s**2
    tail = square[0] * polynomial("log_tail", square[0])
    third_high, third_low, _ = constant_parts("two_thirds", x)
    if x.element == "double":
        fifth_high, fifth_low, _ = constant_parts("two_fifths", x)
        inner = sum_of_ordered(fifth_high, tail)
        tail, tail_low = product_of_pairs(square, (inner[0], inner[1] + fifth_low))
        series = sum_of_ordered(third_high, tail)
        series = series[0], series[1] + (tail_low + third_low)
    else:
        series = sum_of_ordered(third_high, tail)
        series = series[0], series[1] + third_low
    cubic = product_of_pairs(product_of_pairs(square, s_pair), series)
    mantissa = sum_of_ordered(s + s, cubic[0])
    mantissa_low = mantissa[1] + fma(s_pair[1], 2.0, cubic[1])
    ln2_high, ln2_low, _ = constant_parts("ln2", x)
    whole = exponent * ln2_high
    whole_low = fma(exponent, ln2_low, fma(exponent, ln2_high, -whole))
    total = sum_of_ordered(whole, mantissa[0])
    return sum_of_ordered(total[0], total[1] + (whole_low + mantissa_low))


def pow(x: Lanes, y: Lanes) -> Lanes:
    """exp(y log|x|) with the sign and the special cases of C99 Annex F.9.4.4."""
    base = abs(x)
    low, high = {"float": (-110.0, 92.0), "double": (-760.0, 715.0)}[x.element]
    log_base = log_pair(base)
    exact = y * log_base[0]
    exponent = clamp(exact, low, high)
    correction = fma(y, log_base[1], fma(y, log_base[0], -exact))
    correction = select(exact.equals(exponent), correction, 0.0)
    p, scale_exponent = exp_unscaled(exponent, correction)
    result = scale(p, scale_exponent)
    # Zero or infinite operands: the result is zero or infinity by the side of 1 and the sign of y.
    extreme = base.equals(0.0) | base.equals(INFINITY) | abs(y).equals(INFINITY)
    limit = select((base > 1.0) ^ (y > 0.0), x.constant(0.0), INFINITY)
    result = select(extreme, limit, result)
    half = y * 0.5
    y_is_integer = y.trunc().equals(y)
    y_is_odd = y_is_integer & ~half.trunc().equals(half)
    sign = select(y_is_odd, x, x.constant(1.0))
    result = result.with_sign_of(sign)
    undefined = x.is_nan() | y.is_nan() | ((x < 0.0) & ~y_is_integer & (base < INFINITY))
    result = select(undefined, NAN, result)
    one = x.equals(1.0) | y.equals(0.0) | (base.equals(1.0) & abs(y).equals(INFINITY))
    return select(one, 1.0, result)


def asinh(x: Lanes) -> Lanes:
    magnitude = abs(x)
    z = x * x
    small = fma(x * z, polynomial("asinh", z), x)
    # log(x + sqrt(x*x + 1)) with the argument as a pair; beyond 2**(precision/2 + 1): log(2x).
    huge = magnitude > 2.0 ** (x.format.precision // 2 + 2)
    square, square_low = product(magnitude, magnitude)
    above = select(square < 1.0, sum_of_ordered(1.0, square)[1], 1.0 - ((square + 1.0) - square))
    radicand = square + 1.0
    root = radicand.sqrt()
    root_low = (fma(-root, root, radicand) + (above + square_low)) / (root + root)
    total, total_low = sum_of_ordered(root, magnitude)
    exponent, m = split_exponent(select(huge, magnitude, total))
    power = power_of_two(-exponent, x.element)
    f = select(huge, m - 1.0, fma(power, total_low + root_low, m - 1.0))
    exponent = select(huge, exponent + 1, exponent).convert("sitofp", x.element)
    large = log_of_parts(exponent, f)
    large = select(magnitude < INFINITY, large, magnitude)
    return select(magnitude < 0.5, small, large).with_sign_of(x)


def acosh(x: Lanes) -> Lanes:
    """log1p(t + sqrt(t (t + 2))) with t = x - 1, the argument as a pair."""
    t = x - 1.0
    huge = x > 2.0 ** (x.format.precision // 2 + 2)
    t = select(huge, 1.0, t)
    wide = t + 2.0
    wide_low = select(t < 2.0, t - (wide - 2.0), 2.0 - (wide - t))
    radicand, radicand_low = product(t, wide)
    root = radicand.sqrt()
    residue = fma(-root, root, radicand) + fma(t, wide_low, radicand_low)
    root_low = select(root > 0.0, residue / (root + root), 0.0)
    total, total_low = sum_of_ordered(root, t)
    result = log1p_of_pair(total, total_low + root_low)
    result = select(huge, log_of_twice(x), result)
    result = select(x < 1.0, NAN, result)
    return select(x < INFINITY, result, x)


def log_of_twice(x: Lanes) -> Lanes:
    exponent, m = split_exponent(x)
    return log_of_parts((exponent + 1).convert("sitofp", x.element), m - 1.0)


def atanh(x: Lanes) -> Lanes:
    """log1p(2x / (1 - x)) / 2, the quotient as a pair."""
    magnitude = abs(x)
    divisor = 1.0 - magnitude
    divisor_low = (1.0 - divisor) - magnitude
    twice = magnitude + magnitude
    quotient = twice / divisor
    quotient_low = fma(-quotient, divisor_low, fma(-quotient, divisor, twice)) / divisor
    result = (log1p_of_pair(quotient, quotient_low) * 0.5).with_sign_of(x)
    result = select(tiny(x), x, result)
    poles = select(magnitude.equals(1.0), x.constant(INFINITY).with_sign_of(x), NAN)
    return select(magnitude < 1.0, result, poles)
