"""The thread pool: one per process, native waiting, started when first asked for.

In: programs that call `parallel` through the first word of the pool structure.  Out: their kernels,
run in chunks by the calling thread and the workers.  The native half is in `pool_ir`; this half
starts Python threads that enter `worker_loop` through ctypes, which releases the interpreter lock,
and so needs no C library of ours.

A runner writes

    pool = get_pool()
    with pool.lock:
        pool.ensure_scratch(program.scratch_bytes)
        program.entry(table, pool.pointer)

`pool.pointer` is the same for the life of the process: changing the number of threads, shutting
down and forking change the structure in place. With no workers, launches run on the caller.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import platform
import sys
import threading
import time

import llvmlite.binding as llvm

from lazygrad_compiler import forks
from lazygrad_compiler.llvm.unlocked import emit_object
from lazygrad_runtime import pool_ir
from lazygrad_runtime.loader import LoadedCode, initialize_target, load_object
from lazygrad_runtime.machine import usable_cpus
from lazygrad_runtime.memory import Buffer, allocate

MAX_THREADS = 1024
SPIN_NANOSECONDS = 40_000  # about one wake-up: sleeping sooner costs more than it saves
SPIN_NANOSECONDS_CROWDED = 2_000  # more threads than processors: spinning steals from the others
MINIMUM_SCRATCH = 1 << 16
EXIT_SECONDS = 0.5

_WorkerLoop = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
_StopWorkers = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PauseMany = ctypes.CFUNCTYPE(None, ctypes.c_int64)


def compile_pool(architecture: str | None = None, system: str | None = None) -> LoadedCode:
    """The pool's native functions, compiled for this machine."""
    initialize_target()
    architecture = architecture or platform.machine().lower().replace("amd64", "x86_64")
    source = pool_ir.pool_module(architecture, system or sys.platform)
    module = llvm.parse_assembly(source, llvm.create_context())
    module.verify()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(opt=2, reloc="pic", codemodel="small")
    return load_object(emit_object(module, machine))


def default_thread_count() -> int:
    """`LAZYGRAD_NUM_THREADS`, else the processors this process may use."""
    setting = os.environ.get("LAZYGRAD_NUM_THREADS", "").strip()
    if not setting:
        return min(usable_cpus(), MAX_THREADS)
    try:
        return _checked_count(int(setting))
    except ValueError:
        raise ValueError(
            f"[threads] LAZYGRAD_NUM_THREADS={setting!r} is not a whole number from 1 "
            f"to {MAX_THREADS}."
        ) from None


def _checked_count(count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"[threads] a number of threads is an int, not {type(count).__name__}.")
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(f"[threads] {count} threads asked for; possible are 1 to {MAX_THREADS}.")
    return count


