"""Writes `special_coefficients.py`: the polynomials of the special functions, in double precision.

In: `FITS`, one row a polynomial: the function, the interval of the variable that is mapped onto
-1..1, and how small a coefficient may be left out.  Out: Python source on standard output.  Run by
hand when a row changes; needs mpmath, which the compiler itself does not.

Method: interpolation at the Chebyshev points in 50-digit arithmetic, the Chebyshev series cut where
its terms no longer count, then written in powers of the mapped variable.  Intervals are chosen so
that each term is at least three times smaller than the one before; then the powers are as well
conditioned as the series (J. C. Mason and D. C. Handscomb, "Chebyshev Polynomials", 2003, ch. 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from mpmath import mp, mpf
except ImportError:  # an import of this file alone must not fail where mpmath is absent
    mp = mpf = None

Real = Any  # an mpmath number

POINTS = 64
DIGITS = 50
CUT = 3e-18


def erfinv_of_log(w: Real) -> Real:
    """erfinv(x) / x as a function of w = -log(1 - x²)."""
    if w < mpf("1e-20"):
        return mp.sqrt(mp.pi) / 2
    x = mp.sqrt(-mp.expm1(-w))
    # the complement keeps its digits where x is next to 1
    complement = mp.exp(-w) / (1 + x)
    guess = mp.sqrt(max(w - mp.log(mp.sqrt(mp.pi * max(w, 1))), mpf("1e-30"))) if w > 3 else x
    for _ in range(100):
        step = (complement - mp.erfc(guess)) * mp.sqrt(mp.pi) / 2 * mp.exp(guess * guess)
        step = -step / (1 + guess * step)
        guess = guess - (-step)
        if abs(step) < mpf(10) ** (6 - mp.dps):
            break
    return guess / x


def modulus_parts(order: int, x: Real) -> tuple[Real, Real]:
    """P and Q of J = sqrt(2/(pi x)) (P cos(c) - Q sin(c)), Y = ... (P sin(c) + Q cos(c)),
    c = x - (order/2 + 1/4) pi.
    """
    phase = x - (mpf(order) / 2 + mpf(1) / 4) * mp.pi
    size = mp.sqrt(mp.pi * x / 2)
    j, y = mp.besselj(order, x), mp.bessely(order, x)
    return (size * (j * mp.cos(phase) + y * mp.sin(phase)),
            size * (y * mp.cos(phase) - j * mp.sin(phase)))


def of_inverse_square(order: int, part: int) -> Callable[[Real], Real]:
    def value(u: Real) -> Real:
        if u < mpf("1e-30"):
            return mpf(1) if part == 0 else mpf(4 * order * order - 1) / 8
        x = 1 / mp.sqrt(u)
        found = modulus_parts(order, x)[part]
        return found if part == 0 else found * x
    return value


def airy_parts(u: Real, part: int) -> Real:
    """P and zeta Q of Ai(-x) = (sin(c) P - cos(c) Q) / (sqrt(pi) x^(1/4)), u = 1/zeta²,
    c = zeta + pi/4.
    """
    if u < mpf("1e-30"):
        return mpf(1) if part == 0 else mpf(5) / 72
    zeta = 1 / mp.sqrt(u)
    x = (zeta * 3 / 2) ** (mpf(2) / 3)
    c = zeta + mp.pi / 4
    size = mp.sqrt(mp.pi) * mp.sqrt(mp.sqrt(x))
    a, b = mp.airyai(-x) * size, mp.airybi(-x) * size
    return a * mp.sin(c) + b * mp.cos(c) if part == 0 else \
        -(a * mp.cos(c) - b * mp.sin(c)) * zeta


def airy_tail(u: Real) -> Real:
    """2 sqrt(pi) x^(1/4) exp(zeta) Ai(x), u = 1/zeta."""
    if u < mpf("1e-30"):
        return mpf(1)
    zeta = 1 / u
    x = (zeta * 3 / 2) ** (mpf(2) / 3)
    return 2 * mp.sqrt(mp.pi) * mp.sqrt(mp.sqrt(x)) * mp.exp(zeta) * mp.airyai(x)


def scaled_i(order: int) -> Callable[[Real], Real]:
    def value(u: Real) -> Real:
        x = 1 / max(u, mpf("1e-12"))
        return mp.sqrt(x) * mp.exp(-x) * mp.besseli(order, x)
    return value


def scaled_k(order: int) -> Callable[[Real], Real]:
    def value(u: Real) -> Real:
        x = 1 / max(u, mpf("1e-12"))
        return mp.sqrt(x) * mp.exp(x) * mp.besselk(order, x)
    return value


def k_rest(order: int) -> Callable[[Real], Real]:
    """What is left of K beside the logarithm, as a function of z = x²."""
    def value(z: Real) -> Real:
        x = mp.sqrt(max(z, mpf("1e-24")))
        rest = mp.besselk(order, x) - (-1) ** (order + 1) * mp.log(x / 2) * mp.besseli(order, x)
        return rest if order == 0 else (rest - 1 / x) / x
    return value


def y_rest(order: int) -> Callable[[Real], Real]:
    """What is left of Y beside the logarithm, as a function of z = x²."""
    def value(z: Real) -> Real:
        x = mp.sqrt(max(z, mpf("1e-24")))
        rest = mp.bessely(order, x) - 2 / mp.pi * mp.log(x) * mp.besselj(order, x)
        return rest if order == 0 else (rest + 2 / (mp.pi * x)) / x
    return value


def erfcx_pivot(t: Real) -> Real:
    """(x + 4) erfcx(x) / 4 of t = (x - 4) / (x + 4)."""
    if t > mpf(1) - mpf("1e-25"):
        return 1 / (4 * mp.sqrt(mp.pi))
    x = 4 * (1 + t) / (1 - t)
    if x > 1e3:
        series = sum((-1) ** k * mp.fac2(2 * k - 1) / (2 * x * x) ** k for k in range(1, 12)) + 1
        return (x + 4) / 4 * series / (x * mp.sqrt(mp.pi))
    return (x + 4) / 4 * mp.erfc(x) * mp.exp(x * x)


def digamma_root() -> Real:
    return mp.findroot(mp.digamma, mpf("1.46163"))


FITS: dict[str, tuple[Callable[[Real], Real], str, str]] = {
    # lgamma(2 + t) / t
    "lgamma": (lambda t: mp.loggamma(2 + t) / t if t else mp.digamma(2), "-0.5", "0.5"),
    # (lgamma(x) - (x - 1/2) log(x) + x - log(2 pi)/2) * x as a function of 1/x²
    "lgamma_tail": (
        lambda u: mpf(1) / 12 if u < mpf("1e-30") else (
            mp.loggamma(1 / mp.sqrt(u)) - (1 / mp.sqrt(u) - mpf(1) / 2) * mp.log(1 / mp.sqrt(u))
            + 1 / mp.sqrt(u) - mp.log(2 * mp.pi) / 2) / mp.sqrt(u), "0", "0.015625"),
    # digamma(x) / (x - root) on 1..3
    "digamma": (lambda x: mp.digamma(x) / (x - digamma_root()), "1", "3"),
    # (digamma(x) - log(x) + 1/(2x)) * x² as a function of 1/x²
    "digamma_tail": (
        lambda u: -mpf(1) / 12 if u < mpf("1e-20") else (
            mp.digamma(1 / mp.sqrt(u)) - mp.log(1 / mp.sqrt(u)) + mp.sqrt(u) / 2) / u,
        "0", "0.01"),
    # (erfinv(x) / x - sqrt(pi) / 2) / w of w = -log(1 - x²); further out erfinv(x) / x of its root
    "erfinv": (lambda w: (erfinv_of_log(w) - mp.sqrt(mp.pi) / 2) / w, "0", "3"),
    "erfinv_middle": (lambda s: erfinv_of_log(s * s), "1.7", "4"),
    "erfinv_far": (lambda s: erfinv_of_log(s * s) / s, "4", "9"),
    "erfinv_farthest": (lambda s: erfinv_of_log(s * s) / s, "9", "28"),
    "erfcx": (erfcx_pivot, "-1", "1"),
    "i0_tail": (scaled_i(0), "0", "0.125"),
    "i1_tail": (scaled_i(1), "0", "0.125"),
    "k0_rest": (k_rest(0), "0", "4"),
    "k1_rest": (k_rest(1), "0", "4"),
    "k0_tail": (scaled_k(0), "0", "0.5"),
    "k1_tail": (scaled_k(1), "0", "0.5"),
    "j0": (lambda z: mp.besselj(0, mp.sqrt(z)), "0", "25"),
    "j1": (lambda z: mp.besselj(1, mp.sqrt(z)) / mp.sqrt(z) if z else mpf(1) / 2, "0", "25"),
    "y0_rest": (y_rest(0), "0", "25"),
    "y1_rest": (y_rest(1), "0", "25"),
    "p0": (of_inverse_square(0, 0), "0", "0.04"),
    "q0": (of_inverse_square(0, 1), "0", "0.04"),
    "p1": (of_inverse_square(1, 0), "0", "0.04"),
    "q1": (of_inverse_square(1, 1), "0", "0.04"),
    "airy_low": (mp.airyai if mp else abs, "-4.5", "-1.25"),
    "airy_middle": (mp.airyai if mp else abs, "-1.25", "2"),
    "airy_tail": (airy_tail, "0", "0.5304"),
    "airy_p": (lambda u: airy_parts(u, 0), "0", "0.0248"),
    "airy_q": (lambda u: airy_parts(u, 1), "0", "0.0248"),
}
"""Name: function, and the ends of the interval that is mapped onto -1..1."""


def chebyshev_series(function: Callable[[Real], Real], low: Real, high: Real) -> list[Real]:
    """Coefficients of the interpolating Chebyshev series over the interval."""
    angles = [mp.pi * (k + mpf(1) / 2) / POINTS for k in range(POINTS)]
    values = [function((low + high) / 2 + (high - low) / 2 * mp.cos(angle)) for angle in angles]
    series = [2 * mp.fsum(v * mp.cos(n * a) for v, a in zip(values, angles, strict=True)) / POINTS
              for n in range(POINTS)]
    series[0] /= 2
    return series


def powers_of(series: list[Real]) -> list[Real]:
    """A Chebyshev series written in powers, lowest order first."""
    result = [mpf(0)] * len(series)
    before, current = [mpf(1)], [mpf(0), mpf(1)]
    for order, weight in enumerate(series):
        polynomial = before if order == 0 else current
        for power, factor in enumerate(polynomial):
            result[power] += weight * factor
        if order:
            following = [mpf(0), *(2 * factor for factor in current)]
            for power, factor in enumerate(before):
                following[power] -= factor
            before, current = current, following
    return result


def solve(name: str) -> tuple[list[float], float]:
    """The coefficients of a row as doubles, and the first term left out, over the largest value."""
    function, low, high = FITS[name]
    series = chebyshev_series(function, mpf(low), mpf(high))
    largest = max(abs(term) for term in series)
    count = max(k for k, term in enumerate(series) if abs(term) > CUT * largest) + 1
    left_out = max((abs(term) for term in series[count:]), default=mpf(0)) / largest
    return [float(c) for c in powers_of(series[:count])], float(left_out)


def main() -> None:
    mp.dps = DIGITS
    print('"""Polynomials of the special functions; written by `special_fit.py`.\n')
    print("Lowest order first, in t = (2 x - low - high) / (high - low) over low..high.")
    print('"""\n')
    print("INTERVALS: dict[str, tuple[float, float]] = {")
    for name, (_, low, high) in FITS.items():
        print(f'    "{name}": ({float(low)!r}, {float(high)!r}),')
    print("}\n")
    root = digamma_root()
    rounded = float(root)
    print(f"DIGAMMA_ROOT = ({rounded!r}, {float(root - mpf(rounded))!r})")
    print('"""The zero of digamma, as a sum of two numbers."""\n')
    print("POLYNOMIALS: dict[str, tuple[float, ...]] = {")
    for name in FITS:
        coefficients, error = solve(name)
        print(f"    # {len(coefficients)} terms, the next {error:.1e} of the largest")
        print(f'    "{name}": (')
        for coefficient in coefficients:
            print(f"        {coefficient!r},")
        print("    ),")
    print("}")


if __name__ == "__main__":
    main()
