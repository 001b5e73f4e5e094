"""The end of a contraction: sums from shared memory through the epilogue's instrs to where they go.

A block leaves some rows of its tile of sums in shared memory, row-major; its threads take them up
again in the order in which the results lie in memory, so that stores are wide and side by side
whatever the micro-kernel's layout was.
"""

from __future__ import annotations

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.ptx.builder import KernelFunction, element_bytes
from lazygrad_compiler.ptx.loops import emit_stores, make_points
from lazygrad_compiler.ptx.operands import Side, vector_lanes


class Epilogue:
    """wide: dtype of the sums.  columns: of a tile; pitch: elements from row to row.  threads: that
    take part; thread: which of them this is, that of the block where nothing is said.
    """

    def __init__(
        self,
        f: KernelFunction,
        kernel: ContractionKernel,
        wide: DType,
        columns: int,
        pitch: int,
        threads: int,
        thread: Value | None = None,
    ) -> None:
        self.f, self.kernel, self.wide = f, kernel, wide
        self.thread = thread
        self.columns, self.pitch, self.threads = columns, pitch, threads
        self.element = scalar.memory_type(wide)
        self.by_rows = self._by_rows()
        self.lanes = self._lanes() if self.by_rows else 1

    def _by_rows(self) -> bool:
        """Whether results lie side by side along n; else they do along m."""
        score = 0
        for store in self.kernel.epilogue.stores:
            score += store.index.coefficient(self.kernel.n) == 1
            score -= store.index.coefficient(self.kernel.m) == 1
        return score >= 0

    def _lanes(self) -> int:
        kernel = self.kernel
        sizes = [kernel.buffers[store.buffer].dtype.itemsize for store in kernel.epilogue.stores]
        most = 16 // max([*sizes, element_bytes(self.element)], default=4)
        side = Side(kernel.n, 0, kernel.epilogue.values)
        lanes = vector_lanes(kernel, side, kernel.n, most)
        for store in kernel.epilogue.stores:
            if store.index.coefficient(kernel.n) != 1 or len(store.index.variables()) > 3:
                lanes = 1
        while lanes > 1 and self.columns % lanes:
            lanes //= 2
        return lanes

    def run(
        self, sums: Value, rows: int, batch: Value, first_row: Value, first_column: Value
    ) -> None:
        """Stores `rows` rows.  sums: their address in shared memory.  All threads take part; the
        sums have been written and are visible.
        """
        f, kernel, lanes = self.f, self.kernel, self.lanes
        across = self.columns // lanes
        thread = f.thread() if self.thread is None else self.thread
        with f.grid_stride(thread, const("i32", rows * across), self.threads, "sum") as item:
            if self.by_rows:
                row, column = f.udiv(item, across), f.urem(item, across)
                if lanes > 1:
                    column = f.mul(column, lanes)
            else:
                row, column = f.urem(item, rows), f.udiv(item, rows)
            m, n = f.add(first_row, f.wide(row)), f.add(first_column, f.wide(column))
            inside = f.and_(f.icmp("slt", m, kernel.m.extent), f.icmp("slt", n, kernel.n.extent))
            with f.when(inside, "inside"):
                points = make_points(f, kernel, kernel.n, lanes)
                points.bindings.update({kernel.batch: batch, kernel.m: m, kernel.n: n})
                place = f.add(f.mul(row, self.pitch), column)
                type_ = scalar.memory_type(self.wide, lanes)
                align = element_bytes(self.element)
                if self.pitch % lanes == 0:
                    align *= lanes
                total = f.load(type_, f.offset(sums, place, self.element), align)
                total = scalar.emit_cast(f, total, self.wide, kernel.dtype)
                self._finish(points, total)

    def _finish(self, points, total: Value) -> None:
        kernel = self.kernel
        others = []
        for number in kernel.epilogue.values:
            if kernel.values[number].op == "accumulator":
                points.computed[number] = total
            else:
                others.append(number)
        points.emit(others)
        emit_stores(points, kernel, kernel.epilogue.stores)


