"""Lowering of the ops built on order: which method, in which launches.

Short rows: a task sorts or searches a whole row.  Few long rows: a row is cut into chunks, each
step is a launch over all chunks, and the steps hand on counts and half-sorted items in temporary
buffers.  How a row is cut depends on its length only, and every method gives the one stable order,
so neither the number of threads nor the choice of method changes a bit.

  sort, a digit at a time (least significant first): count, offsets, scatter
  ranks, a digit at a time (most significant first): rank-count, rank-narrow, and then
      for top_k rank-collect and rank-arrange, for select_rank rank-locate
  a few of the largest: top-chunks, top-merge
"""

from __future__ import annotations

import math

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.loops.arrays import array_launch, temporary
from lazygrad_compiler.loops.kernel import Launch
from lazygrad_compiler.loops.lower import Group

RADIX = 256
LONG_ROW = 1 << 16
"""Elements from which on a row is worth several tasks, unless there are rows enough for all."""
MANY_ROWS = 16
LARGEST_ROW = 1 << 19
"""Elements that one task still sorts in scratch memory."""
SHORTEST_CHUNK = 1 << 15
MOST_CHUNKS = 256
LONGEST_LIST = 1 << 16
"""Elements of a top_k that one task sorts after they were found; more are sorted with the row."""
MOST_RANKS = 4
"""Ranks of a row that are looked for one by one; for more the row is sorted."""

FEW = 128
"""Elements of a top_k up to which a scan against the worst of them finds them.  (50 of 32,000, 256
rows of them: 0.9 ms on two cores of Zen 5, 21 digit by digit, where torch takes 5.4.)
"""


def buffered(wanted: int) -> int:
    """Candidates that such a scan gathers before it keeps the best."""
    return max(128, 2 << (wanted - 1).bit_length())


def is_few(wanted: int, length: int) -> bool:
    """Whether a scan finds the best `wanted` of a row, or chunk, of that length."""
    return wanted <= FEW and length >= 2 * buffered(wanted)


def chunks_of(length: int) -> int:
    """Into how many tasks a long row is cut."""
    return min(MOST_CHUNKS, max(1, -(-length // SHORTEST_CHUNK)))


def rows_of(value: Node) -> int:
    return math.prod(value.shape[:-1])


def is_long(value: Node) -> bool:
    """Whether rows are cut into chunks."""
    length = value.shape[-1]
    if length <= LONG_ROW:
        return False
    return rows_of(value) < MANY_ROWS or length > LARGEST_ROW


def held_dtype(dtype: DType) -> DType:
    """What a key is held in."""
    return dtypes.uint64 if dtype.itemsize == 8 else dtypes.uint32


def item_dtypes(dtype: DType, with_index: bool) -> tuple[DType, ...]:
    """The arrays of a half-sorted row: carried number and position, in one number if they fit."""
    held = held_dtype(dtype)
    if not with_index:
        return (held,)
    return (dtypes.uint64,) if held is dtypes.uint32 else (held, dtypes.uint32)


def lower_sort(group: Group) -> list[Launch]:
    anchor = group.anchor
    assert anchor is not None
    if anchor.op == "argsort":
        values = [root for root in group.roots if root.op == "sort_values"]
        writes = [root for root in (*values, anchor) if root in group.outputs]
        return _lower_argsort(anchor, writes, [root.op == "sort_values" for root in writes])
    if anchor.op in ("top_k", "select_rank"):
        return _lower_ranks(anchor)
    return [_launch(anchor, list(anchor.inputs), [anchor], anchor.op)]


def _launch(anchor: Node, reads: list[Node], writes: list[Node], step: str) -> Launch:
    """One step; its name ends with the dtype that is sorted."""
    named = f"{step} of {anchor.inputs[0].dtype.name}"
    return array_launch(anchor, reads, writes, "sort", named)


def _outputs_named(are_values: list[bool]) -> str:
    return " ".join("values" if is_value else "indices" for is_value in are_values)


def _lower_argsort(anchor: Node, writes: list[Node], are_values: list[bool]) -> list[Launch]:
    """anchor: the op whose order it is.  writes: what to store, of which some are the values."""
    value = anchor.inputs[0]
    named = _outputs_named(are_values)
    if not is_long(value):
        return [_launch(anchor, [value], writes, f"rows {named}")]
    rows, length = rows_of(value), value.shape[-1]
    counts_shape = (rows, chunks_of(length), RADIX)
    passes = value.dtype.itemsize
    launches = []
    source = [value]
    for number in range(passes):
        first, last = number == 0, number == passes - 1
        read = "elements" if first else "items"
        counts = temporary(dtypes.uint32, counts_shape)
        if last:
            target, written = writes, named
        else:
            arrays = item_dtypes(value.dtype, not all(are_values))
            target = [temporary(dtype, (rows, length)) for dtype in arrays]
            written = "items"
        about = "" if all(are_values) else " indexed"
        for step, reads, made in (
            (f"count {number} {read}{about}", source, [counts]),
            ("offsets", [], [counts]),
            (f"scatter {number} {read}{about} to {written}", [*source, counts], target),
        ):
            launches.append(_launch(anchor, reads, made, step))
        source = target
    return launches


def _lower_ranks(anchor: Node) -> list[Launch]:
    """top_k and select_rank."""
    value = anchor.inputs[0]
    rows, length = rows_of(value), value.shape[-1]
    if not is_long(value):
        return [_launch(anchor, list(anchor.inputs), [anchor], "rows indices")]
    top = anchor.op == "top_k"
    wanted = anchor.shape[-1]
    if wanted > (LONGEST_LIST if top else MOST_RANKS):
        order = temporary(dtypes.int64, value.shape)
        launches = _lower_argsort(anchor, [order], [False])
        reads = [order, *anchor.inputs[1:]]
        return [*launches, _launch(anchor, reads, [anchor], "pick")]
    chunks = chunks_of(length)
    if top and is_few(wanted, length // chunks):
        arrays = item_dtypes(value.dtype, True)
        listed = [temporary(dtype, (rows, chunks, wanted)) for dtype in arrays]
        return [
            _launch(anchor, [value], listed, "top-chunks"),
            _launch(anchor, listed, [anchor], "top-merge"),
        ]
    problems = rows if top else rows * wanted
    state = temporary(dtypes.int64, (problems, 2))
    places = temporary(dtypes.int64, (problems, chunks, 2))
    launches = []
    passes = value.dtype.itemsize
    for number in reversed(range(passes)):
        first = number == passes - 1
        counts = temporary(dtypes.uint32, (problems, chunks, RADIX))
        reads = [value] if first else [value, state]
        launches.append(_launch(anchor, reads, [counts], f"rank-count {number}"))
        reads = [*anchor.inputs[1:], counts] if first else [counts]
        launches.append(_launch(anchor, reads, [state, places], f"rank-narrow {number} {length}"))
    if top:
        listed = [
            temporary(dtype, (rows, wanted)) for dtype in item_dtypes(value.dtype, True)
        ]
        launches += [
            _launch(anchor, [value, state, places], listed, "rank-collect"),
            _launch(anchor, listed, [anchor], "rank-arrange"),
        ]
    else:
        reads = [value, state, places]
        launches.append(_launch(anchor, reads, [anchor], "rank-locate"))
    return launches

