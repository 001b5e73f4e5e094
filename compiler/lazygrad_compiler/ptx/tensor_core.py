"""Instructions around the tensor cores, and the layout of tiles in shared memory that feeds them.

A tile of 16-bit elements lies in rows of 16-byte chunks, as memory has it: along k, or along the
free axis.  Chunks are permuted within a row by its number, so that the eight rows of a matrix that
`ldmatrix` reads, and the rows that a warp writes, meet in no bank.  Which way a tile lies decides
whether `ldmatrix` transposes; the fragments are the same (PTX ISA, 9.7.14.5.8: mma.m16n8k16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.ptx.builder import WARP, KernelFunction

CHUNK = 8
"""Elements of 16 bits in 16 bytes: what one access, and one row of an ldmatrix, holds."""


def load_matrices(f: KernelFunction, address: Value, transposed: bool) -> list[Value]:
    """Four 8 x 8 matrices; the lanes' addresses are those of their rows, eight lanes a matrix."""
    mode = ".trans" if transposed else ""
    name = f"llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4{mode}.b16.p3"
    return _unpacked(f, f.intrinsic(name, "{ i32, i32, i32, i32 }", address), "i32", 4)


def multiply(
    f: KernelFunction, dtype: DType, a: Sequence[Value], b: Sequence[Value], c: Sequence[Value]
) -> list[Value]:
    """c + a b of a 16 x 16 and a 16 x 8 fragment of 16-bit elements, with sums in f32.  float32 is
    rounded to tf32; a fragment has half as many, in the very places of pairs of 16-bit elements.
    """
    result = "{ float, float, float, float }"
    if dtype is dtypes.float32:
        name = "llvm.nvvm.mma.m16n8k8.row.col.tf32"
        a, b = ([_rounded(f, value) for value in each] for each in (a, b))
    elif dtype is dtypes.bfloat16:
        name = "llvm.nvvm.mma.m16n8k16.row.col.bf16"
    else:
        name = "llvm.nvvm.mma.m16n8k16.row.col.f32.f32"
        a, b = ([f.bitcast(value, "<2 x half>") for value in each] for each in (a, b))
    return _unpacked(f, f.intrinsic(name, result, *a, *b, *c), "float", 4)


def _rounded(f: KernelFunction, word: Value) -> Value:
    """A float32 to the nearest tf32, as words."""
    return f.intrinsic("llvm.nvvm.f2tf32.rna", "i32", f.bitcast(word, "float"))


def _unpacked(f: KernelFunction, whole: Value, element: str, count: int) -> list[Value]:
    return [f.emit(element, f"extractvalue {whole}, {k}") for k in range(count)]


def put_sums(
    f: KernelFunction, target: Value, pitch: int, sums: Sequence[Value], rows: int, columns: int
) -> None:
    """A warp's sums (of 16 rows by 8 columns, four of a thread each) into shared memory, row-major:
    the first two are neighbours in row lane / 4, the other two lie eight rows below.
    """
    lane = f.and_(f.thread(), WARP - 1)
    row, column = f.lshr(lane, 2), f.shl(f.and_(lane, 3), 1)
    base = f.offset(target, f.add(f.mul(row, pitch), column), "float")
    across = columns // 8
    for i in range(rows // 16):
        for j in range(across):
            at = 4 * (i * across + j)
            for half in (0, 1):
                pair = f.pack(sums[at + 2 * half : at + 2 * half + 2])
                place = (16 * i + 8 * half) * pitch + 8 * j
                f.store(pair, f.offset(base, place, "float") if place else base, 8)


def copy_async(f: KernelFunction, target: Value, source: Value) -> None:
    """16 bytes from global to shared memory, past the registers; complete when waited for."""
    f.intrinsic("llvm.nvvm.cp.async.cg.shared.global.16", "void", target, source)


def copy_async_or_zero(f: KernelFunction, target: Value, source: Value, present: Value) -> None:
    """The same, or 16 zero bytes where nothing is present; then the source is not read."""
    size = f.select(present, const("i32", 16), const("i32", 0))
    f.intrinsic("llvm.nvvm.cp.async.cg.shared.global.16.s", "void", target, source, size)


def commit_copies(f: KernelFunction) -> None:
    """What was asked for since the last time becomes one group."""
    f.intrinsic("llvm.nvvm.cp.async.commit.group", "void")


def wait_copies(f: KernelFunction, pending: int) -> None:
    """Until at most so many groups of this thread are under way."""
    f.intrinsic("llvm.nvvm.cp.async.wait.group", "void", const("i32", pending))


@dataclass(frozen=True, slots=True)
class SharedTile:
    """rows × depth elements.  along_k: rows of the free axis hold k; else rows of k hold the free
    axis.
    """

    rows: int
    depth: int
    along_k: bool

    @property
    def pitch(self) -> int:
        return self.depth if self.along_k else self.rows

    @property
    def elements(self) -> int:
        return self.rows * self.depth

    def _mixed(self, f: KernelFunction, major: Value) -> Value:
        """What the chunks' numbers of a row are mixed with.  128 bytes are all banks once: rows of
        so many bytes or more each have their own, shorter ones share.
        """
        chunks = self.pitch // CHUNK
        if chunks >= 8:
            return f.and_(major, 7)
        shift = {4: 1, 2: 2, 1: 3}[chunks]
        return f.and_(f.lshr(major, shift), chunks - 1)

    def place(self, f: KernelFunction, row: Value, k: Value) -> Value:
        """The element's number in the tile."""
        major, minor = (row, k) if self.along_k else (k, row)
        chunk = f.xor(f.lshr(minor, 3), self._mixed(f, major))
        inside = f.and_(minor, CHUNK - 1)
        return f.add(f.add(f.mul(major, self.pitch), f.shl(chunk, 3)), inside)

    def left_rows(self, f: KernelFunction, row: Value, k: int) -> Value:
        """Where this lane's row of a 16 x 16 fragment of the left operand lies; the fragment begins
        at (row, k).
        """
        lane = f.and_(f.thread(), 31)
        eighth, half, quarter = f.and_(lane, 7), self._bit(f, lane, 3), self._bit(f, lane, 4)
        if self.along_k:
            return self.place(f, f.add(row, f.add(eighth, half)), f.add(quarter, k))
        return self.place(f, f.add(row, half), f.add(f.add(eighth, quarter), k))

    def right_rows(self, f: KernelFunction, column: Value, k: int) -> Value:
        """The same for two 16 x 8 fragments of the right operand, side by side."""
        lane = f.and_(f.thread(), 31)
        eighth, half, quarter = f.and_(lane, 7), self._bit(f, lane, 3), self._bit(f, lane, 4)
        if self.along_k:
            return self.place(f, f.add(column, f.add(eighth, quarter)), f.add(half, k))
        return self.place(f, f.add(column, quarter), f.add(f.add(eighth, half), k))

    @staticmethod
    def _bit(f: KernelFunction, lane: Value, number: int) -> Value:
        """8 where the bit of the lane's number is set."""
        return f.and_(f.lshr(lane, number - 3) if number > 3 else lane, 8)
