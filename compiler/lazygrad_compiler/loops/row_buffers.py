"""Row buffers: a value that several stages of a row need is computed once.

In: a row kernel as lowered, all stages over the same inner sizes.  Out: the same kernel, where a
later stage reads from scratch memory what an earlier one has computed at the same position of the
row, if that costs more than a store and a load.  (Softmax's exponentials: summed in one stage,
divided in the next.)
"""

from __future__ import annotations

import math
from dataclasses import replace

from lazygrad_compiler.loops.index import Affine, Dyn, linearize, variable
from lazygrad_compiler.loops.kernel import Instr, LoopKernel, Stage, Store, needed
from lazygrad_compiler.loops.schedule import instr_cost
from lazygrad_compiler.loops.value_numbers import ValueNumbers

KEEP_COST = 8
"""Vector instructions from which on a value is kept rather than computed again."""
KEEP_BYTES = 256 * 1024
"""Of all row buffers of a kernel together: they should stay in the second level's cache."""


def keep_values(kernel: LoopKernel) -> LoopKernel:
    """The kernel with its dear values kept, where there are any."""
    if sum(bool(stage.axes) for stage in kernel.stages) < 2:
        return kernel
    return _Keeping(kernel).run()


class _Keeping:
    def __init__(self, kernel: LoopKernel) -> None:
        self.kernel = kernel
        self.values = list(kernel.values)
        self.known = ValueNumbers(self.values)
        self.first: dict[int, tuple[int, int]] = {}  # what -> stage and value that computes it
        self.slots: dict[int, int] = {}  # what -> row buffer
        self.left = KEEP_BYTES

    def run(self) -> LoopKernel:
        stages: list[Stage] = []
        for number, stage in enumerate(self.kernel.stages):
            varying = self.known.of_stage(stage)
            if stage.axes:
                for value in stage.values:
                    if value in varying:
                        self.first.setdefault(self.known.what[value], (number, value))
            if number and self._replace(number, stage, varying):
                wanted = [reduction.value for reduction in stage.reductions]
                results = {reduction.result for reduction in stage.reductions}
                wanted += [s.value for s in stage.stores if s.value not in results]
                wanted += [column.value for column in stage.columns]
                numbers = needed(self.values, wanted, [s.index for s in stage.stores])
                stage = replace(stage, values=numbers)
            stages.append(stage)
        if not self.slots:
            return self.kernel
        kept = [self.values[self.first[what][1]].dtype for what in self.slots]
        for what, slot in self.slots.items():
            number, value = self.first[what]
            stage = stages[number]
            keep = Store(slot, _position(stage), value)
            stages[number] = replace(stage, keeps=(*stage.keeps, keep))
        return replace(
            self.kernel, stages=tuple(stages), values=tuple(self.values), kept=tuple(kept)
        )

    def _replace(self, number: int, stage: Stage, varying: set[int]) -> bool:
        """Turns values of the stage into reads of row buffers; whether there were any."""
        results = {reduction.result for reduction in stage.reductions}
        stack = [reduction.value for reduction in stage.reductions]
        stack += [store.value for store in stage.stores if store.value not in results]
        stack += [column.value for column in stage.columns]
        for store in stage.stores:
            stack += [term.value for term in store.index.variables() if isinstance(term, Dyn)]
        seen: set[int] = set()
        found = False
        while stack:
            value = stack.pop()
            if value in seen or value not in varying:
                continue
            seen.add(value)
            instr, what = self.values[value], self.known.what[value]
            if self.first[what][0] < number and self._is_dear(value, varying):
                if what not in self.slots and self._take(instr, stage):
                    self.slots[what] = len(self.slots)
                if what in self.slots:
                    data = (self.slots[what], _position(stage))
                    self.values[value] = Instr("kept", instr.dtype, (), data)
                    found = True
                    continue
            stack += _operands(instr)
        return found

    def _take(self, instr: Instr, stage: Stage) -> bool:
        """Whether there is room for one more buffer, which is then taken."""
        nbytes = math.prod(axis.extent for axis in stage.axes) * instr.dtype.itemsize
        if nbytes > self.left:
            return False
        self.left -= nbytes
        return True

    def _is_dear(self, value: int, varying: set[int]) -> bool:
        """Whether the value and what it alone is made from cost more than keeping it."""
        stack, seen, cost = [value], set(), 0
        while stack:
            current = stack.pop()
            if current in seen or current not in varying:
                continue
            seen.add(current)
            instr = self.values[current]
            cost += instr_cost(instr)
            if cost >= KEEP_COST:
                return True
            stack += _operands(instr)
        return False


def _position(stage: Stage) -> Affine:
    return linearize([variable(axis) for axis in stage.axes], [a.extent for a in stage.axes])


def _operands(instr: Instr) -> list[int]:
    found = list(instr.args)
    for item in instr.data:
        if isinstance(item, Affine):
            found += [term.value for term in item.variables() if isinstance(term, Dyn)]
    return found
