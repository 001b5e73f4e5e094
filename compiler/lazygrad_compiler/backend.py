"""What differs between kinds of target, as one record for each.

The pipeline is the same for all: it asks the backend of its target for kernels' LLVM text and for
what comes after that.  Which emitter writes a kernel is a row of `Backend.emitters`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lazygrad_compiler.artifact import TensorMap
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.llvm.builder import Module
from lazygrad_compiler.loops.kernel import Launch
from lazygrad_compiler.loops.lower import Group
from lazygrad_compiler.loops.scatter import Ordered, in_turn, scatter_parts
from lazygrad_compiler.passes.optimize import Pass
from lazygrad_compiler.target import Target

AnyTarget = Target | CudaTarget
"""Which kind it is says `target.kind`; `Backend`s are found by it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How a GPU runs a kernel: blocks and threads of a block (x, y, z each), bytes of dynamic
    shared memory, tensor maps that it takes.
    """

    blocks: tuple[int, int, int]
    threads: tuple[int, int, int]
    shared: int = 0
    maps: tuple[TensorMap, ...] = ()


@dataclass(frozen=True, slots=True)
class Emitted:
    """What an emitter says of the function that it wrote.

    schedule: for people.  tasks, grain, scratch: for the thread pool of the CPU (see
    `llvm.arrays.Work`).  grid: for a GPU.
    """

    schedule: Any = None
    tasks: int = 0
    grain: int = 1
    scratch: int = 0
    grid: Grid | None = None


Emitter = Callable[..., Emitted]
"""(module, function name, kernel, target): writes the function into the module.  Those of the CPU
take another schedule than the default (`loops/candidates.py`) as a fifth argument.
"""


@dataclass(frozen=True, slots=True)
class Backend:
    """stages: their names, in order.  passes: those of stage opt, by name.  lowerings: of ops on
    whole arrays, by kind.  module: an empty module (target, annotated).  emitters: by kind of
    kernel.  optimize, assemble: LLVM text to optimised LLVM text, and that to assembly.  compile:
    LLVM text to what an artifact holds.  alignment: bytes to which the places stay aligned at
    which a launch binds its buffers.  row_buffers: whether row kernels keep values in memory
    (`loops/row_buffers.py`).  columns: whether they reduce over rows, too (`loops/columns.py`).
    scatter_parts: into how many parts the updates of a scatter are cut, each with a copy of the
    target; 1: without a copy.  order_updates: launches that take the updates in another way
    (`loops/scatter.py`).
    attends: whether there are kernels of attention for heads of that dtype and width, and with
    dropout where asked for.
    """

    stages: tuple[str, ...]
    passes: tuple[tuple[str, Pass], ...]
    lowerings: Mapping[str, Callable[[Group], list[Launch]]]
    module: Callable[[Any, bool], Module]
    emitters: Mapping[str, Emitter]
    optimize: Callable[[str, Any], str]
    assemble: Callable[[str, Any], str]
    compile: Callable[[str, Any], bytes]
    alignment: int = 1
    row_buffers: bool = False
    columns: bool = False
    scatter_parts: Callable[[Node], int] = scatter_parts
    order_updates: Ordered = in_turn
    attends: Callable[[DType, int, bool], bool] = lambda dtype, width, dropout: True


BACKENDS = {"cpu": "lazygrad_compiler.llvm.backend", "cuda": "lazygrad_compiler.ptx.backend"}
"""By kind of target, the module whose BACKEND it is; imported when it is first used."""


def backend_of(target: AnyTarget) -> Backend:
    backend: Backend = importlib.import_module(BACKENDS[target.kind]).BACKEND
    return backend
