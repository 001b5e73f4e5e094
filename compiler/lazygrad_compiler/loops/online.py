"""Online sums: a maximum and the sum of exponentials below it, in one pass over the row.

Softmax's statistics take two passes as they are written: the maximum first, then the sum of
exp(x - maximum).  Where a later maximum is met, the sum so far can be scaled to it instead
(Milakov and Gimelshein, Online normalizer calculation for softmax, 2018).  That is a schedule of
two stages of a row kernel, not another kernel: `online_sum` says which pairs of stages allow it,
`llvm/online.py` emits them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.loops.kernel import Instr, LoopKernel, Stage
from lazygrad_compiler.loops.value_numbers import ValueNumbers

DTYPES = (dtypes.float32, dtypes.float64)


@dataclass(frozen=True, slots=True)
class OnlineSum:
    """value: what both stages go over, as the first computes it.  top, total: the results of the
    two reductions.  guarded: where the maximum is infinite, 0 is subtracted in its stead.
    """

    value: int
    top: int
    total: int
    guarded: bool


def online_sum(kernel: LoopKernel, number: int) -> OnlineSum | None:
    """What stage `number` and the one after it are, where they can go in one pass; else None."""
    if number < 0 or number + 1 >= len(kernel.stages):
        return None
    first, second = kernel.stages[number : number + 2]
    extents = [[axis.extent for axis in stage.axes] for stage in (first, second)]
    if not first.axes or extents[0] != extents[1] or not (_only(first) and _only(second)):
        return None
    (highest,), (total,) = first.reductions, second.reductions
    values, power = kernel.values, kernel.values[total.value]
    if highest.op != "max" or total.op != "sum" or power.op != "exp":
        return None
    if power.dtype not in DTYPES or values[power.args[0]].op != "sub":
        return None
    value, shift = values[power.args[0]].args
    guarded = _guards(values, shift, highest.result)
    if not guarded and shift != highest.result:
        return None
    known = ValueNumbers(values)
    known.of_stage(first)
    known.of_stage(second)
    if known.what[value] != known.what[highest.value]:
        return None
    return OnlineSum(highest.value, highest.result, total.result, guarded)


def _only(stage: Stage) -> bool:
    """Whether the stage is one reduction and nothing else at its points."""
    if len(stage.reductions) != 1 or stage.keeps or stage.columns:
        return False
    return all(store.value == stage.reductions[0].result for store in stage.stores)


def _guards(values: Sequence[Instr], shift: int, top: int) -> bool:
    """Whether `shift` is the maximum, or 0 where that is infinite."""
    if values[shift].op != "where":
        return False
    condition, nothing, other = (values[arg] for arg in values[shift].args)
    if values[shift].args[2] != top or condition.op != "eq" or nothing.op != "const":
        return False
    size, infinity = (values[arg] for arg in condition.args)
    return (
        other.op == "row"
        and nothing.data[0] == 0
        and size.op == "abs"
        and size.args == (top,)
        and infinity.op == "const"
        and infinity.data[0] == math.inf
    )
