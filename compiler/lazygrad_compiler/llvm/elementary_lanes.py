"""Arithmetic on lanes: the notation that the elementary functions are written in.

In: a `Value` of the builder, scalar or vector, wrapped in `Lanes`.  Out: instructions in its
function. `a + b * c` on Lanes emits one instruction an operator, nothing is reassociated and
nothing is contracted, so what is written is what is rounded.  Comparisons give masks, Python
numbers become constants of the other type.

A *pair* is an unevaluated sum high + low of two numbers of one format, with |low| about an ulp of
high (T. J. Dekker, "A floating-point technique for extending the available precision", 1971).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.llvm.builder import (
    Function,
    Value,
    const,
    is_float,
    lanes_of,
    mangle,
    with_element,
)
from lazygrad_compiler.llvm.elementary_coefficients import CONSTANTS, POLYNOMIALS


@dataclass(frozen=True, slots=True)
class Format:
    """One IEEE binary format: LLVM's name, the integer of its width, bits of significand, bias."""

    element: str
    integer: str
    width: int
    precision: int
    bias: int

    @property
    def mantissa(self) -> int:
        """Bits stored of the significand; the place of the exponent field."""
        return self.precision - 1

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def rounder(self) -> float:
        """1.5 * 2**mantissa: adding it rounds to an integer, kept in the low bits."""
        return 1.5 * 2.0**self.mantissa

    def bits(self, number: float) -> int:
        layout = ("<f", "<i") if self.width == 32 else ("<d", "<q")
        return int(struct.unpack(layout[1], struct.pack(layout[0], number))[0])


FORMATS = {"float": Format("float", "i32", 32, 24, 127),
           "double": Format("double", "i64", 64, 53, 1023)}


class Lanes:
    """A value and the function that instructions on it go to."""

    __slots__ = ("function", "value")

    def __init__(self, function: Function, value: Value) -> None:
        self.function = function
        self.value = value

    @property
    def element(self) -> str:
        type_ = self.value.type
        return type_[type_.index("x ") + 2: -1] if type_.startswith("<") else type_

    @property
    def count(self) -> int:
        return lanes_of(self.value.type)

    @property
    def format(self) -> Format:
        return FORMATS[self.element]

    def _emit(self, on_float: str, on_integer: str, left: Operand, right: Operand) -> Lanes:
        method = on_float if is_float(self.value.type) else on_integer
        return Lanes(self.function, getattr(self.function, method)(_value(left), _value(right)))

    def __add__(self, other: Operand) -> Lanes:
        return self._emit("fadd", "add", self, other)

    def __radd__(self, other: Operand) -> Lanes:
        return self._emit("fadd", "add", other, self)

    def __sub__(self, other: Operand) -> Lanes:
        return self._emit("fsub", "sub", self, other)

    def __rsub__(self, other: Operand) -> Lanes:
        return self._emit("fsub", "sub", other, self)

    def __mul__(self, other: Operand) -> Lanes:
        return self._emit("fmul", "mul", self, other)

    def __rmul__(self, other: Operand) -> Lanes:
        return self._emit("fmul", "mul", other, self)

    def __truediv__(self, other: Operand) -> Lanes:
        return self._emit("fdiv", "sdiv", self, other)

    def __rtruediv__(self, other: Operand) -> Lanes:
        return self._emit("fdiv", "sdiv", other, self)

    def __neg__(self) -> Lanes:
        if is_float(self.value.type):
            return Lanes(self.function, self.function.fneg(self.value))
        return 0 - self

    def __and__(self, other: Operand) -> Lanes:
        return Lanes(self.function, self.function.and_(self.value, _value(other)))

    def __or__(self, other: Operand) -> Lanes:
        return Lanes(self.function, self.function.or_(self.value, _value(other)))

    def __xor__(self, other: Operand) -> Lanes:
        return Lanes(self.function, self.function.xor(self.value, _value(other)))

    def __invert__(self) -> Lanes:
        return self ^ const(self.value.type, -1 if self.element != "i1" else True)

    def __lshift__(self, other: Operand) -> Lanes:
        return Lanes(self.function, self.function.shl(self.value, _value(other)))

    def __rshift__(self, other: Operand) -> Lanes:
        """Logical: zeros come in."""
        return Lanes(self.function, self.function.lshr(self.value, _value(other)))

    def shift_signed(self, places: int) -> Lanes:
        """Arithmetic right shift: copies of the sign come in."""
        return Lanes(self.function, self.function.ashr(self.value, places))

    def _compare(self, on_float: str, on_integer: str, other: Operand) -> Lanes:
        if is_float(self.value.type):
            return Lanes(self.function, self.function.fcmp(on_float, self.value, _value(other)))
        return Lanes(self.function, self.function.icmp(on_integer, self.value, _value(other)))

    def __lt__(self, other: Operand) -> Lanes:
        return self._compare("olt", "slt", other)

    def __le__(self, other: Operand) -> Lanes:
        return self._compare("ole", "sle", other)

    def __gt__(self, other: Operand) -> Lanes:
        return self._compare("ogt", "sgt", other)

    def __ge__(self, other: Operand) -> Lanes:
        return self._compare("oge", "sge", other)

    def equals(self, other: Operand) -> Lanes:
        return self._compare("oeq", "eq", other)

    def is_nan(self) -> Lanes:
        return self._compare("uno", "ne", self)

    def bits(self) -> Lanes:
        """The same bits as an integer."""
        type_ = with_element(self.value.type, self.format.integer)
        return Lanes(self.function, self.function.bitcast(self.value, type_))

    def from_bits(self, element: str) -> Lanes:
        """The same bits as a number of the format."""
        type_ = with_element(self.value.type, element)
        return Lanes(self.function, self.function.bitcast(self.value, type_))

    def convert(self, opcode: str, element: str) -> Lanes:
        type_ = with_element(self.value.type, element)
        return Lanes(self.function, self.function.convert(opcode, self.value, type_))

    def constant(self, number: object) -> Lanes:
        """A number as lanes of this type."""
        return Lanes(self.function, const(self.value.type, number))

    def __abs__(self) -> Lanes:
        return Lanes(self.function, self.function.overloaded("llvm.fabs", self.value))

    def with_sign_of(self, other: Lanes) -> Lanes:
        return Lanes(self.function,
                     self.function.overloaded("llvm.copysign", self.value, other.value))

    def sqrt(self) -> Lanes:
        return Lanes(self.function, self.function.overloaded("llvm.sqrt", self.value))

    def trunc(self) -> Lanes:
        return Lanes(self.function, self.function.overloaded("llvm.trunc", self.value))

    def any(self) -> Value:
        """Of a mask: one i1, true where a lane is."""
        if self.count == 1:
            return self.value
        name = f"llvm.vector.reduce.or.{mangle(self.value.type)}"
        return self.function.intrinsic(name, "i1", self.value)


