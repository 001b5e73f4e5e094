"""Plans: recordings as native code replays them, and the native code itself.

`plan_of` turns an `Entry` into words (`native_replay`), if it only computes: a program of short
kernels on the CPU that writes no tensor, from arguments, parameters and constants, behind guards
that can be looked at by identity.  Everything else is replayed in Python, and so is a plan whenever
something is not the very object that it was.

`native_functions` loads the native code the first time that it is asked for, from the compile cache
or by compiling it (some 90 ms, once for a machine and Python).
"""

from __future__ import annotations

import _thread
import ctypes
import functools
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lazygrad._core import cell as cells
from lazygrad._core import (
    context,
    native_apply,
    native_flush,
    native_modes,
    native_operators,
    native_record,
)
from lazygrad._core import native_replay as words
from lazygrad._core.cell import Cell, View
from lazygrad._core.context import now
from lazygrad._core.native_operators import OPERATORS
from lazygrad._core.tensor import Tensor
from lazygrad._core.types import default
from lazygrad_compiler.ir import composite
from lazygrad_compiler.ir import node as nodes
from lazygrad_compiler.ir.composite import Call, Folded, Template
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_runtime import native_memory
from lazygrad_runtime import program as programs
from lazygrad_runtime.memory import Buffer, FreeList
from lazygrad_runtime.native import (
    METH_FASTCALL,
    METH_KEYWORDS,
    METH_O,
    LayoutUnknown,
    Loaded,
    NativeModule,
    Number,
    function,
    is_supported,
    layout,
    load,
    method,
    type_offset,
    words_of,
)
from lazygrad_runtime.native_memory import NativeRun
from lazygrad_runtime.pool import get_pool
from lazygrad_runtime.precision import precision

if TYPE_CHECKING:
    from lazygrad._core.replay import Entry

SHORT = 50_000
"""Nanoseconds that a program may take to be run with the interpreter's lock held; Python itself
holds it for 5 ms before it lets another thread have it.
"""
SURELY_LONG = 4 * SHORT
"""No mishap makes a short run so long often enough to try again at once."""

CHECKS = {"item": words.CHECK_ITEM, "enclosed": words.CHECK_ENCLOSED,
          "handle": words.CHECK_HANDLE, "values": words.CHECK_VALUES, "list": words.CHECK_LIST,
          "empty": words.CHECK_EMPTY}


class Plan(int):
    """The address of a recording's words.  entry: the recording.  kept: all that they name."""

    entry: Entry
    kept: list[Any]


PYTHON_OPERATORS: dict[str, Any] = {}
"""What the native operators of Tensor stand in for."""


def module() -> NativeModule:
    """The text of all native functions.  Raises LayoutUnknown."""
    from lazygrad._core.capture import CompiledFunction

    kinds = (*native_memory.LAYOUTS, Node, Call, Template, Cell, View, Tensor,
             CompiledFunction, type(default), type(precision))
    made = NativeModule({kind.__name__: layout(kind) for kind in kinds}, type_offset())
    native_memory.emit(made)
    native_modes.emit(made)
    words.emit(made)
    native_flush.emit(made)
    native_record.emit(made)
    native_operators.emit(made)
    native_apply.emit(made)
    return made


def _object_code(text: str) -> bytes:
    """From the compile cache where it is there."""
    from lazygrad_runtime import store

    return store.native_code("native functions", text, python=sys.version)


