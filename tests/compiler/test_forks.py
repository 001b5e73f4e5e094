"""Locks in a forked child: free, whoever held them; no fork in the midst of what has a rank."""

from __future__ import annotations

import os
import threading
import time

import pytest

from lazygrad_compiler import forks

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


class Holder:
    """A thread that holds a lock while the block runs; `release_after` seconds, if given."""

    def __init__(self, lock, release_after=None):
        self.lock, self.release_after = lock, release_after
        self.held, self.release = threading.Event(), threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._hold)
        self.thread.start()
        assert self.held.wait(10)

    def __exit__(self, *error):
        self.release.set()
        self.thread.join()

    def _hold(self):
        with self.lock:
            self.held.set()
            self.release.wait(30 if self.release_after is None else self.release_after)


def in_a_child(check) -> bool:
    """What the check returns in a forked child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("make", [forks.lock, forks.rlock])
def test_a_child_finds_the_lock_of_another_thread_free(make):
    lock = make()
    with Holder(lock):
        assert in_a_child(lambda: lock.acquire(timeout=5))
        assert not lock.acquire(blocking=False)  # the parent's is still held


def test_a_thread_that_forks_keeps_what_it_holds():
    lock = forks.rlock(forks.STORE)

    def released_once():
        lock.release()
        with pytest.raises(RuntimeError):
            lock.release()
        return True

    with lock:
        assert in_a_child(released_once)


def test_a_fork_waits_for_a_lock_with_a_rank():
    lock = forks.lock(forks.LOADER)
    before = time.monotonic()
    with Holder(lock, release_after=0.3):
        assert in_a_child(lambda: lock.acquire(timeout=5))
    assert time.monotonic() - before >= 0.3


def test_a_fork_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(forks, "PATIENCE_SECONDS", 0.05)
    lock = forks.lock(forks.LOADER)
    with Holder(lock):
        assert in_a_child(lambda: lock.acquire(timeout=5))
    assert lock.acquire(timeout=5)  # and the parent did not take what it could not get
    lock.release()


def test_the_parent_s_locks_are_as_before():
    lock = forks.lock(forks.LOADER)
    assert in_a_child(lambda: True)
    assert lock.acquire(blocking=False)
    lock.release()
