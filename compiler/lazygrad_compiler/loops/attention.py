"""Lowering of attention, and how its kernels are cut.

Vectors run along queries: a *strip* is two vectors of queries (backward: a few such pairs), and
scores are held transposed, (keys, queries).  So keys and values are read where they lie, an element
at a time, broadcast; maxima and sums of the softmax are one per lane; only a strip's queries are
transposed, once.  A *key block* is as many keys as leave the strip's scores in the first cache.

Forward is one launch, a task a strip.  Backward is one launch, a task a head of keys: it goes
through the strips, adds to the gradients of keys and values in scratch memory, and writes those of
the strip's queries.  Few heads are cut further: each task takes every n-th strip and writes partial
gradients of keys and values, which a second launch sums.

Few queries to many keys (*decoding*) would leave a strip's lanes empty: vectors run along the width
there, a task a head of keys or, where heads are few, a chunk of its keys, combined by a second
launch (llvm/attention_decode.py).

All of that depends on shapes only, so the number of threads changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference_attention import (
    GRADIENTS,
    few_to_many,
    operand_shapes,
    statistics_dtype,
)
from lazygrad_compiler.ir.node import Node, Shape
from lazygrad_compiler.loops.arrays import array_launch, temporary
from lazygrad_compiler.loops.kernel import ArrayKernel, Launch
from lazygrad_compiler.loops.lower import Group
from lazygrad_compiler.target import Target

VECTORS = 2
FORWARD_BLOCK = 112
BACKWARD_BLOCK = 56
BACKWARD_PAIRS = 2
SHORT = 512
"""Causal sequences up to this take short strips in backward: less is wasted at the diagonal."""
FEW = 256
"""Sequences up to this take short strips where long ones would leave half of the last one empty."""
TASKS_WANTED = 16
SUM_ELEMENTS = 1 << 14
DECODE_ROWS = 64
"""Queries that share a head of keys up to which the kernel of decoding takes them.  Taken apart and
by it, two threads: 17 queries a head, 4 x 8 heads of 64, 4096 keys 3.1 and 1.6 ms; 32 rows, heads
of 128, 16 heads of 4096 keys 7.0 and 2.8, bfloat16 6.1 and 2.0; 64 rows, 8 heads, bfloat16 4.7 and
2.1; 512 heads of 64, one query, 128 keys 0.56 and 0.46 ms, 64 keys 0.18 and 0.21.
"""
DECODE_BLOCK = 64
DECODE_CHUNK = 512
"""Keys that a chunk has at least."""
DECODE_STATISTICS = 2
"""What a chunk's row has behind its sums: top score, total."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A buffer as an array of up to four axes; strides in elements, the last one is 1."""

    buffer: int
    dtype: DType
    shape: Shape
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """batch, heads of q, groups (heads of k and v); queries, keys; width of q and k, of v."""

    batch: int
    heads: int
    groups: int
    queries: int
    keys: int
    width: int
    value_width: int
    scale: float
    causal: bool
    empty_is_zero: bool
    wide: DType


@dataclass(frozen=True, slots=True)
class Cut:
    """lanes of a vector; rows of keys in a register tile; pairs of vectors in a strip; keys in a
    block; chunks: tasks that share a head of keys.
    """

    lanes: int
    rows: int
    pairs: int
    block: int
    chunks: int = 1

    @property
    def strip(self) -> int:
        return self.lanes * VECTORS * self.pairs


def row_major(shape: Shape) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def operands(kernel: ArrayKernel) -> list[Operand]:
    """The kernel's buffers, in order, as the op sees them."""
    views = kernel.attrs[3]
    found = []
    for number, (shape, buffer) in enumerate(zip(kernel.shapes, kernel.buffers, strict=True)):
        offset, strides = 0, row_major(shape)
        if number < len(views) and views[number] is not None:
            offset, shape, strides = views[number]
        found.append(Operand(number, buffer.dtype, shape, offset, strides))
    return found


def sizes_of(kernel: ArrayKernel) -> Sizes:
    q, k, v = operands(kernel)[:3]
    scale, causal, empty_is_zero = kernel.attrs[:3]
    batch, heads, queries, width = q.shape
    return Sizes(
        batch,
        heads,
        k.shape[1],
        queries,
        k.shape[2],
        width,
        v.shape[3],
        scale,
        causal,
        empty_is_zero,
        statistics_dtype(q.dtype),
    )


def _tile_rows(target: Target) -> int:
    """Rows of a register tile: beside the sums there are a vector a column and a broadcast."""
    return (target.registers - VECTORS - 1) // VECTORS


