"""Native twins of `FreeList.take` and `Buffer.__del__`, and the native call of a program.

`emit` puts into a module:
    take_block(list, nbytes)   a buffer from a free list, or from the system where that is empty
    taken, given_back          the two methods
    enter(run)                 runs a program whose table is filled, if that is possible at once
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_runtime import native, pool_ir
from lazygrad_runtime.memory import (
    CACHE_LIMIT,
    CLOCK,
    IN_USE,
    LIST_CAPACITY,
    LIST_COUNTS,
    LIST_LAST_USE,
    MAPPED,
    PEAK,
    Buffer,
    FreeList,
)
from lazygrad_runtime.native import METH_NOARGS, METH_O, Loaded, NativeModule, words_of

if TYPE_CHECKING:
    from lazygrad_runtime.program import Program

NULL = Value("ptr", "null")

RUN_ENTRY, RUN_TABLE, RUN_ERROR, RUN_INPUTS, RUN_OUTPUTS, RUN_LISTS, RUN_WORDS = range(7)
"""Places of what native code knows of a program: the entry, its table and error block, how many
inputs and outputs, and the address of (free list, bytes) for each output.
"""

LAYOUTS = (Buffer, FreeList)
"""Classes whose slots are read here."""


def emit(module: NativeModule) -> None:
    _take_block(module)
    _taken(module)
    _given_back(module)
    _enter(module)


def _take_block(module: NativeModule) -> None:
    """A new reference, or null with an error set."""
    f = module.native("take_block", "ptr", [("ptr", "list"), ("ptr", "nbytes")])
    free, nbytes = f.parameters
    empty, failed, unfit = f.new_block("empty"), f.new_block("failed"), f.new_block("unfit")
    # First the object: making it may start the garbage collector, and with it any code at all.
    buffer = f.api("PyType_GenericAlloc", f.given("Buffer"), const("i64", 0))
    f.where(f.is_null(buffer), failed)
    pointers = f.slot(free, "FreeList", "pointers")
    count = f.api("PyList_Size", pointers)
    f.where(f.icmp("slt", count, 1), empty)
    last = f.sub(count, 1)
    pointer = f.own(f.api("PyList_GetItem", pointers, last))
    f.where(f.icmp("ne", f.api("PyList_SetSlice", pointers, last, count, NULL), 0), unfit)
    for name, value in (("pointer", pointer), ("nbytes", f.own(nbytes)),
                        ("owner", f.own(f.none())), ("_home", f.own(free))):
        f.fill(buffer, "Buffer", name, value)
    words = f.api("PyLong_AsVoidPtr", f.slot(free, "FreeList", "address"))
    counts = f.word("ptr", words, LIST_COUNTS)
    clock = f.add(f.word("i64", counts, CLOCK), 1)
    f.put(clock, counts, CLOCK)
    f.put(clock, words, LIST_LAST_USE)
    in_use = f.add(f.word("i64", counts, IN_USE), f.word("i64", words, LIST_CAPACITY))
    f.put(in_use, counts, IN_USE)
    peak = f.word("i64", counts, PEAK)
    f.put(f.select(f.icmp("sgt", in_use, peak), in_use, peak), counts, PEAK)
    f.ret(buffer)
    f.start_block(unfit)
    f.drop(pointer)
    f.drop(buffer)
    f.stop(None)
    f.start_block(empty)
    f.drop(buffer)
    f.ret(f.call_method("take_slowly", f.slot(free, "FreeList", "allocator"), nbytes,
                        f.slot(free, "FreeList", "capacity")))
    f.start_block(failed)
    f.stop(None)


def _taken(module: NativeModule) -> None:
    """`FreeList.take(nbytes)`."""
    f = module.native("taken", "ptr", [("ptr", "self"), ("ptr", "nbytes")], linkage="")
    f.ret(f.call("take_block", "ptr", *f.parameters))


def _given_back(module: NativeModule) -> None:
    """`Buffer.__del__()`."""
    f = module.native("given_back", "ptr", [("ptr", "self"), ("ptr", "unused")], linkage="")
    buffer = f.parameters[0]
    done = f.new_block("done")
    home = f.slot(buffer, "Buffer", "_home")
    f.where(f.is_null(home), done)
    f.where(f.same(home, f.none()), done)
    pointer = f.slot(buffer, "Buffer", "pointer")
    f.where(f.is_null(pointer), done)
    words = f.api("PyLong_AsVoidPtr", f.slot(home, "FreeList", "address"))
    counts = f.word("ptr", words, LIST_COUNTS)
    in_use = f.sub(f.word("i64", counts, IN_USE), f.word("i64", words, LIST_CAPACITY))
    f.put(in_use, counts, IN_USE)
    added = f.api("PyList_Append", f.slot(home, "FreeList", "pointers"), pointer)
    with f.when(f.icmp("ne", added, 0)):
        f.api("PyErr_Clear")  # no memory to note it in: the block is lost
    free = f.sub(f.word("i64", counts, MAPPED), in_use)
    f.unless(f.icmp("sgt", free, f.word("i64", counts, CACHE_LIMIT)), done)
    result = f.call_method("trim", f.slot(home, "FreeList", "allocator"))
    f.ret(result)
    f.start_block(done)
    f.ret(f.own(f.none()))


def _enter(module: NativeModule) -> None:
    """True where the program ran and reported nothing.  Nothing is waited for: where another
    program runs, or workers are to be started first, the Python path has to do it.
    """
    f = module.native("enter", "i1", [("ptr", "run")])
    run = f.parameters[0]
    no, clear = f.new_block("no"), f.new_block("clear")
    structure = f.given("pool")
    running = f.load("i32", f.offset(structure, pool_ir.RUNNING, "i8"), 4)
    f.where(f.icmp("eq", running, 0), no)
    locked = f.api("PyObject_CallNoArgs", f.given("pool is locked"))
    f.where(f.is_null(locked), clear)
    f.drop(locked)  # True or False, which live on
    f.where(f.same(locked, f.given("True")), no)
    entry = f.word("ptr", run, RUN_ENTRY)
    f.emit_void(f"call void {entry.name}({f.word('ptr', run, RUN_TABLE)}, {structure})")
    error = f.word("ptr", run, RUN_ERROR)
    reported = f.word("i64", error, 0)
    f.put(const("i64", 0), error, 0)
    f.ret(f.icmp("eq", reported, 0))
    f.start_refusal(clear, no)
    f.stop(False)


class NativeRun:
    """What native code knows of a program.  address: of its words."""

    __slots__ = ("address", "kept", "words")

    def __init__(self, program: Program) -> None:
        lists = [(free, size) for free, size in zip(program._lists, program._sizes, strict=True)]
        pairs = words_of([thing for pair in lists for thing in pair])
        self.words = (ctypes.c_int64 * RUN_WORDS)()
        self.words[RUN_ENTRY] = ctypes.cast(program._entry, ctypes.c_void_p).value or 0
        self.words[RUN_TABLE] = program._table_address
        self.words[RUN_ERROR] = ctypes.addressof(program._error)
        self.words[RUN_INPUTS] = program.input_count
        self.words[RUN_OUTPUTS] = len(lists)
        self.words[RUN_LISTS] = ctypes.addressof(pairs)
        self.address = ctypes.addressof(self.words)
        self.kept = (program, lists, pairs)


PYTHON_TWINS = (FreeList.take, Buffer.__del__)
"""What the native functions stand in for."""


def install(loaded: Loaded) -> None:
    """Makes the native twins the methods.  (Assigning to the class is what tells the interpreter.)
    """
    take = native.method(FreeList, "take", loaded.address("taken"), METH_O)
    give = native.method(Buffer, "__del__", loaded.address("given_back"), METH_NOARGS)
    FreeList.take, Buffer.__del__ = take, give  # type: ignore[method-assign]
