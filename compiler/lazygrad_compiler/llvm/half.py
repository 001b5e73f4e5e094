"""Conversions of float16 for x86 processors without F16C, where LLVM calls functions of a
compiler's runtime library that no process need have.

`with_conversions(text, target)` adds them to a module that needs them, by the names and with the
signatures of that library.  They round to nearest even and keep infinities and NaN.  A number below
the normal range of float16 is rounded by an addition: of one whose last bit is float16's smallest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lazygrad_compiler.target import Target


@dataclass(frozen=True, slots=True)
class Format:
    """An IEEE format that is wider than float16.  mantissa: its bits that are stored; bias: of its
    exponent.
    """

    name: str
    bits: int
    mantissa: int
    bias: int

    @property
    def dropped(self) -> int:
        """How many bits of the mantissa float16 has no place for."""
        return self.mantissa - 10

    def power(self, exponent: int) -> int:
        """The bits of 2 ** exponent."""
        return exponent + self.bias << self.mantissa

    @property
    def infinity(self) -> int:
        return self.power(self.bias + 1)


FLOAT, DOUBLE = Format("float", 32, 23, 127), Format("double", 64, 52, 1023)


def _narrowing(name: str, wide: Format) -> str:
    i, t = f"i{wide.bits}", wide.name
    magnitude = (1 << wide.bits - 1) - 1
    unit = wide.power(wide.dropped + 10 - 24)  # its last bit is 2 ** -24
    return f"""
define internal half @{name}({t} %x) nounwind {{
  %bits = bitcast {t} %x to {i}
  %size = and {i} %bits, {magnitude}
  %high = lshr {i} %bits, {wide.bits - 16}
  %narrow = trunc {i} %high to i16
  %sign = and i16 %narrow, -32768
  %last = lshr {i} %size, {wide.dropped}
  %odd = and {i} %last, 1
  %nearly = add {i} %size, {(1 << wide.dropped - 1) - 1}
  %rounded = add {i} %nearly, %odd
  %rebased = sub {i} %rounded, {wide.bias - 15 << wide.mantissa}
  %normal = lshr {i} %rebased, {wide.dropped}
  %value = bitcast {i} %size to {t}
  %unit = bitcast {i} {unit} to {t}
  %sum = fadd {t} %value, %unit
  %summed = bitcast {t} %sum to {i}
  %small = sub {i} %summed, {unit}
  %is_small = icmp ult {i} %size, {wide.power(-14)}
  %finite = select i1 %is_small, {i} %small, {i} %normal
  %is_large = icmp uge {i} %size, {wide.power(16)}
  %bounded = select i1 %is_large, {i} {0x7C00}, {i} %finite
  %payload = and {i} %last, {0x3FF}
  %quiet = or {i} %payload, {0x7E00}
  %is_nan = icmp ugt {i} %size, {wide.infinity}
  %chosen = select i1 %is_nan, {i} %quiet, {i} %bounded
  %short = trunc {i} %chosen to i16
  %signed = or i16 %short, %sign
  %result = bitcast i16 %signed to half
  ret half %result
}}
"""


def _widening(name: str) -> str:
    smallest = FLOAT.power(-14)
    return f"""
define internal float @{name}(half %x) nounwind {{
  %short = bitcast half %x to i16
  %bits = zext i16 %short to i32
  %high = and i32 %bits, {0x8000}
  %sign = shl i32 %high, 16
  %low = and i32 %bits, {0x7FFF}
  %size = shl i32 %low, 13
  %normal = add i32 %size, {112 << 23}
  %with_one = or i32 %size, {smallest}
  %value = bitcast i32 %with_one to float
  %one = bitcast i32 {smallest} to float
  %difference = fsub float %value, %one
  %small = bitcast float %difference to i32
  %is_small = icmp ult i32 %low, {0x400}
  %finite = select i1 %is_small, i32 %small, i32 %normal
  %special = or i32 %size, {FLOAT.infinity}
  %is_special = icmp uge i32 %low, {0x7C00}
  %chosen = select i1 %is_special, i32 %special, i32 %finite
  %is_nan = icmp ugt i32 %low, {0x7C00}
  %quiet = or i32 %chosen, {1 << 22}
  %kept = select i1 %is_nan, i32 %quiet, i32 %chosen
  %signed = or i32 %kept, %sign
  %result = bitcast i32 %signed to float
  ret float %result
}}
"""


CONVERSIONS = (
    _widening("__extendhfsf2")
    + _narrowing("__truncsfhf2", FLOAT)
    + _narrowing("__truncdfhf2", DOUBLE)
)


def with_conversions(text: str, target: Target) -> str:
    """The text of a module after the passes (they would take away what nothing calls yet), with
    what its float16 needs on this target.
    """
    return text + CONVERSIONS if needs_conversions(text, target) else text


def needs_conversions(text: str, target: Target) -> bool:
    """Whether code for the module calls the functions of the runtime library."""
    lacks = target.triple.startswith("x86_64") and "+f16c" not in target.features.split(",")
    return lacks and re.search(r"\bhalf\b", text) is not None
