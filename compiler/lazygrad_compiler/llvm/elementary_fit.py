"""Writes `elementary_coefficients.py`: minimax polynomials and split constants.

In: `fits()`, one row a polynomial: the function it approximates, the interval, the weight of the
error and the degree for each format.  Out: Python source on standard output.  Run by hand when a
row changes; needs mpmath, which the compiler itself does not.

Method: Remez's exchange (E. Remez 1934; J.-M. Muller, "Elementary Functions", 3rd ed., ch. 3) on
a Chebyshev grid in 120-digit arithmetic.  Coefficients are rounded to the format one at a time
from the lowest order, and the higher ones are fitted again after each (N. Brisebarre and S.
Chevillard 2007 give the optimal form of this idea).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

try:
    from mpmath import mp, mpf
except ImportError:  # an import of this file alone must not fail where mpmath is absent
    mp = mpf = None

Real = Any  # an mpmath number
TINY = "1e-9"  # stands for 0 where a fitted function has a removable singularity there


@dataclass(frozen=True, slots=True)
class Fit:
    """One polynomial: `function(t)` on [low, high], minimising weight(t) * |error|."""

    name: str
    function: Callable[[Real], Real]
    low: str
    high: str
    weight: Callable[[Real], Real]
    degrees: dict[str, int]
    high_of: dict[str, str] | None = None  # formats whose interval ends elsewhere


def log_by_quotient(z: Real) -> Real:
    """(log((1+s)/(1-s)) - 2s) / s**3 with s = sqrt(z)."""
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) - 2 * s) / (s * z)


def erfcx(x: Real) -> Real:
    return mp.erfc(x) * mp.exp(x * x)


ERFC_PIVOT = 2


def erfc_argument(t: Real) -> Real:
    """x from t = (x - pivot) / (x + pivot)."""
    return ERFC_PIVOT * (1 + t) / (1 - t)


def odd(function: Callable[[Real], Real]) -> Callable[[Real], Real]:
    """(f(x)/x - 1) / x**2 as a function of z = x**2."""
    def quotient(z: Real) -> Real:
        x = mp.sqrt(z)
        return (function(x) / x - 1) / z
    return quotient


def odd_weight(function: Callable[[Real], Real]) -> Callable[[Real], Real]:
    """Makes the error of the odd polynomial above relative to f."""
    return lambda z: z * mp.sqrt(z) / function(mp.sqrt(z))


def erfc_pivot_form(t: Real) -> Real:
    x = erfc_argument(t)
    return (x + ERFC_PIVOT) * erfcx(x)


def fits() -> list[Fit]:
    return [
        Fit("exp", lambda r: (mp.expm1(r) - r) / (r * r), "-0.35", "0.35",
            lambda r: r * r / mp.exp(r), {"float": 4, "double": 9}),
        Fit("expm1", lambda r: (mp.expm1(r) - r) / (r * r), "-0.35", "0.35", abs,
            {"float": 5, "double": 10}),
        Fit("exp2", lambda r: (mp.power(2, r) - 1) / r, "-0.5", "0.5", lambda r: abs(r),
            {"float": 6, "double": 11}),
        Fit("log", lambda f: (mp.log1p(f) - f) / (f * f), "-0.2929", "0.41422", lambda f: abs(f),
            {"float": 8}),
        Fit("log", log_by_quotient, TINY, "0.02944", lambda z: z / 2, {"double": 7}),
        # After one or two terms of the series of log((1+s)/(1-s)), which pow adds as pairs.
        Fit("log_tail", lambda z: (log_by_quotient(z) - mpf(2) / 3) / z, TINY, "0.02944",
            lambda z: z * z / 2, {"float": 2}),
        Fit("log_tail", lambda z: ((log_by_quotient(z) - mpf(2) / 3) / z - mpf(2) / 5) / z, TINY,
            "0.02944", lambda z: z**3 / 2, {"double": 7}),
        Fit("sin", odd(mp.sin), TINY, "0.63", odd_weight(mp.sin), {"float": 2, "double": 6}),
        Fit("cos", lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / (z * z), TINY, "0.63",
            lambda z: z * z, {"float": 2, "double": 6}),
        Fit("tan", odd(mp.tan), TINY, "0.63", odd_weight(mp.tan), {"float": 6, "double": 14}),
        Fit("asin", odd(mp.asin), TINY, "0.25", odd_weight(mp.asin), {"float": 5, "double": 12}),
        Fit("atan", odd(mp.atan), TINY, "0.1717", odd_weight(mp.atan), {"float": 4, "double": 11}),
        Fit("sinh", odd(mp.sinh), TINY, "1", odd_weight(mp.sinh), {"float": 3, "double": 7}),
        Fit("tanh", odd(mp.tanh), TINY, "0.391", odd_weight(mp.tanh), {"float": 4, "double": 11}),
        Fit("asinh", odd(mp.asinh), TINY, "0.25", odd_weight(mp.asinh), {"float": 5, "double": 12}),
        Fit("erf", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, TINY, "1",
            lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)), {"float": 6, "double": 13}),
        # log(erfc(1 + u)): weighted by erfc, since erf = 1 - exp(this).
        Fit("log_erfc", lambda u: mp.log(mp.erfc(1 + u)), "0", "5",
            lambda u: mp.erfc(1 + u) / mp.erf(1 + u), {"float": 7, "double": 18},
            {"float": "3"}),
        # (x + pivot) * exp(x*x) * erfc(x) - 1 of t = (x - pivot) / (x + pivot), x from 1/2.
        Fit("erfc", lambda t: erfc_pivot_form(t) - 1, "-0.6001", "0.865",
            lambda t: 1 / erfc_pivot_form(t), {"float": 9, "double": 23}, {"float": "0.68"}),
    ]


def round_to(element: str, value: Real) -> float:
    if element == "double":
        return float(value)
    # mpmath rounds straight to 24 bits: no double rounding through a double.
    with mp.workprec(24):
        single = +value
    return struct.unpack("<f", struct.pack("<f", float(single)))[0]


def remez(grid: list[Real], wanted: list[Real], weights: list[Real], degree: int) -> list[Real]:
    """Coefficients, lowest order first, of the minimax polynomial on the points of a grid."""
    count = degree + 2
    chosen = [round((i + 0.5) * (len(grid) - 1) / count) for i in range(count)]
    coefficients: list[Real] = []
    for _ in range(12):
        matrix = mp.matrix(count, count)
        right = mp.matrix(count, 1)
        for row, index in enumerate(chosen):
            power = mpf(1)
            for column in range(degree + 1):
                matrix[row, column] = power
                power *= grid[index]
            matrix[row, degree + 1] = (-1) ** row / weights[index]
            right[row] = wanted[index]
        solution = mp.lu_solve(matrix, right)
        coefficients = [solution[i] for i in range(degree + 1)]
        errors = [weight * (value - mp.polyval(coefficients[::-1], point))
                  for point, value, weight in zip(grid, wanted, weights)]
        extremes: list[int] = []
        for index, error in enumerate(errors):
            if extremes and (errors[extremes[-1]] > 0) == (error > 0):
                if abs(error) > abs(errors[extremes[-1]]):
                    extremes[-1] = index
            else:
                extremes.append(index)
        while len(extremes) > count:
            first_smaller = abs(errors[extremes[0]]) < abs(errors[extremes[-1]])
            extremes.pop(0 if first_smaller else -1)
        if len(extremes) < count or extremes == chosen:
            break
        chosen = extremes
    return coefficients


def least_squares(grid: list[Real], wanted: list[Real], weights: list[Real],
                  orders: range) -> dict[int, Real]:
    """Coefficients of the given orders that fit best in the weighted square sum."""
    rows = [[weight * point**k for k in orders] for point, weight in zip(grid, weights)]
    right = [weight * value for value, weight in zip(wanted, weights)]
    normal = mp.matrix([[mp.fdot((row[i], row[j]) for row in rows) for j in range(len(orders))]
                        for i in range(len(orders))])
    vector = mp.matrix([mp.fdot(((row[i], r) for row, r in zip(rows, right)))
                        for i in range(len(orders))])
    solution = mp.lu_solve(normal, vector)
    return {k: solution[i] for i, k in enumerate(orders)}


def solve(fit: Fit, element: str) -> tuple[list[float], float, str]:
    """The rounded coefficients of one row, log2 of their weighted error, and the interval's end."""
    degree = fit.degrees[element]
    high_text = (fit.high_of or {}).get(element, fit.high)
    low, high = mpf(fit.low), mpf(high_text)
    points = 24 * (degree + 2)  # even, so that no point is the middle, where some weights vanish
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * points))
            for i in range(points)]
    wanted = [fit.function(point) for point in grid]
    weights = [fit.weight(point) for point in grid]
    exact = remez(grid, wanted, weights, degree)
    rounded = [round_to(element, coefficient) for coefficient in exact]
    # Each rounding is made good by the orders above it: least squares on the Chebyshev grid.
    residue = [value - mp.polyval(exact[::-1], point) for point, value in zip(grid, wanted)]
    for order in range(degree):
        rounded[order] = round_to(element, exact[order])
        lost = exact[order] - mpf(rounded[order])
        residue = [value + lost * point**order for value, point in zip(residue, grid)]
        change = least_squares(grid, residue, weights, range(order + 1, degree + 1))
        residue = [value - sum(c * point**k for k, c in change.items())
                   for value, point in zip(residue, grid)]
        exact[order] = mpf(rounded[order])
        for k, correction in change.items():
            exact[k] += correction
    rounded[degree] = round_to(element, exact[degree])
    worst = max(weight * abs(value - mp.polyval([mpf(c) for c in rounded[::-1]], point))
                for point, value, weight in zip(grid, wanted, weights))
    return rounded, float(mp.log(worst, 2)), high_text


