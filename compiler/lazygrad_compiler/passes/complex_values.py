"""Real values with operators, and pairs of them: what formulas for complex numbers are written in.

A `Real` is a node and the location that new nodes get; arithmetic on it builds nodes, and Python
numbers become constants of its dtype and shape.  A `Pair` is a complex value as its two parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Location, Node, build
from lazygrad_compiler.ir.ops import OPS

_BITS: dict[DType, tuple[DType, int]] = {
    dtypes.float32: (dtypes.int32, -(2**31)),
    dtypes.float64: (dtypes.int64, -(2**63)),
}
"""The integer dtype of the same size, and the sign bit in it."""


@dataclass(frozen=True, slots=True)
class Real:
    """One real (or bool, or integer) value."""

    node: Node
    location: Location

    def op(self, name: str, *others: Real | float, attrs: tuple = ()) -> Real:
        """Any op of the table with this value as first operand."""
        operands = tuple(self.like(other).node for other in others)
        return Real(build(OPS[name], (self.node, *operands), attrs, self.location), self.location)

    def like(self, value: Real | float) -> Real:
        """A number as a constant of this dtype and shape."""
        if isinstance(value, Real):
            return value
        dtype = self.node.dtype
        number = float(value) if dtype.is_floating else int(value)
        attrs = (number, dtype, self.node.shape)
        return Real(build(OPS["const"], (), attrs, self.location), self.location)

    def __neg__(self) -> Real:
        return self.op("neg")

    def __abs__(self) -> Real:
        return self.op("abs")

    def __add__(self, other: Real | float) -> Real:
        return self.op("add", other)

    def __sub__(self, other: Real | float) -> Real:
        return self.op("sub", other)

    def __rsub__(self, other: float) -> Real:
        return self.like(other).op("sub", self)

    def __mul__(self, other: Real | float) -> Real:
        return self.op("mul", other)

    def __truediv__(self, other: Real | float) -> Real:
        return self.op("div", other)

    def __rtruediv__(self, other: float) -> Real:
        return self.like(other).op("div", self)

    def __lt__(self, other: Real | float) -> Real:
        return self.op("lt", other)

    def __le__(self, other: Real | float) -> Real:
        return self.op("le", other)

    def __gt__(self, other: Real | float) -> Real:
        return self.like(other).op("lt", self)

    def equals(self, other: Real | float) -> Real:
        return self.op("eq", other)

    def differs(self, other: Real | float) -> Real:
        return self.op("ne", other)

    def __or__(self, other: Real) -> Real:
        return self.op("or", other)

    def __and__(self, other: Real) -> Real:
        return self.op("and", other)

    def choose(self, yes: Real | float, no: Real | float) -> Real:
        """Of a condition: `yes` where it holds, else `no`; one of them is a value."""
        if not isinstance(yes, Real):
            assert isinstance(no, Real)
            yes = no.like(yes)
        return self.op("where", yes, yes.like(no))

    def cast(self, dtype: DType) -> Real:
        return self if self.node.dtype is dtype else self.op("cast", attrs=(dtype,))

    def with_sign_of(self, other: Real) -> Real:
        """This value, not negative itself, with the sign bit of another: zeros and NaN count."""
        integers, sign_bit = _BITS[self.node.dtype]
        sign = other.op("bitcast", attrs=(integers,)).op("and", sign_bit)
        bits = self.op("bitcast", attrs=(integers,)).op("or", sign)
        return bits.op("bitcast", attrs=(self.node.dtype,))


@dataclass(frozen=True, slots=True)
class Pair:
    """A complex value: its parts, of one dtype and shape."""

    real: Real
    imaginary: Real

    def __iter__(self) -> Iterator[Real]:
        yield self.real
        yield self.imaginary

    @property
    def is_double(self) -> bool:
        return self.real.node.dtype is dtypes.float64

    def each(self, name: str, *others: Pair, attrs: tuple = ()) -> Pair:
        """The same op on the real parts and on the imaginary ones."""
        return Pair(
            self.real.op(name, *(other.real for other in others), attrs=attrs),
            self.imaginary.op(name, *(other.imaginary for other in others), attrs=attrs),
        )

    def __neg__(self) -> Pair:
        return Pair(-self.real, -self.imaginary)

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.real + other.real, self.imaginary + other.imaginary)

    def __sub__(self, other: Pair) -> Pair:
        return Pair(self.real - other.real, self.imaginary - other.imaginary)

    def __mul__(self, other: Pair | Real | float) -> Pair:
        if not isinstance(other, Pair):
            return Pair(self.real * other, self.imaginary * other)
        a, b, c, d = *self, *other
        return Pair(a * c - b * d, a * d + b * c)

    def choose(self, condition: Real, no: Pair) -> Pair:
        """This where the condition holds, else the other."""
        return Pair(
            condition.choose(self.real, no.real), condition.choose(self.imaginary, no.imaginary)
        )

    def times_i(self) -> Pair:
        return Pair(-self.imaginary, self.real)

    def over_i(self) -> Pair:
        return Pair(self.imaginary, -self.real)

    def number(self, real: float, imaginary: float = 0.0) -> Pair:
        """A constant of this dtype and shape."""
        return Pair(self.real.like(real), self.real.like(imaginary))
