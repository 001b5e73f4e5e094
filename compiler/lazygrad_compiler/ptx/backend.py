"""The CUDA backend: how each kind of kernel becomes a function that is launched."""

from __future__ import annotations

from lazygrad_compiler.backend import Backend
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.fusion.prepare import prepare
from lazygrad_compiler.passes.complex import split_complex
from lazygrad_compiler.passes.loops import loops_pass
from lazygrad_compiler.passes.optimize import PASSES
from lazygrad_compiler.passes.outputs import separate_outputs
from lazygrad_compiler.ptx.builder import KernelModule
from lazygrad_compiler.ptx.compile import compile_ptx, optimize_text, ptx_text
from lazygrad_compiler.ptx.loops import emit_loops
from lazygrad_compiler.ptx.points import WIDEST


def _module(target: CudaTarget, annotated: bool) -> KernelModule:
    return KernelModule(annotated)


BACKEND = Backend(
    stages=("graph", "grad", "opt", "fused", "loops", "llvm", "llvm-opt", "ptx"),
    passes=(
        ("split-complex", split_complex),
        ("loops", loops_pass()),
        *PASSES,
        ("prepare", prepare),
        ("separate-outputs", separate_outputs),
    ),
    lowerings={},
    module=_module,
    emitters={
        "loops": emit_loops,
    },
    optimize=optimize_text,
    assemble=ptx_text,
    compile=lambda text, target: compile_ptx(text, target).encode(),
    alignment=WIDEST,
)
