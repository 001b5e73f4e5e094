"""`DataLoader`: batches of a dataset, made here or by worker processes.

Workers get requests round robin and answer in any order; batches come out in the order of the
sampler.  Arrays travel between the processes, never tensors.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lazygrad as lg
from lazygrad._core.entries import Entry
from lazygrad.utils.data.collate import (
    default_collate,
    default_convert,
    mapped,
    to_tensors,
)
from lazygrad.utils.data.dataset import Dataset, IterableDataset
from lazygrad.utils.data.fetch import Fetcher
from lazygrad.utils.data.randomness import draw_seed
from lazygrad.utils.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from lazygrad.utils.data.worker import CarriedError, EndOfStream, WorkerSettings, run_worker


class _Endless(Sampler[None]):
    """Requests for a stream, which has no indices."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader(Entry):
    """Iterates over a dataset in batches.

    batch_size None: items one by one, as they are.  num_workers: 0 makes batches in this process;
    more makes them ahead in that many processes, `prefetch_factor` batches each.  timeout: seconds
    to wait for a worker, 0 for ever.
    generator: decides the order of `shuffle` and the seeds of workers.  pin_memory: batches come in
    page-locked memory, where there is a CUDA device to copy them to.  in_order has no effect:
    batches always come in order.
    """

    def __init__(self, dataset: Dataset[Any] | Any, batch_size: int | None = 1,
                 shuffle: bool | None = None, sampler: Iterable[Any] | None = None,
                 batch_sampler: Iterable[Any] | None = None, num_workers: int = 0,
                 collate_fn: Callable[[Any], Any] | None = None, pin_memory: bool = False,
                 drop_last: bool = False, timeout: float = 0,
                 worker_init_fn: Callable[[int], None] | None = None,
                 multiprocessing_context: Any = None, generator: Any = None, *,
                 prefetch_factor: int | None = None, persistent_workers: bool = False,
                 pin_memory_device: str = "", in_order: bool = True) -> None:
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative; use num_workers=0 to "
                             "disable multiprocessing.")
        if timeout < 0:
            raise ValueError("timeout option should be non-negative")
        if num_workers == 0 and prefetch_factor is not None:
            raise ValueError("prefetch_factor option could only be specified in multiprocessing: "
                             "set num_workers > 0")
        if num_workers == 0 and persistent_workers:
            raise ValueError("persistent_workers option needs num_workers > 0")
        if prefetch_factor is not None and prefetch_factor < 1:
            raise ValueError("prefetch_factor must be at least 1")
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if prefetch_factor is None and num_workers else prefetch_factor
        if num_workers == 0 and multiprocessing_context is not None:
            raise ValueError("multiprocessing_context can only be used with multi-process loading "
                             "(num_workers > 0), but got num_workers=0")
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.in_order = in_order
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.generator = generator
        self.persistent_workers = persistent_workers
        self._workers: _Workers | None = None
        streams = isinstance(dataset, IterableDataset)
        if streams and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError("DataLoader with IterableDataset: expected no shuffle, sampler or "
                             "batch_sampler option: a stream has its own order")
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError("batch_sampler option is mutually exclusive with batch_size, "
                                 "shuffle, sampler, and drop_last")
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually "
                             "exclusive with drop_last")
        if sampler is None:
            if streams:
                sampler = _Endless()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn

    @property
    def _requests(self) -> Iterable[Any]:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            count = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return len(self._requests)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        if self.num_workers == 0:
            return self._iterate_here()
        workers = self._workers
        if workers is None or not workers.usable:
            workers = _Workers(self)
            if self.persistent_workers:
                self._workers = workers
        return workers.iterate(self._requests, close=not self.persistent_workers)

    def _iterate_here(self) -> Iterator[Any]:
        fetcher = Fetcher(self.dataset, self.batch_sampler is not None, self.collate_fn,
                          self.drop_last)
        for request in self._requests:
            try:
                batch = fetcher.fetch(request)
            except StopIteration:
                return
            yield _given(batch, self.pin_memory)


def _given(batch: Any, pin: bool) -> Any:
    """A batch as the user gets it."""
    made = to_tensors(batch)
    return mapped(made, lg.Tensor, lambda tensor: tensor.pin_memory()) if pin else made


