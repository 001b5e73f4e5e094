"""Records of elementwise operations: arithmetic, comparison, bits, elementary functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from .record import (
    ALL,
    COMPLEX,
    FLOATS,
    FULL_FLOATS,
    INTEGERS,
    REAL_AND_COMPLEX,
    REALS,
    ErrorInput,
    Maker,
    OperationRecord,
    Sample,
    sample,
)

LOOSE = {"float16": (4e-3, 4e-3), "bfloat16": (3e-2, 3e-2)}


def unary(
    name: str, low: float = -2.0, high: float = 2.0, **fields: Any
) -> OperationRecord:
    """A function of one tensor: an ordinary array, a 0-d one, an empty one."""

    def samples(make: Maker) -> list[Sample]:
        return [sample(make(3, 4, low=low, high=high)), sample(make(low=low, high=high)),
                sample(make(0, 2, low=low, high=high))]

    settings: dict[str, Any] = {"dtypes": FLOATS, "method": True, "inplace": True, "out": True,
                                "special": True, "tolerance": LOOSE} | fields
    return OperationRecord(name, samples, **settings)


def binary(
    name: str, low: float = -2.0, high: float = 2.0, scalar: Any = 1.5, **fields: Any
) -> OperationRecord:
    """A function of two tensors: broadcasting, 0-d, and a number on the right."""

    def samples(make: Maker) -> list[Sample]:
        found = [sample(make(3, 4, low=low, high=high), make(4, low=low, high=high)),
                 sample(make(2, 3, low=low, high=high), make(low=low, high=high))]
        if scalar is not None and make.dtype not in ("bool", *INTEGERS):
            found.append(sample(make(3, low=low, high=high), scalar))
        return found

    settings: dict[str, Any] = {"dtypes": FLOATS, "method": True, "inplace": True, "out": True,
                                "tolerance": LOOSE} | fields
    return OperationRecord(name, samples, **settings)


def mixed(name: str) -> OperationRecord:
    """Operands of different dtypes: what PyTorch promotes them to."""

    def samples(make: Maker) -> list[Sample]:
        return [sample(make(4), make(4, dtype=other)) for other in
                ("int32", "uint8", "float16", "float64", "bool")] + [
            sample(make(4), make(dtype="float64")), sample(make(4), make(dtype="int64")),
            sample(make(4), 2), sample(make(4), 2.5), sample(make(4), True)]

    return OperationRecord(name, samples, dtypes=("int64", "uint8", "float32", "bfloat16"),
                           gradients=(), variant="mixed", tolerance=LOOSE)


def distinct_pairs(make: Maker) -> list[Sample]:
    return [sample(make.distinct(3, 4), make.distinct(4)),
            sample(make.distinct(5), make.distinct(5))]


def nonzero(make: Maker, *shape: int) -> numpy.ndarray:
    """No zeros: for divisors."""
    values = make(*shape, low=1, high=4)
    if make.dtype.startswith(("uint", "bool")):
        return values
    return (values * numpy.where(make.random.random(shape) < 0.5, -1, 1)).astype(values.dtype)


def divisions(make: Maker) -> list[Sample]:
    return [sample(make(3, 4, low=-9, high=9), nonzero(make, 4)),
            sample(make(5, low=-9, high=9), nonzero(make))]


def alphas(make: Maker) -> list[Sample]:
    alpha = 2 if make.dtype in INTEGERS else 0.5
    return [sample(make(3, 4), make(4)), sample(make(3), make(3), alpha=alpha), sample(make(3), 2)]


def clamps(make: Maker) -> list[Sample]:
    return [sample(make(3, 4), -1, 1), sample(make(3, 4), min=0), sample(make(4), max=1),
            sample(make(4), 1, -1),
            sample(make(3, 4), make(4), make(3, 1)), sample(make(3), None, make(3))]


def wheres(make: Maker) -> list[Sample]:
    return [sample(make.mask(3, 4), make(3, 4), make(4)), sample(make.mask(3, 1), make(4), make()),
            sample(make.mask(3), make(3), 0), sample(make.mask(3), 1, make(3))]


def three(name: str, **fields: Any) -> OperationRecord:
    """addcmul and addcdiv."""

    def samples(make: Maker) -> list[Sample]:
        return [sample(make(3, 4), make(4), make(3, 1, low=1, high=3)),
                sample(make(3), make(3), make(3, low=1, high=3), value=2)]

    return OperationRecord(name, samples, method=True, inplace=True, out=True, **fields)


def integers_of_bits(name: str, **fields: Any) -> OperationRecord:
    def samples(make: Maker) -> list[Sample]:
        return [sample(make(3, 4, low=-50, high=50), make(4, low=-50, high=50)),
                sample(make(5, low=0, high=100), make(low=0, high=100))]

    settings: dict[str, Any] = {"dtypes": INTEGERS, "gradients": (), "method": True,
                                "inplace": True, "out": True} | fields
    return OperationRecord(name, samples, **settings)


def shifts(make: Maker) -> list[Sample]:
    return [sample(make(3, 4, low=-50, high=50), make(4, low=0, high=7))]


def edges(make: Maker) -> numpy.ndarray:
    values = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-3, 7.25, -3.5]
    return numpy.asarray(values).astype(make(1).dtype)


def pairs_of_edges(make: Maker) -> list[Sample]:
    values = edges(make)
    return [sample(values[:, None], values[None, :])]


def with_edges(name: str, **fields: Any) -> OperationRecord:
    """Every special value with every other."""
    return OperationRecord(name, pairs_of_edges, dtypes=fields.pop("dtypes", FLOATS), gradients=(),
                           variant="edges", tolerance=LOOSE, **fields)


def complex_call(name: str) -> Callable[..., Any]:
    return lambda library, *arguments: getattr(library, name)(*arguments)


UNARY = [
    unary("exp"), unary("exp2"), unary("expm1"), unary("log", 0.1, 3), unary("log2", 0.1, 3),
    unary("log10", 0.1, 3), unary("log1p", -0.9, 3), unary("sqrt", 0.1, 3),
    unary("rsqrt", 0.2, 3), unary("sin"), unary("cos"), unary("tan", -1, 1),
    unary("asin", -0.9, 0.9), unary("acos", -0.9, 0.9), unary("atan"), unary("sinh"),
    unary("cosh"), unary("tanh"), unary("asinh", inplace=False),
    unary("acosh", 1.2, 4, inplace=False), unary("atanh", -0.9, 0.9, inplace=False),
    unary("erf"), unary("erfc"), unary("sigmoid"),
    unary("reciprocal", 0.5, 2), unary("square"), unary("frac"), unary("deg2rad"),
    unary("rad2deg"), unary("neg"), unary("abs", 0.2, 2),
    unary("sinc", special=False), unary("logit", 0.1, 0.9),
    unary("floor", gradients=()), unary("ceil", gradients=()), unary("trunc", gradients=()),
    unary("round", gradients=()),
    # of NaN, PyTorch's sign is 0 and ours NaN, as NumPy and the array API have it
    unary("sign", gradients=(), special=False), unary("sgn", gradients=(), special=False),
    unary("signbit", gradients=(), inplace=False, dtypes=REALS),
    unary("isposinf", gradients=(), inplace=False, dtypes=REALS),
    unary("isneginf", gradients=(), inplace=False, dtypes=REALS),
    unary("isnan", gradients=(), inplace=False, out=False, dtypes=REALS),
    unary("isinf", gradients=(), inplace=False, out=False, dtypes=REALS),
    unary("isfinite", gradients=(), inplace=False, out=False, dtypes=REALS),
    unary("isreal", gradients=(), inplace=False, out=False, dtypes=ALL, special=False),
    unary("positive", inplace=False, out=False, special=False),
    unary("nan_to_num"),
    unary("logical_not", gradients=(), dtypes=(*REALS, "bool"), special=False),
    unary("bitwise_not", gradients=(), dtypes=(*INTEGERS, "bool"), special=False),
    *(unary(alias, 0.2, 0.9, special=False, variant="alias", dtypes=FULL_FLOATS)
      for alias in ("negative", "absolute", "fix", "arcsin", "arccos", "arctan")),
    *(unary(alias, 0.2, 0.9, special=False, variant="alias", dtypes=FULL_FLOATS, inplace=False)
      for alias in ("arcsinh", "arctanh")),
    unary("sin", dtypes=(*INTEGERS, "bool"), gradients=(), inplace=False, special=False,
          variant="integers"),
    unary("exp", dtypes=COMPLEX, gradients=("complex128",), special=False, variant="complex",
          out=False),
    OperationRecord("round", lambda make: [
        sample(make(5, low=-50, high=50), decimals=1), sample(make(5, low=-500, high=500),
                                                              decimals=-2)],
        gradients=(), variant="decimals"),
    OperationRecord("frexp", lambda make: [
        sample(make(3, 4, low=-100, high=100)), sample(edges(make)),
        sample(numpy.asarray([1e-40, -3e-42, 5e-324, 1e30, 0.5]).astype(make(1).dtype))],
        dtypes=FULL_FLOATS, gradients=(), method=True),
    OperationRecord("nan_to_num", lambda make: [sample(edges(make), 1.0, 2.0, -3.0)],
                    gradients=(), method=True, variant="numbers"),
]

BINARY = [
    OperationRecord("add", alphas, dtypes=(*FLOATS, "int64", "uint8", *COMPLEX), method=True,
                    inplace=True, out=True, gradients=REAL_AND_COMPLEX, tolerance=LOOSE),
    OperationRecord("sub", alphas, dtypes=(*FLOATS, "int64", *COMPLEX), method=True, inplace=True,
                    out=True, gradients=REAL_AND_COMPLEX, tolerance=LOOSE),
    OperationRecord("rsub", alphas, dtypes=(*FULL_FLOATS, "int64")),
    binary("mul", dtypes=(*REALS, *COMPLEX)), binary("div", 0.5, 3),
    binary("true_divide", 0.5, 3, dtypes=FULL_FLOATS), binary("atan2", scalar=None),
    binary("hypot", 0.3, 3, scalar=None), binary("logaddexp", scalar=None, inplace=False),
    binary("logaddexp2", scalar=None, inplace=False), binary("pow", 0.3, 2),
    binary("copysign", 0.3, 2), binary("xlogy", 0.3, 3),
    binary("float_power", 0.3, 2, out=False, inplace=False),
    binary("float_power", 0.3, 2, out=False, dtypes=("float64",), variant="in place"),
    binary("ldexp", scalar=None), binary("arctan2", scalar=None, dtypes=FULL_FLOATS),
    *(OperationRecord(name, distinct_pairs, dtypes=REALS, out=True, method=True)
      for name in ("maximum", "minimum")),
    *(OperationRecord(name, distinct_pairs, dtypes=REALS, out=True, method=True)
      for name in ("fmax", "fmin")),
    *(binary(name, dtypes=(*REALS, "bool"), gradients=(), scalar=1) for name in
      ("eq", "ne", "lt", "le", "gt", "ge")),
    *(binary(name, dtypes=("int64", "float32", "bool"), gradients=(), scalar=None)
      for name in ("logical_and", "logical_or", "logical_xor")),
    *(OperationRecord(name, divisions, dtypes=(*FULL_FLOATS, *INTEGERS), gradients=(), method=True,
                      inplace=True, out=True)
      for name in ("fmod", "remainder", "floor_divide")),
    *(OperationRecord("div", lambda make, mode=mode: [
        Sample(each.arguments, {"rounding_mode": mode}) for each in divisions(make)],
        dtypes=(*FULL_FLOATS, *INTEGERS), gradients=(), variant=mode)
      for mode in ("floor", "trunc")),
    *(integers_of_bits(name, dtypes=(*INTEGERS, "bool")) for name in
      ("bitwise_and", "bitwise_or", "bitwise_xor")),
    integers_of_bits("gcd"), integers_of_bits("lcm"),
    OperationRecord("bitwise_left_shift", shifts, dtypes=("int64", "int32", "uint8"), gradients=(),
                    method=True, inplace=True, out=True),
    OperationRecord("bitwise_right_shift", shifts, dtypes=("int64", "int32", "uint8"),
                    gradients=(), method=True, inplace=True, out=True),
    OperationRecord("heaviside", lambda make: [
        sample(numpy.asarray([-1.5, 0, 2, -0.0]).astype(make(1).dtype), make(4))],
        gradients=(), method=True, inplace=True, out=True),
    OperationRecord("nextafter", lambda make: [sample(make(5), make(5)), sample(make(5), make())],
                    dtypes=("float32", "float64", "bfloat16"), gradients=(), method=True,
                    inplace=True, out=True),
    mixed("add"), mixed("mul"), mixed("div"),
    *(binary(alias, 0.5, 3, dtypes=FULL_FLOATS, variant="alias")
      for alias in ("multiply", "divide", "subtract")),
    *(binary(alias, dtypes=("float32", "int64"), gradients=(), scalar=1, variant="alias")
      for alias in ("greater", "greater_equal", "less", "less_equal", "not_equal")),
    unary("arccosh", 1.2, 4, special=False, variant="alias", dtypes=FULL_FLOATS, inplace=False),
    with_edges("copysign"), with_edges("nextafter", dtypes=FULL_FLOATS), with_edges("fmax"),
    with_edges("fmin"), with_edges("logaddexp"), with_edges("logaddexp2"), with_edges("xlogy"),
    with_edges("remainder", dtypes=FULL_FLOATS), with_edges("hypot"), with_edges("heaviside"),
]

CHOICES = [
    OperationRecord("clamp", clamps, dtypes=(*FLOATS, "int64", "uint8"), method=True, inplace=True,
                    tolerance=LOOSE, errors=(
                        ErrorInput(sample(numpy.ones(3)), ValueError, "min"),)),
    OperationRecord("clamp", lambda make: [
        sample(numpy.asarray([-1.0, 1.0, 0.5, -2.0]).astype(make(1).dtype), -1.0, 1.0)],
        variant="at the bounds"),
    OperationRecord("clamp_min", lambda make: [sample(make(4), 0), sample(make(4), make(4))],
                    method=True, inplace=True),
    OperationRecord("clamp_max", lambda make: [sample(make(4), 0), sample(make(4), make(4))],
                    method=True, inplace=True),
    OperationRecord("clip", lambda make: [sample(make(4), -0.5, 0.5)], method=True, inplace=True),
    OperationRecord("where", wheres, dtypes=(*REALS, *COMPLEX), gradients=REAL_AND_COMPLEX,
                    accepts=("dtype complex64 at 0",),
                    note="A condition of numbers means where they are not 0."),
    OperationRecord("lerp", lambda make: [
        sample(make(3, 4), make(4), 0.25), sample(make(3), make(3), 0.75),
        sample(make(3, 4), make(4), make(3, 1))],
        method=True, inplace=True, out=True, dtypes=(*FULL_FLOATS, *COMPLEX),
        gradients=REAL_AND_COMPLEX),
    three("addcmul"), three("addcdiv"),
    OperationRecord("isclose", lambda make: [
        sample(edges(make)[:, None], edges(make)[None, :]),
        sample(edges(make), edges(make), equal_nan=True),
        sample(make(5), make(5), rtol=0.5, atol=0.5)],
        dtypes=FULL_FLOATS, gradients=(), method=True),
    OperationRecord("allclose", lambda make: [
        sample(numpy.ones(3), numpy.ones(3) + 1e-9), sample(make(3), make(3))],
        dtypes=FULL_FLOATS, gradients=(), method=True),
    OperationRecord("equal", lambda make: [
        sample(make(3), make(3)), sample(numpy.ones(3), numpy.ones(3)),
        sample(numpy.ones(3), numpy.ones(1))], gradients=(), method=True),
]

RECORDS = [*UNARY, *BINARY, *CHOICES]
