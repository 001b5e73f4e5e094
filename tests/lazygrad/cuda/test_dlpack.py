"""DLPack over memory of a GPU, out and in; `__cuda_array_interface__`."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import lazygrad as lg
from lazygrad._core import device_dlpack
from lazygrad._core.device_dlpack import KINDS, READ_ONLY, _struct
from tests.ptx.driver import FakeDriver

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
          "bool", "complex64", "complex128")


class Producer:
    """Another library's array: gives out capsules of a tensor, and notes what it was asked for.

    old: of the protocol that knows no versions.
    """

    def __init__(self, tensor: lg.Tensor, old: bool = False) -> None:
        self.tensor, self.old = tensor, old
        self.asked: list[dict[str, Any]] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()

    def __dlpack__(self, **keywords: Any) -> Any:
        if self.old and "max_version" in keywords:
            raise TypeError("unexpected keyword max_version")
        self.asked.append(keywords)
        return self.tensor.__dlpack__(**keywords)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("old", [False, True])
def test_there_and_back_without_a_copy(name: str, old: bool, where: str) -> None:
    x = lg.tensor([[1, 0, 2], [3, 4, 5]], device="cuda").to(getattr(lg, name))
    producer = Producer(x, old)
    back = lg.from_dlpack(producer)
    assert back.dtype is x.dtype and back.device == x.device and back.shape == x.shape
    assert back.data_ptr() == x.data_ptr()
    assert producer.asked[-1]["stream"] == 1 and ("max_version" in producer.asked[-1]) != old
    assert back.tolist() == x.tolist() and (back + back).tolist() == (x + x).tolist()


def test_views_keep_their_strides(where: str) -> None:
    x = lg.arange(24.0, device="cuda").reshape(4, 6)
    view = x.t()[::2, 1:]
    back = lg.from_dlpack(Producer(view), copy=True)
    assert back.stride() == view.stride() and back.tolist() == view.tolist()
    shared = lg.from_dlpack(Producer(x.t()))
    assert shared.data_ptr() == x.data_ptr() and shared.tolist() == x.t().tolist()
    assert lg.from_dlpack(Producer(x.flip(0))).tolist() == x.flip(0).tolist()
    assert lg.from_dlpack(Producer(x[:0])).shape == (0, 6)
    assert lg.from_dlpack(Producer(x.sum())).item() == 276


def test_memory_that_kernels_cannot_read_as_it_lies_is_copied(where: str) -> None:
    x = lg.arange(10.0, device="cuda")
    part = x[1:]
    back = lg.from_dlpack(Producer(part))
    assert back.data_ptr() != part.data_ptr() == x.data_ptr() + 4
    assert (back * 2).tolist() == (part * 2).tolist()
    with pytest.raises(BufferError, match="is not aligned to 16 bytes.*Pass copy=True"):
        lg.from_dlpack(Producer(part), copy=False)


def test_what_a_capsule_says(fake: FakeDriver) -> None:
    x = lg.arange(6.0, device="cuda").reshape(2, 3) + 1  # pending
    capsule = x.__dlpack__(max_version=(1, 2))
    found = _struct(capsule)
    assert found is not None
    name, managed = found
    assert name == b"dltensor_versioned" and (managed.major, managed.minor) == (1, 0)
    assert managed.flags == READ_ONLY and managed.tensor.data == x.data_ptr()
    assert (managed.tensor.device_type, managed.tensor.device_id) == (2, 0) == \
        x.__dlpack_device__()
    assert managed.tensor.shape[:2] == [2, 3] and managed.tensor.strides[:2] == [3, 1]
    assert (managed.tensor.code, managed.tensor.bits, managed.tensor.lanes) == (2, 32, 1)
    old = _struct(x.__dlpack__())
    assert old is not None and old[0] == b"dltensor"
    copied = x.__dlpack__(max_version=(1, 0), copy=True)
    found = _struct(copied)
    assert found is not None and found[1].flags == 2
    assert found[1].tensor.data != x.data_ptr()
    on_host = np.from_dlpack(Consumer(x, dl_device=(1, 0)))
    assert on_host.tolist() == x.tolist()


class Consumer:
    """NumPy's view of what a tensor gives out for the CPU."""

    def __init__(self, tensor: lg.Tensor, **asked: Any) -> None:
        self.tensor, self.asked = tensor, asked

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.tensor.__dlpack__(**keywords | self.asked)


