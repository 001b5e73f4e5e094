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

import os
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
    inner = getattr(getattr(binding.ffi.lib, "_lock", None), "_lock", None)
    if inner is not None and inner not in _locks:
        _known(inner, LLVMLITE)


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
    deadline = time.monotonic() + PATIENCE_SECONDS
    for _, ranked in list(_ranked):
        if ranked.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            _taken.locks.append(ranked)


def _release() -> None:
    while _taken.locks:
        _taken.locks.pop().release()


def _after_in_child() -> None:
    _release()
    for known in list(_locks):
        # CPython's own modules make their locks new in this way.
        if not (hasattr(known, "_is_owned") and known._is_owned()):
            known._at_fork_reinit()
    for action in _in_child:
        action()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_release, after_in_child=_after_in_child
    )