@functools.cache
def native_functions() -> Loaded | None:
    """The native code, in place; None where this interpreter has none."""
    from lazygrad._core.capture import CompiledFunction

    if not is_supported() or not isinstance(now, _thread._local):
        return None  # where threads are not the interpreter's, `now` is another thing as well
    pool = get_pool()
    given = {
        "None": None, "True": True, "False": False, "0": 0, "1": 1, "()": (), "int": int,
        "Buffer": Buffer, "FreeList": FreeList, "Node": Node, "Cell": Cell, "Tensor": Tensor,
        "pool": Number(pool.pointer), "pool is locked": pool.lock.locked,
        "computing": Number(ctypes.addressof(cells.computing)),
        "now": now, "default": default, "precision": precision, "names of nodes": vars(nodes),
        "run callbacks": programs.run_callbacks, "serials": nodes.serials,
        "input numbers": nodes._input_numbers, "singles": programs.singles,
        "Folded": Folded, "Call": Call, "interned": nodes._interned, "Entry": nodes._Entry,
        "forget": nodes._forget, "const": OPS["const"].name, "files inside": context._inside,
        "bound pending": cells._bound, "pending": cells._pending,
        "observation callbacks": cells.observation_callbacks,
    }
    for name in OPERATORS:
        python = PYTHON_OPERATORS.setdefault(name, vars(Tensor)[name])
        given |= {f"method {name}": python, f"recipes of {name}": python.recipes}
    try:
        loaded = load(module(), given, _object_code)
    except (LayoutUnknown, RuntimeError) as error:
        warnings.warn(f"[compile] calls stay in Python: {error}", RuntimeWarning, stacklevel=2)
        return None
    native_memory.install(loaded)
    CompiledFunction.__call__ = method(  # type: ignore[method-assign]
        CompiledFunction, "__call__", loaded.address("called"), METH_FASTCALL | METH_KEYWORDS)
    cells.flush_natively = function("flush_natively", loaded.address("flushed"), METH_O)
    context.record_natively = function(
        "record_natively", loaded.address("recorded"), METH_FASTCALL)
    forget = function("_forget", loaded.address("forgotten"), METH_O)
    loaded.give("forget", forget)
    nodes._forget = forget
    composite.apply_natively = function(
        "apply_natively", loaded.address("applied"), METH_FASTCALL)
    for name, flags in OPERATORS.items():
        setattr(Tensor, name, method(Tensor, name, loaded.address(f"operator{name}"), flags))
    return loaded


