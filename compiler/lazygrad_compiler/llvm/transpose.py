"""Transposition of a square block held in vector registers."""

from __future__ import annotations

from lazygrad_compiler.llvm.builder import Function, Value


def transpose(f: Function, rows: list[Value]) -> list[Value]:
    """A square matrix of vectors transposed by log2 rounds of two-register shuffles."""
    size = len(rows)
    step = 1
    while step < size:
        result: list[Value] = [rows[0]] * size
        for base in range(size):
            if base & step:
                continue
            a, b = rows[base], rows[base | step]
            low = [lane if not lane & step else size + (lane ^ step) for lane in range(size)]
            high = [(lane | step) if not lane & step else size + lane for lane in range(size)]
            result[base] = f.shuffle(a, b, low)
            result[base | step] = f.shuffle(a, b, high)
        rows = result
        step *= 2
    return rows
