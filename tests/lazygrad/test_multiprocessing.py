"""`import torch.multiprocessing as mp`: processes that get and send tensors."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from typing import Any

import pytest

import lazygrad as lg
import lazygrad.multiprocessing as mp


def train(rank: int, queue: Any, state: dict[str, lg.Tensor], x: lg.Tensor) -> None:
    model = lg.nn.Linear(3, 1)
    model.load_state_dict(state)
    model(x + rank).square().mean().backward()
    queue.put((rank, model.weight.grad))


def raise_in_one(rank: int) -> None:
    if rank == 1:
        lg.ones(2, 3) @ lg.ones(2, 3)
    time.sleep(60)


def end(rank: int, how: str) -> None:
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_compute_gradients_and_send_them(method: str) -> None:
    lg.manual_seed(0)
    model, x = lg.nn.Linear(3, 1), lg.rand(4, 3)
    queue = mp.get_context(method).SimpleQueue()
    started = mp.start_processes(train, (queue, model.state_dict(), x), nprocs=2, join=False,
                                 start_method=method)
    assert started is not None and len(set(started.pids())) == 2
    found = dict(queue.get() for _ in range(2))
    while not started.join():
        pass
    for rank in range(2):
        model.zero_grad()
        model(x + rank).square().mean().backward()
        assert lg.equal(found[rank], model.weight.grad)


def test_a_failure_ends_all_and_is_raised_here() -> None:
    begun = time.monotonic()
    with pytest.raises(mp.ProcessRaisedException, match="process 1 raised:\n\nTraceback") as caught:
        mp.spawn(raise_in_one, nprocs=2, start_method="fork")
    assert "[matmul]" in str(caught.value)
    assert caught.value.error_index == 1 and time.monotonic() - begun < 30
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.error_pid) == (str(caught.value), caught.value.error_pid)


def test_a_process_that_ends_without_an_exception() -> None:
    with pytest.raises(mp.ProcessExitedException, match="process 0 ended with exit code 3"):
        mp.spawn(end, ("exit",), start_method="fork")
    with pytest.raises(mp.ProcessExitedException, match="was ended by SIGKILL") as caught:
        mp.spawn(end, ("kill",), start_method="fork")
    assert (caught.value.exit_code, caught.value.signal_name) == (-9, "SIGKILL")
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.signal_name == "SIGKILL"


def test_the_names_of_the_standard_library_are_there() -> None:
    assert lg.multiprocessing is mp
    for name in multiprocessing.__all__:
        assert getattr(mp, name) is getattr(multiprocessing, name)
    mp.set_sharing_strategy("file_system")
    assert mp.get_sharing_strategy() in mp.get_all_sharing_strategies()


def test_memory_that_is_not_shared_is_not_said_to_be() -> None:
    for share in (lg.ones(2).share_memory_, lg.nn.Linear(2, 2).share_memory):
        with pytest.raises(NotImplementedError, match=r"\[share_memory_\] memory is not shared "
                                                      r".*each gets a copy \(test_multiproc"):
            share()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"\[multiprocessing.spawn\] nprocs is 0"):
        mp.spawn(end, nprocs=0)
    with pytest.raises(ValueError, match="there is no 'telepathy'"):
        mp.set_sharing_strategy("telepathy")
