"""The allocator: alignment, reuse, bounds, honest counts, and errors that leave it usable."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazygrad_runtime import memory
from lazygrad_runtime.memory import (
    HUGE_PAGE,
    LARGE_BLOCK,
    LARGEST_REQUEST,
    Allocator,
    Buffer,
    capacity_of,
)


@pytest.fixture
def allocator():
    return Allocator(limit=1 << 30, cache_limit=1 << 26)


@given(st.integers(0, LARGEST_REQUEST))
def test_capacities_fit_and_waste_little(nbytes):
    capacity = capacity_of(nbytes)
    assert capacity >= nbytes
    assert capacity % 64 == 0
    assert capacity_of(capacity) == capacity
    if nbytes >= 2 * LARGE_BLOCK:
        assert capacity - nbytes <= nbytes // 16
    elif 256 <= nbytes < LARGE_BLOCK:
        assert capacity - nbytes <= nbytes // 4


@pytest.mark.parametrize(
    "nbytes", [0, 1, 63, 64, 65, 4096, LARGE_BLOCK - 1, LARGE_BLOCK, LARGE_BLOCK + 1, 5_000_001]
)
def test_blocks_are_aligned_and_writable_to_the_last_byte(allocator, nbytes):
    buffers = [allocator.allocate(nbytes) for _ in range(5)]
    for value, buffer in enumerate(buffers):
        assert buffer.pointer and buffer.nbytes == nbytes
        assert buffer.pointer % (HUGE_PAGE if nbytes >= LARGE_BLOCK else 64) == 0
        ctypes.memset(buffer.pointer, value, nbytes)
    for value, buffer in enumerate(buffers):
        assert np.all(buffer.as_numpy(np.uint8, (nbytes,)) == value)
    assert len({buffer.pointer for buffer in buffers}) == 5


@pytest.mark.parametrize("nbytes", [100, 3 << 20])
def test_freed_block_is_reused(allocator, nbytes):
    buffer = allocator.allocate(nbytes)
    pointer = buffer.pointer
    del buffer
    assert allocator.stats()["cached"] == capacity_of(nbytes)
    assert allocator.allocate(nbytes - 1).pointer == pointer


def test_large_block_serves_a_slightly_smaller_request_only(allocator):
    buffer = allocator.allocate(10 << 20)
    pointer = buffer.pointer
    del buffer
    small = allocator.allocate(5 << 20)
    assert small.pointer != pointer
    assert allocator.allocate(9 << 20).pointer == pointer
    assert allocator.stats()["allocated"] == capacity_of(5 << 20)
    assert allocator.stats()["cached"] == capacity_of(10 << 20)


def test_counts(allocator):
    assert allocator.stats() == {"allocated": 0, "peak": 0, "cached": 0}
    first, second = allocator.allocate(1 << 20), allocator.allocate(1 << 20)
    assert allocator.stats() == {"allocated": 2 << 20, "peak": 2 << 20, "cached": 0}
    del first
    assert allocator.stats() == {"allocated": 1 << 20, "peak": 2 << 20, "cached": 1 << 20}
    assert allocator.empty_cache() == 1 << 20
    allocator.reset_peak()
    assert allocator.stats() == {"allocated": 1 << 20, "peak": 1 << 20, "cached": 0}
    del second
    assert allocator.stats()["allocated"] == 0


def test_cache_is_bounded_and_keeps_what_was_used_last():
    allocator = Allocator(limit=1 << 30, cache_limit=8 << 20)
    old = [allocator.allocate(1 << 20) for _ in range(6)]
    recent = [allocator.allocate(2 << 20) for _ in range(2)]
    del old
    assert allocator.stats()["cached"] == 6 << 20
    pointers = {buffer.pointer for buffer in recent}
    recent.clear()
    assert allocator.stats()["cached"] <= 8 << 20
    again = [allocator.allocate(2 << 20) for _ in range(2)]
    assert {buffer.pointer for buffer in again} == pointers


def test_unmapped_block_leaves_the_address_space():
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")

    def virtual_bytes():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    allocator = Allocator(limit=1 << 40, cache_limit=0)
    before = virtual_bytes()
    buffer = allocator.allocate(1 << 30)
    during = virtual_bytes()
    del buffer
    assert (1 << 30) <= during - before < (1 << 30) + (64 << 20)
    assert virtual_bytes() - before < 64 << 20
    for _ in range(100):  # what is cut off for alignment must go as well
        allocator.allocate(3 << 20)
    assert virtual_bytes() - before < 64 << 20


def test_negative_and_non_integer_sizes_are_refused(allocator):
    with pytest.raises(ValueError, match="-1 bytes"):
        allocator.allocate(-1)
    for size in (1.5, "8", None):
        with pytest.raises(TypeError):
            allocator.allocate(size)
    assert allocator.allocate(np.int64(100)).nbytes == 100


@pytest.mark.parametrize("nbytes", [LARGEST_REQUEST + 1, 1 << 63, 1 << 100])
def test_absurd_size_is_a_memory_error_that_names_it(allocator, nbytes):
    with pytest.raises(MemoryError, match=str(nbytes)):
        allocator.allocate(nbytes)
    assert allocator.allocate(100).nbytes == 100


def test_limit_is_a_memory_error_and_cached_blocks_make_room():
    allocator = Allocator(limit=16 << 20, cache_limit=16 << 20)
    kept = allocator.allocate(8 << 20)
    with pytest.raises(MemoryError, match=str(9 << 20)):
        allocator.allocate(9 << 20)
    del kept
    assert allocator.stats()["cached"] == 8 << 20
    assert allocator.allocate(16 << 20).nbytes == 16 << 20
    assert allocator.stats()["peak"] == 16 << 20


@pytest.fixture
def left(monkeypatch):
    """What the system says is left, less what is touched, as it would."""
    said = [1 << 30]
    monkeypatch.setattr(memory, "memory_left", lambda: said[0])
    return said


def test_what_others_hold_is_not_given_out(left):
    allocator = Allocator()
    left[0] = 300 << 20
    kept = allocator.allocate(100 << 20)
    with pytest.raises(MemoryError, match=rf"{200 << 20} bytes asked for .* are left beside"):
        allocator.allocate(200 << 20)  # the first block will be touched, and is not yet
    ctypes.memset(kept.pointer, 1, kept.nbytes)
    left[0] -= 100 << 20
    assert allocator.allocate(100 << 20).nbytes == 100 << 20
    with pytest.raises(MemoryError, match=str(200 << 20)):
        allocator.reserve(200 << 20)
    assert allocator.stats()["allocated"] == 100 << 20
    left[0] = 1 << 30
    assert allocator.allocate(200 << 20).nbytes == 200 << 20
    del kept
    allocator.empty_cache()


def test_cached_blocks_make_room_where_little_is_left(left, monkeypatch):
    allocator = Allocator()
    del (block := [allocator.allocate(100 << 20)])[0]
    assert not block and allocator.stats()["cached"] == 100 << 20
    monkeypatch.setattr(memory, "memory_left",
                        lambda: (110 << 20) + (100 << 20) * (not allocator.stats()["cached"]))
    assert allocator.allocate(130 << 20).nbytes == 130 << 20
    allocator.empty_cache()


def test_small_blocks_are_looked_at_together(left):
    allocator = Allocator()
    left[0] = 80 << 20
    kept = []
    with pytest.raises(MemoryError, match="are left beside"):
        for _ in range(100):
            kept.append(allocator.allocate(2 << 20))
    assert len(kept) < 20
    left[0] = 1 << 30
    assert allocator.allocate(2 << 20).nbytes == 2 << 20


def test_refusal_of_the_system_empties_the_cache_then_raises(allocator, monkeypatch):
    cached = allocator.allocate(4 << 20)
    del cached
    system_map = allocator._system.map
    answers = [None, "system", None, None]

    def failing_map(capacity):
        answer = answers.pop(0)
        return system_map(capacity) if answer else None

    monkeypatch.setattr(allocator._system, "map", failing_map)
    buffer = allocator.allocate(32 << 20)
    assert allocator.stats()["cached"] == 0
    with pytest.raises(MemoryError, match=str(20 << 20)):
        allocator.allocate(20 << 20)
    assert allocator.stats()["allocated"] == capacity_of(32 << 20)
    monkeypatch.undo()
    assert allocator.allocate(20 << 20).nbytes == 20 << 20
    del buffer


def test_real_address_space_limit():
    if not sys.platform.startswith("linux"):
        pytest.skip("RLIMIT_AS")
    script = """
