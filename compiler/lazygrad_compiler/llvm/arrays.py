"""What the emitters of kernels over whole arrays have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lazygrad_compiler.llvm.builder import Module
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.target import Target


@dataclass(frozen=True, slots=True)
class Work:
    """What the pool is told of a kernel: tasks, how many of them a thread takes at a time, and
    bytes of scratch memory a thread.
    """

    tasks: int
    grain: int = 1
    scratch: int = 0


Emitter = Callable[[Module, str, ArrayKernel, Target], Work]
"""Writes the function of that name into the module."""
