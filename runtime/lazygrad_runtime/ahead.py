"""What the first program of a process will want, made ahead by a thread of its own.

The pool's native code, the linker, the hash of the compiler's source and the modules that gradients
are written with depend on nothing in the user's script, and take 50 ms.  A script that builds a
model spends longer in NumPy, in files, in whatever leaves the interpreter and a processor free; so
`begin` is called with the first layer that is made.  No worker of the pool is started before a
program runs.
"""

from __future__ import annotations

import contextlib
import importlib
import threading

from lazygrad_compiler import forks
from lazygrad_compiler.target import host
from lazygrad_runtime import pool, store
from lazygrad_runtime.machine import usable_cpus

MODULES = ("lazygrad_compiler.autodiff.backward", "lazygrad_compiler.ir.text")
"""What a step that learns imports once it gets there."""

_under_way = forks.lock(forks.AHEAD)
_begun = False


def begin() -> None:
    """Begins, the first time; where a second processor can do it.  Nothing waits for the end but
    who needs the same thing.
    """
    global _begun
    if _begun:
        return
    _begun = True
    if usable_cpus() > 1:
        with contextlib.suppress(RuntimeError):  # no thread is to be had
            threading.Thread(target=_make, name="lazygrad-ahead").start()


def _make() -> None:
    """A fork waits until this is over: no child finds a module half imported."""
    with _under_way, contextlib.suppress(Exception):  # who asks for it meets it again
        pool.compile_ahead()
        store.environment_fields(host())
        for name in MODULES:
            importlib.import_module(name)
