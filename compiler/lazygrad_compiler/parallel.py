"""Jobs that helper threads do while the caller prepares further ones.

    with Jobs(helpers=1) as jobs:
        for name in names:
            jobs.add(name, partial(work, name))  # a helper begins at once
        results = jobs.finish()                  # the caller joins in

It pays where a job spends its time outside the interpreter's lock, as LLVM and waiting for a disk
do.  Helpers end with the jobs.  Where no thread can be started (a limit; an interpreter about to
end) the caller does all.
"""

from __future__ import annotations

import queue
import sys
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeAlias, TypeVar

Result = TypeVar("Result")
_Waiting: TypeAlias = "queue.SimpleQueue[tuple[str, Callable[[], Result]] | None]"

SWITCH_SECONDS = 0.0002
"""How long a thread that comes back from LLVM waits for the interpreter at most.  With Python's
usual 5 ms helpers would wait longer than they work, since each of LLVM's calls is one such return.
"""


LOOK_SECONDS = 1.0
"""How long a helper waits for a job before it looks whether there will be any."""


class Jobs(Generic[Result]):
    """See the module.  helpers: how many threads beside the caller's at most.

    The caller may be interrupted (Ctrl-C) anywhere, here, too.  So one word ends all helpers, each
    of which leaves it for the next, and helpers hold no reference while they wait: they end by
    themselves where the word was never said.
    """

    def __init__(self, helpers: int) -> None:
        self._most = helpers
        self._helpers: list[threading.Thread] = []
        self._waiting: _Waiting[Result] = queue.SimpleQueue()
        self._names: list[str] = []
        self._results: dict[str, Result] = {}
        self._failures: dict[str, Exception] = {}
        self._dropping = False
        self._switch_seconds: float | None = None

    def __enter__(self) -> Jobs[Result]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Jobs that have not begun are dropped; those under way end first."""
        self._dropping = True
        self._end()

    def _end(self) -> None:
        """Waits for the helpers, who have the jobs that they took, and no more."""
        self._waiting.put(None)
        try:
            while self._helpers:
                if self._helpers[-1].ident is not None:  # else it was interrupted before it began
                    self._helpers[-1].join()
                self._helpers.pop()
        finally:
            if self._switch_seconds is not None:
                sys.setswitchinterval(self._switch_seconds)
                self._switch_seconds = None

    def add(self, name: str, job: Callable[[], Result]) -> None:
        """A job under a name of its own."""
        self._names.append(name)
        self._waiting.put((name, job))
        if len(self._helpers) < self._most:
            self._start_helper()

    def finish(self) -> dict[str, Result]:
        """What each job returned, in the order of the jobs.

        An exception of a job drops those that have not begun; it is raised when the others are
        done.  Of several, that of the job that was added first.
        """
        while not self._waiting.empty():
            try:
                taken = self._waiting.get(False)
            except queue.Empty:
                break
            self._do(taken)
        self._end()
        for name in self._names:
            if name in self._failures:
                raise self._failures[name]
        return {name: self._results[name] for name in self._names}

    def _start_helper(self) -> None:
        helper = threading.Thread(
            target=_help, args=(self._waiting, weakref.ref(self)),
            name=f"lazygrad-helper-{len(self._helpers)}",
        )
        if self._switch_seconds is None:
            self._switch_seconds = sys.getswitchinterval()
            sys.setswitchinterval(min(self._switch_seconds, SWITCH_SECONDS))
        self._helpers.append(helper)
        try:
            helper.start()
        except RuntimeError:
            self._helpers.remove(helper)
            self._most = 0

    def _do(self, taken: tuple[str, Callable[[], Result]] | None) -> None:
        if taken is None or self._dropping:
            return
        name, job = taken
        try:
            self._results[name] = job()
        except Exception as failure:
            self._failures[name] = failure
            self._dropping = True


def _help(waiting: _Waiting[Result], owner: weakref.ref[Jobs[Result]]) -> None:
    """Does the jobs that wait until there is the word to end, or no owner of them any more."""
    while True:
        try:
            taken = waiting.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            jobs = owner()
            if jobs is None or jobs._dropping:
                return
            del jobs
            continue
        if taken is None:
            waiting.put(None)
            return
        jobs = owner()
        if jobs is None:
            return
        jobs._do(taken)
        del jobs, taken