class _Workers:
    """The worker processes of a loader and the pipes to them."""

    def __init__(self, loader: DataLoader) -> None:
        context = loader.multiprocessing_context
        if context is None or isinstance(context, str):
            # Forking needs nothing to be picklable; where there is no fork, spawn is what there is.
            methods = multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context(context
                                                  or ("fork" if "fork" in methods else "spawn"))
        self.timeout, self.pin = loader.timeout, loader.pin_memory
        self.ahead = (loader.prefetch_factor or 2) * loader.num_workers
        self.streams = isinstance(loader.dataset, IterableDataset)
        self.usable = True
        self.epoch = 0
        self.connections: list[Any] = []
        self.processes: list[Any] = []
        base_seed = draw_seed(loader.generator)
        lg.synchronize()  # so that no worker has to compute what the dataset holds
        for number in range(loader.num_workers):
            ours, theirs = context.Pipe()
            settings = WorkerSettings(loader.dataset, loader.batch_sampler is not None,
                                      loader.collate_fn, loader.drop_last, loader.worker_init_fn,
                                      number, loader.num_workers, base_seed)
            process = context.Process(target=run_worker, args=(settings, theirs), daemon=True)
            with warnings.catch_warnings():
                # Python 3.12 warns of forking beside threads; workers touch nothing those threads
                # hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)
        self._finalizer = weakref.finalize(self, _end, self.connections, self.processes,
                                           os.getpid())

    def close(self) -> None:
        """Ends the workers and waits for them."""
        self.usable = False
        self._finalizer()

    def iterate(self, requests: Iterable[Any], close: bool) -> Iterator[Any]:
        """One pass: sends requests ahead, yields the answers in order.

        Answers to an earlier pass that was left early are told by their epoch, and dropped.
        """
        self.epoch += 1
        epoch = self.epoch
        source = enumerate(requests)
        answers: dict[int, Any] = {}
        waiting: dict[int, int] = {}  # number of a request: its worker
        active = list(range(len(self.processes)))
        turn = itertools.count()
        at_end = False

        def send() -> None:
            nonlocal at_end
            if at_end or not active:
                return
            try:
                number, indices = next(source)
            except StopIteration:
                at_end = True
                return
            worker = active[next(turn) % len(active)]
            waiting[number] = worker
            try:
                self.connections[worker].send((epoch, number, indices))
            except (BrokenPipeError, ConnectionError):
                self._check_alive(worker, 5.0)
                raise

        try:
            for _ in range(self.ahead):
                send()
            expected = 0
            while expected in waiting or expected in answers:
                while expected not in answers:
                    self._receive(epoch, answers, waiting[expected])
                answer, worker = answers.pop(expected), waiting.pop(expected)
                expected += 1
                if isinstance(answer, CarriedError):
                    answer.reraise()
                if isinstance(answer, EndOfStream):
                    if worker in active:
                        active.remove(worker)
                    send()
                    continue
                send()
                yield _given(answer, self.pin)
        finally:
            if close:
                self.close()

    def _receive(self, epoch: int, answers: dict[int, Any], worker: int) -> None:
        """Waits for some answer; raises where the worker waited for has died or time is up."""
        deadline = time.monotonic() + self.timeout if self.timeout else None
        while True:
            if epoch != self.epoch:
                raise RuntimeError("this pass over the DataLoader was ended by another one: "
                                   "persistent workers serve one pass at a time")
            wait = None if deadline is None else max(deadline - time.monotonic(), 0)
            sentinel = self.processes[worker].sentinel
            ready: list[Any] = multiprocessing.connection.wait([*self.connections, sentinel], wait)
            if not ready:
                self.close()
                raise RuntimeError(f"DataLoader timed out after {self.timeout} seconds")
            got = False
            for connection in ready:
                if connection is sentinel:
                    continue
                try:
                    answer_epoch, number, answer = pickle.loads(connection.recv_bytes())
                except (EOFError, OSError):
                    self._check_alive(self.connections.index(connection), 5.0)
                    raise
                if answer_epoch == epoch:
                    answers[number] = answer
                    got = True
            if got:
                return
            if sentinel in ready:
                self._check_alive(worker, 0.0)

    def _check_alive(self, worker: int, patience: float) -> None:
        process = self.processes[worker]
        process.join(patience)
        if not process.is_alive():
            code = process.exitcode
            self.close()
            cause = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            raise RuntimeError(f"DataLoader worker (pid {process.pid}) {cause} unexpectedly. Run "
                               "with num_workers=0 to see where; a worker killed by signal 9 has "
                               "often run out of memory.")


def _end(connections: list[Any], processes: list[Any], owner: int) -> None:
    """Asks the workers to end, then makes them."""
    if os.getpid() != owner:
        return  # a forked copy of the loader: the workers are not its children
    for connection in connections:
        with contextlib.suppress(OSError, ValueError):
            connection.send(None)
        connection.close()
    deadline = time.monotonic() + 2.0
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0.05))
        if process.is_alive():
            process.terminate()
            process.join(1.0)
        if process.is_alive():
            process.kill()
            process.join(1.0)
