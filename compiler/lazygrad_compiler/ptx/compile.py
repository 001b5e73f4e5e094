"""From LLVM text to PTX: parse, check what it calls, a short pass list, emit.

LLVM's NVPTX target ends the process at an intrinsic that it cannot select.  So what a module
declares is held against a list of what has been tried, and the PTX must have no `call`: then every
function was inlined, and nothing is left that a library would have to provide.
"""

from __future__ import annotations

import functools
import re

import llvmlite.binding as llvm

from lazygrad_compiler import forks
from lazygrad_compiler.cuda_target import CudaTarget

lock = forks.rlock(forks.EMITTER)
"""LLVM's code generator for an architecture is used by one thread at a time."""

ALLOWED = re.compile(
    r"llvm\.(nvvm\.[\w.]+"
    r"|(fma|floor|ceil|trunc|roundeven|sqrt|copysign|fabs)\.\w+"
    r"|(fshl|fshr|ctpop|bitreverse|bswap)\.\w+"
    r"|(ctlz|cttz)\.\w+"
    r"|(smax|smin|umax|umin|abs)\.\w+"
    r"|fpto[su]i\.sat\.\w+\.\w+)"
)
DECLARED = re.compile(r"^declare [^@]*@([\w.]+)\(", re.MULTILINE)


class UnsupportedIntrinsic(RuntimeError):
    """A kernel calls something that NVPTX may not know: an error in an emitter."""


class CallInKernel(RuntimeError):
    """The PTX calls a function: an error in an emitter."""


@functools.cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@functools.cache
def target_machine(target: CudaTarget) -> llvm.TargetMachine:
    """LLVM's code generator for the architecture."""
    _initialize()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.arch, features=target.features, opt=3
    )


def _checked(text: str) -> str:
    for name in DECLARED.findall(text):
        if not ALLOWED.fullmatch(name):
            raise UnsupportedIntrinsic(f"{name} is not on the list of intrinsics for NVPTX")
    return text


def _parsed(text: str, target: CudaTarget) -> llvm.ModuleRef:
    module = llvm.parse_assembly(_checked(text))
    module.triple = target.triple
    module.data_layout = str(target_machine(target).target_data)
    module.verify()
    return module


def _run_passes(module: llvm.ModuleRef, target: CudaTarget) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(target_machine(target), options)
    manager = llvm.create_new_module_pass_manager()
    manager.add_always_inliner_pass()
    manager.add_sroa_pass()
    manager.add_instruction_combine_pass()
    manager.add_simplify_cfg_pass()
    manager.add_new_gvn_pass()
    manager.add_instruction_combine_pass()
    manager.add_simplify_cfg_pass()
    manager.add_dead_code_elimination_pass()
    manager.add_global_dead_code_eliminate_pass()
    manager.run(module, builder)


def optimize_text(text: str, target: CudaTarget) -> str:
    """The module after the passes, as text."""
    with lock:
        module = _parsed(text, target)
        _run_passes(module, target)
        return str(module)


def ptx_text(optimized: str, target: CudaTarget) -> str:
    """PTX of (optimised) module text.  CallInKernel where something was not inlined."""
    with lock:
        module = _parsed(optimized, target)
        return _without_calls(target_machine(target).emit_assembly(module))


def compile_ptx(text: str, target: CudaTarget) -> str:
    """PTX of a module as an emitter wrote it."""
    with lock:
        module = _parsed(text, target)
        _run_passes(module, target)
        return _without_calls(target_machine(target).emit_assembly(module))


def _without_calls(ptx: str) -> str:
    found = re.search(r"^\s*(@\S+\s+)?call[\s.].*$", ptx, re.MULTILINE)
    if found:
        raise CallInKernel(f"the PTX has a call: {found[0].strip()}")
    return ptx
