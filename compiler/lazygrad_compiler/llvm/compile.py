"""From LLVM text to object code: parse, a short pass list, emit.

Our emitters write code that is already vectorised, unrolled and hoisted, so only local clean-up is
left to LLVM: inlining of the elementary functions, scalar replacement, common subexpressions,
instruction combining.  That keeps compile time at some milliseconds a kernel.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

import llvmlite.binding as llvm

from lazygrad_compiler import forks
from lazygrad_compiler.llvm.half import needs_conversions, with_conversions
from lazygrad_compiler.llvm.unlocked import emit_object, unlocked
from lazygrad_compiler.target import Target

forks.know_llvmlite(llvm)


@functools.cache
def _initialize(all_targets: bool) -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if all_targets:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


class _Tools(threading.local):
    """What LLVM lets one thread use at a time: this thread's code generators and passes."""

    def __init__(self) -> None:
        self.machines: dict[tuple[Target, int], llvm.TargetMachine] = {}
        self.passes: dict[Target, tuple[llvm.PassBuilder, llvm.ModulePassManager]] = {}


_tools = _Tools()


def target_machine(target: Target, level: int = 2) -> llvm.TargetMachine:
    """This thread's code generator for the target."""
    machine = _tools.machines.get((target, level))
    if machine is None:
        _initialize(target.triple != llvm.get_process_triple())
        machine = llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="default"
        )
        _tools.machines[target, level] = machine
    return machine


@functools.cache
def _heading(target: Target) -> str:
    """What a module's text says of the target, on the text's first line: by calls it would cost
    the interpreter's lock two times.
    """
    layout = str(target_machine(target).target_data)
    return f'target datalayout = "{layout}" target triple = "{target.triple}" '


@dataclass(frozen=True, slots=True)
class Compiled:
    """object_code: a relocatable object.  optimized: the LLVM text after the passes ("" unless
    asked for).
    """

    object_code: bytes
    optimized: str


def _passes(target: Target) -> tuple[llvm.PassBuilder, llvm.ModulePassManager]:
    """This thread's passes for the target."""
    if target in _tools.passes:
        return _tools.passes[target]
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(target_machine(target), options)
    manager = llvm.create_new_module_pass_manager()
    manager.add_always_inliner_pass()
    manager.add_sroa_pass()
    manager.add_instruction_combine_pass()
    manager.add_new_gvn_pass()
    manager.add_simplify_cfg_pass()
    manager.add_dead_code_elimination_pass()
    manager.add_global_dead_code_eliminate_pass()
    _tools.passes[target] = builder, manager
    return builder, manager


def _parse(text: str, target: Target) -> llvm.ModuleRef:
    """The module in a context of its own, so that no other thread touches what it consists of."""
    return llvm.parse_assembly(_heading(target) + text, llvm.create_context())


def _optimize(module: llvm.ModuleRef, target: Target) -> None:
    builder, manager = _passes(target)
    unlocked("LLVMPY_RunNewModulePassManager")(manager, module, builder)


def compile_text(
    text: str, target: Target, keep_optimized: bool = False, straight: bool = False
) -> Compiled:
    """Compiles a module; threads may do so at the same time.  RuntimeError with LLVM's message
    where the text is wrong: an error in an emitter.

    straight: no passes and the fast instruction selector, for long code that runs once a step (the
    entry).
    """
    machine = target_machine(target, 0 if straight else 2)
    module = _parse(text, target)
    if not straight:
        _optimize(module, target)
    if needs_conversions(text, target):
        with_all = with_conversions(str(module), target)
        module = llvm.parse_assembly(with_all, llvm.create_context())
    optimized = str(module) if keep_optimized else ""
    return Compiled(emit_object(module, machine), optimized)


def optimize_text(text: str, target: Target) -> str:
    """The module after the passes, as text."""
    module = _parse(text, target)
    _optimize(module, target)
    return with_conversions(str(module), target)


def assembly(text: str, target: Target) -> str:
    """The target's assembly for (optimised) module text."""
    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple = target.triple
    module.data_layout = str(target_machine(target).target_data)
    return target_machine(target).emit_assembly(module)
