"""The worker process of a loader: receives requests over a pipe, sends batches back.

A thread of its own takes requests in, so that the parent never waits on a worker that is busy
sending a large batch. When the parent is gone, the worker ends itself.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import queue
import random
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from lazygrad.utils.data.collate import to_handed
from lazygrad.utils.data.fetch import Fetcher


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker process knows of itself: its number, how many there are, its seed, its copy of
    the dataset.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


@dataclass(frozen=True)
class WorkerSettings:
    """What the parent tells a worker at its start."""

    dataset: Any
    batched: bool
    collate_fn: Callable[[Any], Any]
    drop_last: bool
    worker_init_fn: Callable[[int], None] | None
    number: int
    num_workers: int
    base_seed: int


@dataclass(frozen=True)
class CarriedError:
    """An exception of a worker on its way to the parent."""

    kind: type
    message: str
    where: str

    @classmethod
    def of(cls, error: BaseException, where: str) -> CarriedError:
        return cls(type(error), "".join(traceback.format_exception(error)), where)

    def reraise(self) -> None:
        """Raises an exception of the same type with the worker's traceback as message."""
        text = f"Caught {self.kind.__name__} {self.where}.\nOriginal {self.message}"
        try:
            error = self.kind(text)
        except Exception:  # a type whose constructor wants something else
            raise RuntimeError(text) from None
        raise error


@dataclass(frozen=True)
class EndOfStream:
    """The answer of a worker whose stream has no more items."""


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process: its number, the count, the seed, the dataset.  None in the main
    process.
    """
    return _info


def run_worker(settings: WorkerSettings, connection: Any) -> None:
    """The worker's main function.  Requests: (epoch, number, indices); None ends it.  Answers:
    (epoch, number, batch).
    """
    # Ctrl-C is the parent's to handle: it ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    error = _prepare(settings)
    fetcher, epoch = None, None
    while True:
        request = requests.get()
        if request is None:
            break
        request_epoch, number, indices = request
        try:
            if error is None and request_epoch != epoch:
                fetcher, epoch = Fetcher(settings.dataset, settings.batched, settings.collate_fn,
                                         settings.drop_last), request_epoch
            answer = error if fetcher is None else to_handed(fetcher.fetch(indices))
        except StopIteration:
            answer = EndOfStream()
        except Exception as problem:
            answer = CarriedError.of(problem, f"in DataLoader worker process {settings.number}")
        try:
            connection.send_bytes(_packed((request_epoch, number, answer), settings.number))
        except (BrokenPipeError, ConnectionError):
            break  # the parent has closed the pipe
    connection.close()


def _packed(answer: tuple[Any, ...], number: int) -> bytes:
    """The answer as bytes; what cannot be sent becomes an error that says so."""
    try:
        return pickle.dumps(answer, protocol=5)
    except Exception as problem:
        carried = CarriedError(RuntimeError, f"{type(problem).__name__}: {problem}\nWhat "
                                             "collate_fn returns must be picklable, with tensors "
                                             "inside dicts, lists and tuples only.",
                               f"in DataLoader worker process {number}, sending a batch")
        return pickle.dumps((*answer[:2], carried), protocol=5)


def _prepare(settings: WorkerSettings) -> CarriedError | None:
    """Seeds the generators and calls the user's worker_init_fn."""
    global _info
    import lazygrad as lg

    seed = settings.base_seed + settings.number
    _info = WorkerInfo(settings.number, settings.num_workers, seed, settings.dataset)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    lg.manual_seed(seed)
    if settings.worker_init_fn is not None:
        try:
            settings.worker_init_fn(settings.number)
        except Exception as problem:
            return CarriedError.of(problem, "in worker_init_fn of DataLoader worker process "
                                            f"{settings.number}")
    return None


def _receive(connection: Any, requests: queue.Queue[Any]) -> None:
    """Passes requests on; ends the process where the parent has died."""
    parent = multiprocessing.parent_process()
    watched = [connection] if parent is None else [connection, parent.sentinel]
    while True:
        ready = multiprocessing.connection.wait(watched)
        if connection in ready:
            try:
                request = connection.recv()
            except (EOFError, OSError):
                request = None
            requests.put(request)
            if request is None:
                return
        else:
            os._exit(1)
