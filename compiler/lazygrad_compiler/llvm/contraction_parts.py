"""What the parts of a contraction kernel's code have in common: sizes, types, names.

A kernel is one function for the loops over blocks and a few internal ones, which it calls: packing
(`contraction_pack.py`), register tiles and what follows them (`contraction_tile.py`).  As functions
of their own they get all registers, and one text serves every place that needs it.
"""

from __future__ import annotations

from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Function, Module, Value, const, const_lanes
from lazygrad_compiler.llvm.loops import load_arguments
from lazygrad_compiler.llvm.points import Points, dependences
from lazygrad_compiler.loops.index import Var
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.operands import accumulator_dtype, direct, operands
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
        self.depends = dependences(kernel.values)
        self.left, self.right = operands(kernel, schedule.swapped)
        self.m, self.n, self.k = self.left.free, self.right.free, kernel.k
        self.strips = Strips.of(self.m.extent, schedule.strips)
        self.single = self.k.extent <= schedule.kc
        # some part of k does not end with a whole vector
        self.has_partial_vector = bool(
            self.k.extent % schedule.lanes or (not self.single and schedule.kc % schedule.lanes)
        )
        self.left_place = direct(kernel, self.left) if schedule.left == "direct" else None
        self.right_place = direct(kernel, self.right) if schedule.right == "direct" else None

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

    def widened(self, points: Points, number: int) -> Value:
        """The operand's value as the dtype that is summed in, one a lane."""
        value = points.computed[number]
        value = scalar.emit_cast(points.f, value, self.kernel.dtype, self.wide)
        return points.f.splat(value, points.lanes)

    def row_of(self, f: Function, strip: Value) -> Value:
        """The first row of a strip."""
        row = f.mul(strip, self.strips.rows)
        if self.strips.large == self.strips.count:
            return row
        return f.sub(row, most(f, f.sub(strip, self.strips.large), 0))

    def first_lanes(self, f: Function, count: Value) -> Value:
        """A mask of the first `count` lanes."""
        lanes = self.s.lanes
        return f.icmp("slt", const_lanes(I64, list(range(lanes))), f.splat(count, lanes))


def least(f: Function, value: Value, limit: Value | int) -> Value:
    """The smaller of two numbers."""
    bound = limit if isinstance(limit, Value) else const(I64, limit)
    return f.select(f.icmp("slt", value, bound), value, bound)


def most(f: Function, value: Value, limit: Value | int) -> Value:
    """The larger of two numbers."""
    bound = limit if isinstance(limit, Value) else const(I64, limit)
    return f.select(f.icmp("sgt", value, bound), value, bound)
