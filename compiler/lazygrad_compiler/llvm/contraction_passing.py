"""The right operand packed in passing, by the first tile that multiplies by it.

In: rows that lie a fixed step apart in memory, whose words (neighbours along k) have to be woven.
A task's first strip reads the rows of a panel, weaves them, multiplies by them, and leaves the
words for the other strips; where there are none, nothing is stored.  So the rows come from memory
while sums are computed, not before, and each is asked for some rows ahead: rows of a large matrix
are further apart than a processor follows by itself.  8 x 2048 x 2048 of bfloat16 takes 156 us
instead of 239 on two cores of Zen 5 (best of some hundred calls in turns), which is its 8 MB at the
read bandwidth; the products alone take 69.
"""

from __future__ import annotations

import math

from lazygrad_compiler.llvm.builder import Function, Value
from lazygrad_compiler.llvm.contraction_parts import Parts
from lazygrad_compiler.llvm.points import Points
from lazygrad_compiler.loops.operands import CACHE_LINE, long_rows

AHEAD = 32
"""Rows; with 64 and 128 it took as long."""


class Passing:
    """The panel of a tile of so many vectors that begins in column n; what k does not change is
    computed here.  mask: of the last vector.
    """

    def __init__(
        self, parts: Parts, f: Function, vectors: int, mask: Value | None, batch: Value, n: Value
    ) -> None:
        self.parts, self.f, self.vectors = parts, f, vectors
        early = [number for number in parts.right.values if parts.k not in parts.depends[number]]
        self.late = [number for number in parts.right.values if number not in early]
        self.columns: list[tuple[Points, dict[int, Value]]] = []
        for v in range(vectors):
            points = parts.points(f, parts.n, True)
            begin = f.add(n, v * parts.s.lanes)
            points.bindings.update({parts.kernel.batch: batch, parts.n: begin})
            points.active = mask if v == vectors - 1 else None
            points.emit(early)
            points.hoist(self.late, [parts.k])
            self.columns.append((points, dict(points.computed)))
        first = self.columns[0][0]
        self.rows = [
            (rows, f.offset(
                first.pointers[rows.buffer],
                f.mul(f.add(first.scalar_index(rows.start), n), rows.itemsize), "i8",
            ))
            for rows in long_rows(parts.kernel, parts.right)
        ]

    def words(self, k: Value, target: Value | None) -> list[Value]:
        """The words whose first elements are in row k, a vector for each of the panel's; stored
        from the target on.
        """
        f, parts = self.f, self.parts
        self._fetch(k)
        found = []
        for v, (points, before) in enumerate(self.columns):
            values = []
            for place in range(parts.group):
                points.bindings[parts.k] = f.add(k, place)
                points.computed = dict(before)
                points.emit(self.late)
                values.append(parts.packed(points, parts.right))
            found.append(parts.woven(f, values))
            if target is not None:
                place_of = f.offset(target, v * parts.s.lanes, parts.word)
                f.store(found[-1], place_of, parts.itemsize)
        return found

    def _fetch(self, k: Value) -> None:
        """Asks for the lines of the rows that are wanted next; past the last, too, where any
        address will do.
        """
        f, columns = self.f, self.vectors * self.parts.s.lanes
        for rows, base in self.rows:
            step, nbytes = rows.k_step * rows.itemsize, columns * rows.itemsize
            for place in range(self.parts.group):
                row = f.offset(base, f.mul(f.add(k, place + AHEAD), step), "i8")
                for begin in _starts(step, nbytes):
                    f.prefetch(f.offset(row, begin, "i8"), level=2)


def _starts(step: int, nbytes: int) -> list[int]:
    """Bytes to ask for so that all lines of a row's piece come, wherever it begins: at a multiple
    of what divides both lines and the steps from row to row and from panel to panel.
    """
    starts = list(range(0, nbytes, CACHE_LINE))
    aligned = math.gcd(step, nbytes, CACHE_LINE)
    if nbytes - 1 - starts[-1] + CACHE_LINE - aligned >= CACHE_LINE:
        starts.append(nbytes - 1)
    return starts
