"""What numbers are made of: sign, exponent, neighbours, divisors, and what kind they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from lazygrad._core import graph
from lazygrad._core.context import fail, method
from lazygrad._core.tensor import Tensor, node_of, wrap, write
from lazygrad._core.types import default
from lazygrad.functional._operands import as_node, floating, pair
from lazygrad.functional.elementwise import INPLACE
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node

INPLACE += ["copysign", "nextafter", "ldexp", "gcd", "lcm", "heaviside"]

INTEGER_OF: dict[DType, DType] = {
    dtypes.float16: dtypes.int16, dtypes.bfloat16: dtypes.int16,
    dtypes.float32: dtypes.int32, dtypes.float64: dtypes.int64,
}
"""The integers that the bits of a float are read as."""


@method
def copysign(input: Tensor, other: Any) -> Tensor:
    """The size of `input` with the sign of `other`, that of zeros and NaNs included."""
    a, b = pair("copysign", input, other)
    return wrap(graph.make("copysign", floating(a), floating(b)))


@method
def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The next number from `input` towards `other` in the dtype."""
    a, b = pair("nextafter", input, other)
    if not a.dtype.is_floating:
        raise fail("nextafter", f"{a.dtype.name} numbers have no floating neighbours",
                   "Convert with .float() first.")
    return wrap(graph.make("nextafter", a, b))


def signbit_node(node: Node) -> Node:
    """Where the sign is set, that of -0.0 and of NaNs included."""
    if node.dtype.is_floating:
        node = graph.make("bitcast", graph.stop_gradient(node), attrs=(INTEGER_OF[node.dtype],))
    if node.dtype.kind in ("bool", "unsigned"):
        return graph.const(False, dtypes.bool_, node.shape)
    if node.dtype.is_complex:
        raise fail("signbit", "complex numbers have no sign")
    return graph.binary("lt", node, 0)


@method
def signbit(input: Tensor) -> Tensor:
    """Where the sign is set, that of -0.0 included."""
    return wrap(signbit_node(as_node("signbit", input)))


class Frexp(NamedTuple):
    """mantissa * 2**exponent."""

    mantissa: Tensor
    exponent: Tensor


def _power_of_two(exponent: Node, dtype: DType) -> Node:
    """2**exponent as a float, exactly, for int32 exponents of normal numbers."""
    return graph.unary("exp2", graph.cast(exponent, dtype))


@method
def frexp(input: Tensor) -> Frexp:
    """(mantissa, exponent): mantissa in [0.5, 1) or (-1, -0.5], exponent int32; zeros, infinities
    and NaN are their own mantissa, with exponent 0.
    """
    source = as_node("frexp", input)
    if not source.dtype.is_floating:
        raise fail("frexp", f"{source.dtype.name} numbers are not floating",
                   "Convert with .float() first.")
    wide = source.dtype if source.dtype.bits >= 32 else dtypes.float32
    node = graph.cast(source, wide)
    size = graph.unary("abs", graph.stop_gradient(node))
    stored, bias, lowest = (23, 127, 2.0**-126) if wide is dtypes.float32 else \
        (52, 1023, 2.0**-1022)
    lift = stored + 2
    small = graph.binary("lt", size, lowest)
    lifted = graph.where(small, graph.mul(size, 2.0**lift), size)
    bits = graph.make("bitcast", lifted, attrs=(INTEGER_OF[wide],))
    exponent = graph.sub(graph.binary("shr", bits, stored), bias - 1)
    exponent = graph.where(small, graph.sub(exponent, lift), exponent)
    regular = graph.make("and", graph.binary("lt", size, math.inf),
                         graph.binary("lt", graph.like(0, size), size))
    exponent = graph.cast(graph.where(regular, exponent, 0), dtypes.int32)
    # two halves: a single power would overflow for subnormal numbers
    half = graph.binary("shr", exponent, 1)
    rest = graph.sub(exponent, half)
    mantissa = graph.mul(graph.mul(node, _power_of_two(graph.unary("neg", half), wide)),
                         _power_of_two(graph.unary("neg", rest), wide))
    return Frexp(wrap(graph.cast(mantissa, source.dtype)), wrap(exponent))


@method
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2**other."""
    exponent = as_node("ldexp", other)
    scale = exponent if exponent.dtype.is_differentiable else graph.cast(exponent, default.dtype)
    a, b = pair("ldexp", input if isinstance(input, Tensor) else wrap(as_node("ldexp", input)),
                wrap(scale))
    return wrap(graph.mul(a, graph.unary("exp2", b)))


def _integers(name: str, input: Any, other: Any) -> tuple[Node, Node]:
    a, b = pair(name, input, other)
    if not a.dtype.is_integer:
        raise fail(name, f"{a.dtype.name} numbers have no divisors", "Both must be integers.")
    return a, b


@method
def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor, not negative; gcd(0, 0) is 0."""
    return wrap(graph.make("gcd", *_integers("gcd", input, other)))


@method
def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple, not negative; 0 if either is."""
    a, b = _integers("lcm", input, other)
    if a.dtype.kind == "signed":
        a, b = graph.unary("abs", a), graph.unary("abs", b)
    product = graph.mul(graph.make("idiv", a, graph.make("gcd", a, b)), b)  # 0 / 0 is 0
    # Where it does not fit, it wraps around as PyTorch's, which takes the size in 32 bits or more.
    wide = a.dtype.kind == "signed" and a.dtype.bits >= 32
    return wrap(graph.unary("abs", product) if wide else product)


@method
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below zero, 1 above, `values` at zero."""
    a, b = pair("heaviside", input, values)
    above = graph.cast(graph.make("lt", graph.like(0, a), a), a.dtype)
    return wrap(graph.where(graph.binary("eq", a, 0), b, above))


@method
def float_power(input: Any, exponent: Any) -> Tensor:
    """input ** exponent in double precision."""
    a, b = pair("float_power", input, exponent)
    wide = dtypes.complex128 if a.dtype.is_complex else dtypes.float64
    if not isinstance(exponent, Tensor):  # the number itself, not rounded to the tensor's dtype
        b = graph.const(exponent, wide, a.shape)
    elif not isinstance(input, Tensor):
        a = graph.const(input, wide, b.shape)
    return wrap(graph.make("pow", graph.cast(a, wide), graph.cast(b, wide)))


@method
def float_power_(self: Tensor, exponent: Any) -> Tensor:
    """`float_power`, written into the tensor, which has to be in double precision."""
    if self.dtype not in (dtypes.float64, dtypes.complex128):
        raise fail("float_power_", f"a {self.dtype.name} tensor cannot hold the result in double "
                   "precision", "Convert with .double(), or use pow_.")
    return write(self, "float_power_", node_of(float_power(self, exponent)))


def _is_infinity(name: str, sign: float) -> Callable[[Tensor], Tensor]:
    def apply(input: Tensor) -> Tensor:
        node = as_node(name, input)
        if node.dtype.is_complex:
            raise fail(name, "complex numbers have no order", "Look at .real and .imag.")
        if not node.dtype.is_floating:
            return wrap(graph.const(False, dtypes.bool_, node.shape))
        return wrap(graph.binary("eq", node, sign * math.inf))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"Where values are {sign * math.inf}."
    return method(apply)


isposinf = _is_infinity("isposinf", 1)
isneginf = _is_infinity("isneginf", -1)


__all__ = ["copysign", "nextafter", "signbit", "frexp", "ldexp", "gcd", "lcm", "heaviside",
           "float_power", "isposinf", "isneginf"]