def split(element: str, value: Real, parts: int) -> list[float]:
    """The value as a sum of numbers of the format, each the rounding of what is left."""
    pieces = []
    for _ in range(parts):
        pieces.append(round_to(element, value))
        value -= mpf(pieces[-1])
    return pieces


def constants() -> dict[str, Real]:
    return {
        "ln2": mp.log(2), "log2_e": 1 / mp.log(2), "log10_e": 1 / mp.log(10),
        "log10_2": mp.log10(2), "half_pi": mp.pi / 2, "two_over_pi": 2 / mp.pi,
        "two_thirds": mpf(2) / 3, "two_fifths": mpf(2) / 5,
    }


def write(numbers: list[float], indent: str) -> str:
    lines, line = [], indent
    for number in numbers:
        if len(line) + len(repr(number)) > 96:
            lines.append(line.rstrip())
            line = indent
        line += repr(number) + ", "
    return "\n".join([*lines, line.rstrip()])


def main() -> None:
    mp.dps = 120
    print('"""Coefficients of the elementary functions; written by `elementary_fit.py`."""\n')
    print("# Lowest order first, with the interval of the fit and its greatest weighted error.")
    print("POLYNOMIALS: dict[tuple[str, str], tuple[float, ...]] = {")
    for fit in fits():
        for element in fit.degrees:
            coefficients, error, high = solve(fit, element)
            print(f"    # [{fit.low}, {high}], error 2**{error:.1f}")
            print(f'    ("{fit.name}", "{element}"): (\n{write(coefficients, " " * 8)}\n    ),')
            print(fit.name, element, f"{error:.1f}", file=sys.stderr)
    print("}\n")
    print("# Each constant as a sum of three numbers of the format.")
    print("CONSTANTS: dict[tuple[str, str], tuple[float, ...]] = {")
    for name, value in constants().items():
        for element in ("float", "double"):
            numbers = write(split(element, value, 3), " " * 8)
            print(f'    ("{name}", "{element}"): (\n{numbers}\n    ),')
    print("}\n")
    print("# erfc is fitted in (x - pivot) / (x + pivot).")
    print(f"ERFC_PIVOT = {ERFC_PIVOT:.1f}\n")
    bits = 1280
    with mp.workdps(450):
        digits = f"{int(mp.floor(2 / mp.pi * mpf(2) ** bits)):0{bits // 4}x}"
    print(f"# The first {bits} bits of 2/pi after the binary point.")
    print(f"TWO_OVER_PI_BITS = {bits}")
    print("TWO_OVER_PI = int(")
    for start in range(0, len(digits), 80):
        print(f'    "{digits[start:start + 80]}"')
    print("    ,\n    16,\n)")


if __name__ == "__main__":
    main()
