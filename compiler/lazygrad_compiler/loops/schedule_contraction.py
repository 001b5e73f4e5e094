"""Schedules of contractions: register tile, cache blocks, packing, by the scheme of Goto and van de
Geijn (TOMS 2008), chosen by counting cycles.

The rows of the result are cut into strips, whose sizes differ by one at most, and its columns into
panels of a few vectors, so that no register tile holds rows beyond the end and at most one vector
of a panel lanes beyond it.  A task computes some strips by some panels.  For each part of k it
packs its strips of the left operand (they stay in L2), then panel by panel the right one (L1), and
runs the micro-kernel on tiles held in registers.  Between parts of k the tiles rest in scratch
memory.  An operand is not packed where reading it in place costs less.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.operands import (
    CACHE_LINE,
    Direct,
    Operand,
    accumulator_dtype,
    computing,
    contiguous_stores,
    direct,
    finishing,
    has_quotients,
    in_rows,
    is_dear,
    is_plain,
    long_rows,
    operands,
    phases_along,
    run_along,
    steps_in_run,
    stride_along,
)
from lazygrad_compiler.loops.products import (
    Form,
    form_of,
    group_of,
    packed_operands,
    plain,
    words_of,
)
from lazygrad_compiler.loops.register_tiles import FMAS_PER_CYCLE, Tiling, part_of, tilings
from lazygrad_compiler.loops.rounding import ceil_div, round_up
from lazygrad_compiler.target import Target


@dataclass(frozen=True, slots=True)
class ContractionSchedule:
    """swapped: the right operand of the kernel plays the left part (its rows are the kernel's n).
    lanes: of one vector.  strips: into how many the rows are cut.  vectors: of a panel.  block:
    strips of a task, but for those beyond `blocks` tasks, which have `tail` strips each: short
    tasks at the end keep all threads busy until it.  nc: columns of a task.  kc: of k in one part
    (a multiple of lanes words; of phases, where there are any).  instruction: what sums products in
    words, "" where numbers are multiplied one by one (`loops/products.py`).

    left: "direct" (read in place), "rows" (packed, k contiguous) or "columns" (packed k by k).
    right: "direct", "columns" (packed), "passing" (packed by the tile that multiplies by it first,
    `llvm/contraction_passing.py`) or "transposed" (packed; read along k and transposed in
    registers).  phases: packing goes along k in steps of so many, each with index expressions of
    its own (the taps of a convolution's kernel: which of them fall on padding is then found out
    once for all channels).  run: packing along k goes run by run, each of so many neighbours (rows
    of an image, in the gradient of a convolution's weights).  ahead: tiles fetch what the next ones
    read from memory (`llvm/contraction_ahead.py`).
    """

    swapped: bool
    lanes: int
    strips: int
    vectors: int
    block: int
    blocks: int
    tail: int
    nc: int
    kc: int
    left: str
    right: str
    grain: int
    instruction: str = ""
    phases: int = 1
    run: int = 1
    ahead: bool = False

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes

    @property
    def keeps_panels(self) -> bool:
        """Whether a panel serves more than one strip."""
        return self.strips > 1 and (self.tail > 1 or (self.blocks > 0 and self.block > 1))

    def words(self, k: int) -> int:
        """In how many words so many neighbours along k are packed."""
        return ceil_div(k, group_of(self.instruction))


@dataclass(frozen=True, slots=True)
class Strips:
    """m rows cut into strips: the first `large` have `rows` rows, all others one less."""

    count: int
    rows: int
    large: int

    @staticmethod
    def of(m: int, count: int) -> Strips:
        small, large = divmod(m, count)
        return Strips(count, small + 1, large) if large else Strips(count, small, count)

    def begin(self, number: int) -> int:
        return number * self.rows - max(number - self.large, 0)


# ---- cache blocks

THREADS = (1, 2, 2, 4, 8)
"""Numbers of threads that tasks are made for, on the average: results do not depend on it, and
schedules not on the machine at hand.
"""
HELD_UP = 0.3
"""Of its last task the part that a thread makes the others wait, though all had the same to do."""
TASK_OVERHEAD = 400
PACK_ROWS, PACK_TRANSPOSED, PACK_GATHERED, PACK_DEAR = 5.0, 8.0, 32.0, 24.0
"""Cycles to pack one vector: of neighbours, by transposition, of elements far apart, under masks.
"""
PACK_PLACES = 10.0
"""Cycles more for one where places along rows or k are quotients and remainders."""
WEAVE = 2.0
"""Cycles more for each further vector whose elements are woven into words."""
PASSING, PASSING_LINE, PASSING_FAR_LINE, CROWDED_ROW = 1.0, 3.0, 8.0, 15.0
"""Cycles of a tile for each vector of elements that it weaves in passing; to get a line of them
from L2, or from beyond; and a part of a row from there, at least, where rows fall on few sets of
L2.  (8 x 2048 x 2048 of bfloat16 takes 235 us by panels of 2 vectors, 157 of 3, 163 of 4.)
"""
PASSING_NEAR = 0.3
"""How large an operand is, in sizes of L2, that is found there."""
PASSING_SLACK, PASSING_ROWS = 1.1, 64
"""The slack of register tiles where so few rows pass through an operand: reading more of its rows
at a time counts for more than loads saved.
"""
PACK_RUN, PACK_TURNED_RUN = 6.0, 12.0
"""In runs, masks included: along rows, by transposition."""
STORE_APART = 1.5
"""Cycles to store an element whose neighbours in the vector lie elsewhere."""
REST = 4.0
"""Cycles for a vector of sums to rest between two parts of k and be taken up again."""
TOUCH = 2.0
"""Cycles to bring a vector of a panel that is not packed near."""
FROM_MEMORY, EDGE_LINES = 12.0, 2
"""Cycles to wait for a line out of a long row, half of the times that it is in no cache; and lines
more than its bytes fill that a piece of a row costs.
"""
BEYOND_L2, BEYOND_CACHES = 2, 16
"""An operand of so many times L2 is not there when it is wanted; or comes from memory each time
that it is gone through.
"""
LONG_ROW = 256
"""Bytes of a row from which on the strips next in it are fetched ahead, where it lies."""
FAR = 0.12
"""Part of a tile's time that goes to reading a panel where it lies, when it falls out of L2."""


def _room(step: int, itemsize: int, cache_bytes: int, ways: int) -> int:
    """How many cache lines that lie a fixed step apart a cache holds."""
    lines, rest = divmod(step * itemsize, CACHE_LINE)
    sets = max(cache_bytes // (CACHE_LINE * ways), 1)
    distinct = sets if rest or not lines else sets // math.gcd(sets, lines)
    return ways * distinct


L1_WAYS, L2_WAYS = 8, 16
SHORTEST_PART = 256
"""Of k, where a panel is read in place: its rows fall on few sets of L2, and it is cut to fit."""


class Plan(NamedTuple):
    """cycles: of all threads, until the last is done.  fields: the schedule's; of some thousand
    plans of a program hardly any is made one.
    """

    cycles: float
    fields: tuple[Any, ...]

    @property
    def schedule(self) -> ContractionSchedule:
        return ContractionSchedule(*self.fields)


def schedule_contraction(kernel: ContractionKernel, target: Target) -> ContractionSchedule:
    """The schedule with the fewest cycles by our count."""
    return min(contraction_plans(kernel, target), key=lambda plan: plan.cycles).schedule


TILE_SLACK = 1.01
"""Register tiles are looked at whose own cycles exceed the least by this factor at most."""


def contraction_plans(
    kernel: ContractionKernel, target: Target, slack: float = TILE_SLACK
) -> list[Plan]:
    """Every way to block the contraction whose register tile is not beyond the slack: in words if
    that can be, else plainly.  All give the same bits.
    """
    natural = _is_swapped(kernel)
    lanes = target.lanes(accumulator_dtype(kernel.dtype).bits)
    for in_words in (True, False):
        plans: list[Plan] = []
        for swapped in (natural, not natural):
            form = words_of(kernel, target, swapped) if in_words else plain(kernel)
            if form is None:
                continue
            run = run_along(kernel, lanes * form.group)
            # packing in runs is so much cheaper for the left operand that stores may pay for it
            if (swapped == natural or run > 1) and (run == 1 or run % form.group == 0):
                plans += _plans(kernel, target, swapped, form, run, slack)
        if plans:
            break
    return plans


def _plans(
    kernel: ContractionKernel, target: Target, swapped: bool, form: Form, run: int, slack: float
) -> Iterator[Plan]:
    """Those of one form, with one of the operands in vectors."""
    wide = accumulator_dtype(kernel.dtype)
    lanes = target.lanes(wide.bits)
    left, right = packed_operands(kernel, swapped, form)
    m, n = left.free.extent, right.free.extent
    k = max(ceil_div(kernel.k.extent, form.group), 1)
    found = list(tilings(m, n, k, lanes, wide.itemsize, target))
    place = direct(kernel, right, form.right, form.group)
    if place is not None and place.width:
        fitting = [tiling for tiling in found if place.width % (tiling.vectors * lanes) == 0]
        found = fitting or found
    least = min(tiling.cycles for tiling in found)
    if m <= PASSING_ROWS and passes(kernel, right, form, target):
        slack = max(slack, PASSING_SLACK)
    natural = swapped == _is_swapped(kernel)
    apart = 0.0 if natural else STORE_APART * kernel.batch.extent * m * n
    for tiling in found:
        if tiling.cycles <= least * slack:
            planner = _Planner(kernel, target, swapped, left, right, tiling, lanes, form, run)
            for plan in planner.plans():
                yield Plan(plan.cycles + apart, plan.fields)


def passes(
    kernel: ContractionKernel, right: Operand, form: Form, target: Target
) -> bool:
    """Whether the right operand is packed by the tiles that multiply by it first: rows in memory,
    whole words along k, and registers for what is woven beside a tile's sums.
    """
    whole = kernel.k.extent % form.group == 0
    return form.group > 1 and whole and target.registers >= 32 and in_rows(kernel, right)


def _is_swapped(kernel: ContractionKernel) -> bool:
    """Whether vectors go along the kernel's m: where more stores are contiguous."""
    along_m, inside_m = contiguous_stores(kernel, kernel.m)
    along_n, inside_n = contiguous_stores(kernel, kernel.n)
    return along_m > along_n or (along_m == along_n == 0 and inside_m > inside_n)


@dataclass(frozen=True, slots=True)
class _Way:
    """How an operand gets to the tiles.  cycles: to pack all of it once.  kc: of k in one part.
    far: part of the tiles' time that is lost to its distance.
    """

    how: str
    cycles: float
    kc: int
    far: float = 0.0
    phases: int = 1


class _Planner:
    """All ways to block one contraction with a given register tile; k is counted in words."""

    def __init__(
        self,
        kernel: ContractionKernel,
        target: Target,
        swapped: bool,
        left: Operand,
        right: Operand,
        tiling: Tiling,
        lanes: int,
        form: Form,
        run: int,
    ) -> None:
        self.form, self.group = form, form.group
        self.run = ceil_div(run, self.group)
        self.kernel, self.target, self.swapped = kernel, target, swapped
        self.left, self.right, self.tiling = left, right, tiling
        self.lanes, self.itemsize = lanes, accumulator_dtype(kernel.dtype).itemsize
        self.m, self.n = left.free.extent, right.free.extent
        self.k = max(ceil_div(kernel.k.extent, self.group), 1)
        self.rows = ceil_div(self.m, tiling.strips)
        self.nr = tiling.vectors * lanes
        self.kc = max(tiling.kc // self.run * self.run, self.run)
        self.parts = ceil_div(self.k, self.kc)
        self.finishing = finishing(kernel) * INSTRUCTION * self.m * self.n / lanes
        self.sources = len(long_rows(kernel, left))
        # rows out of which a strip takes a small part, and that are in no cache
        self.long_rows = (
            self.sources > 0
            and self.group == 1
            and self.m * self.itemsize >= LONG_ROW
            and self._size(left, form.left) > BEYOND_L2
        )

    def plans(self) -> Iterator[Plan]:
        for left in self._left_ways():
            for right in self._right_ways(left):
                for way in self._parts_of(left, right):
                    for block in _cuts(self.tiling.strips):
                        for panels in _cuts(self.tiling.panels):
                            plan = self._plan(left, way, block, panels)
                            if plan is not None:
                                yield plan

    def _parts_of(self, left: _Way, right: _Way) -> Iterator[_Way]:
        """The right way with long parts of k, and with shorter ones where strips are packed: more
        of those then stay in L2.
        """
        yield right
        whole = self.run == right.phases == 1
        if left.how != "direct" and whole and right.kc >= 2 * SHORTEST_PART:
            yield replace(right, kc=part_of(self.k, right.kc // 2, self.lanes))
            if left.how == "columns" and self.sources and right.kc >= 4 * SHORTEST_PART:
                yield replace(right, kc=part_of(self.k, right.kc // 4, self.lanes))

    def _left_ways(self) -> Iterator[_Way]:
        place = direct(self.kernel, self.left, self.form.left, self.group)
        if place is not None and not place.width and self._left_stays(place):
            yield _Way("direct", 0.0, self.kc)
        if self.run > 1:
            vectors = self.m * (self.k // self.run) * ceil_div(self.run, self.lanes)
            yield _Way("rows", (PACK_RUN + self._jumps(self.left)) * vectors, self.kc)
            return
        along_k = stride_along(self.kernel, self.left, self.left.free) <= 0
        each = PACK_DEAR if is_dear(self.kernel, self.left) else PACK_ROWS
        each += computing(self.kernel, self.left) * self.group
        if along_k:
            yield _Way("rows", each * self.m * ceil_div(self.k, self.lanes), self.kc)
        else:
            vectors = self.k * self.tiling.strips * ceil_div(self.rows, self.lanes)
            yield _Way("columns", (each + WEAVE * (self.group - 1)) * vectors, self.kc)

    def _left_stays(self, place: Direct) -> bool:
        """Whether the cache lines of one strip stay where they are: in L1 from one value of k to
        the next where k is contiguous, else in L2 from panel to panel.
        """
        itemsize = self.form.left.itemsize
        if self.group == 1 and place.free_step in (0, 1):
            room = _room(place.k_step, itemsize, self.target.l2_bytes, L2_WAYS)
            return min(self.k, self.kc) * 2 <= room
        room = _room(place.free_step, itemsize, self.target.l1_bytes, L1_WAYS)
        return self.rows <= room

    def _right_ways(self, left: _Way) -> Iterator[_Way]:
        vectors = ceil_div(self.n, self.lanes) * self.k
        place = direct(self.kernel, self.right, self.form.right, self.group)
        in_order = place is not None and self.group == place.free_step == 1
        if place is not None and in_order and self._keeps_to_panels(place):
            room = _room(place.k_step, self.itemsize, self.target.l2_bytes, L2_WAYS)
            fits = self.kc <= room or self.tiling.strips == 1
            if not fits and room // 2 >= SHORTEST_PART:
                yield _Way("direct", TOUCH * vectors, part_of(self.k, room // 2, self.lanes))
            else:
                yield _Way("direct", TOUCH * vectors, self.kc, 0.0 if fits else FAR)
        if self.run > 1:
            each = PACK_TURNED_RUN + self._jumps(self.right)
            yield _Way("transposed", each * vectors, self.kc)
            return
        if self._is_turned():
            each = PACK_TRANSPOSED + computing(self.kernel, self.right) * self.group
            yield _Way("transposed", each * vectors, self.kc)
            return
        # beside strips that are packed out of long rows, and fetched ahead, passing is slower: a
        # gradient of 768 x 768 weights from 4096 rows took 5.6 ms instead of 5.1
        if left.how != "columns" and passes(self.kernel, self.right, self.form, self.target):
            yield self._passing()
            return
        gathered = stride_along(self.kernel, self.right, self.right.free, self.lanes) < 0
        dear = is_dear(self.kernel, self.right, self.lanes)
        each = PACK_GATHERED if gathered else PACK_DEAR if dear else PACK_ROWS
        each += computing(self.kernel, self.right) * self.group
        if not gathered and not dear and has_quotients(self.kernel, self.right):
            each += PACK_PLACES
        phases, kc, parts = phases_along(self.kernel, self.right, self.m), self.kc, self.parts
        if phases > 1:
            phases = math.lcm(phases, self.group)
            if self.kernel.k.extent % phases:
                return  # words would reach from one round of phases into the next
        if phases > 1 and parts > 1:
            words = phases // self.group
            kc = max(round_up(ceil_div(self.k, parts), words), words)
        yield _Way("columns", (each + WEAVE * (self.group - 1)) * vectors, kc, 0.0, phases)

    def _passing(self) -> _Way:
        """Packed by the first tile of each panel: what that takes longer than its products."""
        vectors, products = self.tiling.vectors, self.rows * self.tiling.vectors / FMAS_PER_CYCLE
        working = products + (PASSING * self.group + self.form.flipped) * vectors
        waiting = 0.0
        for rows in long_rows(self.kernel, self.right):
            lines = self.nr * rows.itemsize / CACHE_LINE
            if self._size(self.right, self.form.right) <= PASSING_NEAR:
                waiting += self.group * PASSING_LINE * lines
                continue
            room = _room(rows.k_step, rows.itemsize, self.target.l2_bytes, L2_WAYS)
            least = CROWDED_ROW if min(self.k, self.kc) * self.group >= room else PASSING_FAR_LINE
            waiting += self.group * max(PASSING_FAR_LINE * lines, least)
        each = max(working, waiting) - products
        return _Way("passing", each * self.tiling.panels * self.k, self.kc)

    def _jumps(self, operand: Operand) -> float:
        """Cycles for a vector of elements that are no neighbours, along a run."""
        steps = steps_in_run(self.kernel, operand, self.run * self.group)
        return PACK_GATHERED * sum(step > 1 for step in steps)

    def _keeps_to_panels(self, place: Direct) -> bool:
        """Whether no tile would reach over the end of a panel in memory."""
        return place.width % self.nr == 0

    def _is_turned(self) -> bool:
        return (
            stride_along(self.kernel, self.right, self.kernel.k) > 0
            and stride_along(self.kernel, self.right, self.right.free, self.lanes) < 0
            and is_plain(self.kernel, self.right)
        )

    def _size(self, operand: Operand, dtype: DType) -> float:
        """Of all of an operand, in sizes of L2."""
        elements = self.kernel.batch.extent * operand.free.extent * self.kernel.k.extent
        return elements * dtype.itemsize / self.target.l2_bytes

    def _from_memory(self, operand: Operand, dtype: DType) -> float:
        """Cycles to read one batch of an operand, if no cache can hold it."""
        if self._size(operand, dtype) <= BEYOND_CACHES:
            return 0.0
        lines = operand.free.extent * self.kernel.k.extent * dtype.itemsize / CACHE_LINE
        return FROM_MEMORY * lines

    def _plan(self, left: _Way, right: _Way, block: int, panels: int) -> Plan | None:
        strips, kc, nc = self.tiling.strips, right.kc, panels * self.nr
        parts = ceil_div(self.k, kc)
        rows = block * self.rows
        half = self.target.l2_bytes // 2
        if left.how != "direct" and block > 1 and rows * kc * self.itemsize > half:
            return None
        resting = rows * nc * self.itemsize if parts > 1 else 0
        if resting > self.target.l2_bytes and (block > 1 or panels > 1):
            return None
        m_parts, n_parts = ceil_div(strips, block), ceil_div(self.tiling.panels, panels)
        rests = (parts - self.parts) * self.m * self.n / self.lanes * REST
        tiles = self.tiling.cycles * (1 + right.far) + rests
        each = tiles + right.cycles * m_parts + left.cycles * n_parts
        fetching = left.how == "columns" and parts > 1 and self.sources > 0
        fetching |= left.how == "direct" and self.long_rows
        if left.how == "columns":
            # only the first part's strips have not been asked for before
            lines = ceil_div(rows * self.form.left.itemsize, CACHE_LINE) + EDGE_LINES
            lines *= self.k * self.group * self.sources * m_parts * n_parts
            each += FROM_MEMORY * lines / parts
        inside = rows * kc * self.itemsize <= self.target.l2_bytes or left.how != "direct"
        reads = n_parts if inside else n_parts * panels
        each += self._from_memory(self.left, self.form.left) * reads
        each += self._from_memory(self.right, self.form.right) * m_parts
        batch = self.kernel.batch.extent
        tail, blocks = block, m_parts
        long = each / (m_parts * n_parts) >= 4 * SHORTEST_TAIL
        if right.how == "direct" and block >= 4 and n_parts * batch < 8 and long:
            tail = max(block // 4, 1)
            blocks = strips * 3 // 4 // block
        tasks = batch * n_parts * m_parts
        total = batch * (each + self.finishing) + TASK_OVERHEAD * tasks
        cycles = 0.0
        for threads in THREADS:
            idle = max(-(-tasks // threads) * threads / tasks - 1, HELD_UP * threads / tasks)
            cycles += total * (1 + idle * tail / block) / len(THREADS)
        grain = max(1, int(GRAIN_CYCLES * tasks / total))
        grain = ceil_div(tasks, ceil_div(tasks, grain))  # as much for each
        if total <= GRAIN_CYCLES:  # all of it, however small the tail's tasks are
            grain = batch * n_parts * (blocks + ceil_div(strips - blocks * block, tail))
        return Plan(
            cycles,
            (
                self.swapped, self.lanes, strips, self.tiling.vectors, block, blocks, tail, nc,
                kc * self.group, left.how, right.how, grain, self.form.instruction, right.phases,
                self.run * self.group if self.run > 1 else 1, fetching,
            ),
        )


SHORTEST_TAIL = 5_000
"""Cycles of the short tasks at the end, at least.  Without such as are shorter 96 x 96 x 96 takes
6.2 us instead of 7.1, 128 x 128 x 128 10.7 instead of 11.7, the call of the program included.
"""
GRAIN_CYCLES = 15_000
"""Work that is worth a thread's while."""
INSTRUCTION = 1.5
"""Cycles of an instruction of the epilogue, as in loops.  (Two layers of 64 with tanh over 64 rows
take 4.2 us on two threads instead of 6.2 on one; their products alone are too short for two.)
"""


@functools.cache
def _cuts(count: int) -> list[int]:
    """Sizes of pieces that cut `count` nearly evenly, from all of it in one down to ones."""
    sizes = {ceil_div(count, parts) for parts in range(1, min(count, 16) + 1)}
    sizes |= {ceil_div(count, parts) for parts in (20, 24, 32, 48, 64, 96, 128) if parts < count}
    return sorted(sizes | {1}, reverse=True)


# ---- scratch memory


def scratch_parts(kernel: ContractionKernel, schedule: ContractionSchedule) -> tuple[int, int, int]:
    """Words of the right panel (with what its columns' sums start from, where the form has that),
    of the left strips, of the tiles.
    """
    s = schedule
    left, _ = operands(kernel, s.swapped)
    rows = Strips.of(left.free.extent, s.strips).rows
    panel = 0
    if s.right != "direct":
        first_sums = form_of(kernel, s.swapped, s.instruction).flipped
        panel = (round_up(s.words(s.kc), s.lanes) + first_sums) * s.nr
    strips = s.block * strip_elements(kernel, schedule) if s.left != "direct" else 0
    whole = kernel.k.extent <= s.kc
    tiles = rows * s.nr if whole else s.block * rows * s.nc
    return panel, strips, tiles


def strip_elements(kernel: ContractionKernel, schedule: ContractionSchedule) -> int:
    """Words of one packed strip of the left operand: an odd number of cache lines, so that
    neighbours fall on different sets.
    """
    left, _ = operands(kernel, schedule.swapped)
    rows = Strips.of(left.free.extent, schedule.strips).rows
    free_step, k_step = strip_steps(kernel, schedule)
    words = schedule.words(schedule.kc)
    used = free_step * rows if schedule.left == "rows" else k_step * words + schedule.lanes
    line = CACHE_LINE // accumulator_dtype(kernel.dtype).itemsize
    return (ceil_div(used, line) | 1) * line


def strip_steps(kernel: ContractionKernel, schedule: ContractionSchedule) -> tuple[int, int]:
    """From row to row and from word to word along k in a packed strip, in words."""
    left, _ = operands(kernel, schedule.swapped)
    if schedule.left == "rows":
        return round_up(schedule.words(schedule.kc), schedule.lanes) + schedule.lanes, 1
    return 1, Strips.of(left.free.extent, schedule.strips).rows


def scratch_bytes(kernel: ContractionKernel, schedule: ContractionSchedule) -> int:
    """Panel, strips, and the resting tiles, each on its own cache lines."""
    itemsize = accumulator_dtype(kernel.dtype).itemsize
    return sum(round_up(part * itemsize, 64) + 64 for part in scratch_parts(kernel, schedule))
