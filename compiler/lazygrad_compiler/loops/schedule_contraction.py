"""Schedules of contractions: register tile, cache blocks, packing, by the scheme of Goto and van de
Geijn (TOMS 2008).

A task computes an MC x NC block of the result.  For each KC-long part of k it packs the right
operand's KC x NC block into panels of NR columns (they stay in L2), then strip by strip MR rows of
the left one (L1), and runs the micro-kernel on MR x NR tiles held in registers.  Between parts of k
the tiles rest in scratch memory; after the last the epilogue reads them there.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.loops.index import Affine, Div, Var, substitute, variable
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.target import Target


@dataclass(frozen=True, slots=True)
class ContractionSchedule:
    """swapped: the right operand of the kernel plays the left part (its rows are the kernel's n).
    lanes: of one vector.  mr x (nr = vectors * lanes): register tile.  mc, nc, kc: cache block,
    multiples of mr, nr, lanes (kc: of phases, where there are any). left_rows: the strip is stored
    row by row (k contiguous), else k by k.  right_transposed: the panel is read along k and
    transposed in registers.  phases: packing goes along k in steps of so many, each with index
    expressions of its own (the taps of a convolution's kernel: which of them fall on padding is
    then found out once for all channels).
    """

    swapped: bool
    lanes: int
    mr: int
    vectors: int
    mc: int
    nc: int
    kc: int
    left_rows: bool
    right_transposed: bool
    grain: int
    phases: int = 1

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes


def accumulator_dtype(dtype: DType) -> DType:
    """What the products are summed in: 16-bit floats in float32, narrow integers in int32 (the sum
    is then cut to size).
    """
    if dtype.kind == "float" and dtype.bits == 16:
        return dtypes.float32
    return dtypes.int32 if dtype.is_integer and dtype.bits < 32 else dtype


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _stride_along(kernel: ContractionKernel, numbers: tuple[int, ...], var: Var) -> int:
    """How many of the operand's loads step by one along the variable, minus those that do not."""
    score = 0
    for number in numbers:
        instr = kernel.values[number]
        if instr.op == "load" and var in instr.data[1].variables():
            score += 1 if instr.data[1].coefficient(var) == 1 else -1
    return score


def _tile(m: int, n: int, lanes: int, registers: int) -> tuple[int, int]:
    """The register tile (rows, vectors) with the least padding, for its arithmetic intensity."""
    if registers >= 32:
        candidates = [
            (14, 2, 1.0),
            (8, 3, 0.99),
            (6, 4, 0.97),
            (24, 1, 0.9),
            (12, 2, 0.98),
            (10, 2, 0.95),
            (8, 2, 0.9),
            (4, 4, 0.85),
            (4, 2, 0.7),
            (2, 4, 0.6),
            (16, 1, 0.8),
            (8, 1, 0.6),
            (1, 4, 0.4),
            (2, 1, 0.2),
        ]
    else:
        candidates = [
            (6, 2, 1.0),
            (4, 3, 1.0),
            (4, 2, 0.85),
            (12, 1, 0.8),
            (2, 4, 0.7),
            (8, 1, 0.7),
            (1, 4, 0.5),
            (2, 1, 0.3),
        ]

    def score(candidate: tuple[int, int, float]) -> float:
        rows, vectors, speed = candidate
        used = m * n / (round_up(m, rows) * round_up(n, vectors * lanes))
        return used * speed

    rows, vectors, _ = max(candidates, key=score)
    return rows, vectors


def schedule_contraction(kernel: ContractionKernel, target: Target) -> ContractionSchedule:
    wide = accumulator_dtype(kernel.dtype)
    lanes = target.lanes(wide.bits)
    n_stores = sum(
        1 if store.index.coefficient(kernel.n) == 1 else 0 for store in kernel.epilogue.stores
    )
    m_stores = sum(
        1 if store.index.coefficient(kernel.m) == 1 else 0 for store in kernel.epilogue.stores
    )
    swapped = m_stores > n_stores or (
        m_stores == n_stores == 0 and _contiguous(kernel, kernel.m) > _contiguous(kernel, kernel.n)
    )
    m, n = (kernel.n, kernel.m) if swapped else (kernel.m, kernel.n)
    left_values, right_values = (
        (kernel.right_values, kernel.left_values)
        if swapped
        else (kernel.left_values, kernel.right_values)
    )
    mr, vectors = _tile(m.extent, n.extent, lanes, target.registers)
    nr = vectors * lanes
    itemsize = wide.itemsize
    k = kernel.k.extent
    kc_limit = max(target.l1_bytes * 2 // 3 // (nr * itemsize), 64)
    parts = max(-(-k // kc_limit), 1)
    if parts > 1 and k <= kc_limit * 3 // 2:
        parts = 1
    kc = max(round_up(-(-k // parts), lanes), lanes)
    phases = phases_along(kernel, right_values, m.extent)
    if phases > 1 and parts > 1:
        kc = max(round_up(-(-k // parts), phases), phases)
    nc = max(target.l2_bytes * 2 // 5 // (kc * itemsize) // nr * nr, nr)
    nc = min(nc, round_up(n.extent, nr))
    mc_limit = target.l2_bytes * 2 // 5 // (nc * itemsize) if parts > 1 else 512
    mc = max(min(mc_limit // mr * mr, round_up(m.extent, mr)), mr)
    # enough tasks to share: halve the longer side while each is still worth a thread's while
    batch = kernel.batch.extent

    def tasks() -> int:
        return batch * -(-m.extent // mc) * -(-n.extent // nc)

    dear = _is_dear(kernel, right_values, n)
    while tasks() < 8 and mc * nc * k > 2_000_000:
        if nc >= 2 * nr and (nc * 2 >= mc or dear):
            nc = round_up(nc // 2, nr)
        elif mc >= 2 * mr and not (dear and tasks() >= 2):
            mc = round_up(mc // 2, mr)
        else:
            break
    # even blocks
    nc = round_up(-(-n.extent // -(-n.extent // nc)), nr)
    mc = round_up(-(-m.extent // -(-m.extent // mc)), mr)
    cycles = mc * nc * k / (lanes * 2)
    left_rows = _stride_along(kernel, left_values, m) <= 0
    right_transposed = (
        _stride_along(kernel, right_values, kernel.k) > 0
        and _stride_along(kernel, right_values, n) < 0
        and all(kernel.values[number].op in ("load", "cast", "const") for number in right_values)
    )
    return ContractionSchedule(
        swapped,
        lanes,
        mr,
        vectors,
        mc,
        nc,
        kc,
        left_rows,
        right_transposed,
        max(1, int(30_000 / max(cycles, 1))),
        1 if right_transposed else phases,
    )


MOST_PHASES = 32
FEWEST_ROWS = 8
"""Below so many rows of the result a panel is used too seldom to be packed with care."""


def phases_along(kernel: ContractionKernel, numbers: tuple[int, ...], rows: int) -> int:
    """The P for which k = P q + p leaves no quotient or remainder of q in the operand's index
    expressions, for each p; 1 where there is none, or nothing to be gained.
    """
    instrs = [kernel.values[number] for number in numbers]
    if rows < FEWEST_ROWS or all(instr.op not in ("bounds", "divides") for instr in instrs):
        return 1
    k = kernel.k
    indices = [item for instr in instrs for item in instr.data if isinstance(item, Affine)]
    divisors = {
        term.divisor
        for index in indices
        for term, _ in index.terms
        if isinstance(term, Div) and term.inner == variable(k)
    }
    for phases in sorted(divisors, reverse=True):
        if 1 < phases <= MOST_PHASES and k.extent % phases == 0:
            split = [in_phase(index, k, phases, p) for index in indices for p in range(phases)]
            quotient = quotient_of(k, phases)
            if all(
                isinstance(term, Var) or quotient not in Affine(0, ((term, 1),)).variables()
                for index in split
                for term, _ in index.terms
            ):
                return phases
    return 1


def quotient_of(k: Var, phases: int) -> Var:
    """The variable that counts steps of `phases` along k."""
    return Var(f"{k.name}_of_{phases}", k.extent // phases)


def in_phase(index: Affine, k: Var, phases: int, phase: int) -> Affine:
    """An index expression where k is so many steps and a phase."""
    return substitute(index, {k: variable(quotient_of(k, phases)) * phases + phase})


def _is_dear(kernel: ContractionKernel, numbers: tuple[int, ...], var: Var) -> bool:
    """Whether packing the operand takes more than copying rows: masks, or loads that jump."""
    instrs = [kernel.values[number] for number in numbers]
    return any(
        instr.op in ("bounds", "divides", "dynamic")
        or (
            instr.op == "load"
            and instr.data[1].coefficient(var) != 1
            and _jumps(instr.data[1], var)
        )
        for instr in instrs
    )


def _jumps(index: Affine, var: Var) -> bool:
    """Whether the index has quotients or remainders of the variable."""
    return any(
        not isinstance(term, Var) and var in Affine(0, ((term, 1),)).variables()
        for term, _ in index.terms
    )


def _contiguous(kernel: ContractionKernel, var: Var) -> int:
    """Stores that are contiguous along a variable up to quotients and remainders of it."""

    def innermost(index: Affine) -> bool:
        from lazygrad_compiler.loops.index import Mod

        return any(
            isinstance(term, Mod) and c == 1 and var in term.inner.variables()
            for term, c in index.terms
        )

    return sum(innermost(store.index) for store in kernel.epilogue.stores)


def scratch_bytes(kernel: ContractionKernel, schedule: ContractionSchedule) -> int:
    """Panels, one strip, and the resting tiles, each on its own cache lines."""
    itemsize = accumulator_dtype(kernel.dtype).itemsize
    return sum(round_up(part * itemsize, 64) + 64 for part in scratch_parts(kernel, schedule))


def scratch_parts(kernel: ContractionKernel, schedule: ContractionSchedule) -> tuple[int, int, int]:
    """Elements of the right panels, of the left strip, of the tiles."""
    s = schedule
    panel = (round_up(s.kc, s.lanes) + s.lanes) * s.nc
    strip = (s.kc + s.lanes) * round_up(s.mr, s.lanes)
    whole = kernel.k.extent <= s.kc
    tiles = s.mr * s.nr if whole else s.mc * s.nc
    return panel, strip, tiles
