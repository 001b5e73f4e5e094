"""Contractions on a GPU: which template, by what the target can do and what is multiplied.

  wgmma      16-bit floats on Hopper (sm_90a), operands in steps of 16 bytes, copied or computed
  mma.sync   16-bit floats, on the tensor cores of sm_80 and up, and float32 where tf32 was asked
             for by name
  ffma       all else, strictly in the dtype's own arithmetic

Each schedule says in words why its template was taken rather than the one before it.
"""

from __future__ import annotations

from lazygrad_compiler.backend import Emitted
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.ptx.builder import KernelModule
from lazygrad_compiler.ptx.contraction_ffma import emit_ffma
from lazygrad_compiler.ptx.contraction_mma import emit_mma, narrow_products
from lazygrad_compiler.ptx.contraction_wgmma import Plan, emit_wgmma, plan_for

SHORT = {"float16": "f16", "bfloat16": "bf16", "float32": "tf32"}


def emit_contraction(
    module: KernelModule, name: str, kernel: ContractionKernel, target: CudaTarget
) -> Emitted:
    products = narrow_products(kernel, target.tf32)
    if products is None:
        left, right = (kernel.values[each].dtype.name for each in (kernel.left, kernel.right))
        what = left if left == right else f"{left} times {right}"
        return emit_ffma(module, name, kernel, target, f"{what} is multiplied strictly")
    if not target.has(f"mma.sync.{SHORT[products[0].name]}"):
        return emit_ffma(module, name, kernel, target, f"{target.arch} has no tensor cores")
    if products[0] is dtypes.float32:
        return emit_mma(module, name, kernel, target, products, "tf32 was asked for")
    plan = plan_for(kernel, target, products)
    if isinstance(plan, Plan):
        return emit_wgmma(module, name, kernel, target, plan)
    return emit_mma(module, name, kernel, target, products, f"no wgmma: {plan}")
