"""Emission of loop IR instrs at one point, or at a vector of neighbouring points, of the iteration
space.

`Points` knows where it stands: a scalar for each loop variable, and perhaps one variable whose
`lanes` next values are handled together.  Index expressions become a scalar base, a stride along
the lanes, and, where neither is enough, a vector of offsets; loads are then plain, contiguous or
gathers.  A mask of active lanes covers the last, partial vector of a loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Function, Value, const, const_lanes, lanes_of, vector_of
from lazygrad_compiler.llvm.short_runs import (
    LaneMask,
    agrees,
    lane_mask,
    load_runs,
    run_lanes,
)
from lazygrad_compiler.loops.index import Affine, Div, Dyn, Mod, Term, Var
from lazygrad_compiler.loops.kernel import Instr

I64 = "i64"
LINE = 64
"""Bytes of a cache line."""
ERROR_SET = 1
"""What the first word of the error block holds once an index out of range is reported."""
LAUNCH_WORD, CHECK_WORD = 4, 5
"""Of the error block: which launch found an index out of range, and by which of its checks."""


@dataclass(slots=True)
class Place:
    """An index along the lanes: base + pattern[lane] + offsets[lane].

    pattern: known numbers, () for all 0.  offsets: i64 lanes computed at run time.  multiple: the
    base is known to be a multiple of it (0: the base is 0), which lets quotients and remainders
    stay patterns.
    """

    base: Value
    pattern: tuple[int, ...] = ()
    offsets: Value | None = None
    multiple: int = 1

    @property
    def stride(self) -> int | None:
        """The step from lane to lane where the pattern has one; None where it has not."""
        if not self.pattern:
            return 0
        step = self.pattern[1] - self.pattern[0]
        regular = all(value == lane * step for lane, value in enumerate(self.pattern))
        return step if regular else None


class Points:
    """Emits values at the current point.  `lanes` is 1 where `vector` is None."""

    rules: ClassVar[dict[str, Callable[[Any, Instr], Value]]] = {}
    """What emits an instr that is no op of the op table; filled below."""

    def __init__(
        self,
        function: Function,
        values: Sequence[Instr],
        pointers: Sequence[Value],
        error: Value,
        vector: Var | None,
        lanes: int,
        aligned: bool = False,
    ) -> None:
        self.f = function
        self.values = values
        self.pointers = pointers
        self.error = error
        self.vector = vector
        self.lanes = lanes if vector is not None else 1
        self.aligned = aligned
        self.bindings: dict[Var, Value] = {}
        self.active: Value | None = None
        self.computed: dict[int, Value] = {}
        self.hoisted: dict[Affine, tuple[Place, Affine]] = {}
        self.kept: Sequence[Value] = ()

    def check_number(self, instr: Instr) -> int:
        """Which of the kernel's `dynamic` instrs it is."""
        return [other for other in self.values if other.op == "dynamic"].index(instr)

    # ---- index expressions

    def scalar_index(self, value: Affine) -> Value:
        place = self.place(value)
        assert not place.pattern and place.offsets is None, f"{value} varies along the lanes"
        return place.base

    def _varies(self, value: Affine) -> bool:
        for term in value.variables():
            if term == self.vector:
                return True
            if isinstance(term, Dyn) and lanes_of(self.computed[term.value].type) > 1:
                return True
        return False

    def hoist(self, numbers: Iterable[int], inside: Iterable[Var]) -> None:
        """Computes now what the instrs' index expressions need that the given variables
        do not change.
        """
        changing = set(inside)
        for number in numbers:
            for item in self.values[number].data:
                if isinstance(item, Affine) and item not in self.hoisted:
                    self._hoist(item, changing)

    def _hoist(self, value: Affine, changing: set[Var]) -> None:
        fixed: list[tuple[Term, int]] = []
        rest: list[tuple[Term, int]] = []
        for term, c in value.terms:
            inner = term.inner.variables() if isinstance(term, (Div, Mod)) else {term}
            moves = any(isinstance(v, Dyn) or v in changing for v in inner)
            (rest if moves else fixed).append((term, c))
        if fixed and rest:
            place = self.place(Affine(0, tuple(fixed)))
            self.hoisted[value] = (place, Affine(value.constant, tuple(rest)))

    def place(self, value: Affine) -> Place:
        if value in self.hoisted:
            fixed, rest = self.hoisted[value]
            return self._plus(fixed, self.place(rest), 1)
        f = self.f
        result = Place(const(I64, value.constant), multiple=abs(value.constant))
        for term, c in value.terms:
            if isinstance(term, Var):
                base = self.bindings[term]
                part = Place(base)
                if term == self.vector:
                    lanes, multiple = tuple(range(self.lanes)), 1
                    if self.aligned:
                        # the lanes cover the loop, or begin at multiples of their number
                        whole = term.extent <= self.lanes
                        base, multiple = (const(I64, 0), 0) if whole else (base, self.lanes)
                    part = Place(base, lanes, None, multiple)
            elif isinstance(term, Dyn):
                number = self.computed[term.value]
                if lanes_of(number.type) == 1:
                    part = Place(number)
                else:
                    part = Place(const(I64, 0), (), number, 0)
            else:
                part = self._quotient(term)
            result = self._plus(result, part, c)
        assert f is self.f
        return result

    def _plus(self, left: Place, right: Place, factor: int) -> Place:
        """left + factor * right."""
        f = self.f
        base = right.base if factor == 1 else f.mul(right.base, factor)
        if right.base.name == "0":
            base = left.base
        elif left.base.name != "0":
            base = f.add(left.base, base)
        pattern = left.pattern
        if right.pattern:
            before = left.pattern or (0,) * self.lanes
            pattern = tuple(a + b * factor for a, b in zip(before, right.pattern, strict=True))
        offsets = left.offsets
        if right.offsets is not None:
            more = right.offsets if factor == 1 else f.mul(right.offsets, factor)
            offsets = more if offsets is None else f.add(offsets, more)
        return Place(base, pattern, offsets, math.gcd(left.multiple, right.multiple * abs(factor)))

    def lane_offsets(self, pattern: Sequence[int]) -> Value:
        return const_lanes(I64, list(pattern))

    def _lanes_of_place(self, place: Place) -> Value:
        """The index in every lane, as an i64 vector."""
        lanes = self.f.splat(place.base, self.lanes)
        if place.pattern and any(place.pattern):
            lanes = self.f.add(lanes, self.lane_offsets(place.pattern))
        return lanes if place.offsets is None else self.f.add(lanes, place.offsets)

    def _quotient(self, term: Div | Mod) -> Place:
        """A quotient or remainder.  Where the lanes' pattern fits between multiples of the divisor
        it stays a scalar with a pattern; else it is computed in every lane.
        """
        f, inner, divisor = self.f, term.inner, term.divisor
        is_div = isinstance(term, Div)
        if not self._varies(inner):
            return Place(self._divide(self.scalar_index(inner), inner, divisor, is_div))
        place = self.place(inner)
        pattern, multiple = place.pattern, place.multiple
        if place.offsets is None and not any(pattern):
            # a quotient inside has brought the lanes together
            return Place(self._divide(place.base, inner, divisor, is_div))
        if place.offsets is None and min(pattern) >= 0:
            if multiple % divisor == 0:
                # the base falls on a multiple of the divisor: the pattern alone has remainders
                if is_div:
                    base = self._divide(place.base, inner, divisor, True)
                    return Place(
                        base, tuple(p // divisor for p in pattern), None, multiple // divisor
                    )
                return Place(const(I64, 0), tuple(p % divisor for p in pattern), None, 0)
            if multiple and divisor % multiple == 0 and max(pattern) < multiple:
                # all lanes lie between the same two multiples of the divisor
                base = self._divide(place.base, inner, divisor, is_div)
                return Place(base) if is_div else Place(base, pattern, None, multiple)
        lanes = self._lanes_of_place(place)
        small = inner.low >= -(2**31) and inner.high < 2**31 - 4096
        if small:
            lanes = f.convert("trunc", lanes, vector_of("i32", self.lanes))
        result = self._divide(lanes, inner, divisor, is_div)
        if small:
            result = f.convert("sext", result, vector_of(I64, self.lanes))
        return Place(const(I64, 0), (), result, 0)

    def _divide(self, value: Value, range_of: Affine, divisor: int, is_div: bool) -> Value:
        """Rounds down where the number cannot be negative; where it can, it is only used under a
        mask that excludes that.
        """
        f = self.f
        if value.name == "0":
            return value
        if range_of.low >= 0:
            return f.udiv(value, divisor) if is_div else f.urem(value, divisor)
        return f.sdiv(value, divisor) if is_div else f.srem(value, divisor)

    def index_vector(self, value: Affine) -> Value:
        """The expression as i64: a scalar where the lanes agree, else a vector."""
        place = self.place(value)
        if place.offsets is None and not any(place.pattern):
            return place.base
        return self._lanes_of_place(place)

    # ---- instrs

    def emit(self, numbers: Iterable[int]) -> None:
        annotated = self.f.module.annotated
        for number in numbers:
            if number not in self.computed:
                if annotated:
                    self.f.origin(f"%{number}")
                self.computed[number] = self._emit(self.values[number])
        if annotated:
            self.f.origin("")

    def _emit(self, instr: Instr) -> Value:
        f = self.f
        rule = self.rules.get(instr.op)
        if rule is not None:
            return rule(self, instr)
        args = [self.computed[arg] for arg in instr.args]
        lanes = max((lanes_of(arg.type) for arg in args), default=1)
        args = [f.splat(arg, lanes) for arg in args]
        source = self.values[instr.args[0]].dtype if instr.op != "where" else instr.dtype
        return scalar.emit_op(f, instr.op, args, source, instr.dtype)

    def _offsets(self, place: Place) -> Value:
        """Pattern and run-time offsets together."""
        if place.offsets is None:
            return self.lane_offsets(place.pattern)
        if any(place.pattern):
            return self.f.add(place.offsets, self.lane_offsets(place.pattern))
        return place.offsets

    def mask_of(self, instr_mask: Value | None) -> Value | None:
        """The instr's mask and the active lanes together; None where everything is on."""
        if instr_mask is None:
            return self.active
        if self.active is None:
            return instr_mask
        return self.f.and_(self.f.splat(instr_mask, self.lanes), self.active)

    def load(self, dtype: DType, pointer: Value, place: Place, mask: Value | None) -> Value:
        f = self.f
        element = scalar.memory_type(dtype)
        align = dtype.itemsize
        if place.offsets is None and place.stride == 0:
            base = place.base
            if mask is not None:
                some = mask
                if lanes_of(mask.type) > 1:
                    some = f.intrinsic(
                        f"llvm.vector.reduce.or.v{lanes_of(mask.type)}i1", "i1", mask
                    )
                base = f.select(some, base, const(I64, 0))
            return scalar.from_memory(
                f, f.load(element, f.offset(pointer, base, element), align), dtype
            )
        mask = self.mask_of(mask)
        type_ = scalar.memory_type(dtype, self.lanes)
        if place.offsets is None and place.stride == 1:
            address = f.offset(pointer, place.base, element)
            if mask is None:
                return scalar.from_memory(f, f.load(type_, address, align), dtype)
            mask = f.splat(mask, self.lanes)
            return scalar.from_memory(
                f, f.masked_load(type_, address, align, mask, const(type_, 0)), dtype
            )
        if mask is None and run_lanes(place, self.lanes) == self.lanes:
            every = LaneMask((True,) * self.lanes)
            return load_runs(f, dtype, pointer, place, every, self.lanes)
        offsets = self._offsets(place)
        addresses = f.offset(f.offset(pointer, place.base, element), offsets, element)
        mask = (
            const(vector_of("i1", self.lanes), True) if mask is None else f.splat(mask, self.lanes)
        )
        return scalar.from_memory(
            f, f.gather(type_, addresses, align, mask, const(type_, 0)), dtype
        )

    def reads_runs(self, place: Place) -> bool:
        """Whether lanes share short runs of memory, and are no neighbours."""
        return place.stride != 1 and run_lanes(place, self.lanes) > 0

    def store(self, dtype: DType, pointer: Value, place: Place, value: Value) -> None:
        """Writes the value (a register value of the dtype) at the active lanes."""
        f = self.f
        element, align = scalar.memory_type(dtype), dtype.itemsize
        if self.vector is None or (place.offsets is None and place.stride == 0):
            value = f.extract(value, 0)
            f.store(
                scalar.to_memory(f, value, dtype), f.offset(pointer, place.base, element), align
            )
            return
        value = scalar.to_memory(f, f.splat(value, self.lanes), dtype)
        if place.offsets is None and place.stride == 1:
            address = f.offset(pointer, place.base, element)
            if self.active is None:
                f.store(value, address, align)
            else:
                f.masked_store(value, address, align, self.active)
            return
        offsets = self._offsets(place)
        addresses = f.offset(f.offset(pointer, place.base, element), offsets, element)
        mask = self.active if self.active is not None else const(vector_of("i1", self.lanes), True)
        f.scatter(value, addresses, align, mask)

    def stream(self, dtype: DType, pointer: Value, place: Place, value: Value) -> None:
        """Writes past the caches where whole vectors lie side by side, at multiples of what is
        written at a time; else as `store` does.
        """
        f = self.f
        contiguous = place.offsets is None and place.stride == 1
        if self.vector is None or self.active is not None or not contiguous:
            self.store(dtype, pointer, place, value)
            return
        value = scalar.to_memory(f, f.splat(value, self.lanes), dtype)
        address = f.offset(pointer, place.base, scalar.memory_type(dtype))
        f.store_past_caches_if_aligned(value, address, self.lanes * dtype.itemsize)

    # ---- row buffers

    def kept_place(self, position: Affine) -> Place:
        """Where a position of the row lies in a row buffer: vectors of rows lie side by side."""
        if self.vector is None or self._varies(position):
            return self.place(position)
        base = self.f.mul(self.scalar_index(position), self.lanes)
        return Place(base, tuple(range(self.lanes)))

    def keep(self, slot: int, dtype: DType, position: Affine, value: Value) -> None:
        """Writes what later stages of the row will read."""
        self.store(dtype, self.kept[slot], self.kept_place(position), value)

    def prefetch(self, dtype: DType, pointer: Value, index: Affine, ahead: int | Value) -> None:
        """Fetches what a load at the index reads, so many elements on, into the first cache."""
        f, element = self.f, scalar.memory_type(dtype)
        base = f.add(self.place(index).base, ahead)
        for line in range(0, self.lanes * dtype.itemsize, LINE):
            address = f.offset(f.offset(pointer, base, element), line, "i8")
            f.prefetch(address)

    def weaves(self, place: Place) -> bool:
        """Whether a store there leaves out every second element, in full vectors."""
        return (
            self.vector is not None
            and self.active is None
            and place.offsets is None
            and place.stride == 2
        )

    def store_woven(
        self, dtype: DType, pointer: Value, place: Place, even: Value, odd: Value
    ) -> None:
        """Writes two values side by side, lane after lane: two shuffles, two plain stores."""
        f, lanes = self.f, self.lanes
        element, align = scalar.memory_type(dtype), dtype.itemsize
        a, b = (scalar.to_memory(f, f.splat(value, lanes), dtype) for value in (even, odd))
        for half in (0, lanes // 2):
            order = [half + k // 2 + (k % 2) * lanes for k in range(lanes)]
            start = f.add(place.base, 2 * half)
            f.store(f.shuffle(a, b, order), f.offset(pointer, start, element), align)


def _load(points: Points, instr: Instr) -> Value:
    buffer, index = instr.data
    number = instr.args[0] if instr.args else None
    pointer, place = points.pointers[buffer], points.place(index)
    if points.reads_runs(place):
        known = lane_mask(points, number)
        if known is not None and agrees(place, known):
            return load_runs(points.f, instr.dtype, pointer, place, known, points.lanes)
    mask = points.computed[number] if number is not None else None
    return points.load(instr.dtype, pointer, place, mask)


def _kept(points: Points, instr: Instr) -> Value:
    slot, position = instr.data
    return points.load(instr.dtype, points.kept[slot], points.kept_place(position), None)


def _bounds(points: Points, instr: Instr) -> Value:
    """low <= expression < high, as one unsigned comparison."""
    index, low, high = instr.data
    shifted = index + -low
    place = points.place(shifted)
    small = shifted.low >= -(2**31) and max(shifted.high, high - low) < 2**31
    if small and place.offsets is None and any(place.pattern):
        # half the registers that 64 bits would take
        base = points.f.splat(points.f.convert("trunc", place.base, "i32"), points.lanes)
        value = points.f.add(base, const_lanes("i32", list(place.pattern)))
        return points.f.icmp("ult", value, high - low)
    return points.f.icmp("ult", points.index_vector(shifted), high - low)


def _divides(points: Points, instr: Instr) -> Value:
    index, divisor = instr.data
    return points.f.icmp("eq", points.f.srem(points.index_vector(index), divisor), 0)


def _philox(points: Points, instr: Instr) -> Value:
    seed, offset = (points.computed[arg] for arg in instr.args)
    return scalar.philox(points.f, seed, offset, points.index_vector(instr.data[0]))


def report(
    f: Function,
    error: Value,
    culprit: Value,
    size: int,
    axis: int,
    check: int,
    launch: Value | None = None,
) -> None:
    """Writes an index out of range to the error block, unless there is a report already.

    Words: 0 set, 1 the index, 2 the size, 3 the axis, 4 the launch, 5 which of its checks.  On the
    CPU the entry knows the launch and fills that word.

    The first thread to fail claims the block, and nobody else writes to it: threads that fail
    different checks at once must not mix their words.  They are read when all threads have ended,
    so the claim need not order anything.
    """
    held = f.compare_and_swap(error, const(I64, 0), const(I64, ERROR_SET))
    with f.when(f.icmp("eq", held, 0), "first"):
        words = {1: culprit, 2: const(I64, size), 3: const(I64, axis)}
        words[CHECK_WORD] = const(I64, check)
        if launch is not None:
            words[LAUNCH_WORD] = launch
        for word, number in words.items():
            f.store(number, f.offset(error, word, I64), 8)


def _dynamic(points: Points, instr: Instr) -> Value:
    """An index read at run time: negative counts from the end; one out of range is reported and
    clamped to 0.
    """
    f = points.f
    raw = points.computed[instr.args[0]]
    size, axis = instr.data
    wrapped = f.select(f.icmp("slt", raw, 0), f.add(raw, size), raw)
    bad = f.icmp("uge", wrapped, size)
    lanes = lanes_of(bad.type)
    checked = bad
    if len(instr.args) > 1:
        mask = points.computed[instr.args[1]]
        if lanes_of(mask.type) > lanes:
            mask = f.intrinsic(f"llvm.vector.reduce.or.v{lanes_of(mask.type)}i1", "i1", mask)
        checked = f.and_(bad, f.splat(mask, lanes))
    if points.active is not None and lanes > 1:
        checked = f.and_(checked, points.active)
    some = checked
    if lanes > 1:
        some = f.intrinsic(f"llvm.vector.reduce.or.v{lanes}i1", "i1", checked)
    with f.when(some, "out.of.range"):
        culprit = raw
        if lanes > 1:
            lowest = f.select(checked, raw, const(raw.type, -(2**63)))
            culprit = f.intrinsic(f"llvm.vector.reduce.smax.v{lanes}i64", I64, lowest)
        report(f, points.error, culprit, size, axis, points.check_number(instr))
    return f.select(bad, const(raw.type, 0), wrapped)


Points.rules = {
    "load": _load,
    "kept": _kept,
    "index": lambda points, instr: points.index_vector(instr.data[0]),
    "const": lambda points, instr: scalar.constant(instr.dtype, instr.data[0]),
    "bounds": _bounds,
    "divides": _divides,
    "philox": _philox,
    "dynamic": _dynamic,
    "checked": lambda points, instr: points.computed[instr.args[0]],
    "polynomial": lambda points, instr: scalar.emit_polynomial(
        points.f, points.computed[instr.args[0]], instr.data[0]
    ),
}


def dependences(values: Sequence[Instr]) -> list[set[Term]]:
    """For each instr, the loop variables that its value varies with (rows of earlier
    stages: none).
    """
    result: list[set[Term]] = []
    for instr in values:
        found: set[Term] = set()
        for arg in instr.args:
            if instr.op != "row":
                found |= result[arg]
        for item in instr.data:
            if isinstance(item, Affine):
                for term in item.variables():
                    if isinstance(term, Dyn):
                        found |= result[term.value]
                    else:
                        found.add(term)
        result.append(found)
    return result
