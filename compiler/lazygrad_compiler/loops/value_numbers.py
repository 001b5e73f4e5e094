"""Value numbers: which instrs of different stages are the same value at the same place of the row.

Each stage has axes of its own, so the same expression occurs once for each; it is recognised by
what it computes, the stage's axes renamed to those of any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazygrad_compiler.loops.index import Affine, Dyn, Term, Var, substitute, variable
from lazygrad_compiler.loops.kernel import Instr, Stage


class ValueNumbers:
    """what: of each value of the stages seen, a number; equal values have equal numbers."""

    def __init__(self, values: Sequence[Instr]) -> None:
        self.values = values
        self.what: dict[int, int] = {}
        self._numbers: dict[tuple, int] = {}

    def of_stage(self, stage: Stage) -> set[int]:
        """Gives each value of the stage its number; returns those that vary along the row."""
        axes: dict[Term, Affine] = {
            axis: variable(Var(f"inner{place}", axis.extent))
            for place, axis in enumerate(stage.axes)
        }
        varying: set[int] = set()
        for value in stage.values:
            instr = self.values[value]
            if instr.op == "row":
                self.what[value] = self._number(("row", value))
                continue
            data: list[Any] = []
            moves = any(arg in varying for arg in instr.args)
            for item in instr.data:
                if not isinstance(item, Affine):
                    data.append(repr(item))
                    continue
                mapping = dict(axes)
                for term in item.variables():
                    if isinstance(term, Dyn):
                        moves = moves or term.value in varying
                        mapping[term] = variable(Dyn(self.what[term.value], term.extent))
                    elif term in axes:
                        moves = True
                data.append(substitute(item, mapping))
            arguments = tuple(self.what[arg] for arg in instr.args)
            self.what[value] = self._number((instr.op, instr.dtype.name, arguments, *data))
            if moves:
                varying.add(value)
        return varying

    def _number(self, key: tuple) -> int:
        return self._numbers.setdefault(key, len(self._numbers))
