"""Schedules: how a row kernel runs on a target.

In: a loop kernel and a target.  Out: a `LoopSchedule`, plain data: which axis is the vector, how
many lanes, how long a task is. A schedule can be printed, stored and given back; it never changes
what is computed except for the order in which reductions add.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lazygrad_compiler.loops.index import Affine, Dyn, Var
from lazygrad_compiler.loops.kernel import Instr, LoopKernel, Stage
from lazygrad_compiler.loops.online import online_sum
from lazygrad_compiler.target import Target

COSTS = {
    "exp": 12,
    "exp2": 12,
    "expm1": 18,
    "log": 14,
    "log2": 14,
    "log10": 14,
    "log1p": 18,
    "sin": 24,
    "cos": 24,
    "tan": 30,
    "asin": 20,
    "acos": 20,
    "atan": 20,
    "sinh": 24,
    "cosh": 24,
    "tanh": 18,
    "asinh": 30,
    "acosh": 30,
    "atanh": 24,
    "erf": 24,
    "erfc": 30,
    "pow": 60,
    "atan2": 30,
    "sigmoid": 18,
    "gcd": 200,
    "lgamma": 120,
    "digamma": 150,
    "erfinv": 120,
    "zeta": 1500,
    "gammainc": 5000,
    "gammaincc": 5000,
    "polynomial": 16,
    "poisson_quantile": 500,
    "div": 4,
    "sqrt": 6,
    "idiv": 20,
    "rem": 40,
    "philox": 60,
    "dynamic": 8,
    "const": 0,
    "row": 0,
    "checked": 0,
    "load": 1,
    "kept": 1,
}
"""Vector instructions an op takes, roughly; only ratios matter."""

TASK_CYCLES = 40_000
"""Work below which handing a task to another thread costs more than it saves: some 10 microseconds.
"""


RUN_BYTES, RUNS, RUN_CYCLES = 1 << 22, 32, 40 * TASK_CYCLES
"""Memory that a thread goes through at a stretch, unless that leaves fewer stretches than this or
makes one longer than this.  Where threads take turns at short stretches, each fetches ahead into
what the others read: on two cores of Zen 5 logsumexp of 4096 x 4096 takes 1.45 ms instead of 2.9
with rows one by one (2.7 on one core), softmax 2.65 instead of 3.3, gelu of 16M 3.2 instead of 3.8.
Cross entropy of 1024 x 32000 and its gradient takes 5.5 with 4 MiB, 6.0 with 1.
"""

STREAM_BYTES = 32 << 20
"""A kernel with so many bytes in its buffers writes past the caches: whoever reads the results
finds little of them there anyhow, and a line that is written whole need not be read first.  Adding
two arrays of 16M float32 takes 2.1 ms instead of 4.3 on two cores of Zen 5, layer norm of 8192 x
1024 takes 1.2 instead of 1.75.
"""
FETCHED_FROM = 2
"""Second-level caches that a kernel's buffers fill before rows are fetched ahead.  Those that wait
in L3 gain like those in memory: group norm and SiLU of 8 x 320 x 32 x 32 takes 383 us instead of
416, layer norm of 1024 x 1024 46 instead of 61, of 256 x 1024 12 instead of 14; most do rows in
short pieces, where the processor has no stream to follow: batch norm's gradient over 32 x 64 x 32
x 32 takes 0.92 ms instead of 1.29, over 32 x 256 x 8 x 8 0.22 instead of 0.35.
"""
PREFETCH_BYTES = (1024, 256 * 1024)
"""Least and most bytes of a row whose successor is fetched while it is computed with: softmax of
4096 x 4096 takes 2.9 ms instead of 3.9, a sum of 16M float32 on one core 1.40 instead of 1.65, a
matrix of 4096 x 4096 times a vector 1.73 instead of 2.38.
"""

FETCHING_COST = 10
"""Of a point of a stage from which on its arithmetic leaves memory time for another row."""

ABREAST, ABREAST_COST = 4, 10
"""Rows of a block that are computed together where a point costs no more than this.  Each is the
next row of a stretch of its own, so memory is read in as many long runs, and what is summed over
rows is loaded and stored once for all.  A sum over the rows of 8192 x 2048 takes 1.38 ms instead of
1.80 on two cores of Zen 5, relu's gradient of 8192 x 3072 with its bias's 8.7 instead of 11.5;
gelu's takes 16.0 instead of 14.5, a layer norm's as long.
"""

ONLINE_LENGTH, ONLINE_REGISTERS, ONLINE_AHEAD = 1024, 8, 2048
"""From which length on a row's maximum and sum of exponentials go in one pass, so many registers
for one more exponential, and how many elements ahead memory is asked for what comes.  The
processor's own fetching is not far enough ahead of so much arithmetic: logsumexp of 300 x 50257
takes 1.09 ms instead of 1.25 to 1.46, in two passes 1.46.
"""

STRIDED_CHUNK = 64
"""Elements of a chunk whose loads are far apart: few enough that the cache lines they touch are
still there for the next index along which those loads are neighbours.
"""


@dataclass(frozen=True, slots=True)
class LoopSchedule:
    """vector: "row" (the last row axis), "inner" (the last axis of each stage) or "none". lanes: of
    each stage; all the same for vectors of rows.  chunk: elements of a vectorised row axis in one
    task.  grain: tasks that a thread takes at a time. order: the row axes, the vectorised one last.
    stream: stores go past the caches where they can.  prefetch: the stage that fetches what it
    reads for the next row, too; -1 for none.  abreast: rows of a block that are computed together.
    online: stages that go in one pass with the one after them (`online.py`).  ahead: how many
    elements further along the row `prefetch` fetches; 0 for the next row.
    """

    vector: str
    lanes: tuple[int, ...]
    chunk: int
    chunks_outermost: bool
    grain: int
    row_order: tuple[int, ...]
    inner_order: tuple[tuple[int, ...], ...]
    stream: bool = False
    prefetch: int = -1
    abreast: int = 1
    online: tuple[int, ...] = ()
    ahead: int = 0


def instr_cost(instr: Instr) -> int:
    return COSTS.get(instr.op, 1)


def contiguity(kernel: LoopKernel, var: Var) -> tuple[float, float]:
    """(stride-one minus strided accesses, stores counted twice; accesses that vary) along a
    variable.
    """
    good = varying = 0.0
    for stage in kernel.stages:
        trips = math.prod(axis.extent for axis in stage.axes)
        inner = set(stage.axes)
        accesses: list[tuple[Affine, int]] = [
            (kernel.values[n].data[1], 1) for n in stage.values if kernel.values[n].op == "load"
        ]
        accesses += [(store.index, 2) for store in stage.stores]
        for index, weight in accesses:
            variables = index.variables()
            if var not in variables:
                continue
            weight = weight * trips if variables & inner else weight
            varying += weight
            # a step of 2, to the next complex number, is contiguous but for a shuffle
            good += weight if index.coefficient(var) in (1, 2) else -weight
    total = sum(math.prod(axis.extent for axis in stage.axes) for stage in kernel.stages)
    return good / max(total, 1), varying


@dataclass(frozen=True, slots=True)
class _Choice:
    """A candidate for the vectorised axis: its position, how well it reads, its length."""

    position: int
    score: float
    extent: int


def _best_axis(kernel: LoopKernel, axes: Sequence[Var], every: bool) -> _Choice | None:
    """The axis along which most accesses are contiguous, the later one among equals; None where
    there is none (unless `every`, axes that no access varies along do not count).
    """
    best: _Choice | None = None
    for position, axis in enumerate(axes):
        good, varying = contiguity(kernel, axis)
        if not varying and not every:
            continue
        score = good - (100 if axis.extent < 4 else 0)
        if best is None or score >= best.score:
            best = _Choice(position, score, axis.extent)
    return best


def _vector_axis(row: _Choice | None, inner: Sequence[_Choice]) -> tuple[str, int]:
    """Which loops the vector runs along, and the longest of them."""
    if inner:
        long = max(choice.extent for choice in inner)
        short = long < 8 and row is not None and row.extent >= 16
        wins = not short and (
            row is None or row.extent < 4 or sum(c.score for c in inner) + 0.5 >= row.score
        )
        if wins and long > 1:
            return "inner", long
    return ("row", row.extent) if row is not None else ("none", 1)


def _base_lanes(kernel: LoopKernel, target: Target, vector: str) -> int:
    """One vector register of the kernel's main dtype."""
    if vector == "none":
        return 1
    sizes = [i.dtype.itemsize for i in kernel.values if i.op not in ("index", "dynamic")]
    narrowest = min((buffer.dtype.itemsize for buffer in kernel.buffers), default=4)
    return target.lanes(8 * (min(max(sizes, default=4), 8) if narrowest >= 8 else 4))


