"""Memory that several streams use: whatever the host does, events order who reads, writes, and gets
a block again (`tests/ptx/driver_order.py` finds what nothing orders).
"""

from __future__ import annotations

import ctypes
import gc
import random
from collections.abc import Iterator

import numpy as np
import pytest

from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_runtime import store
from lazygrad_runtime.cuda.context import Device
from lazygrad_runtime.cuda.memory import ANY_STREAM, DeviceBuffer
from lazygrad_runtime.cuda.program import CudaProgram
from lazygrad_runtime.cuda.stream import Stream, set_stream
from lazygrad_runtime.cuda.transfer import copy_between
from lazygrad_runtime.memory import Buffer
from tests.cuda_fake import fake_cuda, first_device
from tests.ptx.driver import FakeDriver

SIZE = 64


@pytest.fixture
def ordered() -> Iterator[FakeDriver]:
    with fake_cuda(ordered=True) as fake:
        yield fake


@pytest.fixture
def device(ordered: FakeDriver) -> Iterator[Device]:
    """On a stream of its own: the default stream would order everything."""
    found = first_device()
    set_stream(Stream(found))
    yield found
    set_stream(Stream(found, 0))


def races(fake: FakeDriver) -> list[str]:
    assert fake.order is not None
    return fake.order.races


def sum_of_two(device: Device, checked: bool = False) -> CudaProgram:
    """2 x + y, in two launches; checked: with a gather, whose launch looks at indices."""
    x, y = (node("input", index=number, dtype=DTYPES["float32"], shape=(SIZE,))
            for number in range(2))
    outputs = [node("add", node("add", x, x), y)]
    if checked:
        index = node("input", index=2, dtype=DTYPES["int64"], shape=(SIZE,))
        outputs = [node("gather", outputs[0], index, axes=(0,))]
    return CudaProgram(store.compile_for(Graph(tuple(outputs)), device.target)[0], device)


def upload(device: Device, values: np.ndarray) -> DeviceBuffer:
    return device.staging.upload(Buffer.from_numpy(values))


def value_of(buffer: DeviceBuffer) -> np.ndarray:
    return buffer.as_numpy(np.float32, (SIZE,))


def test_unordered_accesses_are_found(ordered: FakeDriver, device: Device) -> None:
    """The checker itself: reads are no race, a write after them is, until an event lies between."""
    device.activate()
    first, second = Stream(device), Stream(device)
    buffer = upload(device, np.zeros(SIZE, np.float32))
    device.synchronize()
    driver, host = device.driver, ctypes.create_string_buffer(4 * SIZE)
    for stream in (first, second):
        driver.cuMemcpyDtoHAsync_v2(host, buffer.address, 4 * SIZE, stream.handle)
    assert not races(ordered)
    driver.cuMemsetD8Async(buffer.address, 1, 4 * SIZE, second.handle)
    assert len(races(ordered)) == 1 and "writes" in races(ordered)[0]
    races(ordered).clear()
    first.wait_stream(second)
    driver.cuMemsetD8Async(buffer.address, 1, 4 * SIZE, first.handle)
    assert not races(ordered)
    driver.cuMemcpyDtoHAsync_v2(host, buffer.address, 4 * SIZE, second.handle)
    assert "uses" in races(ordered)[0]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_streams_do(seed: int, ordered: FakeDriver, device: Device) -> None:
    """Programs, in-place updates, copies, downloads, frees on several streams in any order."""
    rng = random.Random(seed)
    programs = [sum_of_two(device), sum_of_two(device, checked=True)]
    order = np.random.default_rng(seed).permutation(SIZE)
    streams = [Stream(device) for _ in range(4 + seed % 2)]
    if seed % 2:
        streams[-1] = Stream(device, 0)
    living: list[tuple[DeviceBuffer, np.ndarray]] = []
    for turn in range(120):
        set_stream(rng.choice(streams))
        what = rng.choice(["upload", "run", "run", "over", "over", "copy", "read", "free", "free"])
        if what == "upload" or len(living) < 3:
            values = np.full(SIZE, float(turn), np.float32)
            living.append((upload(device, values), values))
        elif what in ("run", "over"):
            (x, left), (y, right) = rng.sample(living, 2)
            checked = rng.random() < 0.3
            wanted = 2 * left + right
            inputs = [x, y]
            if checked:
                wanted = wanted[order]
                inputs.append(upload(device, order))
            over = {0: x} if what == "over" and not checked else None
            (result,) = programs[checked].run(inputs, over)
            if over:
                living = [each for each in living if each[0] is not x]
            living.append((result, wanted))
        elif what == "copy":
            buffer, values = rng.choice(living)
            living.append((copy_between(buffer, device), values))
        elif what == "read":
            buffer, values = rng.choice(living)
            np.testing.assert_array_equal(value_of(buffer), values)
        else:
            living.pop(rng.randrange(len(living)))
        buffer = x = y = result = inputs = over = None  # type: ignore[assignment]
        assert not races(ordered), what
    for buffer, values in living:
        np.testing.assert_array_equal(value_of(buffer), values)
    assert not races(ordered)


