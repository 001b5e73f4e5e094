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

from lazygrad_compiler.llvm.half import needs_conversions, with_conversions
from lazygrad_compiler.target import Target

lock = threading.RLock()
"""LLVM is used by one thread at a time."""


@functools.cache
def _initialize(all_targets: bool) -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if all_targets:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


@functools.cache
def target_machine(target: Target, level: int = 2) -> llvm.TargetMachine:
    """LLVM's code generator for the target."""
    _initialize(target.triple != llvm.get_process_triple())
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="default"
    )


@dataclass(frozen=True, slots=True)
class Compiled:
    """object_code: a relocatable object.  optimized: the LLVM text after the passes ("" unless
    asked for).
    """

    object_code: bytes
    optimized: str


def _passes(machine: llvm.TargetMachine) -> tuple[llvm.PassBuilder, llvm.ModulePassManager]:
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    manager = llvm.create_new_module_pass_manager()
    manager.add_always_inliner_pass()
    manager.add_sroa_pass()
    manager.add_instruction_combine_pass()
    manager.add_new_gvn_pass()
    manager.add_simplify_cfg_pass()
    manager.add_dead_code_elimination_pass()
    manager.add_global_dead_code_eliminate_pass()
    return builder, manager


def compile_text(
    text: str, target: Target, keep_optimized: bool = False, straight: bool = False
) -> Compiled:
    """Compiles a module.  RuntimeError with LLVM's message where the text is wrong: an error in an
    emitter.

    straight: no passes and the fast instruction selector, for long code that runs once a step (the
    entry).
    """
    with lock:
        machine = target_machine(target, 0 if straight else 2)
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        builder, manager = _passes(machine)
        if not straight:
            manager.run(module, builder)
        if needs_conversions(text, target):
            module = llvm.parse_assembly(with_conversions(str(module), target))
        optimized = str(module) if keep_optimized else ""
        return Compiled(machine.emit_object(module), optimized)


def optimize_text(text: str, target: Target) -> str:
    """The module after the passes, as text."""
    with lock:
        machine = target_machine(target)
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        builder, manager = _passes(machine)
        manager.run(module, builder)
        return with_conversions(str(module), target)


def assembly(text: str, target: Target) -> str:
    """The target's assembly for (optimised) module text."""
    with lock:
        machine = target_machine(target)
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        return machine.emit_assembly(module)
