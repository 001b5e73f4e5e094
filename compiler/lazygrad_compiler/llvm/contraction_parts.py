"""What the parts of a contraction kernel's code have in common: sizes, types, names.

A kernel is one function for the loops over blocks and a few internal ones, which it calls: packing
(`contraction_pack.py`), register tiles and what follows them (`contraction_tile.py`).  As functions
of their own they get all registers, and one text serves every place that needs it.
"""

from __future__ import annotations

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import (
    Function,
    Module,
    Value,
    const,
    const_lanes,
    lanes_of,
    vector_of,
)
from lazygrad_compiler.llvm.contraction_words import ONES, add_products, rounded
from lazygrad_compiler.llvm.loops import load_arguments
from lazygrad_compiler.llvm.points import Points, dependences
from lazygrad_compiler.loops.index import Var
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.operands import Operand, accumulator_dtype, direct, long_rows
from lazygrad_compiler.loops.products import form_of, packed_operands
from lazygrad_compiler.loops.schedule_contraction import ContractionSchedule, Strips

I64 = "i64"


class Parts:
    """One contraction kernel under one schedule, on its way into a module."""

    def __init__(
        self,
        module: Module,
        name: str,
        kernel: ContractionKernel,
        schedule: ContractionSchedule,
        attributes: str,
    ) -> None:
        self.module = module
        self.name = name
        self.kernel = kernel
        self.s = schedule
        self.attributes = attributes
        self.wide = accumulator_dtype(kernel.dtype)
        self.element = scalar.register_type(self.wide)
        self.itemsize = self.wide.itemsize
        self.form = form_of(kernel, schedule.swapped, schedule.instruction)
        self.group = self.form.group
        # what is packed: words are as wide as sums
        self.word = "i32" if self.group > 1 else self.element
        # elements of a row of packed words
        self.packed_left = scalar.register_type(self.form.left)
        self.depends = dependences(kernel.values)
        self.left, self.right = packed_operands(kernel, schedule.swapped, self.form)
        self.m, self.n, self.k = self.left.free, self.right.free, kernel.k
        self.strips = Strips.of(self.m.extent, schedule.strips)
        self.single = self.k.extent <= schedule.kc
        # lanes of a vector of neighbours along k, before they are words
        self.along = schedule.lanes * self.group
        # some part of k does not end with a whole vector
        self.has_partial_vector = bool(
            self.k.extent % self.along or (not self.single and schedule.kc % self.along)
        )
        # tiles ask for the strips of the next part of k, or for the one beside their own
        # (`contraction_ahead.py`)
        self.fetches_strips = bool(
            schedule.ahead and schedule.left == "columns" and not self.single
            and long_rows(kernel, self.left)
        )
        self.left_place = self.right_place = None
        if schedule.left == "direct":
            self.left_place = direct(kernel, self.left, self.form.left, self.group)
        place = self.left_place
        self.fetches_in_place = schedule.ahead and place is not None and place.free_step == 1
        if schedule.right == "direct":
            self.right_place = direct(kernel, self.right, self.form.right, self.group)

    def function(self, part: str, parameters: list[str]) -> Function:
        """An internal function; its parameters are `ptr args` and numbers, or pointers after *."""
        listed = [("ptr", "args")]
        listed += [("ptr", p[1:]) if p.startswith("*") else (I64, p) for p in parameters]
        name = f"{self.name}.{part}"
        return self.module.function(name, "void", listed, self.attributes + " noinline", "internal")

    def points(
        self, f: Function, vector: Var | None, aligned: bool, lanes: int | None = None
    ) -> Points:
        pointers, error = load_arguments(f, len(self.kernel.buffers))
        return Points(
            f, self.kernel.values, pointers, error, vector, lanes or self.s.lanes, aligned
        )

    def packed(self, points: Points, operand: Operand) -> Value:
        """The operand's value as the dtype that it is packed in, one a lane."""
        value, instr = points.computed[operand.value], points.values[operand.value]
        if instr.op == "cast" and points.values[instr.args[0]].dtype is dtypes.float32:
            # the cast as the instruction does it, where that makes no difference to sums
            fast = rounded(points.f, self.form.instruction, points.computed[instr.args[0]])
            value = value if fast is None else fast
        packed = self.form.left if operand is self.left else self.form.right
        value = scalar.emit_cast(points.f, value, instr.dtype, packed)
        return points.f.splat(value, points.lanes)

    def along_k(self, points: Points, operand: Operand) -> Value:
        """The same for neighbours along k, as words; nothing where no lane is active."""
        value = self.packed(points, operand)
        if self.group == 1:
            return value
        if points.active is not None:
            # a last word that is not full must not hold a NaN
            value = points.f.select(points.active, value, const(value.type, 0))
        return points.f.bitcast(value, vector_of(self.word, lanes_of(value.type) // self.group))

    def words(self, f: Function, elements: Value) -> Value:
        """How many words so many neighbours along k are."""
        if self.group == 1:
            return elements
        return f.udiv(f.add(elements, self.group - 1), self.group)

    def woven(self, f: Function, values: list[Value]) -> Value:
        """Words of what lies at the same place in each of `group` vectors; of fewer, and zeros."""
        if self.group == 1:
            return values[0]
        zero = const(values[0].type, 0)
        values = values + [zero] * (self.group - len(values))
        while len(values) > 1:
            half = len(values) // 2
            values = [
                _interleaved(f, a, b) for a, b in zip(values[:half], values[half:], strict=True)
            ]
        return f.bitcast(values[0], vector_of(self.word, self.s.lanes))

    def sum_columns(self, f: Function, panel: Value, count: Value) -> None:
        """Leaves behind a panel of so many words along k what the sums of each column start from:
        -128 times all of the column's bytes, since the left operand's are taken for 128 more than
        they are.
        """
        s, type_ = self.s, vector_of(self.element, self.s.lanes)
        ones, offsets = const(type_, ONES), range(0, s.nr, s.lanes)
        with f.loop(0, count, 1, [const(type_, 0) for _ in offsets], "k") as loop:
            row = f.offset(panel, f.mul(loop.index, s.nr), self.word)
            words = [f.load(type_, f.offset(row, o, self.word), self.itemsize) for o in offsets]
            loop.next = [
                add_products(f, self.form.instruction, total, ones, word)
                for total, word in zip(loop.carried, words, strict=True)
            ]
        behind = f.offset(panel, s.words(s.kc) * s.nr, self.word)
        for total, offset in zip(loop.results, offsets, strict=True):
            f.store(f.mul(total, -128), f.offset(behind, offset, self.word), self.itemsize)

    def row_of(self, f: Function, strip: Value) -> Value:
        """The first row of a strip."""
        row = f.mul(strip, self.strips.rows)
        if self.strips.large == self.strips.count:
            return row
        return f.sub(row, most(f, f.sub(strip, self.strips.large), 0))

    def first_lanes(self, f: Function, count: Value, lanes: int) -> Value:
        """A mask of the first `count` lanes."""
        return f.icmp("slt", const_lanes(I64, list(range(lanes))), f.splat(count, lanes))


def _interleaved(f: Function, a: Value, b: Value) -> Value:
    lanes = lanes_of(a.type)
    return f.shuffle(a, b, [lane // 2 + lane % 2 * lanes for lane in range(2 * lanes)])


def least(f: Function, value: Value, limit: Value | int) -> Value:
    """The smaller of two numbers."""
    bound = limit if isinstance(limit, Value) else const(I64, limit)
    return f.select(f.icmp("slt", value, bound), value, bound)


def most(f: Function, value: Value, limit: Value | int) -> Value:
    """The larger of two numbers."""
    bound = limit if isinstance(limit, Value) else const(I64, limit)
    return f.select(f.icmp("sgt", value, bound), value, bound)
