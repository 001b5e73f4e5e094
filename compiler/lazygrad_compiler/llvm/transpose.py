"""Transposition of a square block held in vector registers, and the sums of its rows."""

from __future__ import annotations

from lazygrad_compiler.llvm.builder import Function, Value, bits_of, lanes_of


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
    """The vector whose lane i is the sum of the lanes of rows[i]: a power of two of rows, as many
    as lanes at most.

    Steps within 16 bytes first, in the forms that need no register of places on x86.
    """
    count, size, step = len(rows), lanes_of(rows[0].type), 1
    narrow = min(max(16 * 8 // bits_of(rows[0].type), 1), size)
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
                which, place = divmod(lane, size // 2)
                even = _even_blocks(place, narrow)
                low.append(even + size * which)
                high.append(even + narrow + size * which)
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [f.fadd(f.shuffle(a, b, low), f.shuffle(a, b, high)) for a, b in pairs]
        step *= 2
    (total,) = rows
    while size > count:  # several partial sums of each row: neighbouring blocks, then within one
        size //= 2
        block = min(narrow, size)
        low = [_even_blocks(lane, block) for lane in range(size)]
        high = [lane + block for lane in low]
        total = f.fadd(f.shuffle(total, None, low), f.shuffle(total, None, high))
    return total


def _even_blocks(place: int, block: int) -> int:
    """Where a place among the even blocks, put together, lies among all."""
    return place // block * 2 * block + place % block
