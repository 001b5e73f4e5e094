"""Contractions on a GPU: which template, by what the target can do and what is multiplied.

  mma.sync   16-bit floats, on the tensor cores of sm_80 and up
  ffma       all else, strictly in the dtype's own arithmetic
"""

from __future__ import annotations

from lazygrad_compiler.backend import Emitted
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.ptx.builder import KernelModule
from lazygrad_compiler.ptx.contraction_ffma import emit_ffma
from lazygrad_compiler.ptx.contraction_mma import emit_mma, sixteen_bits

SHORT = {"float16": "f16", "bfloat16": "bf16"}


def emit_contraction(
    module: KernelModule, name: str, kernel: ContractionKernel, target: CudaTarget
) -> Emitted:
    products = sixteen_bits(kernel)
    if products is not None and target.has(f"mma.sync.{SHORT[products[0].name]}"):
        return emit_mma(module, name, kernel, target, products)
    return emit_ffma(module, name, kernel, target)
