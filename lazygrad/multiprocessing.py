"""torch.multiprocessing: Python's `multiprocessing`, and `spawn`.

All public names of the standard library's module are here.  A tensor that goes to another process,
as an argument or through a queue or pipe, arrives as a copy of its value: memory is not shared, so
what a process writes into a tensor, other processes do not see.  Send results back through a queue.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing import *  # noqa: F403
from typing import Any

from lazygrad._core.context import fail

__all__ = [
    *multiprocessing.__all__,  # type: ignore[attr-defined]
    "ProcessContext", "ProcessException", "ProcessExitedException", "ProcessRaisedException",
    "SpawnContext", "get_all_sharing_strategies", "get_sharing_strategy", "set_sharing_strategy",
    "spawn", "start_processes",
]

GRACE_SECONDS = 30.0
"""For the others to end by themselves, once one process has failed and they were told to."""

LONGEST_REPORT = 16_000
"""Characters of a traceback: a pipe takes so much without a reader."""


class ProcessException(Exception):
    """A process of `spawn` failed.  error_index: which; error_pid: its number in the system."""

    def __init__(self, message: str, error_index: int, error_pid: int) -> None:
        super().__init__(message)
        self.msg, self.error_index, self.error_pid = message, error_index, error_pid

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.msg, self.error_index, self.error_pid)


class ProcessRaisedException(ProcessException):
    """The function raised; the message has its traceback."""


class ProcessExitedException(ProcessException):
    """The process ended without a Python exception.  exit_code: what it ended with; signal_name:
    of the signal that ended it, or None.
    """

    def __init__(self, message: str, error_index: int, error_pid: int, exit_code: int,
                 signal_name: str | None = None) -> None:
        super().__init__(message, error_index, error_pid)
        self.exit_code, self.signal_name = exit_code, signal_name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.msg, self.error_index, self.error_pid, self.exit_code,
                            self.signal_name)


def _enter(fn: Callable[..., Any], index: int, arguments: tuple[Any, ...], report: Any) -> None:
    """What a process runs; a traceback goes through the pipe."""
    try:
        fn(index, *arguments)
    except KeyboardInterrupt:
        pass  # the parent was interrupted as well, and says so
    except Exception:  # whatever it is: the parent raises it
        report.send(traceback.format_exc()[-LONGEST_REPORT:])
        sys.exit(1)
    finally:
        report.close()


class ProcessContext:
    """Processes that were started together.  processes: the `Process` of each."""

    def __init__(self, processes: list[Any], reports: list[Any]) -> None:
        self.processes, self._reports = processes, reports
        self._running = dict(enumerate(processes))

    def pids(self) -> list[int]:
        """Their numbers in the system."""
        return [process.pid for process in self.processes]

    def join(self, timeout: float | None = None,
             grace_period: float | None = None) -> bool:
        """Waits until one process ends; True once all have ended well.  timeout: seconds to wait.

        Once one has failed the others are terminated, killed after `grace_period` seconds (30), and
        ProcessRaisedException or ProcessExitedException says which it was, and why.
        """
        if self._running:
            sentinels = {process.sentinel: index for index, process in self._running.items()}
            for ended in multiprocessing.connection.wait(list(sentinels), timeout):
                index = sentinels[ended]  # type: ignore[index]
                process = self._running.pop(index)
                process.join()
                if process.exitcode:
                    self._end_others(GRACE_SECONDS if grace_period is None else grace_period)
                    raise self._failure(index, process)
        return not self._running

    def _end_others(self, grace_period: float) -> None:
        for process in self._running.values():
            process.terminate()
        until = time.monotonic() + grace_period
        for process in self._running.values():
            process.join(max(until - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
                process.join()
        self._running.clear()

    def _failure(self, index: int, process: Any) -> ProcessException:
        try:
            told = self._reports[index].recv() if self._reports[index].poll() else None
        except EOFError:
            told = None
        if told is not None:
            return ProcessRaisedException(
                f"[multiprocessing.spawn] process {index} raised:\n\n{told}", index, process.pid)
        code, name = process.exitcode, None
        ended = f"ended with exit code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            ended = f"was ended by {name}"
        return ProcessExitedException(f"[multiprocessing.spawn] process {index} {ended}", index,
                                      process.pid, code, name)


SpawnContext = ProcessContext


def start_processes(fn: Callable[..., Any], args: Iterable[Any] = (), nprocs: int = 1,
                    join: bool = True, daemon: bool = False,
                    start_method: str = "spawn") -> ProcessContext | None:
    """Runs fn(index, *args) in `nprocs` processes, index from 0.

    join: waits for all of them, and returns None; else returns their ProcessContext.  Where one
    fails the others are ended and the failure is raised here.  start_method: "spawn", "fork" or
    "forkserver".
    """
    if isinstance(nprocs, bool) or not isinstance(nprocs, int) or nprocs < 1:
        raise fail("multiprocessing.spawn", f"nprocs is {nprocs!r}",
                   "It is the number of processes, an int from 1 on.", ValueError)
    context = multiprocessing.get_context(start_method)
    arguments = tuple(args)
    processes: list[Any] = []
    reports = []
    try:
        for index in range(nprocs):
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(  # type: ignore[attr-defined]
                target=_enter, args=(fn, index, arguments, theirs), daemon=daemon)
            process.start()
            theirs.close()
            processes.append(process)
            reports.append(mine)
        started = ProcessContext(processes, reports)
        if not join:
            return started
        while not started.join():
            pass
    except BaseException:
        for process in processes:
            if process.is_alive():
                process.terminate()
        raise
    return None


def spawn(fn: Callable[..., Any], args: Iterable[Any] = (), nprocs: int = 1, join: bool = True,
          daemon: bool = False, start_method: str = "spawn") -> ProcessContext | None:
    """`start_processes`; fn and args are pickled, so fn must be a function of a module."""
    return start_processes(fn, args, nprocs, join, daemon, start_method)


def get_all_sharing_strategies() -> set[str]:
    """How tensors go to other processes: as copies."""
    return {"copy"}


def get_sharing_strategy() -> str:
    return "copy"


def set_sharing_strategy(new_strategy: str) -> None:
    """Takes PyTorch's names, too; tensors are copied whichever it is."""
    if new_strategy not in ("copy", "file_descriptor", "file_system"):
        raise fail("multiprocessing.set_sharing_strategy", f"there is no {new_strategy!r}",
                   "Tensors are sent as copies: leave the call out.", ValueError)
