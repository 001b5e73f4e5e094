"""Elements as unsigned integers that compare as the elements do: the keys of every sort.

A *carried* number is a bijective image of the element: floats have their sign bit flipped,
negative ones all bits, so that integer order is theirs; signed integers have the sign bit flipped;
descending order complements it all.  Every NaN becomes the one that is largest.  The element can
be read back from it, zeros with their sign.

A *key* is the carried number with the two zeros made equal: they are neighbours, and the lower one
becomes the upper.  Sorts compare keys, or digits of them, and move carried numbers.

Numbers narrower than 32 bits are held in 32, others in 64.  All methods take scalars or vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm.builder import Function, Value, vector_of, with_element

DIGIT_BITS = 8
RADIX = 1 << DIGIT_BITS

_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000,
              "float64": 0x7FF0000000000000}
"""The bits of infinity."""
_QUIET = {"float16": 0x0200, "bfloat16": 0x0040, "float32": 0x00400000,
          "float64": 0x0008000000000000}


@dataclass(frozen=True, slots=True)
class Keys:
    """How elements of one dtype are compared, in one direction."""

    dtype: DType
    descending: bool

    @property
    def bits(self) -> int:
        return self.dtype.itemsize * 8

    @property
    def stored(self) -> str:
        """The integer type of an element in memory."""
        return f"i{self.bits}"

    @property
    def held(self) -> str:
        """The integer type of a carried number or key."""
        return "i64" if self.bits == 64 else "i32"

    @property
    def held_bytes(self) -> int:
        return 8 if self.bits == 64 else 4

    @property
    def passes(self) -> int:
        """Digits of a key, from the least significant on."""
        return self.bits // DIGIT_BITS

    def load(self, f: Function, row: Value, index: Value) -> Value:
        """The carried number of an element."""
        return self.carried(f, f.load(self.stored, f.offset(row, index, self.stored), self.align))

    def load_lanes(
        self, f: Function, row: Value, index: Value, lanes: int, mask: Value | None = None
    ) -> Value:
        """The carried numbers of neighbouring elements; where the mask fails, of a 0."""
        place, type_ = f.offset(row, index, self.stored), vector_of(self.stored, lanes)
        if mask is None:
            return self.carried(f, f.load(type_, place, self.align))
        nothing = Value(type_, "zeroinitializer" if lanes > 1 else "0")
        return self.carried(f, f.masked_load(type_, place, self.align, mask, nothing))

    @property
    def align(self) -> int:
        return self.dtype.itemsize

    def carried(self, f: Function, raw: Value) -> Value:
        sign = 1 << (self.bits - 1)
        if self.dtype.is_floating:
            infinity = _EXPONENTS[self.dtype.name]
            nan = f.icmp("ugt", f.and_(raw, sign - 1), infinity)
            raw = f.select(nan, infinity | _QUIET[self.dtype.name], raw)
            raw = f.xor(raw, f.or_(f.ashr(raw, self.bits - 1), sign))
        elif self.dtype.kind == "signed":
            raw = f.xor(raw, sign)
        if self.descending:
            raw = f.not_(raw)
        return f.convert("zext", raw, with_element(raw.type, self.held))

    def key(self, f: Function, carried: Value) -> Value:
        """What is compared."""
        if not self.dtype.is_floating:
            return carried
        lower_zero = f.icmp("eq", carried, (1 << (self.bits - 1)) - 1)
        return f.add(carried, f.convert("zext", lower_zero, carried.type))

    def digit(self, f: Function, key: Value, number: int) -> Value:
        """Digit `number` of a key, counted from the least significant, as i64."""
        part = f.lshr(key, number * DIGIT_BITS) if number else key
        if (number + 1) * DIGIT_BITS < int(self.held[1:]):
            part = f.and_(part, RADIX - 1)
        return f.convert("zext", part, "i64")

    def raw(self, f: Function, carried: Value) -> Value:
        """The element's bits."""
        raw = f.convert("trunc", carried, with_element(carried.type, self.stored))
        sign = 1 << (self.bits - 1)
        if self.descending:
            raw = f.not_(raw)
        if self.dtype.is_floating:
            return f.xor(raw, f.or_(f.not_(f.ashr(raw, self.bits - 1)), sign))
        return f.xor(raw, sign) if self.dtype.kind == "signed" else raw