def plan_of(entry: Entry, arguments: Sequence[Any], tensors: Sequence[Tensor]) -> Plan | None:
    """The plan of a recording, which now holds for these arguments; None where it takes Python."""
    from lazygrad._core.replay import ArgumentSource, KnownSource

    program: Any = entry.program
    if entry.effects or entry.before or entry.after or entry.tuning_seconds or entry.conflicting \
            or len(arguments) > words.MOST_ARGUMENTS or len(entry.kinds) > words.MOST_OUTPUTS:
        return None
    if not _only_computes(program) \
            or not _is_short(lambda: entry._run(entry._inputs(tensors), None)):
        return None
    positions = [place for place, value in enumerate(arguments) if isinstance(value, Tensor)]
    if len(positions) != len(tensors) or len({id(each._cell) for each in tensors}) < len(tensors):
        return None  # some are within lists, or share memory
    described: list[Any] = []
    for value in arguments:
        if type(value) is Tensor:
            node = value._cell.node
            described += [Number(words.ARGUMENT_TENSOR), node.dtype, node.shape]
        elif isinstance(value, Tensor):
            return None
        else:
            described += [Number(words.ARGUMENT_SAME), value, None]
    sources: list[Any] = []
    for source in entry.sources:
        if isinstance(source, Cell):
            sources += [Number(words.SOURCE_CELL), source]
        elif isinstance(source, ArgumentSource):
            sources += [Number(words.SOURCE_ARGUMENT), Number(positions[source.position])]
        elif isinstance(source, KnownSource):
            sources += [Number(words.SOURCE_BUFFER), source.buffer]
        else:
            return None
    kept: list[Any] = []
    checks: list[Any] = []
    for guard in entry.guards:
        if not hasattr(guard, "checks"):
            return None
        for check in guard.checks:
            checks += _check(check, kept)
    if native_functions() is None:
        return None
    run = NativeRun(program)
    parts = [described, checks, sources, [each for kind in entry.kinds for each in kind]]
    arrays = [words_of(part) for part in parts]
    result = entry.output
    plan_words: list[Any] = [Number(0)] * words.PLAN_WORDS
    for place, number in (
        (words.PLAN_COUNT, len(arguments)),
        (words.PLAN_ARGUMENTS, ctypes.addressof(arrays[0])),
        (words.PLAN_CHECK_COUNT, len(checks) // words.CHECK_WORDS),
        (words.PLAN_CHECKS, ctypes.addressof(arrays[1])),
        (words.PLAN_SOURCES, ctypes.addressof(arrays[2])),
        (words.PLAN_RUN, run.address),
        (words.PLAN_KINDS, ctypes.addressof(arrays[3])),
        (words.PLAN_RESULT, 0 if len(entry.kinds) == 1 and result == 0 else -1),
    ):
        plan_words[place] = Number(number)
    plan_words[words.PLAN_GRAD] = now.grad
    plan_words[words.PLAN_AUTOCAST] = now.autocast
    plan_words[words.PLAN_DTYPE] = default.dtype
    plan_words[words.PLAN_TF32] = precision.tf32
    plan_words[words.PLAN_BUILDER] = entry.result
    whole = words_of(plan_words)
    plan = Plan(ctypes.addressof(whole))
    plan.entry = entry
    plan.kept = [whole, arrays, parts, plan_words, kept, run]
    return plan


def _only_computes(program: Any) -> bool:
    """Whether native code may run a program: nothing of it calls Python, and nobody watches."""
    return isinstance(program, programs.Program) and not programs.run_callbacks \
        and program.places is None and program._library is None \
        and not (program._arena_bytes and program._kept_arena is None)


def _is_short(run: Callable[[], Any]) -> bool:
    """Whether a program can be run with the interpreter's lock held: it is run to find that out."""
    for _ in range(3):
        begin = time.perf_counter_ns()
        run()
        spent = time.perf_counter_ns() - begin
        if spent < SHORT:
            return True
        if spent > SURELY_LONG:
            break
    return False


class Single(int):
    """The address of what is known of a program for one node (`native_flush`)."""

    kept: list[Any]


MOST_SINGLES = 256


def remember_single(node: Node) -> None:
    """Has native code compute such nodes from now on.  The node has just been computed alone, in
    Python.
    """
    inputs = node.inputs if node.call is None else node.call.inputs
    if not 1 <= len(inputs) <= native_flush.MOST_INPUTS \
            or (node.call is not None and len(set(inputs)) < len(inputs)) \
            or any(type(each.payload) is not Buffer for each in inputs) \
            or node.op in ("variable", "stop_gradient"):
        return
    firsts = [inputs.index(each) for each in inputs]
    key: tuple[Any, ...] = (node.op, node.identity, *[
        part for place, (each, first) in enumerate(zip(inputs, firsts, strict=True))
        for part in (each.dtype if first == place else first, each.shape)])
    if node.call is not None:
        key = (node.call.template, node.part)
    value, node.payload = node.payload, None  # as it was before, to find the program again
    try:
        found = programs.program_in_memory([node])
    finally:
        node.payload = value
    if found is None:
        return
    program, leaves = found
    if not _only_computes(program):
        return
    if program.found_long:  # runs to find out are a loss then: ever fewer
        program.found_long += 1
        if program.found_long & (program.found_long - 1):
            return
    buffers = [leaf.payload for leaf in leaves]
    if not _is_short(lambda: program.run(buffers)):
        program.found_long = max(program.found_long, 1)
        return
    if native_functions() is None:
        return
    places = [inputs.index(leaf) for leaf in leaves]
    run = NativeRun(program)
    described = words_of([Number(each) for each in (run.address, len(places), *places)])
    single = Single(ctypes.addressof(described))
    single.kept = [described, run]
    while len(programs.singles) >= MOST_SINGLES:
        programs.singles.pop(next(iter(programs.singles)))
    programs.singles[key] = single


def _check(check: tuple[Any, ...], kept: list[Any]) -> list[Any]:
    """A guard's check as words."""
    kind, thing, *rest = check
    kept.append(check)
    if kind == "leaf":
        cell, absent, gradients = rest
        if gradients:
            return [Number(words.CHECK_LEAF_AND_GRADIENT), thing, cell, absent]
        return [Number(words.CHECK_LEAF), thing, cell, Number(0)]
    number = Number(CHECKS[kind])
    if kind in ("values", "list"):
        array = words_of(rest[0])
        kept.append(array)
        return [number, thing, Number(len(rest[0])), Number(ctypes.addressof(array))]
    return [number, thing, *rest, *[Number(0)] * (2 - len(rest))]