def _lanes(base: int, most: int, extent: int, cost: int) -> int:
    """Lanes of light loops: several registers at a time, since additions would wait for each other
    otherwise, and counting would cost as much as the work.
    """
    lanes = base
    while lanes < base * most and cost * (lanes // base) < 10 and lanes * 4 <= extent:
        lanes *= 2
    while lanes > 1 and lanes >= extent * 2:
        lanes //= 2
    return lanes


SHORT_ROW = 4
"""Vectors of a row that light elementwise loops compute side by side, so that indices are found
once."""
DEAR_FUNCTION = 12
"""Cost of functions that are long chains of instructions, each of which waits for the one before.
"""
DEAR = (18, 60)
"""Cost of such functions in elementwise loops from which on four vectors are computed side by side,
and from which on one again: then there are several functions that do not wait for each other (four
vectors of an LSTM's gates take 1.6 times as long as one).  Random bits are computed for two, since
code grows, and with it the time to compile it.  On Zen 5, 512 x 1024 float32: gelu 78 us instead
of 96, gelu(x x + x) sigmoid(x) + exp(-x x) 156 instead of 181, uniform numbers 184 instead of 242,
normal ones 482 instead of 610; a single exponential is slower so (42 instead of 32).
"""


def _abreast_lanes(
    base: int,
    extent: int,
    kernel: LoopKernel,
    numbers: Iterable[int],
    target: Target,
    strided: bool,
) -> int:
    """Lanes of elementwise loops that compute those instrs.  Short rows of light ones go in one
    vector: their indices cost as much as their work (512 x 27 x 32 joined of pieces: 224 us instead
    of 298; 16 x 61 added: 0.25 instead of 0.36).
    """
    least, most = DEAR
    instrs = [kernel.values[number] for number in numbers]
    functions = sum(cost for cost in map(instr_cost, instrs) if cost >= DEAR_FUNCTION)
    random = any(instr.op == "philox" for instr in instrs)
    if extent <= SHORT_ROW * base and functions < least and not random and not strided:
        whole = -(-max(extent, 1) // base) * base
        return _lanes(1 << (whole.bit_length() - 1), 1, extent, functions)
    if target.registers < 32 or not (random or least <= functions < most):
        return _lanes(base, 1, extent, functions)
    lanes = base * (2 if random else 4)
    while lanes > base and lanes * 4 > extent:
        lanes //= 2
    return _lanes(lanes, 1, extent, functions)


def schedule_loops(kernel: LoopKernel, target: Target) -> LoopSchedule:
    """The default schedule, by contiguity and by counting instructions."""
    cost = sum(instr_cost(instr) for instr in kernel.values)
    row = _best_axis(kernel, kernel.row_axes, every=False)
    inner: list[_Choice] = []
    inner_order: list[tuple[int, ...]] = []
    for stage in kernel.stages:
        best = _best_axis(kernel, stage.axes, every=True)
        if best is None:
            inner_order.append(())
            continue
        inner.append(best)
        inner_order.append(_last(len(stage.axes), best.position))
    if kernel.block:  # its rows share sums, so they go one by one
        row = None
    vector, extent = _vector_axis(row, inner)
    base = _base_lanes(kernel, target, vector)
    reduces = any(stage.reductions for stage in kernel.stages)
    most = 8 if reduces else 1
    lanes = [_lanes(base, most, extent, cost)] * len(kernel.stages)
    if vector == "row" and not reduces:
        every = range(len(kernel.values))
        strided = row is not None and _strided(kernel, kernel.row_axes[row.position])
        lanes = [_abreast_lanes(base, extent, kernel, every, target, strided)] * len(kernel.stages)
    if vector == "inner":
        for number, (stage, inner_axes) in enumerate(zip(kernel.stages, inner_order, strict=True)):
            if inner_axes:
                extent = stage.axes[inner_axes[-1]].extent
                own = _inner_cost(kernel, stage)
                lanes[number] = _lanes(base, 4 if stage.reductions else 2, extent, own)
                if lanes[number] == base and not stage.reductions:
                    varying = _varying(kernel, stage)
                    lanes[number] = _abreast_lanes(base, extent, kernel, varying, target, False)
    online = _online(kernel, inner_order) if vector == "inner" else ()
    for number in online:
        lanes[number], lanes[number + 1] = base * ONLINE_REGISTERS, base
    elements = sum(math.prod(axis.extent for axis in stage.axes) for stage in kernel.stages)
    # rows of several registers abreast take as many times the instructions
    wide = base if vector == "row" and not reduces else max(lanes, default=1)
    work = (max(cost, 1) / wide * 1.5 + 0.2) * max(elements, 1)
    order, chunk, strided = tuple(range(len(kernel.row_axes))), 1, False
    if vector == "row" and row is not None:
        order = _last(len(kernel.row_axes), row.position)
        chunk = max(int(TASK_CYCLES / work) // lanes[0] * lanes[0], lanes[0])
        chunk = min(chunk, -(-extent // lanes[0]) * lanes[0])
        strided = _strided(kernel, kernel.row_axes[row.position])
        if strided:
            chunk = min(chunk, max(STRIDED_CHUNK, lanes[0]))
        work *= chunk
    work *= max(kernel.block, 1)
    nbytes = sum(buffer.size * buffer.dtype.itemsize for buffer in kernel.buffers)
    points = math.prod(axis.extent for axis in kernel.row_axes)
    tasks = -(-points // (chunk * max(kernel.block, 1)))
    grain = max(1, int(TASK_CYCLES / work))
    if vector == "inner":  # stages have costs of their own; the sum above is of all, for each
        work = max(kernel.block, 1) * sum(
            (max(_inner_cost(kernel, stage), 1) / wide * 1.5 + 0.2)
            * math.prod(axis.extent for axis in stage.axes)
            for stage, wide in zip(kernel.stages, lanes, strict=True)
        )
    grain = max(grain, stretch(work, nbytes, tasks))
    stream = nbytes >= STREAM_BYTES
    fetching, ahead = -1, 0
    if vector == "inner" and nbytes >= FETCHED_FROM * target.l2_bytes:
        fetching, ahead = (online[0], ONLINE_AHEAD) if online else (_fetching_stage(kernel), 0)
    return LoopSchedule(
        vector, tuple(lanes), chunk, strided, grain, order, tuple(inner_order), stream, fetching,
        _abreast(kernel), online, ahead,
    )


def stretch(cycles: float, nbytes: int, tasks: int) -> int:
    """Tasks that make a stretch of memory for a thread, as far as it is one.  cycles: of one task.
    nbytes: of all together.
    """
    run = RUN_BYTES * tasks // max(nbytes, 1)
    return min(run, tasks // RUNS, int(RUN_CYCLES / max(cycles, 1)))


def _online(kernel: LoopKernel, inner_order: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The stages that go in one pass with the ones after them: those of long rows."""
    return tuple(
        number
        for number, (stage, order) in enumerate(zip(kernel.stages, inner_order, strict=True))
        if order
        and stage.axes[order[-1]].extent >= ONLINE_LENGTH
        and online_sum(kernel, number) is not None
    )


def _abreast(kernel: LoopKernel) -> int:
    """Several rows of a block at a time where all that they take is memory."""
    first, *later = kernel.stages
    light = not later and not first.reductions and _inner_cost(kernel, first) <= ABREAST_COST
    return ABREAST if kernel.block and light else 1


def _inner_cost(kernel: LoopKernel, stage: Stage) -> int:
    """What one point of the stage costs; the rest is computed once a row."""
    return sum(instr_cost(kernel.values[number]) for number in _varying(kernel, stage))


def _varying(kernel: LoopKernel, stage: Stage) -> set[int]:
    """The instrs that are computed at each point of the stage."""
    varies: set[int] = set()
    axes = set(stage.axes)
    for number in stage.values:
        instr = kernel.values[number]
        found = any(arg in varies for arg in instr.args) and instr.op != "row"
        for item in instr.data:
            if isinstance(item, Affine):
                terms = item.variables()
                found = found or bool(terms & axes)
                found = found or any(isinstance(t, Dyn) and t.value in varies for t in terms)
        if found:
            varies.add(number)
    return varies


def _fetching_stage(kernel: LoopKernel) -> int:
    """The stage in which memory has time to send the next row, of those that reduce the row or read
    inputs again after a first pass over it: one that reads most of them, one with arithmetic enough
    (`FETCHING_COST`), one that stores nothing, the dearest, in this order; -1 where rows are too
    short or too long for that to help.  (8192 x 1024: layer norm 0.70 ms with the variance's stage,
    0.87 with the last, which stores.  Its gradients 2.80 with the first stage that stores, 3.02
    with the last that does not, which has no work but two products; those of RMS norm 2.17 and
    2.41.)
    """
    itemsize = max((buffer.dtype.itemsize for buffer in kernel.buffers), default=1)
    best, most = -1, (0, False, False, 0)
    passes = 0
    for number, stage in enumerate(kernel.stages):
        nbytes = math.prod(axis.extent for axis in stage.axes) * itemsize
        if not stage.axes or not PREFETCH_BYTES[0] <= nbytes <= PREFETCH_BYTES[1]:
            continue
        passes += 1
        work = _inner_cost(kernel, stage)
        reads = len({load.data[0] for load in _inputs(kernel, stage)})
        cost = reads, work >= FETCHING_COST, not stage.stores, work
        if (passes > 1 or stage.reductions) and reads and cost >= most:
            best, most = number, cost
    return best


def _inputs(kernel: LoopKernel, stage: Stage) -> Iterator[Instr]:
    """The stage's loads along a row of what the kernel does not write itself."""
    rows, along = set(kernel.row_axes), set(stage.axes)
    for number in stage.values:
        instr = kernel.values[number]
        if instr.op == "load" and not kernel.buffers[instr.data[0]].written:
            varies = instr.data[1].variables()
            own = varies & rows or any(isinstance(term, Dyn) for term in varies)
            if own and varies & along:
                yield instr


def _strided(kernel: LoopKernel, axis: Var) -> bool:
    """Whether a load steps through memory along the axis, as in a transposition."""
    return any(
        instr.op == "load" and abs(instr.data[1].coefficient(axis)) > 2 for instr in kernel.values
    )


def _last(count: int, position: int) -> tuple[int, ...]:
    """All positions in order, the given one last."""
    return (*(p for p in range(count) if p != position), position)
