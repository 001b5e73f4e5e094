"""Records of the special functions.

PyTorch's own bessel_*, airy_ai and ndtr lose digits (down to 1e-6) and have no gradients: those are
compared with mpmath in `test_special.py`, here only loosely.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from .record import FLOATS, FULL_FLOATS, ErrorInput, Maker, OperationRecord, Sample, sample

LOOSE = {"float16": (4e-3, 4e-3), "bfloat16": (3e-2, 3e-2), "float32": (2e-5, 1e-5)}
ROUGH = {"float32": (1e-4, 1e-4), "float64": (3e-5, 3e-6)}


def unary(name: str, low: float, high: float, **fields: Any) -> OperationRecord:
    def samples(make: Maker) -> list[Sample]:
        return [sample(make(3, 4, low=low, high=high)), sample(make(low=low, high=high))]

    settings: dict[str, Any] = {"dtypes": FULL_FLOATS, "tolerance": LOOSE, "out": True} | fields
    return OperationRecord(name, samples, **settings)


def binary(name: str, first: tuple[float, float], second: tuple[float, float],
           **fields: Any) -> OperationRecord:
    def samples(make: Maker) -> list[Sample]:
        return [Sample((make(3, 4, low=first[0], high=first[1]),
                        make(4, low=second[0], high=second[1])), {}, fields.get("by"))]

    settings: dict[str, Any] = {"dtypes": FULL_FLOATS, "tolerance": LOOSE, "out": True} | {
        key: value for key, value in fields.items() if key != "by"}
    return OperationRecord(name, samples, **settings)


def degrees(name: str, low: float = -1.5, high: float = 1.5) -> OperationRecord:
    """An orthogonal polynomial: PyTorch has no gradients of them."""

    def samples(make: Maker) -> list[Sample]:
        x = make(6, low=low, high=high)
        orders = numpy.asarray([0, 1, 2, 5, 9, -1]).astype(x.dtype)
        return [sample(x[:, None], orders), sample(x, 3), sample(x, numpy.asarray(4))]

    return OperationRecord(f"special.{name}", samples, gradients=(), out=True,
                           accepts=("dtype uint8 at 1", "dim 99 at 1"),
                           note="What overflows in a high degree is infinite, as float64 says; "
                                "PyTorch gives NaN.",
                           tolerance={"float32": (1e-4, 1e-4), "float64": (1e-9, 1e-9)})


METHODS: dict[str, Any] = {"method": True, "inplace": True, "dtypes": FLOATS}

RECORDS = [
    unary("lgamma", 0.1, 5, special=True, **METHODS),
    unary("lgamma", -7.9, -0.1, variant="negative"),
    unary("digamma", 0.1, 5, special=True, **METHODS),
    unary("digamma", -3.9, -3.1, variant="negative"),
    unary("erfinv", -0.9, 0.9, special=True, **METHODS),
    unary("i0", -12, 12, special=False, **METHODS),
    unary("special.gammaln", 0.1, 5), unary("special.psi", 0.1, 5), unary("special.expit", -3, 3),
    unary("special.sinc", -3, 3), unary("special.logit", 0.1, 0.9),
    unary("special.erfcx", -3, 20), unary("special.entr", 0.1, 3),
    unary("special.entr", -1, 0, variant="below", gradients=()),
    unary("special.i0e", -12, 12), unary("special.i1", -12, 12), unary("special.i1e", -12, 12),
    unary("special.ndtr", -4, 4, tolerance=LOOSE | {"float32": (1e-4, 1e-6)}),
    unary("special.log_ndtr", -9, 4,
          tolerance=LOOSE | {"float32": (1e-4, 1e-6)}),
    unary("special.ndtri", 0.01, 0.99),
    unary("special.spherical_bessel_j0", -9, 9, gradients=()),
    *(unary(f"special.{name}", low, 12, gradients=(), tolerance=ROUGH) for name, low in
      (("airy_ai", -12), ("bessel_j0", -12), ("bessel_j1", -12), ("bessel_y0", 0.1),
       ("bessel_y1", 0.1), ("modified_bessel_i0", -12), ("modified_bessel_i1", -12),
       ("modified_bessel_k0", 0.1), ("modified_bessel_k1", 0.1),
       ("scaled_modified_bessel_k0", 0.1), ("scaled_modified_bessel_k1", 0.1))),
    unary("special.exp2", -3, 3), unary("special.expm1", -3, 3), unary("special.log1p", -0.5, 3),
    unary("special.erf", -3, 3), unary("special.erfc", -3, 3),
    OperationRecord("special.logit", lambda make: [sample(make(9, low=-0.5, high=1.5), 0.1)],
                    variant="eps"),
    OperationRecord("special.round", lambda make: [sample(make(5), decimals=1)], gradients=()),
    *(OperationRecord("polygamma", lambda make, n=n: [sample(n, make(4, low=0.2, high=5))],
                      variant=f"order {n}", tolerance=LOOSE) for n in (0, 1, 2, 5)),
    OperationRecord("polygamma", lambda make: [sample(2, make(4, low=-4.8, high=-4.2))],
                    variant="negative", gradients=(), errors=(
                        ErrorInput(sample(-1, numpy.ones(2)), RuntimeError, "polygamma"),)),
    OperationRecord("mvlgamma", lambda make: [sample(make(4, low=3, high=6), 3)], method=True,
                    inplace=True, errors=(
                        ErrorInput(sample(numpy.ones(2), 0), RuntimeError, "dimension"),)),
    OperationRecord("special.multigammaln", lambda make: [sample(make(4, low=3, high=6), 2)]),
    binary("xlogy", (-2, 2), (0.2, 3), method=True, inplace=True, variant="special"),
    binary("special.xlog1py", (-2, 2), (-0.8, 3)),
    OperationRecord("special.xlog1py", lambda make: [
        sample(numpy.asarray([0.0, 0.0, 1.0, 0.0]), numpy.asarray([-1.0, math.nan, -1.0, 2.0]))],
        dtypes=("float64",), gradients=(), variant="edges"),
    binary("special.zeta", (1.2, 6), (0.2, 9), gradients=()),
    binary("igamma", (0.2, 9), (0.1, 9), by=(1,), method=True, inplace=True),
    binary("igammac", (0.2, 9), (0.1, 9), by=(1,), method=True, inplace=True),
    OperationRecord("igamma", lambda make: [sample(
        numpy.asarray([0.0, 0.0, 1.0, math.inf, -1.0, 1.0, 300.0]),
        numpy.asarray([0.0, 1.0, 0.0, 1.0, 1.0, math.inf, 290.0]))],
        dtypes=("float64",), gradients=(), variant="edges"),
    OperationRecord("igammac", lambda make: [sample(
        numpy.asarray([0.0, 0.0, 1.0, math.inf, -1.0, 1.0, 300.0]),
        numpy.asarray([0.0, 1.0, 0.0, 1.0, 1.0, math.inf, 290.0]))],
        dtypes=("float64",), gradients=(), variant="edges"),
    binary("special.gammainc", (0.2, 9), (0.1, 9), by=(1,)),
    binary("special.gammaincc", (0.2, 9), (0.1, 9), by=(1,)),
    *(degrees(f"{shifted}chebyshev_polynomial_{kind}") for kind in "tuvw"
      for shifted in ("", "shifted_")),
    degrees("hermite_polynomial_h"), degrees("hermite_polynomial_he"),
    degrees("laguerre_polynomial_l", -1, 4), degrees("legendre_polynomial_p"),
]
