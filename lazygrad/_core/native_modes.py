"""What native code asks of the state that it runs in: this thread's modes, and locks.

`emit` puts into a module:
    thread_modes()   the dict of the attributes that `context.now` has in this thread

`now` is a `threading.local`, whose attributes take Python's way to be read, 40 ns each.  Their dict
is noted in the thread's own dict of the interpreter, so that all of them together take 70.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.llvm.builder import Value
from lazygrad_runtime.native import NativeFunction, NativeModule

DEFAULTS = {"grad": "True", "recording": "None", "traced": "None", "autocast": "None",
            "location": "()"}
"""Modes as they are where a thread has not set them: names of given objects."""

_NOTED = "modes of lazygrad"


def emit(module: NativeModule) -> None:
    """Borrowed; null where there is none."""
    f = module.native("thread_modes", "ptr", [])
    no, clear, first = f.new_block("no"), f.new_block("clear"), f.new_block("first")
    known = f.new_block("known")
    threads = f.api("PyThreadState_GetDict")
    f.where(f.is_null(threads), no)
    noted = f.item(threads, _NOTED)
    f.branch_if(f.is_null(noted), first, known)
    f.start_block(known)
    f.ret(noted)
    f.start_block(first)
    made = f.api("PyObject_GetAttr", f.given("now"), f.given(".__dict__"))
    f.where(f.is_null(made), clear)
    failed = f.icmp("ne", f.api("PyDict_SetItem", threads, f.given("." + _NOTED), made), 0)
    f.drop(made)
    f.where(failed, clear)
    f.ret(made)
    f.start_refusal(clear, no)
    f.stop(None)


def mode(f: NativeFunction, modes: Value, name: str) -> Value:
    """One mode of a thread, borrowed.  modes: what `thread_modes` gave."""
    found = f.item(modes, name)
    return f.select(f.is_null(found), f.given(DEFAULTS[name]), found)


def unless_default(f: NativeFunction, modes: Value, names: Sequence[str], label: str) -> None:
    """Goes on where no other device is in use and modes are as a thread begins, else to the label.
    """
    placing = f.item(f.given("names of nodes"), "placing")
    f.unless(f.same(placing, f.given("False")), label)
    for name in names:
        f.unless(f.same(mode(f, modes, name), f.given(DEFAULTS[name])), label)


def unless_computing(f: NativeFunction, label: str) -> None:
    """Goes on where no thread is within `cell.alone`, else to the label."""
    f.unless(f.icmp("eq", f.word("i64", f.given("computing"), 0), 0), label)
