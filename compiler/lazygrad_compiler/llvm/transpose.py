"""Transposition of a square block held in vector registers, and the sums of its rows."""

from __future__ import annotations

from lazygrad_compiler.llvm.builder import Function, Value, bits_of


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


def sums_of_lanes(f: Function, rows: list[Value]) -> Value:
    """The vector whose lane i is the sum of the lanes of rows[i]: as many rows as lanes.

    Steps within 16 bytes first, in the forms that need no register of places on x86.
    """
    size, step = len(rows), 1
    narrow = max(16 * 8 // bits_of(rows[0].type), 1)
    while len(rows) > 1:
        low, high = [], []
        for lane in range(size):
            if step < narrow:  # runs of `step` lanes of a, then of b, from each half of 16 bytes
                base, place = lane // narrow * narrow, lane % narrow
                run, which = place // (2 * step), place // step % 2
                inside = base + run * step + place % step
                low.append(inside + size * which)
                high.append(inside + narrow // 2 + size * which)
            else:
                half = size // 2
                which, place = divmod(lane, half)
                block, inside = divmod(place, narrow)
                low.append(2 * block * narrow + inside + size * which)
                high.append((2 * block + 1) * narrow + inside + size * which)
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [f.fadd(f.shuffle(a, b, low), f.shuffle(a, b, high)) for a, b in pairs]
        step *= 2
    return rows[0]
