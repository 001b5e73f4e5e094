"""LLVM's long calls without the lock that llvmlite holds around each.

LLVM needs none for modules of different contexts, with passes and code generators of their own, so
threads compile side by side, and nobody waits for one that does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm


def unlocked(name: str) -> Callable[..., Any]:
    """One of llvmlite's functions; where llvmlite is built otherwise, the locked one, and we wait.
    """
    function = getattr(llvm.ffi.lib, name)
    return getattr(function, "_cfn", function)


def emit_object(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> bytes:
    """`machine.emit_object(module)`, while other threads do the same.  Module and machine are this
    thread's, the module in a context of its own.
    """
    library = llvm.ffi.lib
    with llvm.ffi.OutputString() as error:
        buffer = unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        start, size = library.LLVMPY_GetBufferStart(buffer), library.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(start, size)
    finally:
        library.LLVMPY_DisposeMemoryBuffer(buffer)
