"""Merging of neighbouring loops that no access tells apart.

In: a row kernel.  Out: the same kernel with fewer, longer axes.  Two neighbours merge where every
index expression steps over the inner one's end exactly into the outer one's next value; contiguous
arrays of any rank end up as one loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from lazygrad_compiler.loops.index import Affine, Div, Mod, Term, Var, combine
from lazygrad_compiler.loops.kernel import Instr, LoopKernel, Reduction, Stage, Store


def _affines(kernel: LoopKernel) -> Iterator[Affine]:
    for instr in kernel.values:
        for item in instr.data:
            if isinstance(item, Affine):
                yield item
    for stage in kernel.stages:
        for store in (*stage.stores, *stage.keeps):
            yield store.index
        for column in stage.columns:
            yield column.index
        for reduction in stage.reductions:
            if reduction.position is not None:
                yield reduction.position


def _merge_plan(axes: tuple[Var, ...], affines: list[Affine], locked: set[Term]) -> list[list[Var]]:
    """Runs of neighbouring axes that become one; axes of extent 1 are dropped."""
    runs: list[list[Var]] = []
    for axis in axes:
        if axis.extent == 1:
            continue
        if runs and axis not in locked and runs[-1][-1] not in locked:
            outer = runs[-1][-1]
            if all(a.coefficient(outer) == a.coefficient(axis) * axis.extent for a in affines):
                runs[-1].append(axis)
                continue
        runs.append([axis])
    return runs


def coalesce(kernel: LoopKernel) -> LoopKernel:
    affines = list(_affines(kernel))
    locked: set[Term] = set()
    for value in affines:
        for term, _ in value.terms:
            if isinstance(term, (Div, Mod)):
                locked |= term.inner.variables()
    mapping: dict[Term, tuple[Var, bool]] = {}

    def merged(axes: tuple[Var, ...]) -> tuple[Var, ...]:
        result = []
        for run in _merge_plan(axes, affines, locked):
            extent = 1
            for axis in run:
                extent *= axis.extent
            joint = Var(run[0].name, extent)
            for axis in run:
                mapping[axis] = (joint, axis is run[-1])
            result.append(joint)
        return tuple(result)

    row_axes = merged(kernel.row_axes)
    stage_axes = [merged(stage.axes) for stage in kernel.stages]

    def rename(value: Affine) -> Affine:
        terms: list[tuple[Term, int]] = []
        for term, c in value.terms:
            if isinstance(term, (Div, Mod)):
                terms.append((type(term)(rename(term.inner), term.divisor), c))
            elif term in mapping:
                joint, last = mapping[term]
                if last:
                    terms.append((joint, c))
            else:
                terms.append((term, c))
        return combine(value.constant, terms)

    return renamed(kernel, row_axes, stage_axes, rename)


def renamed(
    kernel: LoopKernel,
    row_axes: tuple[Var, ...],
    stage_axes: list[tuple[Var, ...]],
    rename: Callable[[Affine], Affine],
) -> LoopKernel:
    values = tuple(
        Instr(
            i.op, i.dtype, i.args, tuple(rename(x) if isinstance(x, Affine) else x for x in i.data)
        )
        if any(isinstance(x, Affine) for x in i.data)
        else i
        for i in kernel.values
    )
    stages = tuple(
        Stage(
            axes,
            stage.values,
            tuple(
                Reduction(
                    r.op, r.value, r.result, rename(r.position) if r.position is not None else None
                )
                for r in stage.reductions
            ),
            tuple(Store(s.buffer, rename(s.index), s.value) for s in stage.stores),
            tuple(Store(s.buffer, rename(s.index), s.value) for s in stage.keeps),
            tuple(replace(c, index=rename(c.index)) for c in stage.columns),
        )
        for axes, stage in zip(stage_axes, kernel.stages, strict=True)
    )
    return replace(kernel, row_axes=row_axes, stages=stages, values=values)
