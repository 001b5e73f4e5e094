"""What LLVM instructions take and give: values, their types, and constants.

A `Value` is a type string and a name. Types are LLVM's own spelling: "i64", "float", "ptr",
"<16 x float>"; one lane is the scalar type itself. Numbers become constants that hold their bits
exactly.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence


class Value:
    """One SSA value or constant: its LLVM type and how it is spelled as an operand.  Nobody changes
    one; written out, since each instruction makes one or two.
    """

    __slots__ = ("name", "type")

    def __init__(self, type_: str, name: str) -> None:
        self.type = type_
        self.name = name

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Value) and self.name == other.name and self.type == other.type
        )

    def __hash__(self) -> int:
        return hash((self.type, self.name))

    def __str__(self) -> str:
        return f"{self.type} {self.name}"

    def __repr__(self) -> str:
        return f"Value({self.type!r}, {self.name!r})"


class BuilderError(TypeError):
    """Two operands whose types do not fit met in one instruction: an error in a code generator."""


def vector_of(element: str, lanes: int) -> str:
    """The type of `lanes` elements; one lane is the scalar type itself."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


@functools.cache
def lanes_of(type_: str) -> int:
    return int(type_[1 : type_.index(" ")]) if type_.startswith("<") else 1


@functools.cache
def element_of(type_: str) -> str:
    return type_[type_.index("x ") + 2 : -1] if type_.startswith("<") else type_


def with_element(type_: str, element: str) -> str:
    """The type with as many lanes as `type_` and another element type."""
    return vector_of(element, lanes_of(type_))


BITS = {"half": 16, "bfloat": 16, "float": 32, "double": 64, "ptr": 64}


@functools.cache
def bits_of(type_: str) -> int:
    """Bits of one element of the type."""
    element = element_of(type_)
    return BITS[element] if element in BITS else int(element[1:])


@functools.cache
def is_float(type_: str) -> bool:
    return element_of(type_) in ("half", "bfloat", "float", "double")


def format_scalar(element: str, value: object) -> str:
    """Spells a Python number as a constant of one element type, exactly (floats as hexadecimal
    bits).
    """
    if element == "ptr":
        return "null"
    if element == "i1":
        return "true" if value else "false"
    if element in ("float", "double"):
        number = float(value)  # type: ignore[arg-type]
        if element == "float" and math.isfinite(number):
            try:
                number = struct.unpack("<f", struct.pack("<f", number))[0]
            except OverflowError:
                number = math.copysign(math.inf, number)
        if math.isnan(number):
            return "0x7FF8000000000000"
        return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"
    if element == "half":
        return f"0xH{struct.unpack('<H', struct.pack('<e', float(value)))[0]:04X}"  # type: ignore[arg-type]
    bits = bits_of(element)
    integer = int(value) & ((1 << bits) - 1)  # type: ignore[call-overload]
    return str(integer - (1 << bits) if integer >> (bits - 1) else integer)


def const(type_: str, value: object) -> Value:
    """A constant; for a vector type, the splat of one scalar."""
    if value.__class__ is int:
        return _whole_const(type_, value)  # type: ignore[arg-type]
    return _const(type_, value)


@functools.lru_cache(1 << 12)
def _whole_const(type_: str, value: int) -> Value:
    return _const(type_, value)


def _const(type_: str, value: object) -> Value:
    scalar = format_scalar(element_of(type_), value)
    if lanes_of(type_) == 1:
        return Value(type_, scalar)
    return Value(type_, f"splat ({element_of(type_)} {scalar})")


def const_lanes(element: str, values: Sequence[object]) -> Value:
    """A constant vector with one number a lane."""
    if len(values) == 1:
        return const(element, values[0])
    lanes = ", ".join(f"{element} {format_scalar(element, value)}" for value in values)
    return Value(vector_of(element, len(values)), f"<{lanes}>")


def constant_mask(mask: Value) -> tuple[bool, ...] | None:
    """Which lanes a constant mask lets through; None where it is not spelled lane by lane."""
    if not mask.name.startswith("<"):
        return None
    return tuple(spelled == "i1 true" for spelled in mask.name.strip("<>").split(", "))


def only_lane(mask: Value) -> int | None:
    """The one lane that a constant mask lets through; None where it is no constant or has
    several.
    """
    lanes = constant_mask(mask) or ()
    return lanes.index(True) if sum(lanes) == 1 else None


@functools.cache
def mangle(type_: str) -> str:
    """LLVM's suffix for an overloaded intrinsic: <16 x float> is v16f32."""
    short = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16", "ptr": "p0"}
    element = element_of(type_)
    lanes = lanes_of(type_)
    return (f"v{lanes}" if lanes > 1 else "") + short.get(element, element)


Operand = Value | int | float | bool
"""What an instruction takes: a value, or a number that becomes a constant of the other's type."""
