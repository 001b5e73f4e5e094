"""Device memory: reuse, order between streams, and running out of it."""

from __future__ import annotations

import gc
import itertools
import random

import numpy as np
import pytest

from lazygrad_runtime.cuda.context import Device
from lazygrad_runtime.cuda.memory import DeviceBuffer
from lazygrad_runtime.cuda.stream import Stream, set_stream
from lazygrad_runtime.memory import Buffer
from tests.cuda_fake import fake_cuda, first_device
from tests.ptx.driver import FakeDriver
from tests.ptx.memory import DeviceMemory

MIB = 1 << 20


def uploaded(device: Device, array: np.ndarray) -> DeviceBuffer:
    return device.staging.upload(Buffer.from_numpy(array))


def test_a_freed_block_serves_the_next_request_of_its_size(device: Device) -> None:
    buffer = device.pool.allocate(5000, 0)
    address = buffer.address
    assert address % 256 == 0 and buffer.nbytes == 5000
    other = device.pool.allocate(5000, 0)
    assert abs(other.address - address) >= 5000
    del buffer
    assert device.pool.allocate(4900, 0).address == address


def test_another_stream_does_not_get_the_block(device: Device) -> None:
    stream = Stream(device)
    buffer = device.pool.allocate(5000, 0)
    address = buffer.address
    del buffer
    assert device.pool.allocate(5000, stream.handle).address != address


def test_blocks_never_overlap(device: Device) -> None:
    rng = random.Random(3)
    living: list[DeviceBuffer] = []
    for _ in range(600):
        if living and rng.random() < 0.45:
            del living[rng.randrange(len(living))]
        else:
            size = rng.choice([0, 1, 511, 512, 513, 4096, 70_000, 3 * MIB, 9 * MIB])
            living.append(device.pool.allocate(size, 0))
        spans = sorted((each.address, each.address + max(each.nbytes, 1)) for each in living)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    stats = device.pool.stats()
    assert stats["allocated_bytes"] >= sum(each.nbytes for each in living)
    assert stats["reserved_bytes"] >= stats["allocated_bytes"]
    living.clear()
    assert device.pool.stats()["allocated_bytes"] == 0
    assert stats["allocated_bytes_peak"] >= stats["allocated_bytes"]


def test_empty_cache_gives_everything_back(fake: FakeDriver, device: Device) -> None:
    kept = device.pool.allocate(1000, 0)
    before = fake.memory.allocated
    dropped = [device.pool.allocate(size, 0) for size in (1000, 2 * MIB, 20 * MIB)]
    del dropped
    assert device.pool.empty_cache() >= 22 * MIB
    assert fake.memory.allocated == before
    assert device.pool.allocate(1000, 0).address != kept.address


def test_a_block_waits_for_the_streams_that_read_it(fake: FakeDriver, device: Device) -> None:
    stream = Stream(device)
    buffer = uploaded(device, np.arange(10))
    fake.calls.clear()
    buffer.used_on(stream.handle)
    assert ordering(fake)[-2:] == ["cuEventRecord", "cuStreamWaitEvent"]  # the stream waits
    buffer.used_on(stream.handle)
    assert fake.calls.count("cuStreamWaitEvent") == 1
    del buffer
    fake.calls.clear()
    device.pool.allocate(80, 0)
    assert ordering(fake) == ["cuEventRecord", "cuStreamWaitEvent"]  # and its block for the stream


def ordering(fake: FakeDriver) -> list[str]:
    """The calls so far, without those that make a context the thread's."""
    return [name for name in fake.calls if name != "cuCtxSetCurrent"]


def test_out_of_memory_frees_the_cache_and_tries_again() -> None:
    with fake_cuda(memory=DeviceMemory(limit=48 * MIB)) as fake:
        device = first_device()
        buffer = device.pool.allocate(30 * MIB, 0)
        del buffer
        device.pool.allocate(40 * MIB, 0)  # fits only once the cache is gone
        assert fake.calls.count("cuMemFree_v2") == 1


def test_out_of_memory_says_how_much_and_leaves_everything_usable() -> None:
    with fake_cuda(memory=DeviceMemory(limit=64 * MIB)):
        device = first_device()
        kept = uploaded(device, np.arange(1000.0))
        with pytest.raises(MemoryError, match=r"104857600 bytes asked for on cuda:0, which has \d+"
                           " of 67108864 bytes left.*smaller batches"):
            device.pool.allocate(100 * MIB, 0)
        assert device.pool.failures == 1
        assert np.array_equal(kept.as_numpy(np.float64, (1000,)), np.arange(1000.0))
        device.pool.allocate(10 * MIB, 0)


def test_a_limit_of_ones_own(device: Device) -> None:
    device.pool.limit = 16 * MIB
    with pytest.raises(MemoryError, match="may have 16777216"):
        device.pool.allocate(20 * MIB, 0)


@pytest.mark.parametrize("size", [0, 1, 63, 4096, (4 << 20) - 1, (4 << 20) + 1, 11 << 20])
def test_copies_there_and_back(device: Device, size: int) -> None:
    rng = np.random.default_rng(size)
    array = rng.integers(0, 255, size, np.uint8)
    expected = array.copy()
    buffer = uploaded(device, array)
    array[:] = 0  # the caller's memory is free as soon as the upload returns
    assert np.array_equal(buffer.as_numpy(np.uint8, (size,)), expected)


def test_many_small_uploads_do_not_overwrite_each_other(device: Device) -> None:
    arrays = [np.full(50_000, number, np.int32) for number in range(60)]  # 12 MB through 8 MB
    buffers = [uploaded(device, array) for array in arrays]
    for array, buffer in zip(arrays, buffers, strict=True):
        assert np.array_equal(buffer.as_numpy(np.int32, (50_000,)), array)


def test_downloads_keep_to_the_size(device: Device) -> None:
    buffer = uploaded(device, np.arange(6, dtype=np.int64))
    with pytest.raises(ValueError, match="needs 56 bytes"):
        buffer.as_numpy(np.int64, (7,))


def test_page_locked_memory_is_copied_as_it_lies(fake: FakeDriver, device: Device) -> None:
    from lazygrad_runtime.cuda.transfer import page_locked

    pinned = page_locked(Buffer.from_numpy(np.arange(5000.0)))
    assert page_locked(pinned) is pinned
    assert device.staging  # made before the calls are counted
    fake.calls.clear()
    buffer = device.staging.upload(pinned)
    assert "cuMemcpyHtoDAsync_v2" in fake.calls and "cuEventSynchronize" not in fake.calls
    assert np.array_equal(buffer.as_numpy(np.float64, (5000,)), np.arange(5000.0))
    pointer = pinned.pointer
    del pinned
    gc.collect()
    again = page_locked(Buffer.from_numpy(np.ones(5000)))
    assert again.pointer == pointer  # locking pages is slow: the block is used again


def test_the_current_stream_is_used(fake: FakeDriver, device: Device) -> None:
    stream = Stream(device)
    set_stream(stream)
    try:
        assert uploaded(device, np.arange(3)).stream == stream.handle
    finally:
        set_stream(Stream(device, 0))
    assert uploaded(device, np.arange(3)).stream == 0


def test_streams_nobody_has_are_destroyed_with_their_memory(
    fake: FakeDriver, device: Device
) -> None:
    stream = Stream(device)
    device.pool.allocate(100, stream.handle)
    del stream
    gc.collect()
    device.pool.empty_cache()
    assert "cuStreamDestroy_v2" in fake.calls
