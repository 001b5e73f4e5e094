"""erf and erfc.

erf: an odd polynomial up to 1, then 1 - exp(P(|x| - 1)) with P fitted to log(erfc).  erfc: 1 - erf
up to 1/2, then exp(-x*x) times erfcx(x), which is fitted as a polynomial in (x - 2) / (x + 2)
divided by x + 2 (after M. M. Shepherd and J. G. Laframboise, "Chebyshev approximation of (1 + 2x)
exp(x*x) erfc x", 1981); x*x, the quotient and the exponential are pairs, so that only the last
product rounds.
"""

from __future__ import annotations

from lazygrad_compiler.llvm.elementary_coefficients import ERFC_PIVOT, POLYNOMIALS
from lazygrad_compiler.llvm.elementary_exponential import exp_remainder, exp_unscaled, reduce_exp
from lazygrad_compiler.llvm.elementary_lanes import (
    Lanes,
    clamp,
    fma,
    horner,
    polynomial,
    power_of_two,
    product,
    product_of_pairs,
    scale,
    select,
    sum_of_ordered,
)


def erf(x: Lanes) -> Lanes:
    magnitude = abs(x)
    z = x * x
    small = fma(x, polynomial("erf", z), x)
    saturated = {"float": 4.0, "double": 6.0}[x.element]
    clamped = clamp(magnitude, 1.0, saturated)
    p, exponent = exp_unscaled(polynomial("log_erfc", clamped - 1.0))
    large = 1.0 - p * power_of_two(exponent.integer, x.element)
    return select(magnitude < 1.0, small, large.with_sign_of(x))


def erfc(x: Lanes) -> Lanes:
    magnitude = abs(x)
    # Near zero: 1 - erf(x), with erf as a pair.
    z = x * x
    excess = x * polynomial("erf", z)
    near = 1.0 - x
    near = near + (((1.0 - near) - x) - excess)
    # Elsewhere the tail of |x|.
    limit = {"float": 10.1, "double": 27.3}[x.element]
    positive = clamp(magnitude, 0.5, limit)
    divisor = positive + ERFC_PIVOT
    divisor_low = select(positive < ERFC_PIVOT,
                         positive - (divisor - ERFC_PIVOT),
                         ERFC_PIVOT - (divisor - positive))
    inverse = 1.0 / divisor
    inverse_low = inverse * fma(-inverse, divisor_low, fma(-inverse, divisor, 1.0))
    offset = positive - ERFC_PIVOT
    offset_low = select(positive < 1.0, positive - (offset + ERFC_PIVOT), 0.0)
    t = offset * inverse
    t_low = (fma(-t, divisor, offset) + fma(-t, divisor_low, offset_low)) * inverse
    fitted = sum_of_ordered(1.0, polynomial("erfc", t))
    slope = horner(t, [k * c for k, c in enumerate(POLYNOMIALS["erfc", x.element][:5])][1:])
    fitted = fitted[0], fma(t_low, slope, fitted[1])
    quotient = product_of_pairs(fitted, (inverse, inverse_low))
    square, square_low = product(positive, positive)
    exponent, r, lost = reduce_exp(-square)
    growth = exp_remainder(r, lost - square_low)
    first = sum_of_ordered(1.0, r)
    exponential = sum_of_ordered(first[0], first[1] + growth)
    high, low = product_of_pairs(exponential, quotient)
    tail = scale(high + low, exponent)
    far = select(x < 0.0, 2.0 - tail, tail)
    return select(magnitude < 0.5, near, far)
