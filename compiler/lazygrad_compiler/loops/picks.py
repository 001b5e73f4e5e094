"""Picks: a sum over a row that lets one element through reads that element.

In: a row kernel as lowered.  Out: the same kernel, where the sum over j of
`where(j == t, value, 0)` is the value at j = t, or 0 where the row has no such place.  (A cross
entropy's log-probability of the target class is written so, since its gradient then is
elementwise.)  A pass over the row becomes one load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.loops.index import Affine, Dyn, Term, Var, substitute, variable
from lazygrad_compiler.loops.kernel import (
    Instr,
    LoopKernel,
    Reduction,
    Stage,
    Store,
    needed,
)

KEEPS_ZERO = ("neg", "cast")
"""Ops of one input that make 0 of 0: they may stand between the choice and the sum."""


@dataclass(frozen=True, slots=True)
class _Pick:
    """value: what is let through, where the stage's axis equals value `target`; nothing: the 0
    elsewhere.  after: the ops between the choice and the sum, the outermost first.
    """

    axis: Var
    value: int
    nothing: int
    target: int
    after: tuple[int, ...]


def pick_elements(kernel: LoopKernel) -> LoopKernel:
    """The kernel with its picks as loads, where there are any."""
    varying = _varying(kernel)
    picks = {
        reduction.result: pick
        for stage in kernel.stages
        for reduction in stage.reductions
        if (pick := _pick(kernel, stage, reduction, varying)) is not None
    }
    return _Rewriting(kernel, picks, varying).run() if picks else kernel


def _varying(kernel: LoopKernel) -> list[set[Term]]:
    """For each instr, the stages' axes that its value varies along."""
    axes = {axis for stage in kernel.stages for axis in stage.axes}
    found: list[set[Term]] = []
    for instr in kernel.values:
        along: set[Term] = set()
        for arg in instr.args:
            along |= found[arg]
        for item in instr.data:
            if isinstance(item, Affine):
                for term in item.variables():
                    along |= found[term.value] if isinstance(term, Dyn) else {term} & axes
        found.append(along)
    return found


def _pick(
    kernel: LoopKernel, stage: Stage, reduction: Reduction, varying: list[set[Term]]
) -> _Pick | None:
    values = kernel.values
    if reduction.op != "sum" or len(stage.axes) != 1:
        return None
    (axis,) = stage.axes
    number, after = reduction.value, []
    while values[number].op in KEEPS_ZERO:
        after.append(number)
        number = values[number].args[0]
    if values[number].op != "where":
        return None
    condition, chosen, otherwise = values[number].args
    nothing = values[otherwise]
    if nothing.op != "const" or nothing.data[0] != 0 or values[condition].op != "eq":
        return None
    for target, place in (values[condition].args, values[condition].args[::-1]):
        if values[place].op != "index" or varying[target]:
            continue
        if values[place].data[0] != variable(axis) or values[target].dtype is not dtypes.int64:
            continue
        if all(_moves(values[value], axis) for value in needed(values, [chosen])
               if axis in varying[value]):  # fmt: skip
            return _Pick(axis, chosen, otherwise, target, tuple(after))
    return None


def _moves(instr: Instr, axis: Var) -> bool:
    """Whether the instr can be computed at a place that is known at run time only: a check of an
    index reports by its number, and a quotient simplifies by what its variable is.
    """
    return instr.op not in ("dynamic", "checked", "kept") and not any(
        axis in item.variables() and axis not in {term for term, _ in item.terms}
        for item in instr.data
        if isinstance(item, Affine)
    )


class _Rewriting:
    def __init__(
        self, kernel: LoopKernel, picks: dict[int, _Pick], varying: list[set[Term]]
    ) -> None:
        self.kernel, self.picks, self.varying = kernel, picks, varying
        self.values: list[Instr] = []
        self.number: dict[int, int] = {}  # of each former value

    def run(self) -> LoopKernel:
        for number, instr in enumerate(self.kernel.values):
            pick = self.picks.get(number)
            made = self._renumbered(instr, self.number) if pick is None else None
            if made is not None and made.op == "row":
                made = replace(made, data=(len(self.values),))
            self.number[number] = self._add(made) if made is not None else self._picked(pick)
        stages: list[Stage] = []
        for stage in self.kernel.stages:
            stages += self._stages(stage)
        return replace(self.kernel, stages=tuple(stages), values=tuple(self.values))

    def _add(self, instr: Instr) -> int:
        self.values.append(instr)
        return len(self.values) - 1

    def _renumbered(
        self, instr: Instr, number: dict[int, int], places: dict[Term, Affine] | None = None
    ) -> Instr:
        """The instr over new numbers, its axes replaced."""
        return replace(
            instr,
            args=tuple(number[arg] for arg in instr.args),
            data=tuple(
                self._placed(item, number, places or {}) if isinstance(item, Affine) else item
                for item in instr.data
            ),
        )

    def _placed(
        self, index: Affine, number: dict[int, int], places: dict[Term, Affine]
    ) -> Affine:
        found: dict[Term, Affine] = {
            term: variable(Dyn(number[term.value], term.extent))
            for term in index.variables()
            if isinstance(term, Dyn)
        }
        return substitute(index, found | places)

    def _picked(self, pick: _Pick | None) -> int:
        """The value at the picked place, or 0, in the sum's stead."""
        assert pick is not None
        values, axis = self.kernel.values, pick.axis
        place = variable(Dyn(self.number[pick.target], axis.extent))
        there = self._add(Instr("bounds", dtypes.bool_, (), (place, 0, axis.extent)))
        number = dict(self.number)
        for value in needed(values, [pick.value]):
            if axis not in self.varying[value]:
                continue
            instr = self._renumbered(values[value], number, {axis: place})
            if instr.op == "load":
                mask = there
                if instr.args:
                    mask = self._add(Instr("and", dtypes.bool_, (*instr.args, there)))
                instr = replace(instr, args=(mask,))
            number[value] = self._add(instr)
        chosen = (there, number[pick.value], number[pick.nothing])
        result = self._add(Instr("where", values[pick.value].dtype, chosen))
        for value in reversed(pick.after):
            result = self._add(replace(values[value], args=(result,)))
        return result

    def _stages(self, stage: Stage) -> list[Stage]:
        """What the stage stores of its picks, before it may write over what they read, and the
        stage without them.
        """
        number = self.number
        picked = [store for store in stage.stores if store.value in self.picks]
        reductions = tuple(
            replace(reduction, value=number[reduction.value], result=number[reduction.result])
            for reduction in stage.reductions
            if reduction.result not in self.picks
        )
        stores = tuple(self._store(store) for store in stage.stores if store not in picked)
        columns = tuple(replace(column, value=number[column.value]) for column in stage.columns)
        results = {reduction.result for reduction in reductions}
        wanted = [reduction.value for reduction in reductions]
        wanted += [store.value for store in stores if store.value not in results]
        wanted += [column.value for column in columns]
        made = []
        if picked:
            moved = tuple(self._store(store) for store in picked)
            values = self._needed([store.value for store in moved], moved)
            made.append(Stage((), values, (), moved))
        if reductions or stores or columns:
            values = self._needed(wanted, stores)
            made.append(Stage(stage.axes, values, reductions, stores, columns=columns))
        return made

    def _needed(self, wanted: list[int], stores: Sequence[Store]) -> tuple[int, ...]:
        return needed(self.values, wanted, [store.index for store in stores])

    def _store(self, store: Store) -> Store:
        return Store(
            store.buffer, self._placed(store.index, self.number, {}), self.number[store.value]
        )
