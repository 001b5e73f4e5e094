"""DLPack: memory shared with PyTorch and NumPy in both directions."""

from __future__ import annotations

import gc
import weakref

import numpy
import pytest
import torch

import lazygrad as lg
from lazygrad.utils import dlpack

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
          "bool", "complex64", "complex128")


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_torch_without_a_copy(dtype):
    x = lg.tensor([[1, 0, 2], [3, 4, 5]]).to(getattr(lg, dtype))
    there = torch.from_dlpack(x)
    assert there.data_ptr() == x.data_ptr()
    assert there.dtype is getattr(torch, dtype)
    assert there.tolist() == x.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_from_torch_without_a_copy(dtype):
    there = torch.tensor([[1, 0, 2], [3, 4, 5]]).to(getattr(torch, dtype))
    x = lg.from_dlpack(there)
    assert x.data_ptr() == there.data_ptr()
    assert x.dtype is getattr(lg, dtype)
    assert x.tolist() == there.tolist()


def test_numpy_both_ways():
    array = numpy.arange(6.0).reshape(2, 3)
    x = lg.from_dlpack(array)
    assert x.data_ptr() == array.ctypes.data
    back = numpy.from_dlpack(x)
    assert back.ctypes.data == array.ctypes.data
    assert not back.flags.writeable


def test_a_pending_tensor_is_computed():
    x = lg.arange(4.0)
    assert torch.from_dlpack(x * 2 + 1).tolist() == [1.0, 3.0, 5.0, 7.0]


def test_views_keep_their_strides():
    x = lg.arange(24.0).reshape(4, 6)
    view = x.t()[1::2, 1:]
    there = torch.from_dlpack(view)
    assert there.stride() == view.stride()
    assert there.storage_offset() == 0
    assert there.data_ptr() == view.data_ptr() == x.data_ptr() + 4 * view.storage_offset()
    assert there.tolist() == view.tolist()


@pytest.mark.parametrize("there", [
    torch.arange(6.0).reshape(2, 3).t(), torch.arange(24.0).reshape(4, 6)[1::2, ::3],
    torch.arange(3.0).expand(2, 3)])
def test_foreign_strides_are_taken_over(there):
    x = lg.from_dlpack(there, copy=False)
    assert x.tolist() == there.tolist()
    assert x.data_ptr() == there.data_ptr()
    assert x.stride() == there.stride()


def test_backward_strides_are_copied_unless_forbidden():
    backward = numpy.arange(3.0)[::-1]
    assert lg.from_dlpack(backward).tolist() == [2.0, 1.0, 0.0]
    with pytest.raises(BufferError, match="cannot be shared"):
        lg.from_dlpack(backward, copy=False)


def test_copies_on_demand():
    array = numpy.arange(3.0)
    x = lg.from_dlpack(array, copy=True)
    array[0] = 9
    assert x.tolist() == [0.0, 1.0, 2.0]
    capsule = x.__dlpack__(copy=True)
    assert lg.from_dlpack(capsule).data_ptr() != x.data_ptr()


def test_the_memory_lives_as_long_as_either_side():
    array = numpy.arange(100.0)
    seen = weakref.ref(array)
    x = lg.from_dlpack(array)
    del array
    gc.collect()
    assert seen() is not None
    there = torch.from_dlpack(x + 0)
    del x
    gc.collect()
    lg.zeros(100, dtype=lg.float64).add(1).sum().item()  # would take a block that was free
    assert there.tolist() == list(map(float, range(100)))
    assert seen() is None


def test_a_write_afterwards_leaves_the_exported_value():
    x = lg.arange(3.0)
    there = torch.from_dlpack(x)
    x.add_(10)
    assert x.tolist() == [10.0, 11.0, 12.0]
    assert there.tolist() == [0.0, 1.0, 2.0]


def test_capsules_and_the_older_protocol():
    x = lg.arange(3.0)
    assert lg.from_dlpack(x.__dlpack__()).tolist() == [0.0, 1.0, 2.0]
    assert torch.from_dlpack(dlpack.to_dlpack(x)).data_ptr() == x.data_ptr()
    capsule = x.__dlpack__(max_version=(1, 0))
    assert torch.from_dlpack(capsule).tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(BufferError, match="consumed already"):
        lg.from_dlpack(capsule)


def test_refusals():
    with pytest.raises(BufferError, match="requires gradients"):
        torch.from_dlpack(lg.ones(2, requires_grad=True))
    with pytest.raises(BufferError, match="stream"):
        lg.ones(2).__dlpack__(stream=7)
    with pytest.raises(BufferError, match="device"):
        lg.ones(2).__dlpack__(dl_device=(2, 0))
    with pytest.raises(TypeError, match="takes an array"):
        lg.from_dlpack([1, 2])
    assert lg.ones(2).__dlpack_device__() == (1, 0)


def test_a_tensor_of_ours_is_shared():
    x = lg.ones(2)
    shared = lg.from_dlpack(x)
    shared[0] = 5
    assert x.tolist() == [5.0, 1.0]