def forward_cut(sizes: Sizes, target: Target) -> Cut:
    rows = _tile_rows(target)
    return Cut(target.lanes(sizes.wide.bits), rows, 1, -(-FORWARD_BLOCK // rows) * rows)


def backward_chunks(batch: int, groups: int, queries: int) -> int:
    """How many tasks share a head of keys; strips are taken to be of 64 queries."""
    return max(1, min(-(-TASKS_WANTED // max(batch * groups, 1)), queries // 64))


def backward_cut(sizes: Sizes, target: Target) -> Cut:
    rows = _tile_rows(target)
    lanes = target.lanes(sizes.wide.bits)
    short = lanes * VECTORS
    half_empty = -(-sizes.queries // short) % BACKWARD_PAIRS != 0
    is_short = sizes.queries <= SHORT if sizes.causal else half_empty and sizes.queries <= FEW
    pairs = 1 if is_short else BACKWARD_PAIRS
    chunks = backward_chunks(sizes.batch, sizes.groups, sizes.queries)
    block = -(-BACKWARD_BLOCK // rows) * rows
    return Cut(lanes, rows, pairs, block, chunks)


def default_cut(kernel: ArrayKernel, target: Target) -> Cut | None:
    """None for the steps that have no strips."""
    if kernel.step.startswith("forward"):
        return forward_cut(sizes_of(kernel), target)
    if kernel.step.startswith("backward"):
        return backward_cut(sizes_of(kernel), target)
    return None


def decodes(q: Shape, k: Shape, causal: bool) -> bool:
    """Whether attention of operands of these shapes is few queries to many keys."""
    if causal or not k[1]:
        return False
    return 0 < q[1] // k[1] * q[2] <= DECODE_ROWS and few_to_many(q[2], k[2])


def decode_span(batch: int, groups: int, keys: int) -> int:
    """Keys of a task: whole blocks."""
    chunks = min(-(-TASKS_WANTED // max(batch * groups, 1)), keys // DECODE_CHUNK)
    blocks = -(-keys // DECODE_BLOCK)
    return -(-blocks // max(chunks, 1)) * DECODE_BLOCK


def decode_chunks(batch: int, groups: int, keys: int) -> int:
    """How many tasks share a head of keys."""
    return -(-keys // decode_span(batch, groups, keys))


def lower_attention(group: Group) -> list[Launch]:
    anchor = group.anchor
    assert anchor is not None
    roots = [root for root in group.roots if root in group.outputs]
    if anchor.op == "attention_grad":
        return _lower_backward(anchor, {root.attrs[5]: root for root in roots})
    written = " ".join(root.op for root in roots)
    q, k = operand_shapes(anchor.inputs, anchor.attrs[3])[:2]
    if written == "attention" and decodes(q, k, anchor.attrs[1]):
        return _lower_decode(anchor, k)
    return [array_launch(anchor, anchor.inputs, roots, "attention", f"forward {written}")]


def _lower_decode(anchor: Node, keys: Shape) -> list[Launch]:
    chunks = decode_chunks(keys[0], keys[1], keys[2])
    if chunks == 1:
        return [array_launch(anchor, anchor.inputs, [anchor], "attention", "decode")]
    shape = (chunks, *anchor.shape[:-1], anchor.shape[-1] + DECODE_STATISTICS)
    partial = temporary(statistics_dtype(anchor.dtype), shape)
    return [
        array_launch(anchor, anchor.inputs, [partial], "attention", "decode"),
        array_launch(anchor, [partial], [anchor], "attention", "combine"),
    ]


def _lower_backward(anchor: Node, parts: dict[str, Node]) -> list[Launch]:
    views = anchor.attrs[3] or (None,) * len(anchor.inputs)
    batch, _, queries, _ = views[0][1] if views[0] else anchor.inputs[0].shape
    groups = (views[1][1] if views[1] else anchor.inputs[1].shape)[1]
    chunks = backward_chunks(batch, groups, queries)
    wide = statistics_dtype(anchor.dtype)
    writes, sums = [], []
    for name in GRADIENTS:
        part = parts.get(name)
        if part is None:
            continue
        target = part
        if chunks > 1 and name != "q":
            target = temporary(wide, (chunks, *part.shape))
            sums.append(array_launch(anchor, [target], [part], "attention", "sum"))
        writes.append(target)
    step = "backward " + " ".join(name for name in GRADIENTS if name in parts)
    return [array_launch(anchor, anchor.inputs, writes, "attention", step), *sums]