class ThreadPool:
    """Workers and the structure that generated programs see.

    `pointer`: address of the structure. `threads`: the caller and its workers. `lock`: held by
    a runner around a program, since one launch at a time uses the structure.
    """

    def __init__(self, threads: int, code: LoadedCode | None = None):
        self.lock = forks.lock()
        self._growing = forks.lock()
        self._code = code or compile_pool()
        self._worker_loop = _WorkerLoop(self._code.address("worker_loop"))
        self._stop_workers = _StopWorkers(self._code.address("stop_workers"))
        self._pause_many = _PauseMany(self._code.address("pause_many"))
        self._pauses_per_microsecond = self._calibrate()
        self._structure = allocate(pool_ir.SCRATCH + 8 * MAX_THREADS + 128)
        self.pointer = (self._structure.pointer + 127) & -128
        ctypes.memset(self._structure.pointer, 0, self._structure.nbytes)
        self._scratch_bytes = 0
        self._scratch_threads = 0
        self._scratches: list[Buffer] = []
        self._workers: list[threading.Thread] = []
        self._set(ctypes.c_void_p, pool_ir.PARALLEL, self._code.address("parallel"))
        self.threads = 1
        self._set(ctypes.c_int64, pool_ir.THREADS, 1)
        self._wanted = threads
        self._running = False
        self._start()

    def _set(self, kind: type[ctypes._SimpleCData], offset: int, value: int) -> None:
        kind.from_address(self.pointer + offset).value = value

    def _mark(self, running: bool) -> None:
        self._running = running
        self._set(ctypes.c_int32, pool_ir.RUNNING, running)

    def _calibrate(self) -> float:
        """Pauses per microsecond: one takes 10 to 140 cycles, depending on the processor."""
        count = 1000
        fastest = 1 << 62
        for _ in range(5):
            start = time.perf_counter_ns()
            self._pause_many(count)
            fastest = min(fastest, time.perf_counter_ns() - start)
        return 1000.0 * count / max(fastest, 1)

    def _start(self) -> None:
        """Starts the workers that are wanted. No program may be running."""
        self._stop()  # leftovers of a start that Ctrl-C cut short
        threads = self._wanted
        crowded = threads > usable_cpus()
        spin = SPIN_NANOSECONDS_CROWDED if crowded else SPIN_NANOSECONDS
        self._set(
            ctypes.c_int64,
            pool_ir.SPIN_LIMIT,
            max(1, round(spin / 1000 * self._pauses_per_microsecond)),
        )
        for kind, offset in (
            (ctypes.c_int32, pool_ir.STOP),
            (ctypes.c_int64, pool_ir.REMAINING),
            (ctypes.c_int32, pool_ir.PENDING),
            (ctypes.c_int32, pool_ir.WAITING),
            (ctypes.c_int32, pool_ir.SLEEPERS),
        ):
            self._set(kind, offset, 0)
        self._grow_scratch(max(self._scratch_bytes, MINIMUM_SCRATCH), threads)
        for index in range(1, threads):
            worker = threading.Thread(
                target=self._worker_loop,
                args=(self.pointer, index),
                name=f"lazygrad-worker-{index}",
                daemon=True,
            )
            try:
                worker.start()
            except RuntimeError:  # no more threads to be had, or the interpreter is going down
                break
            self._workers.append(worker)
        self.threads = 1 + len(self._workers)
        self._set(ctypes.c_int64, pool_ir.THREADS, self.threads)
        self._mark(True)

    def _stop(self, timeout: float | None = None) -> None:
        """Ends the workers and waits for them, since a new worker may get an old one's scratch.

        No program may be running, so the wait is short; `timeout` (seconds) is for exiting.
        """
        self.threads = 1
        self._set(ctypes.c_int64, pool_ir.THREADS, 1)
        self._mark(False)
        if self._workers:
            self._stop_workers(self.pointer)
            for worker in self._workers:
                worker.join(timeout)
        self._workers = []

    def ensure_scratch(self, nbytes: int) -> None:
        """Gives every thread a scratch area of at least `nbytes` bytes, 64-byte aligned.

        Kernels get its address as their last argument; contents are undefined. Cheap when the areas
        are large enough. Areas that were outgrown stay, since a running chunk may use them.
        """
        if nbytes > self._scratch_bytes:
            self._grow_scratch(max(nbytes, 2 * self._scratch_bytes), self._scratch_threads)

    def _grow_scratch(self, nbytes: int, threads: int) -> None:
        with self._growing:
            if nbytes <= self._scratch_bytes and threads <= self._scratch_threads:
                return
            stride = (nbytes + 4095) & -4096
            threads = max(threads, self._scratch_threads)
            buffer = allocate(stride * threads)
            self._scratches.append(buffer)
            for index in range(threads):
                field = pool_ir.SCRATCH + 8 * index
                self._set(ctypes.c_void_p, field, buffer.pointer + index * stride)
            self._scratch_bytes = stride
            self._scratch_threads = threads

    def resize(self, threads: int) -> None:
        """Runs with `threads` threads from now on; waits for a running program to end."""
        count = _checked_count(threads)
        with self.lock:
            self._stop()
            self._wanted = count
            self._start()

    def restart(self) -> None:
        """Brings the workers back after a shutdown or a fork. Cheap when they are there."""
        if not self._running:
            with self.lock:
                if not self._running:
                    self._start()

    def shutdown(self) -> None:
        """Ends the workers; launches then run on the caller alone. `get_pool` restarts them."""
        with self.lock:
            self._stop()

    def _after_fork_in_child(self) -> None:
        """The workers exist in the parent only; here, the next `get_pool` starts new ones."""
        self._workers = []
        self._stop()


_pool: ThreadPool | None = None
_code: LoadedCode | None = None
"""The pool's functions, where they were compiled ahead of it."""

_creation = forks.lock(forks.POOL)
_exiting = False


def get_pool() -> ThreadPool:
    """The process's pool, with its workers running."""
    global _pool
    pool = _pool
    if pool is None:
        with _creation:
            if _pool is None:
                _pool = ThreadPool(1 if _exiting else default_thread_count(), _code)
            pool = _pool
    if not pool._running and not _exiting:
        pool.restart()
    return pool


def compile_ahead() -> None:
    """Compiles the functions of the pool to come, if there is none, and starts no worker."""
    global _code
    with _creation:
        if _pool is None and _code is None:
            _code = compile_pool()


def prepare() -> None:
    """Begins to make the pool, if there is none, while the caller goes on: compiling its code is
    LLVM's work for 10 to 20 ms, outside the interpreter's lock.
    """
    if _pool is None and not _exiting:
        with contextlib.suppress(RuntimeError):  # no thread is to be had
            threading.Thread(target=_make, name="lazygrad-pool").start()


def _make() -> None:
    with contextlib.suppress(Exception):  # who asks for the pool meets it again
        get_pool()


def set_num_threads(count: int) -> None:
    """Sets the number of threads that programs run on, the caller included."""
    _checked_count(count)
    if get_pool().threads != count:
        get_pool().resize(count)


def get_num_threads() -> int:
    """The number of threads that programs run on, the caller included."""
    return get_pool().threads


def _after_fork_in_child() -> None:
    if _pool is not None:
        _pool._after_fork_in_child()


def _at_exit() -> None:
    """Ends the workers while threads can still be joined. A program that hangs in another thread
    keeps the lock; its daemon workers then die with the process."""
    global _exiting
    _exiting = True
    pool = _pool
    if pool is not None and pool.lock.acquire(timeout=EXIT_SECONDS):
        try:
            pool._stop(EXIT_SECONDS)
        finally:
            pool.lock.release()


atexit.register(_at_exit)
forks.in_child(_after_fork_in_child)
