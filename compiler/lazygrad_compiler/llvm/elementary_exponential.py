"""exp, exp2, expm1, sinh, cosh, tanh and the logistic function.

x = n ln 2 + r with |r| <= ln(2)/2, r by two fused steps (W. J. Cody and W. Waite, "Software
Manual for the Elementary Functions", 1980), exp(r) by a minimax polynomial, and 2**n put into the
exponent field.
"""

from __future__ import annotations

from lazygrad_compiler.llvm.elementary_lanes import (
    Lanes,
    Whole,
    clamp,
    constant_parts,
    fma,
    nearest,
    polynomial,
    power_of_two,
    scale,
    select,
    sum_of_ordered,
    tiny,
)

# Beyond these the result is zero or infinity in the format.
EXP_RANGE = {"float": (-104.0, 89.0), "double": (-746.0, 710.0)}


def reduce_exp(x: Lanes) -> tuple[Whole, Lanes, Lanes]:
    """(n, r, what rounding r lost) with x = n ln 2 + r."""
    high, low, _ = constant_parts("ln2", x)
    n = nearest(x, constant_parts("log2_e", x)[0])
    first = fma(n.number, -high, x)  # exact: a multiple of ulp(high) below 1
    r = fma(n.number, -low, first)
    return n, r, fma(n.number, -low, first - r)


def exp_remainder(r: Lanes, correction: Lanes) -> Lanes:
    """exp(r + correction) - 1 - r, for a correction below an ulp or so of a number about 100."""
    square, q = r * r, polynomial("exp", r)
    return fma(square, q, fma(correction, fma(square, q, r), correction))


def exp_unscaled(x: Lanes, correction: Lanes | None = None) -> tuple[Lanes, Whole]:
    """(p, n) with exp(x + correction) = p * 2**n and p in [0.7, 1.42]; |x| must be clamped."""
    exponent, r, _ = reduce_exp(x)
    if correction is None:
        return fma(r * r, polynomial("exp", r), r) + 1.0, exponent
    return 1.0 + (r + exp_remainder(r, correction)), exponent


def exp(x: Lanes) -> Lanes:
    p, exponent = exp_unscaled(clamp(x, *EXP_RANGE[x.element]))
    return scale(p, exponent)


def exp2(x: Lanes) -> Lanes:
    low, high = {"float": (-151.0, 129.0), "double": (-1076.0, 1025.0)}[x.element]
    x = clamp(x, low, high)
    n = nearest(x, 1.0)
    r = x - n.number
    return scale(fma(r, polynomial("exp2", r), 1.0), n)


def expm1(x: Lanes) -> Lanes:
    clamped = clamp(x, -40.0, EXP_RANGE[x.element][1])
    exponent, r, lost = reduce_exp(clamped)
    p = r + fma(r * r, polynomial("expm1", r), fma(lost, r, lost))  # exp(r) - 1
    # Half the result: 2**n itself may overflow where the result does not.
    power = power_of_two(exponent.integer - 1, x.element)
    half = fma(power, p, power - 0.5)
    return select(tiny(x), x, half + half)


def sinh(x: Lanes) -> Lanes:
    magnitude = abs(x)
    p, exponent = exp_unscaled(clamp(magnitude, 0.0, EXP_RANGE[x.element][1] + 1.0))
    half = scale(p, exponent.minus(1))
    large = (half - 0.25 / half).with_sign_of(x)
    z = x * x
    small = fma(x * z, polynomial("sinh", z), x)
    return select(magnitude < 1.0, small, large)


def cosh(x: Lanes) -> Lanes:
    p, exponent = exp_unscaled(clamp(abs(x), 0.0, EXP_RANGE[x.element][1] + 1.0))
    half = scale(p, exponent.minus(1))
    return half + 0.25 / half


def tanh(x: Lanes) -> Lanes:
    """1 - 2 / (exp(2|x|) + 1), and an odd polynomial where that would cancel; both are computed."""
    magnitude = abs(x)
    saturated = {"float": 20.0, "double": 44.0}[x.element]
    p, exponent = exp_unscaled(clamp(magnitude + magnitude, 0.0, saturated))
    large = 1.0 - 2.0 / fma(p, power_of_two(exponent.integer, x.element), 1.0)
    z = x * x
    small = fma(x * z, polynomial("tanh", z), x)
    return select(magnitude < 0.625, small, large).with_sign_of(x)


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + exp(-x)), by exp(-|x|): no overflow, and small results keep all their bits."""
    e = exp(-abs(x))
    divisor, divisor_low = sum_of_ordered(1.0, e)
    quotient = select(x < 0.0, e, 1.0) / divisor
    return fma(-quotient, divisor_low, quotient)