def test_the_consumers_stream_waits(fake: FakeDriver) -> None:
    x = lg.arange(6.0, device="cuda")
    x.data_ptr()

    def waits(stream: Any) -> int:
        before = fake.calls.count("cuStreamWaitEvent")
        x.__dlpack__(stream=stream)
        return fake.calls.count("cuStreamWaitEvent") - before

    other = lg.cuda.Stream()
    assert waits(None) == waits(1) == waits(-1) == 0  # the default stream wrote it
    assert waits(other.cuda_stream) == waits(2) == 1
    for bad in (0, -2, "x"):
        with pytest.raises(BufferError, match="is none of CUDA's"):
            x.__dlpack__(stream=bad)
    producer = Producer(x)
    with lg.cuda.stream(other):
        lg.from_dlpack(producer)
    assert producer.asked[-1]["stream"] == other.cuda_stream


def test_memory_is_held_until_nobody_needs_it(fake: FakeDriver) -> None:
    held = device_dlpack._given
    before = len(held)
    x = lg.arange(1000.0, device="cuda")
    capsule = x.__dlpack__()
    assert len(held) == before + 1
    del capsule  # nobody took it
    assert len(held) == before
    address = x.data_ptr()
    back = lg.from_dlpack(x.__dlpack__(max_version=(1, 0)))
    in_use = lg.cuda.memory_allocated()
    del x
    gc.collect(1)
    assert lg.cuda.memory_allocated() == in_use and len(held) == before + 1
    assert back.data_ptr() == address and back[7].item() == 7
    del back
    gc.collect(1)
    assert lg.cuda.memory_allocated() < in_use and len(held) == before


def test_memory_that_another_stream_reads_is_given_back_when_it_has_been_read(
    fake: FakeDriver,
) -> None:
    def waits() -> int:
        x = lg.arange(10.0, device="cuda")
        taken = lg.from_dlpack(Producer(x))
        (taken + 1).data_ptr()
        before = fake.calls.count("cuStreamSynchronize")
        del taken
        gc.collect(1)
        return fake.calls.count("cuStreamSynchronize") - before

    assert waits() == 0  # the default stream waits for all, and is waited for
    with lg.cuda.stream(lg.cuda.Stream()):
        assert waits() == 1


def test_foreign_memory_is_not_written_over(fake: FakeDriver) -> None:
    """A replay writes results over arguments that nobody else has: these somebody has."""
    x = lg.zeros(64, device="cuda") + 1
    mine = lg.from_dlpack(Producer(x))
    step = lg.compile(lambda: mine.add_(1))
    for _ in range(4):
        step()
    assert mine[0].item() == 5 and x[0].item() == 1


def test_what_cannot_be_given(fake: FakeDriver) -> None:
    x = lg.ones(4, device="cuda", requires_grad=True)
    with pytest.raises(BufferError, match="requires gradients"):
        x.__dlpack__()
    with pytest.raises(BufferError, match="not that of device"):
        x.detach().__dlpack__(dl_device=(2, 1))
    with pytest.raises(BufferError, match="not that of device"):
        x.detach().__dlpack__(dl_device=(1, 0), copy=False)
    capsule = x.detach().__dlpack__()
    lg.from_dlpack(capsule)
    with pytest.raises(BufferError, match="consumed already"):
        lg.from_dlpack(capsule)
    assert set(KINDS) == {b"dltensor", b"dltensor_versioned"}


def test_the_array_interface(fake: FakeDriver) -> None:
    x = lg.arange(12, device="cuda").reshape(3, 4)
    assert x.__cuda_array_interface__ == {
        "shape": (3, 4), "typestr": "<i8", "data": (x.data_ptr(), True), "strides": None,
        "stream": 1, "version": 3,
    }  # fmt: skip
    assert x.t().__cuda_array_interface__["strides"] == (8, 32)
    assert not hasattr(lg.ones(3), "__cuda_array_interface__")
    with pytest.raises(lg.TensorError, match="detach"):
        lg.ones(3, device="cuda", requires_grad=True).__cuda_array_interface__
    with pytest.raises(TypeError, match="bfloat16"):
        lg.ones(3, device="cuda", dtype=lg.bfloat16).__cuda_array_interface__
