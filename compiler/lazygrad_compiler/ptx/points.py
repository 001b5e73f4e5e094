"""Loop IR at the points of one GPU thread: one point, or a few neighbours that a load of up to 16
bytes brings together.

In: what `llvm/points.py` takes; the two share all index arithmetic.  Here loads and stores become
plain ones of a width that the index is known to be aligned to, masks become conditions of a thread,
and an index out of range is reported by the first thread that gets there.

Every buffer begins at a multiple of 16 bytes: allocations do, the arena does, and launches are
rebased by whole multiples.
"""

from __future__ import annotations

import math

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const, lanes_of
from lazygrad_compiler.llvm.points import I64, Place, Points, report
from lazygrad_compiler.loops.index import Affine
from lazygrad_compiler.loops.kernel import Instr
from lazygrad_compiler.ptx.builder import KernelFunction

WIDEST = 16
"""Bytes of one access of one thread."""
SMALL = 2**31 - 4096


class ThreadPoints(Points):
    """`active` is one condition for all lanes: whether the thread has anything to do here."""

    f: KernelFunction

    # ---- index arithmetic

    def _divide(self, value: Value, range_of: Affine, divisor: int, is_div: bool) -> Value:
        """In 32 bits where the range allows: quotients of 64 bits are long sequences."""
        f = self.f
        if lanes_of(value.type) > 1 or range_of.low < 0 or range_of.high >= SMALL:
            return super()._divide(value, range_of, divisor, is_div)
        if divisor & (divisor - 1) == 0:
            if is_div:
                return f.lshr(value, divisor.bit_length() - 1)
            return f.and_(value, divisor - 1)
        if value.type == I64:
            value = f.convert("trunc", value, "i32")
        return f.wide(f.udiv(value, divisor) if is_div else f.urem(value, divisor))

    # ---- memory

    def _condition(self, mask: Value | None) -> Value | None:
        """Of one lane: a mask of the instr and `active` together."""
        if mask is None or self.active is None:
            return self.active if mask is None else mask
        return self.f.and_(mask, self.active)

    def _safe(self, base: Value, condition: Value | None) -> Value:
        """The index, or 0 where nothing may be read: cheaper than a branch."""
        return base if condition is None else self.f.select(condition, base, const(I64, 0))

    def alignment(self, dtype: DType, place: Place) -> int:
        """Bytes that the address of the first lane is known to be a multiple of."""
        known = math.gcd(place.multiple * dtype.itemsize, WIDEST)
        return max(known, dtype.itemsize)

    def load(self, dtype: DType, pointer: Value, place: Place, mask: Value | None) -> Value:
        f, element = self.f, scalar.memory_type(dtype)
        if place.offsets is None and place.stride == 0:
            if mask is not None and lanes_of(mask.type) > 1:
                mask = f.any_lane(mask)
            address = f.offset(pointer, self._safe(place.base, self._condition(mask)), element)
            return scalar.from_memory(f, f.load(element, address, dtype.itemsize), dtype)
        one_mask = mask is None or lanes_of(mask.type) == 1
        if place.offsets is None and place.stride == 1 and one_mask:
            address = f.offset(pointer, self._safe(place.base, self._condition(mask)), element)
            type_ = scalar.memory_type(dtype, self.lanes)
            loaded = f.load(type_, address, self.alignment(dtype, place))
            return scalar.from_memory(f, loaded, dtype)
        values = []
        for lane, index in enumerate(self._lane_indices(place)):
            here = f.extract(mask, lane) if mask is not None else None
            index = self._safe(index, self._condition(here))
            values.append(f.load(element, f.offset(pointer, index, element), dtype.itemsize))
        return scalar.from_memory(f, f.pack(values), dtype)

    def reads_runs(self, place: Place) -> bool:
        """Never: a thread's lanes are loaded one by one unless they are neighbours."""
        return False

    def _lane_indices(self, place: Place) -> list[Value]:
        f = self.f
        result = []
        for lane in range(self.lanes):
            index = place.base
            if place.pattern and place.pattern[lane]:
                index = f.add(index, place.pattern[lane])
            if place.offsets is not None:
                index = f.add(index, f.extract(place.offsets, lane))
            result.append(index)
        return result

    def store(self, dtype: DType, pointer: Value, place: Place, value: Value) -> None:
        """Writes the value; the caller has seen to it that the thread is active."""
        f, element = self.f, scalar.memory_type(dtype)
        if self.vector is None or (place.offsets is None and place.stride == 0):
            address = f.offset(pointer, place.base, element)
            f.store(scalar.to_memory(f, f.extract(value, 0), dtype), address, dtype.itemsize)
            return
        value = scalar.to_memory(f, f.splat(value, self.lanes), dtype)
        if place.offsets is None and place.stride == 1:
            address = f.offset(pointer, place.base, element)
            f.store(value, address, self.alignment(dtype, place))
            return
        for lane, index in enumerate(self._lane_indices(place)):
            f.store(f.extract(value, lane), f.offset(pointer, index, element), dtype.itemsize)

    def weaves(self, place: Place) -> bool:
        return self.vector is not None and place.offsets is None and place.stride == 2

    def store_woven(
        self, dtype: DType, pointer: Value, place: Place, even: Value, odd: Value
    ) -> None:
        f, lanes, element = self.f, self.lanes, scalar.memory_type(dtype)
        a, b = (scalar.to_memory(f, f.splat(value, lanes), dtype) for value in (even, odd))
        order = [k // 2 + (k % 2) * lanes for k in range(2 * lanes)]
        address = f.offset(pointer, place.base, element)
        f.store(f.shuffle(a, b, order), address, self.alignment(dtype, place))


def _dynamic(points: ThreadPoints, instr: Instr) -> Value:
    """An index read at run time: negative counts from the end; one out of range is reported and
    becomes 0.
    """
    f = points.f
    raw = points.computed[instr.args[0]]
    size, axis = instr.data
    wrapped = f.select(f.icmp("slt", raw, 0), f.add(raw, size), raw)
    bad = f.icmp("uge", wrapped, size)
    checked = bad
    if len(instr.args) > 1:
        mask = points.computed[instr.args[1]]
        if lanes_of(mask.type) > lanes_of(bad.type):
            mask = f.any_lane(mask)
        checked = f.and_(bad, f.splat(mask, lanes_of(bad.type)))
    some = f.any_lane(checked) if lanes_of(checked.type) > 1 else checked
    if points.active is not None:
        some = f.and_(some, points.active)
    with f.when(some, "out.of.range"):
        culprit = f.extract(raw, 0)
        for lane in range(1, lanes_of(raw.type)):
            culprit = f.select(f.extract(checked, lane), f.extract(raw, lane), culprit)
        report(f, points.error, culprit, size, axis, points.check_number(instr), f.parameters[-1])
    return f.select(bad, const(raw.type, 0), wrapped)


ThreadPoints.rules = {**Points.rules, "dynamic": _dynamic}
