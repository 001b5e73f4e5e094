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
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

Result = TypeVar("Result")

SWITCH_SECONDS = 0.0002
"""How long a thread that comes back from LLVM waits for the interpreter at most.  With Python's
usual 5 ms helpers would wait longer than they work, since each of LLVM's calls is one such return.
"""


class Jobs(Generic[Result]):
    """See the module.  helpers: how many threads beside the caller's at most."""

    def __init__(self, helpers: int) -> None:
        self._most = helpers
        self._helpers: list[threading.Thread] = []
        self._waiting: queue.SimpleQueue[tuple[str, Callable[[], Result]] | None]
        self._waiting = queue.SimpleQueue()
        self._names: list[str] = []
        self._results: dict[str, Result] = {}
        self._failures: dict[str, Exception] = {}
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
        self._drop()
        for _ in self._helpers:
            self._waiting.put(None)
        for helper in self._helpers:
            helper.join()
        self._helpers = []
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
        self._work(block=False)
        self.__exit__(None, None, None)
        for name in self._names:
            if name in self._failures:
                raise self._failures[name]
        return {name: self._results[name] for name in self._names}

    def _start_helper(self) -> None:
        helper = threading.Thread(
            target=self._work, args=(True,), name=f"lazygrad-helper-{len(self._helpers)}"
        )
        try:
            helper.start()
        except RuntimeError:
            self._most = 0
            return
        self._helpers.append(helper)
        if self._switch_seconds is None:
            self._switch_seconds = sys.getswitchinterval()
            sys.setswitchinterval(min(self._switch_seconds, SWITCH_SECONDS))

    def _work(self, block: bool) -> None:
        while True:
            try:
                taken = self._waiting.get(block)
            except queue.Empty:
                return
            if taken is None:
                return
            name, job = taken
            try:
                self._results[name] = job()
            except Exception as failure:
                self._failures[name] = failure
                self._drop()

    def _drop(self) -> None:
        """Takes out the jobs that wait.  The helpers' ends stay: a job that fails while the others
        are being told to end must not take their words away, or they would wait for ever.
        """
        ends = 0
        while True:
            try:
                ends += self._waiting.get(False) is None
            except queue.Empty:
                break
        for _ in range(ends):
            self._waiting.put(None)