def test_a_block_that_a_third_stream_still_reads_is_not_used_again(
    ordered: FakeDriver, device: Device
) -> None:
    """Written on one stream, written over on another, read on a third; then free for the first."""
    program = sum_of_two(device)
    a, b, c = (Stream(device) for _ in range(3))
    set_stream(a)
    x, y = (upload(device, np.ones(SIZE, np.float32)) for _ in range(2))
    set_stream(b)
    program.run([x, y], {0: x})
    set_stream(c)
    (result,) = program.run([x, y])
    del result
    address = x.address
    del x
    set_stream(a)
    again = upload(device, np.zeros(SIZE, np.float32))
    assert again.address == address and not races(ordered)


def test_a_block_that_another_stream_still_writes_is_not_used_again(
    ordered: FakeDriver, device: Device
) -> None:
    program = sum_of_two(device)
    a, b = Stream(device), Stream(device)
    set_stream(a)
    x, y = (upload(device, np.ones(SIZE, np.float32)) for _ in range(2))
    address = x.address
    set_stream(b)
    program.run([x, y], {0: x})
    del x
    set_stream(a)
    assert upload(device, np.zeros(SIZE, np.float32)).address == address
    assert not races(ordered)


def test_the_first_run_s_error_block_is_there_on_any_stream(
    ordered: FakeDriver, device: Device
) -> None:
    program = sum_of_two(device, checked=True)
    x = upload(device, np.ones(SIZE, np.float32))
    wrong = upload(device, np.full(SIZE, SIZE))
    device.synchronize()
    for _ in range(2):
        set_stream(Stream(device))
        with pytest.raises(IndexError):
            program.run([x, x, wrong])
        assert not races(ordered)


def test_writing_over_waits_for_those_who_read(ordered: FakeDriver, device: Device) -> None:
    program = sum_of_two(device)
    a, b = (Stream(device) for _ in range(2))
    set_stream(a)
    x, y = (upload(device, np.ones(SIZE, np.float32)) for _ in range(2))
    set_stream(b)
    program.run([x, y])
    set_stream(a)
    program.run([x, y], {0: x})  # b may read it still
    assert not races(ordered)
    set_stream(b)
    program.run([x, y])  # and knows the first value alone
    assert not races(ordered)


def test_readers_that_may_be_gone_are_waited_for(ordered: FakeDriver, device: Device) -> None:
    """A stream of another library: the host waits, since no event may be recorded there."""
    theirs = Stream(device)
    buffer = upload(device, np.zeros(SIZE, np.float32))
    device.pool.order(buffer.stream, theirs.handle)
    buffer.readers = {ANY_STREAM}
    host = ctypes.create_string_buffer(4 * SIZE)
    device.driver.cuMemcpyDtoHAsync_v2(host, buffer.address, 4 * SIZE, theirs.handle)
    address = buffer.address
    del buffer
    assert upload(device, np.ones(SIZE, np.float32)).address == address
    assert not races(ordered)


def test_a_stream_whose_handle_was_given_out_before_is_waited_for(
    ordered: FakeDriver, device: Device
) -> None:
    old = Stream(device)
    handle = old.handle
    del old
    gc.collect()
    device.pool.empty_cache()
    fresh, other = Stream(device), Stream(device)
    assert fresh.handle == handle
    set_stream(fresh)
    x = upload(device, np.ones(SIZE, np.float32))
    set_stream(other)
    np.testing.assert_array_equal(value_of(x), np.ones(SIZE))
    assert not races(ordered)