import resource
from lazygrad_runtime.memory import allocate, memory_stats
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
kept = allocate(1 << 20)
for _ in range(3):
    try:
        allocate(200 << 20)
    except MemoryError as error:
        assert str(200 << 20) in str(error), error
    else:
        raise SystemExit("no MemoryError")
assert allocate(10 << 20).nbytes == 10 << 20
assert memory_stats()["allocated"] == 1 << 20
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=200
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "dtype", [np.float32, np.int64, np.bool_, ml_dtypes.bfloat16, np.complex64]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (4, 5, 6)])
def test_numpy_view_shares_memory_both_ways(allocator, dtype, shape):
    count = int(np.prod(shape))
    buffer = allocator.allocate(count * np.dtype(dtype).itemsize)
    array = buffer.as_numpy(dtype, shape)
    assert array.dtype == dtype and array.shape == shape
    assert array.flags.c_contiguous and array.flags.writeable
    array[...] = 1
    assert np.array_equal(buffer.as_numpy(dtype, shape), np.ones(shape, dtype))
    if count:
        assert array.ctypes.data == buffer.pointer


def test_numpy_view_keeps_the_buffer_alive(allocator):
    buffer = allocator.allocate(4000)
    array = buffer.as_numpy(np.float32, (1000,))
    part = array[10:20].reshape(2, 5)
    del buffer, array
    gc.collect()
    assert allocator.stats()["allocated"] == capacity_of(4000)
    del part
    assert allocator.stats()["allocated"] == 0


