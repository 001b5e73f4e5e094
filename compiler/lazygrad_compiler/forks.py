"""Locks across `fork`: a child has only the thread that forked, and finds every lock of ours free.

A thread that compiles while another forks would leave the child its locks held for ever: ours, that
of llvmlite, and whatever LLVM holds inside; and one that runs a program, parameters half written.
So there are two rules, kept here for all layers:

- Locks are made by `lock()` and `rlock()`; in a child those that another thread held are made new.
- Locks around computing, compiling and the disk have a `rank`: whoever forks waits for them first,
  in the order of their ranks, so that no child is born in the middle.  After PATIENCE_SECONDS (two
  threads may wait for each other) it forks all the same.
"""

from __future__ import annotations

# `signal` without its steps in Python; typeshed does not know it
import _signal  # type: ignore[import-not-found]
import operator
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 30.0

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_ranked: list[tuple[int, Any]] = []
_in_child: list[Callable[[], None]] = []


class _Taken(threading.local):
    """The locks that this thread took for the fork under way."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


_taken = _Taken()


def lock(rank: int | None = None) -> Any:
    """A `threading.Lock` that a forked child finds free.  rank: see the module."""
    return _known(threading.Lock(), rank)


def rlock(rank: int | None = None) -> Any:
    """A `threading.RLock` that a forked child finds free, unless the thread that forked holds it.
    rank: see the module.
    """
    return _known(threading.RLock(), rank)


def know_llvmlite(binding: Any) -> None:
    """Sees to llvmlite's own lock, which is around its calls; where it is built otherwise there is
    nothing to see to.
    """
    outer = getattr(binding.ffi.lib, "_lock", None)
    inner = getattr(outer, "_lock", None)
    if inner is not None and inner not in _locks:
        _known(inner, LLVMLITE)
        _enter_at_once(outer)


def _enter_at_once(outer: Any) -> None:
    """Takes Python out of the two methods by which llvmlite takes and gives back its lock.

    An interrupt (Ctrl-C) that comes between its taking the lock and entering the block which it is
    for would leave the lock held for ever.  The lock itself is entered and left in one step.  With
    callbacks of somebody's around each call it stays as it is.
    """
    class Direct(type(outer)):  # type: ignore[misc]  # a base known at run time only
        __enter__ = property(operator.attrgetter("_lock.__enter__"))
        __exit__ = property(operator.attrgetter("_lock.__exit__"))

    if not getattr(outer, "_cblist", True):
        outer.__class__ = Direct


AHEAD, CELLS, STORE, POOL, LOADER, EMITTER, LLVMLITE = range(7)
"""Ranks: whoever holds one of these locks may take later ones, never earlier ones."""


def in_child(action: Callable[[], None]) -> None:
    """Calls an action in every forked child, once its locks are free."""
    _in_child.append(action)


def _known(made: Any, rank: int | None) -> Any:
    _locks.add(made)
    if rank is not None:
        _ranked.append((rank, made))
        _ranked.sort(key=lambda item: item[0])
    return made


def _before() -> None:
    if threading.current_thread() is threading.main_thread():
        _hold_signals()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for _, ranked in list(_ranked):
        if ranked.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            _taken.locks.append(ranked)


def _release() -> None:
    while _taken.locks:
        _taken.locks.pop().release()


def _after_in_parent() -> None:
    _release()
    _give_back_signals()
    while _came:
        # Not from here: what a handler raises within a callback of fork is lost.
        again = threading.Timer(0.01, signal.pthread_kill, (threading.get_ident(), _came.pop()))
        again.daemon = True
        again.start()


def _after_in_child() -> None:
    _release()
    _give_back_signals()
    _came.clear()  # they were the parent's
    for known in list(_locks):
        # CPython's own modules make their locks new in this way.
        if not (hasattr(known, "_is_owned") and known._is_owned()):
            known._at_fork_reinit()
    for action in _in_child:
        action()


# ---- signals: what a handler raises must not come between taking and giving back locks

_handlers: dict[int, Any] = {}
"""What is usually called for a signal that is held back."""

_came: list[int] = []


def _hold_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if callable(handler) and handler is not _note:
            _handlers[number] = handler
            _signal.signal(number, _note)


def _note(number: int, frame: Any) -> None:
    _came.append(number)


def _give_back_signals() -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # who forked in another thread held none back
    while _handlers:
        _signal.signal(*_handlers.popitem())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
