"""Packing along k in runs: where k goes through rows of an image, one row after another.

In: an operand whose index expressions have quotients and remainders of k.  With k = run * q + p
they are fixed steps along p (`loops/operands.py`, run_along), so a run is read by plain vectors,
its masks found out for all of a vector by one comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from lazygrad_compiler.llvm.builder import Function, Value, const, const_lanes
from lazygrad_compiler.llvm.contraction_parts import I64, Parts
from lazygrad_compiler.llvm.points import Points, dependences
from lazygrad_compiler.llvm.transpose import transpose
from lazygrad_compiler.loops.index import Affine
from lazygrad_compiler.loops.kernel import Instr
from lazygrad_compiler.loops.operands import Operand, in_run, place_of, quotient_of


class Runs:
    """One operand's values over runs."""

    def __init__(self, parts: Parts, operand: Operand) -> None:
        self.parts, self.operand = parts, operand
        self.run, self.lanes = parts.s.run, parts.along
        self.quotient = quotient_of(parts.k, self.run)
        self.place = place_of(parts.k, self.run)
        self.values = [self._in_run(instr) for instr in parts.kernel.values]
        self.varies = dependences(self.values)

    def _in_run(self, instr: Instr) -> Instr:
        data = tuple(
            in_run(item, self.parts.k, self.run) if isinstance(item, Affine) else item
            for item in instr.data
        )
        return replace(instr, data=data)

    def row(self, f: Function, batch: Value, number: Value) -> Points:
        """The state for one row (or column) of the operand; what k does not change is computed."""
        points = self.parts.points(f, self.place, False)
        points.values = self.values
        points.bindings.update({self.parts.kernel.batch: batch, self.operand.free: number})
        changing = {self.quotient, self.place}
        points.emit(n for n in self.operand.values if not changing & self.varies[n])
        points.hoist(self.operand.values, changing)
        return points

    def at_run(self, row: Points, q: Value) -> Points:
        """The state within the run of that number."""
        points = self._copy(row)
        points.bindings[self.quotient] = q
        points.emit(n for n in self.operand.values if self.place not in self.varies[n])
        return points

    def vector(self, at_run: Points, place: Value, active: Value | None) -> Value:
        """`lanes` neighbours from a place of the run on, packed: one vector of words."""
        points = self._copy(at_run)
        points.bindings[self.place] = place
        points.active = active
        points.emit(self.operand.values)
        return self.parts.along_k(points, self.operand)

    def _copy(self, points: Points) -> Points:
        made = Points(
            points.f, self.values, points.pointers, points.error, self.place, self.lanes, False
        )
        made.bindings.update(points.bindings)
        made.computed.update(points.computed)
        made.hoisted.update(points.hoisted)
        return made

    def vectors(self) -> Iterable[tuple[int, Value | None]]:
        """Where the vectors of a run begin, with the mask of the last one where it is short."""
        for begin in range(0, self.run, self.lanes):
            left = self.run - begin
            short = left < self.lanes
            yield begin, (
                const_lanes("i1", [lane < left for lane in range(self.lanes)]) if short else None
            )

    @contextmanager
    def loop(self, f: Function, k0: Value, k_end: Value) -> Iterator[tuple[Value, Value]]:
        """Over the runs of a part of k: the run's number, and its first k counted from k0."""
        begin, end = f.udiv(k0, self.run), f.udiv(k_end, self.run)
        with f.loop(begin, end, 1, hint="run") as loop:
            yield loop.index, f.sub(f.mul(loop.index, self.run), k0)


def pack_row(
    runs: Runs, f: Function, batch: Value, row: Value, k0: Value, k_end: Value, target: Value
) -> None:
    """k0..k_end-1 of one row of the left operand, k contiguous.

    A short vector at the end of a run is stored whole: the next run, or the row's padding, lies
    behind it.
    """
    parts = runs.parts
    outside = runs.row(f, batch, row)
    with runs.loop(f, k0, k_end) as (q, first):
        inside = runs.at_run(outside, q)
        for begin, active in runs.vectors():
            value = runs.vector(inside, const(I64, begin), active)
            place = f.offset(target, f.add(first, begin), parts.packed_left)
            f.store(value, place, parts.form.left.itemsize)


def pack_columns(
    runs: Runs, f: Function, batch: Value, columns: list[Value], k0: Value, k_end: Value,
    target: Value,
) -> None:
    """k0..k_end-1 of `lanes` columns of the right operand, transposed in registers."""
    parts = runs.parts
    outside = [runs.row(f, batch, column) for column in columns]
    with runs.loop(f, k0, k_end) as (q, first):
        inside = [runs.at_run(points, q) for points in outside]
        for begin, active in runs.vectors():
            rows = [runs.vector(points, const(I64, begin), active) for points in inside]
            word = parts.words(f, f.add(first, begin))
            for lane, row in enumerate(transpose(f, rows)[: parts.s.words(runs.run - begin)]):
                place = f.mul(f.add(word, lane), parts.s.nr)
                f.store(row, f.offset(target, place, parts.word), parts.itemsize)