def test_numpy_view_larger_than_the_buffer_is_refused(allocator):
    buffer = allocator.allocate(100)
    with pytest.raises(ValueError, match="needs 104 bytes, the buffer has 100"):
        buffer.as_numpy(np.float32, (26,))


def test_from_numpy_shares_and_keeps_the_array():
    array = np.arange(12, dtype=np.float32)
    buffer = Buffer.from_numpy(array)
    assert (buffer.pointer, buffer.nbytes) == (array.ctypes.data, 48)
    before = memory.memory_stats()["allocated"]
    del array
    gc.collect()
    back = buffer.as_numpy(np.float32, (3, 4))
    del buffer
    assert np.array_equal(back, np.arange(12, dtype=np.float32).reshape(3, 4))
    assert memory.memory_stats()["allocated"] == before


def test_zeros_are_shared_and_cannot_be_written(monkeypatch):
    monkeypatch.setattr(memory, "_zeros", np.zeros(0, np.uint8))
    short, long, none = Buffer.zeros(100), Buffer.zeros(1 << 20), Buffer.zeros(0)
    again = Buffer.zeros(4096)
    assert again.pointer == long.pointer == none.pointer != short.pointer
    assert short.pointer % 64 == long.pointer % 64 == 0
    arrays = [short.as_numpy(np.float32, (25,)), long.as_numpy(np.float32, (1 << 18,)),
              again.as_numpy(np.float32, (32, 32))]
    del short, long, again
    gc.collect()
    for array in arrays:
        assert not array.any()
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


@pytest.mark.parametrize("array", [np.zeros((4, 4)).T[:2], np.zeros(10)[::2]])
def test_from_numpy_refuses_strided_arrays(array):
    with pytest.raises(ValueError, match="C-contiguous"):
        Buffer.from_numpy(array)


def test_from_numpy_of_an_empty_array():
    assert Buffer.from_numpy(np.zeros((0, 3))).nbytes == 0


def test_threads_never_share_a_block(allocator):
    """Each thread fills its blocks with its own mark and finds it again."""
    failures = []

    def work(mark):
        try:
            choose = random.Random(mark)
            held = []
            for _ in range(1500):
                buffer = allocator.allocate(choose.choice([64, 200, 200, 5000, LARGE_BLOCK + 5]))
                ctypes.memset(buffer.pointer, mark, min(buffer.nbytes, 64))
                held.append(buffer)
                if len(held) > 8:
                    old = held.pop(choose.randrange(8))
                    head = old.as_numpy(np.uint8, (min(old.nbytes, 64),))
                    assert np.all(head == mark), f"block of thread {mark} overwritten"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 5)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures
    assert allocator.stats()["allocated"] == 0


def test_buffer_freed_while_the_lock_is_held_does_not_deadlock(allocator):
    """The collector may run `__del__` while this very thread is inside the allocator."""
    buffer = allocator.allocate(500)
    with allocator._lock:
        del buffer
    assert allocator.stats() == {
        "allocated": 0,
        "peak": capacity_of(500),
        "cached": capacity_of(500),
    }


def test_buffers_in_cycles_are_collected(allocator):
    buffer = allocator.allocate(500)
    cycle = [buffer]
    cycle.append(cycle)
    del buffer, cycle
    gc.collect()
    assert allocator.stats()["allocated"] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_fork_while_another_thread_holds_the_lock():
    held, release = threading.Event(), threading.Event()

    def hold():
        with memory._allocator._lock:
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if memory.allocate(1000).nbytes == 1000 else 1
        finally:
            os._exit(code)
    release.set()
    holder.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_buffers_alive_at_exit_are_no_error():
    script = """
import sys
from lazygrad_runtime.memory import allocate
import builtins
builtins.kept = [allocate(100), allocate(1 << 21)]
array = allocate(400).as_numpy("f4", (100,))
cycle = [allocate(5)]
cycle.append(cycle)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=200
    )
    assert (result.returncode, result.stderr) == (0, "")