Operand = Lanes | Value | int | float
Pair = tuple[Lanes, Lanes]


def _value(operand: Operand) -> Value | int | float:
    return operand.value if isinstance(operand, Lanes) else operand


def fma(a: Operand, b: Operand, c: Operand) -> Lanes:
    """a * b + c, rounded once."""
    known = next(operand for operand in (a, b, c) if isinstance(operand, Lanes))
    return Lanes(known.function, known.function.fma(_value(a), _value(b), _value(c)))


def select(mask: Lanes, a: Operand, b: Operand) -> Lanes:
    return Lanes(mask.function, mask.function.select(mask.value, _value(a), _value(b)))


def clamp(x: Lanes, low: float, high: float) -> Lanes:
    """min(max(x, low), high) that lets NaN through."""
    x = select(x < low, low, x)
    return select(x > high, high, x)


def constant_parts(name: str, x: Lanes) -> tuple[float, ...]:
    """A constant of `elementary_coefficients` as a sum of three numbers of the format of x."""
    return CONSTANTS[name, x.element]


def horner(z: Lanes, coefficients: Sequence[float]) -> Lanes:
    total: Lanes = z.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = fma(total, z, coefficient)
    return total


def polynomial(name: str, z: Lanes) -> Lanes:
    """One fitted polynomial.  Long ones go by even and odd orders: half the latency."""
    coefficients = POLYNOMIALS[name, z.element]
    if len(coefficients) < 9:
        return horner(z, coefficients)
    square = z * z
    rest = coefficients[2:]
    total = fma(horner(square, rest[1::2]), z, horner(square, rest[0::2]))
    return fma(fma(total, z, coefficients[1]), z, coefficients[0])


def sum_of_ordered(a: Operand, b: Lanes) -> Pair:
    """a + b exactly as a pair, where |a| >= |b| or a is zero."""
    high = b + a if not isinstance(a, Lanes) else a + b
    return high, b - (high - a)


def product(a: Lanes, b: Lanes) -> Pair:
    """a * b exactly as a pair."""
    high = a * b
    return high, fma(a, b, -high)


def product_of_pairs(a: Pair, b: Pair) -> Pair:
    """a * b without the product of the two low parts."""
    high = a[0] * b[0]
    low = fma(a[0], b[0], -high) + fma(a[0], b[1], a[1] * b[0])
    return high, low


def power_of_two(exponent: Lanes, element: str) -> Lanes:
    """2**exponent of integer lanes, as long as that is a normal number."""
    format_ = FORMATS[element]
    return ((exponent + format_.bias) << format_.mantissa).from_bits(element)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number as a float and as an integer.  The form not used costs nothing."""

    number: Lanes
    integer: Lanes

    def minus(self, other: int) -> Whole:
        return Whole(self.number - float(other), self.integer - other)


def scale(x: Lanes, exponent: Whole) -> Lanes:
    """x * 2**exponent, rounded once, through overflow and gradual underflow.

    x is about 1 and the exponent within twice the normal range: two halves of the power are each
    normal, and the first product is exact.  AVX-512 has one instruction that gives the same bits.
    """
    if _has_scalef(x):
        return _scalef(x, exponent.number)
    half = exponent.integer.shift_signed(1)
    rest = exponent.integer - half
    return x * power_of_two(half, x.element) * power_of_two(rest, x.element)


def _has_scalef(x: Lanes) -> bool:
    features = getattr(x.function.module, "target_features", "")
    return "+avx512f" in features.split(",") and x.count * x.format.width == 512


def _scalef(x: Lanes, exponent: Lanes) -> Lanes:
    suffix = "ps" if x.element == "float" else "pd"
    every_lane = const(f"i{x.count}", -1)
    current_rounding = const("i32", 4)
    return Lanes(x.function, x.function.intrinsic(
        f"llvm.x86.avx512.mask.scalef.{suffix}.512", x.value.type,
        x.value, exponent.value, x.value, every_lane, current_rounding))


def nearest(x: Lanes, factor: float) -> Whole:
    """The integer nearest to x * factor; where that is large, the integer form has its low bits."""
    rounder = x.format.rounder
    shifted = fma(x, factor, rounder)
    return Whole(shifted - rounder, shifted.bits() - x.format.bits(rounder))


def tiny(x: Lanes) -> Lanes:
    """Where x is so small that x + x**2 rounds to x."""
    return abs(x) < 2.0 ** -(x.format.precision + 1)


INFINITY = math.inf
NAN = math.nan
