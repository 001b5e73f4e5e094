"""`__cuda_array_interface__` of other libraries, in: whose memory, which stream waits for which."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

import lazygrad as lg
from tests.ptx.driver import FakeDriver


class Array:
    """Another library's array over the memory of a tensor.  more: what it says differently."""

    def __init__(self, tensor: lg.Tensor, **more: Any) -> None:
        self.tensor, self.more = tensor, more

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.tensor.__cuda_array_interface__ | self.more


DTYPES = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool", "complex64")


@pytest.mark.parametrize("name", DTYPES)
def test_memory_is_shared(name: str, where: str) -> None:
    x = lg.tensor([[1, 0, 2], [3, 4, 5]], device="cuda").to(getattr(lg, name))
    for back in (lg.from_cuda_array(Array(x)), lg.as_tensor(Array(x)), lg.asarray(Array(x))):
        assert back.dtype is x.dtype and back.device == x.device and back.shape == x.shape
        assert back.data_ptr() == x.data_ptr() and (back + back).tolist() == (x + x).tolist()
    copied = lg.tensor(Array(x))
    assert copied.data_ptr() != x.data_ptr() and copied.tolist() == x.tolist()
    assert lg.from_cuda_array(x).data_ptr() == x.data_ptr()


def test_layouts(where: str) -> None:
    x = lg.arange(24.0, device="cuda").reshape(4, 6)
    turned = lg.from_cuda_array(Array(x.t()))
    assert turned.data_ptr() == x.data_ptr() and turned.stride() == x.t().stride()
    assert turned.tolist() == x.t().tolist()
    assert lg.from_cuda_array(Array(x.t()[::2, 1:])).tolist() == x.t()[::2, 1:].tolist()
    assert lg.from_cuda_array(Array(x[:0])).shape == (0, 6)
    assert lg.from_cuda_array(Array(x[1, 2])).item() == 8
    odd = x.reshape(-1)[1:]  # 4 bytes beyond a multiple of 16: copied
    assert lg.from_cuda_array(Array(odd)).tolist() == odd.tolist()
    with pytest.raises(BufferError, match="not aligned"):
        lg.from_cuda_array(Array(odd), copy=False)


def test_a_dtype_and_a_device(where: str) -> None:
    x = lg.arange(4, device="cuda")
    assert lg.as_tensor(Array(x), dtype=lg.float32).dtype is lg.float32
    here = lg.as_tensor(Array(x), device="cpu")
    assert here.device.type == "cpu" and here.tolist() == [0, 1, 2, 3]
    wanted = lg.tensor(Array(x), dtype=lg.float32, requires_grad=True)
    (wanted * wanted).sum().backward()
    assert wanted.grad.tolist() == [0, 2, 4, 6]


def test_streams_wait_for_each_other(fake: FakeDriver) -> None:
    x = lg.arange(6.0, device="cuda")
    x.data_ptr()
    other = lg.cuda.Stream()

    def waits(**more: Any) -> tuple[int, int]:
        """How often a stream waited as it was taken, and as it was given back."""
        before = fake.calls.count("cuStreamWaitEvent")
        made = lg.from_cuda_array(Array(x, **more))
        taken = fake.calls.count("cuStreamWaitEvent")
        del made
        gc.collect(1)
        return taken - before, fake.calls.count("cuStreamWaitEvent") - taken

    assert waits(stream=None) == waits(stream=1) == (0, 0)
    assert waits(stream=other.cuda_stream) == (1, 1)
    with lg.cuda.stream(other):
        assert waits(stream=1) == (1, 1)
        assert waits(stream=other.cuda_stream) == (0, 0)


def test_the_array_is_held_while_it_is_needed(fake: FakeDriver) -> None:
    array = Array(lg.arange(100.0, device="cuda"))
    alive = weakref.ref(array)
    made = lg.from_cuda_array(array)
    view = made[5:]
    del array, made
    gc.collect(1)
    assert alive() is not None and view[0].item() == 5
    del view
    gc.collect(1)
    assert alive() is None


@pytest.mark.parametrize("more, message", [
    ({"version": 1}, "version 1 is not known"),
    ({"mask": object()}, "has a mask"),
    ({"typestr": "<M8[s]"}, "is no dtype here"),
    ({"strides": (-4,)}, "are negative"),
    ({"strides": (6,)}, "no multiples of 4 bytes"),
    ({"stream": 0}, "is none of CUDA's"),
    ({"data": (64, False)}, "no memory of a CUDA device at 0x40"),
])  # fmt: skip
def test_what_cannot_be_taken(fake: FakeDriver, more: dict[str, Any], message: str) -> None:
    with pytest.raises(BufferError, match=message):
        lg.from_cuda_array(Array(lg.ones(4, device="cuda"), **more))


def test_arrays_of_the_cpu_are_refused() -> None:
    with pytest.raises(TypeError, match="takes an array with __cuda_array_interface__, not list"):
        lg.from_cuda_array([1, 2])
