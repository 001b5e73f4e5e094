"""Attention on a GPU: which shapes have a kernel, how each is cut, and its launches.

Forward is one launch.  Backward is two, one for queries and one for keys and values, or only what
is asked for.  16-bit floats go through `mma.sync`, and so does float32 where tf32 was asked for by
name; else it goes through fused multiply-adds.  float64, wide heads and few queries are taken apart
into products and a softmax (`fusion/attention.py`).
"""

from __future__ import annotations

from dataclasses import replace

from lazygrad_compiler.backend import Emitted, Grid
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.fusion.attention import apart_where
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference_attention import GRADIENTS, operand_shapes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.loops.arrays import array_launch
from lazygrad_compiler.loops.attention import Sizes, sizes_of
from lazygrad_compiler.loops.kernel import ArrayKernel, Launch
from lazygrad_compiler.loops.lower import Group
from lazygrad_compiler.ptx.attention_backward import emit_backward
from lazygrad_compiler.ptx.attention_forward import emit_forward
from lazygrad_compiler.ptx.attention_products import products_for
from lazygrad_compiler.ptx.attention_scores import AttentionTile, shared_bytes
from lazygrad_compiler.ptx.builder import KernelModule

WIDEST_HEAD = 128
FEWEST_QUERIES = 16
FEWEST_KEYS = 16
"""What a fragment has: with fewer, scores are no larger than the operands."""

TILES: dict[tuple[str, str], dict[int, tuple[tuple[int, int, int], ...]]] = {
    ("mma.sync", "forward"): {64: ((2, 4, 64), (1, 4, 64)), 128: ((2, 4, 32), (1, 4, 32))},
    ("mma.sync", "q"): {64: ((2, 4, 32), (1, 4, 32)), 128: ((1, 4, 64), (1, 4, 32))},
    ("mma.sync", "k"): {64: ((1, 4, 64), (1, 4, 32)), 128: ((1, 4, 32), (1, 4, 16))},
    ("mma.sync tf32", "forward"): {
        64: ((2, 4, 32), (1, 4, 32)), 128: ((1, 4, 32), (1, 4, 16), (1, 2, 16))},
    ("mma.sync tf32", "q"): {64: ((1, 4, 32), (1, 4, 16)), 128: ((1, 4, 16), (1, 2, 16))},
    ("mma.sync tf32", "k"): {64: ((1, 4, 32), (1, 4, 16)), 128: ((1, 4, 16), (1, 2, 16))},
    ("ffma", "forward"): {64: ((2, 4, 32), (1, 4, 32)), 128: ((1, 4, 32), (1, 4, 16), (1, 2, 16))},
    ("ffma", "q"): {64: ((1, 4, 32), (1, 4, 16)), 128: ((1, 4, 16), (1, 2, 16))},
    ("ffma", "k"): {64: ((1, 4, 32), (1, 4, 16)), 128: ((1, 4, 16), (1, 2, 16))},
}
"""By template and pass, for heads up to a width: (rows, warps, columns), the best first.  Larger
ones would not fit the registers, later ones are for targets with less shared memory."""


def attends(dtype: DType, width: int, dropout: bool) -> bool:
    """Whether there are kernels for such heads."""
    if dropout:
        return False
    return width <= WIDEST_HEAD and (scalar.is_narrow(dtype) or dtype is dtypes.float32)


def small(attention: Node) -> bool:
    """Whether attention is taken apart."""
    q, k, v = operand_shapes(attention.inputs, attention.attrs[3])[:3]
    dtype, width = attention.inputs[0].dtype, max(q[3], v[3])
    if 0 in (*q, *k, *v) or not attends(dtype, width, bool(attention.attrs[4])):
        return True
    return q[2] < FEWEST_QUERIES or k[2] < FEWEST_KEYS


take_apart = apart_where(small)


def lower_attention(group: Group) -> list[Launch]:
    anchor = group.anchor
    assert anchor is not None
    roots = [root for root in group.roots if root in group.outputs]
    if anchor.op != "attention_grad":
        written = " ".join(root.op for root in roots)
        return [array_launch(anchor, anchor.inputs, roots, "attention", f"forward {written}")]
    parts = {root.attrs[5]: root for root in roots}
    launches = []
    for together in (GRADIENTS[:1], GRADIENTS[1:]):
        names = [name for name in together if name in parts]
        if names:
            writes = [parts[name] for name in names]
            step = "backward " + " ".join(names)
            launches.append(array_launch(anchor, anchor.inputs, writes, "attention", step))
    return launches


def choose_tile(kernel: ArrayKernel, target: CudaTarget) -> AttentionTile:
    """The first tile that fits shared memory, made smaller where there are few rows for it."""
    sizes = sizes_of(kernel)
    products = products_for(kernel.buffers[0].dtype, target.tf32)
    name = kernel.step.split()[1]
    which = name if kernel.step.startswith("backward") else "forward"
    which = "k" if which == "v" else which
    kept = 1 if which == "forward" else 2
    width = 64 if max(sizes.width, sizes.value_width) <= 64 else WIDEST_HEAD
    candidates = [
        AttentionTile(rows, warps, columns, products.template)
        for rows, warps, columns in TILES[products.template, which][width]
    ]
    fitting = [
        each for each in candidates
        if shared_bytes(sizes, products, each, kept) <= target.shared_bytes
    ]  # fmt: skip
    rows, heads = (sizes.keys, sizes.groups) if which == "k" else (sizes.queries, sizes.heads)
    tile = _shrunk(fitting[0], rows, heads * sizes.batch, target)
    return replace(tile, why=_why(kernel, sizes, tile))


def _shrunk(tile: AttentionTile, rows: int, heads: int, target: CudaTarget) -> AttentionTile:
    """Fewer rows a block where most of them would not exist, or multiprocessors go without."""
    while tile.rows > 1 and -(-rows // tile.height) * heads < target.multiprocessors:
        tile = replace(tile, rows=tile.rows // 2)
    while tile.warps > 1 and tile.height >= 2 * rows:
        tile = replace(tile, warps=tile.warps // 2)
    return tile


def _why(kernel: ArrayKernel, sizes: Sizes, tile: AttentionTile) -> str:
    dtype = kernel.buffers[0].dtype.name
    if tile.template == "ffma":
        return f"{dtype} is computed strictly"
    if tile.template == "mma.sync tf32":
        return "tf32 was asked for"
    return f"{dtype}, heads of {max(sizes.width, sizes.value_width)}: tensor cores"


def emit_attention(
    module: KernelModule, name: str, kernel: ArrayKernel, target: CudaTarget
) -> Emitted:
    tile = choose_tile(kernel, target)
    f = module.kernel(name, len(kernel.buffers), tile.threads)
    emit = emit_backward if kernel.step.startswith("backward") else emit_forward
    blocks = emit(f, kernel, tile)
    f.ret()
    grid = Grid((blocks, 1, 1), (tile.threads, 1, 1), module.dynamic_bytes)
    return Emitted(tile, grid=grid)
