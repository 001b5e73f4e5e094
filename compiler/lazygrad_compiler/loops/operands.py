"""How a contraction reads its operands: straight from memory, or through packing.

An operand that is one plain load, with fixed steps along its rows (or columns) and along k, can be
read where it lies: a register tile then takes its elements at constant distances.  All else (casts,
masks, quotients of k as in a convolution) is computed while it is packed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.loops.index import Affine, Div, Mod, Var, substitute, variable
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.schedule import instr_cost

CACHE_LINE = 64


def accumulator_dtype(dtype: DType) -> DType:
    """What the products are summed in: 16-bit floats in float32, narrow integers in int32 (the sum
    is then cut to size).
    """
    if dtype.kind == "float" and dtype.bits == 16:
        return dtypes.float32
    return dtypes.int32 if dtype.is_integer and dtype.bits < 32 else dtype


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of a contraction: `value` over the batch, `free` (its rows or columns) and k, and
    the numbers of the values behind it.
    """

    free: Var
    value: int
    values: tuple[int, ...]


def operands(kernel: ContractionKernel, swapped: bool) -> tuple[Operand, Operand]:
    """(left, right): whose elements are broadcast, whose elements fill vectors."""
    left = Operand(kernel.m, kernel.left, kernel.left_values)
    right = Operand(kernel.n, kernel.right, kernel.right_values)
    return (right, left) if swapped else (left, right)


@dataclass(frozen=True, slots=True)
class Direct:
    """Where an operand lies: element (i, k) is `buffer[start + i * free_step + k * k_step]`.

    Where it lies in panels (width > 0): at `start + i // width * panel_step + i % width * free_step
    + k * k_step`.
    """

    buffer: int
    start: Affine
    free_step: int
    k_step: int
    width: int = 0
    panel_step: int = 0


