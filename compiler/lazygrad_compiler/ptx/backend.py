"""The CUDA backend: how each kind of kernel becomes a function that is launched."""

from __future__ import annotations

from lazygrad_compiler.backend import Backend
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.fusion.prepare import prepare
from lazygrad_compiler.fusion.split_products import Slicing, split_products
from lazygrad_compiler.passes.complex import split_complex
from lazygrad_compiler.passes.loops import loops_pass
from lazygrad_compiler.passes.optimize import PASSES
from lazygrad_compiler.passes.outputs import separate_outputs
from lazygrad_compiler.ptx.attention import attends, emit_attention, lower_attention, take_apart
from lazygrad_compiler.ptx.builder import KernelModule
from lazygrad_compiler.ptx.compile import compile_ptx, optimize_text, ptx_text
from lazygrad_compiler.ptx.contraction import emit_contraction
from lazygrad_compiler.ptx.loops import emit_loops
from lazygrad_compiler.ptx.points import WIDEST
from lazygrad_compiler.ptx.scan import emit_scan, lower_scan
from lazygrad_compiler.ptx.scatter import emit_scatter
from lazygrad_compiler.ptx.scatter_ordered import lower_ordered
from lazygrad_compiler.ptx.scatter_private import scatter_parts
from lazygrad_compiler.ptx.sort import emit_sort, lower_sort

SLICING = Slicing(tile=128 * 128, tasks=128, shortest=1024, most=32)


def _module(target: CudaTarget, annotated: bool) -> KernelModule:
    return KernelModule(annotated)


BACKEND = Backend(
    stages=("graph", "grad", "opt", "fused", "loops", "llvm", "llvm-opt", "ptx"),
    passes=(
        ("split-complex", split_complex),
        ("take-apart", take_apart),
        ("loops", loops_pass(take_apart)),
        *PASSES,
        ("prepare", prepare),
        ("split-products", split_products(SLICING)),
        ("separate-outputs", separate_outputs),
    ),
    attends=attends,
    lowerings={"attention": lower_attention, "scan": lower_scan, "sort": lower_sort},
    module=_module,
    emitters={
        "loops": emit_loops,
        "contraction": emit_contraction,
        "scatter": emit_scatter,
        "scan": emit_scan,
        "sort": emit_sort,
        "attention": emit_attention,
    },
    optimize=optimize_text,
    assemble=ptx_text,
    compile=lambda text, target: compile_ptx(text, target).encode(),
    alignment=WIDEST,
    scatter_parts=scatter_parts,
    order_updates=lower_ordered,
)
