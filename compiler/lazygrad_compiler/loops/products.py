"""How a contraction multiplies and sums: number by number, or in words of neighbours along k.

In: a contraction kernel and a target.  Out: the forms that fit both.  Processors have instructions
for narrow numbers that take words of 32 bits, multiply what lies at the same place in two of them,
and add all of a word's products to one sum: two bfloat16 or int16, four bytes.  They do two or four
times the work of a multiply-add, on operands of half or a quarter of the size.

An operand is packed as what the instruction takes, whatever it was cast to before: where it is an
int32 that was an int8, the int8; where it is a float32 that was a bfloat16, that.  Nothing is lost:
integers sum up exactly, modulo 2^32, and products of bfloat16 are exact in float32 and summed
there; see `docs/architecture.md` for numbers below the normal range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.loops.kernel import ContractionKernel, needed
from lazygrad_compiler.loops.operands import Operand, accumulator_dtype, operands
from lazygrad_compiler.target import Target


@dataclass(frozen=True, slots=True)
class Form:
    """instruction: its name, "" for plain multiply-adds.  left, right: dtypes of the elements that
    are packed.  flipped: the left ones are signed where the instruction takes unsigned bytes; their
    highest bits are turned, which adds 128, and sums start with as much less.
    """

    instruction: str
    left: DType
    right: DType
    flipped: bool = False

    @property
    def group(self) -> int:
        return group_of(self.instruction)


WORD_BITS = 32


@dataclass(frozen=True, slots=True)
class _Row:
    """An instruction of targets with a feature, on their registers of so many bytes."""

    instruction: str
    feature: str
    simd_bytes: int
    left: DType
    right: DType


_U8, _I8, _I16, _BF16 = dtypes.uint8, dtypes.int8, dtypes.int16, dtypes.bfloat16
_ROWS = (
    _Row("vdpbf16ps", "avx512bf16", 64, _BF16, _BF16),
    _Row("vpdpbusd", "avx512vnni", 64, _U8, _I8),
    _Row("vpdpbusd", "avxvnni", 32, _U8, _I8),
    _Row("vpdpwssd", "avx512vnni", 64, _I16, _I16),
    _Row("vpdpwssd", "avxvnni", 32, _I16, _I16),
    _Row("vpmaddwd", "avx512bw", 64, _I16, _I16),
    _Row("vpmaddwd", "avx2", 32, _I16, _I16),
    _Row("vpmaddwd", "sse2", 16, _I16, _I16),
    _Row("bfdot", "bf16", 16, _BF16, _BF16),
    _Row("sdot", "dotprod", 16, _I8, _I8),
    _Row("udot", "dotprod", 16, _U8, _U8),
)
"""Of those that fit, the first is the fastest."""


def plain(kernel: ContractionKernel) -> Form:
    wide = accumulator_dtype(kernel.dtype)
    return Form("", wide, wide)


def group_of(instruction: str) -> int:
    """How many neighbours along k one word holds; 1 where there are no words."""
    return next((WORD_BITS // r.right.bits for r in _ROWS if r.instruction == instruction), 1)


def word_instruction(left: DType, right: DType, target: Target) -> str:
    """The fastest instruction for words of just these; "" where there is none."""
    for row in _ROWS:
        fits = row.left is left and row.right is right
        if fits and target.simd_bytes == row.simd_bytes and target.has(row.feature):
            return row.instruction
    return ""


def words_of(kernel: ContractionKernel, target: Target, swapped: bool) -> Form | None:
    """The fastest form in words, if the target has an instruction for these operands."""
    for row in _ROWS:
        if target.simd_bytes == row.simd_bytes and target.has(row.feature):
            form = _fitted(kernel, swapped, row)
            if form is not None:
                return form
    return None


def form_of(kernel: ContractionKernel, swapped: bool, instruction: str) -> Form:
    """The form of a schedule.  ValueError where the operands do not fit the instruction."""
    if not instruction:
        return plain(kernel)
    row = next((row for row in _ROWS if row.instruction == instruction), None)
    form = _fitted(kernel, swapped, row) if row is not None else None
    if form is None:
        raise ValueError(f"the kernel's operands are none for {instruction}")
    return form


def _fitted(kernel: ContractionKernel, swapped: bool, row: _Row) -> Form | None:
    left, right = (_source(kernel, side)[1] for side in operands(kernel, swapped))
    sums = accumulator_dtype(kernel.dtype)
    if sums.bits != WORD_BITS or sums.is_floating != row.right.is_floating:
        return None
    flipped = row.left is _U8 and row.right is _I8 and left is _I8
    if not (flipped or _holds(row.left, left)) or not _holds(row.right, right):
        return None
    return Form(row.instruction, left if flipped else row.left, row.right, flipped)


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is one of `wide`."""
    if wide.is_floating or narrow.is_floating:
        return wide is narrow
    (low, high), (least, most) = wide.limits(), narrow.limits()
    return low <= least and most <= high


def _source(kernel: ContractionKernel, operand: Operand) -> tuple[int, DType]:
    """The operand's value before it was made wider: its number and its dtype."""
    number = operand.value
    instr = kernel.values[number]
    while instr.op == "cast":
        (before,) = instr.args
        if not _widens(kernel.values[before].dtype, instr.dtype):
            break
        number, instr = before, kernel.values[before]
    return number, instr.dtype


def _widens(narrow: DType, wide: DType) -> bool:
    """Whether a cast loses nothing that the products would need."""
    if narrow is dtypes.bfloat16:
        return wide is dtypes.float32
    return wide.is_integer and _holds(wide, narrow)


def packed_operands(
    kernel: ContractionKernel, swapped: bool, form: Form
) -> tuple[Operand, Operand]:
    """(left, right) as the form packs them."""
    left, right = operands(kernel, swapped)
    if not form.instruction:
        return left, right
    return _before_casts(kernel, left), _before_casts(kernel, right)


def _before_casts(kernel: ContractionKernel, operand: Operand) -> Operand:
    number, _ = _source(kernel, operand)
    return replace(operand, value=number, values=needed(kernel.values, [number]))