def direct(
    kernel: ContractionKernel, operand: Operand, dtype: DType, group: int = 1
) -> Direct | None:
    """How the operand can be read where it lies, as elements of the dtype; None where it has to be
    packed.  group: neighbours along k that are read together.
    """
    instr = kernel.values[operand.value]
    if instr.op != "load" or instr.args or instr.dtype is not dtype or kernel.k.extent % group:
        return None
    buffer, index = instr.data
    start = Affine(index.constant)
    free_step, width, panel_step = index.coefficient(operand.free), 0, 0
    for term, coefficient in index.terms:
        if term in (operand.free, kernel.k):
            continue
        inside = Affine(0, ((term, 1),)).variables()
        if isinstance(term, (Div, Mod)) and term.inner == variable(operand.free):
            if (free_step and not width) or width not in (0, term.divisor):
                return None
            width = term.divisor
            if isinstance(term, Div):
                panel_step = coefficient
            else:
                free_step = coefficient
        elif (
            operand.free in inside
            or kernel.k in inside
            or not all(isinstance(found, Var) for found in inside)
        ):
            return None
        else:
            start = start + Affine(0, ((term, coefficient),))
    k_step = index.coefficient(kernel.k)
    if (width and not free_step) or (group > 1 and k_step != 1):
        return None
    return Direct(buffer, start, free_step, k_step, width, panel_step)


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows along an operand's free axis lie: element (i, k) is `buffer[start + i +
    k * k_step]`.
    """

    buffer: int
    start: Affine
    k_step: int
    itemsize: int


def long_rows(kernel: ContractionKernel, operand: Operand) -> list[Rows]:
    """The rows that an operand is made of, where k goes from row to row."""
    found = []
    for number in operand.values:
        instr = kernel.values[number]
        if instr.op != "load":
            continue
        place = direct(kernel, replace(operand, value=number), instr.dtype)
        if place is not None and place.free_step == 1 < place.k_step and not place.width:
            found.append(Rows(place.buffer, place.start, place.k_step, instr.dtype.itemsize))
    return found


def in_rows(kernel: ContractionKernel, operand: Operand) -> bool:
    """Whether the operand is made of such rows and casts alone."""
    instrs = [kernel.values[number] for number in operand.values]
    loads = sum(instr.op == "load" for instr in instrs)
    return is_plain(kernel, operand) and loads == len(long_rows(kernel, operand)) > 0


def is_plain(kernel: ContractionKernel, operand: Operand) -> bool:
    """Whether the operand is made of loads and casts alone."""
    return all(
        kernel.values[number].op in ("load", "cast", "const") for number in operand.values
    )


def stride_along(
    kernel: ContractionKernel, operand: Operand, var: Var, aligned: int = 1
) -> int:
    """How many of the operand's loads step by one along the variable, minus those that do not.
    aligned: it is enough that so many neighbours do, the first of which a multiple of their number.
    """
    score = 0
    for number in operand.values:
        instr = kernel.values[number]
        if instr.op == "load" and var in instr.data[1].variables():
            score += 1 if _steps_by_one(instr.data[1], var, aligned) else -1
    return score


def _steps_by_one(index: Affine, var: Var, aligned: int) -> bool:
    if index.coefficient(var) == 1:
        return True
    if aligned == 1 or not _jumps(index, var):
        return False
    inside, place = in_run(index, var, aligned), place_of(var, aligned)
    return inside.coefficient(place) == 1 and is_regular([inside], [place])


def is_dear(kernel: ContractionKernel, operand: Operand, aligned: int = 1) -> bool:
    """Whether packing the operand takes more than copying rows: masks, or loads that jump.
    aligned: as in `stride_along`.
    """
    instrs = [kernel.values[number] for number in operand.values]
    return any(
        instr.op in ("bounds", "divides", "dynamic")
        or (
            instr.op == "load"
            and not _steps_by_one(instr.data[1], operand.free, aligned)
            and _jumps(instr.data[1], operand.free)
        )
        for instr in instrs
    )


def has_quotients(kernel: ContractionKernel, operand: Operand) -> bool:
    """Whether places in the operand are quotients or remainders of its row or of k."""
    indices = [kernel.values[n].data[1] for n in operand.values if kernel.values[n].op == "load"]
    return any(_jumps(index, var) for index in indices for var in (operand.free, kernel.k))


def computing(kernel: ContractionKernel, operand: Operand) -> float:
    """Instructions that packing takes beside loads and index expressions: casts and a prologue."""
    return _computing(kernel, operand.values)


def finishing(kernel: ContractionKernel) -> float:
    """Instructions of the epilogue for a vector, beside loads and index expressions."""
    return _computing(kernel, kernel.epilogue.values)


def _computing(kernel: ContractionKernel, numbers: Iterable[int]) -> float:
    reading = ("load", "index", "bounds", "divides", "dynamic", "checked")
    ops = [kernel.values[number] for number in numbers]
    return sum(instr_cost(instr) for instr in ops if instr.op not in reading)


def _jumps(index: Affine, var: Var) -> bool:
    """Whether the index has quotients or remainders of the variable."""
    return any(
        not isinstance(term, Var) and var in Affine(0, ((term, 1),)).variables()
        for term, _ in index.terms
    )


def contiguous_stores(kernel: ContractionKernel, var: Var) -> tuple[int, int]:
    """Stores that step by one along a variable; and those that do up to quotients of it."""
    stores = kernel.epilogue.stores
    return (
        sum(store.index.coefficient(var) == 1 for store in stores),
        sum(
            any(
                isinstance(term, Mod) and c == 1 and var in term.inner.variables()
                for term, c in store.index.terms
            )
            for store in stores
        ),
    )


def is_regular(indices: Iterable[Affine], axes: Iterable[Var]) -> bool:
    """Whether the index expressions depend on the axes by fixed steps only."""
    wanted = set(axes)
    return all(
        isinstance(term, Var) or not wanted & Affine(0, ((term, 1),)).variables()
        for index in indices
        for term, _ in index.terms
    )


# ---- phases along k

MOST_PHASES = 32
FEWEST_ROWS = 8
"""Below so many rows of the result a panel is used too seldom to be packed with care."""


def phases_along(kernel: ContractionKernel, operand: Operand, rows: int) -> int:
    """The P for which k = P q + p leaves no quotient or remainder of q in the operand's index
    expressions, for each p; 1 where there is none, or nothing to be gained.
    """
    instrs = [kernel.values[number] for number in operand.values]
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
            if is_regular(split, [quotient_of(k, phases)]):
                return phases
    return 1


def quotient_of(k: Var, phases: int) -> Var:
    """The variable that counts steps of `phases` along k."""
    return Var(f"{k.name}_of_{phases}", k.extent // phases)


def in_phase(index: Affine, k: Var, phases: int, phase: int) -> Affine:
    """An index expression where k is so many steps and a phase."""
    return substitute(index, {k: variable(quotient_of(k, phases)) * phases + phase})


# ---- runs along k


def run_along(kernel: ContractionKernel, lanes: int) -> int:
    """The largest R for which, with k = R q + p, both operands depend on p by fixed steps only, and
    one of them by steps of one: rows of an image, in the gradient of a convolution's weights.  What
    has one value for a whole row or column does not count for that.  1 where k needs no cutting, or
    where runs are too short for vectors.
    """
    sides = operands(kernel, False)
    indices = [
        item
        for side in sides
        for number in side.values
        for item in kernel.values[number].data
        if isinstance(item, Affine)
    ]
    divisors: set[int] = set()
    for index in indices:
        for term, _ in index.terms:
            divisors |= _divisors_of(term, kernel.k)
    for run in sorted(divisors, reverse=True):
        if run < lanes // 2 or kernel.k.extent % run:
            continue
        inner = place_of(kernel.k, run)
        if not is_regular((in_run(index, kernel.k, run) for index in indices), [inner]):
            continue
        plain = all(kernel.values[n].op != "dynamic" for side in sides for n in side.values)
        steps = [step for side in sides for step in steps_in_run(kernel, side, run, side.free)]
        return run if plain and 1 in steps else 1
    return 1


def steps_in_run(
    kernel: ContractionKernel, operand: Operand, run: int, along: Var | None = None
) -> list[int]:
    """By how much each of the operand's loads (that move along an axis) moves along a run."""
    inner = place_of(kernel.k, run)
    indices = [
        kernel.values[number].data[1]
        for number in operand.values
        if kernel.values[number].op == "load"
    ]
    return [
        in_run(index, kernel.k, run).coefficient(inner)
        for index in indices
        if along is None or along in index.variables()
    ]


def _divisors_of(term: object, k: Var) -> set[int]:
    """By what k is divided in a term, quotients of quotients included."""
    if not isinstance(term, (Div, Mod)):
        return set()
    if term.inner == variable(k):
        return {term.divisor}
    return {d for inner, _ in term.inner.terms for d in _divisors_of(inner, k)}


def place_of(k: Var, run: int) -> Var:
    """The variable that counts places within a run along k."""
    return Var(f"{k.name}_in_{run}", run)


def in_run(index: Affine, k: Var, run: int) -> Affine:
    """An index expression where k is a number of runs and a place in one."""
    return substitute(index, {k: variable(quotient_of(k, run)) * run + variable(place_of(k, run))})
