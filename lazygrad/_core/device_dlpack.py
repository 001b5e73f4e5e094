"""DLPack and `__cuda_array_interface__` for memory of a GPU.  Capsules are made and read by hand,
since NumPy's know the CPU alone.

Out: a capsule over the value's memory, for which the consumer's stream is made to wait; it holds
the memory until its deleter is called.  In: a tensor over another library's memory, on the stream
that the producer was asked to make it ready for.  Layouts: dlpack.h, versions 0.8 and 1.0; streams:
the Python specification of DLPack (1 and None: the default stream, 2: that of the thread, -1:
nobody waits).
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from ctypes import (
    POINTER,
    c_char_p,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

import numpy

from lazygrad._core import cell as cells
from lazygrad._core import placement
from lazygrad._core.context import fail
from lazygrad._core.steps import first_byte
from lazygrad._core.tensor import Tensor, shape_of, strides_of, wrap
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType

CUDA = 2
VERSION = (1, 0)
READ_ONLY, COPIED = 1, 2
CODES = {"signed": 0, "unsigned": 1, "float": 2, "complex": 5, "bool": 6}
BFLOAT = 4
ALIGNMENT = 16
"""Bytes that addresses of kernels' operands are multiples of."""


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32),
        ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16), ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)), ("byte_offset", c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", c_void_p), ("deleter", c_void_p))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", c_uint32), ("minor", c_uint32), ("context", c_void_p), ("deleter", c_void_p),
        ("flags", c_uint64), ("tensor", _Tensor),
    )  # fmt: skip


KINDS: dict[bytes, Any] = {b"dltensor": _Managed, b"dltensor_versioned": _Versioned}
USED = {name: b"used_" + name for name in KINDS}

_Deleter = ctypes.CFUNCTYPE(None, c_void_p)
_Destructor = ctypes.PYFUNCTYPE(None, c_void_p)

# Capsules as bare addresses: a destructor gets one whose last reference is gone.
_new = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, c_char_p, _Destructor)(
    ("PyCapsule_New", ctypes.pythonapi))
_is_valid = ctypes.PYFUNCTYPE(c_int32, c_void_p, c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(c_void_p, c_void_p, c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi))
_rename = ctypes.PYFUNCTYPE(c_int32, ctypes.py_object, c_char_p)(
    ("PyCapsule_SetName", ctypes.pythonapi))

_given: dict[int, tuple[Any, ...]] = {}
"""What capsules hold, by their structs' addresses, until their deleters are called."""


@_Deleter
def _deleter(address: int) -> None:
    _given.pop(address, None)


@_Destructor
def _destructor(capsule: int) -> None:
    for name in KINDS:
        if _is_valid(capsule, name):  # nobody took it
            _deleter(_pointer(capsule, name))


# ---- out


def memory_of(tensor: Tensor) -> tuple[Tensor, Any, int]:
    """(the tensor, or an equal one without negative strides; its buffer; where in it the first
    element lies, in bytes).
    """
    if min(strides_of(tensor), default=0) < 0:
        tensor = tensor.clone()
    buffer: Any = cells.computed(tensor._cell.node)
    buffer.check()
    return tensor, buffer, first_byte(tensor._cell.node, tensor._view) if tensor.numel() else 0


def capsule_of(tensor: Tensor, stream: Any, versioned: bool, copied: bool) -> Any:
    """A capsule over the memory of a tensor on a device.  BufferError for a stream that is none."""
    tensor, buffer, start = memory_of(tensor)
    if copied:
        from lazygrad_runtime.cuda.transfer import copy_between
        buffer = copy_between(buffer, buffer.device)
    _make_ready(buffer, stream)
    shape, strides = shape_of(tensor), strides_of(tensor)
    sizes = (c_int64 * (2 * len(shape)))(*shape, *strides)
    first = ctypes.addressof(sizes)
    described = _Tensor(
        buffer.address + start if tensor.numel() else 0, CUDA, tensor.get_device(), len(shape),
        *_type_of(tensor.dtype), 1, ctypes.cast(first, POINTER(c_int64)),
        ctypes.cast(first + 8 * len(shape), POINTER(c_int64)), 0,
    )  # fmt: skip
    deleter = ctypes.cast(_deleter, c_void_p)
    made: Any
    if versioned:
        flags = COPIED if copied else READ_ONLY
        made, name = _Versioned(*VERSION, None, deleter, flags, described), b"dltensor_versioned"
    else:
        made, name = _Managed(described, None, deleter), b"dltensor"
    where = ctypes.addressof(made)
    _given[where] = made, sizes, buffer
    return _new(where, name, _destructor)


def _type_of(dtype: DType) -> tuple[int, int]:
    """(code, bits)."""
    if dtype is dtypes.bfloat16:
        return BFLOAT, 16
    if dtype.is_complex:
        return CODES["complex"], 8 * dtype.itemsize
    return CODES[dtype.kind], 8 * dtype.itemsize


def _make_ready(buffer: Any, stream: Any) -> None:
    """The consumer's stream waits for what writes the buffer, and the buffer's block, once it is
    free, for the consumer.
    """
    from lazygrad_runtime.cuda.memory import ANY_STREAM

    if stream == -1:
        return
    if stream is not None and (not isinstance(stream, int) or stream <= 0):
        raise fail("dlpack", f"stream {stream!r} is none of CUDA's",
                   "It is None, 1, 2, -1, or the handle of a stream.", BufferError)
    if stream in (None, 1):
        buffer.used_on(0)
    elif stream != buffer.stream:
        buffer.device.pool.order(buffer.stream, stream)
        buffer.readers = {*(buffer.readers or ()), ANY_STREAM}


def cuda_array_interface(self: Tensor) -> dict[str, Any]:
    """See `interop.cuda_array_interface`; of a tensor on a GPU."""
    if self.requires_grad:
        raise fail("__cuda_array_interface__", "the tensor requires gradients", "Use x.detach().")
    if self.dtype is dtypes.bfloat16:
        raise fail("__cuda_array_interface__", "bfloat16 has no NumPy type",
                   "Use DLPack, or x.float().", TypeError)
    tensor, buffer, start = memory_of(self)
    size = tensor.dtype.itemsize
    plain = tensor.is_contiguous()
    return {
        "shape": tuple(shape_of(tensor)),
        "typestr": tensor.dtype.numpy.str,
        "data": (buffer.address + start if tensor.numel() else 0, True),
        "strides": None if plain else tuple(size * each for each in strides_of(tensor)),
        "stream": buffer.stream or 1,
        "version": 3,
    }


# ---- in


class _Foreign:
    """Memory of another library: its deleter is called when nobody needs it any more.  On streams
    of our own (which the library's allocator does not wait for) that is when it has been read.
    """

    def __init__(self, address: int, deleter: int | None, device: Any, stream: int) -> None:
        self._delete: Callable[[], Any] | None = None
        self._device, self._era, self.streams = device, device.era, {stream}
        if deleter:
            function = _Deleter(deleter)
            self._delete = lambda: function(address)

    def __del__(self) -> None:
        if self._delete is None:
            return
        if _still_there(self._device, self._era):
            for stream in self.streams - {0}:
                self._device.pool.settle(stream)
        self._delete()


def _still_there(device: Any, era: int) -> bool:
    """Whether work on a device has to be thought of, rather than the end of the process."""
    return not sys.is_finalizing() and device.holds(era)


def from_producer(producer: Any, number: int, copy: bool | None) -> Tensor:
    """A tensor over the memory of an array on device `number` that has `__dlpack__`."""
    from lazygrad_runtime.cuda.stream import current_handle

    device = placement.runtime_device(number, "from_dlpack")
    handle = current_handle(device)
    try:
        capsule = producer.__dlpack__(stream=handle or 1, max_version=VERSION)
    except TypeError:  # of the older protocol
        capsule = producer.__dlpack__(stream=handle or 1)
    return from_capsule(capsule, copy)


def is_of_device(capsule: Any) -> bool:
    """Whether a capsule is over memory of a GPU."""
    found = _struct(capsule)
    return found is not None and found[1].tensor.device_type == CUDA


def _struct(capsule: Any) -> tuple[bytes, Any] | None:
    """(name, struct) of a capsule that nobody has taken yet."""
    for name, kind in KINDS.items():
        if _is_valid(id(capsule), name):
            return name, kind.from_address(_pointer(id(capsule), name))
    return None


def from_capsule(capsule: Any, copy: bool | None) -> Tensor:
    """A tensor over the memory of a capsule, which is used up: see `_over`."""
    from lazygrad_runtime.cuda.stream import current_handle

    found = _struct(capsule)
    assert found is not None
    name, managed = found
    described = managed.tensor
    dtype = _dtype_of(described)
    shape = tuple(described.shape[:described.ndim])
    strides = tuple(described.strides[:described.ndim]) if described.strides else \
        _row_major(shape)
    device = placement.runtime_device(described.device_id, "from_dlpack")
    address = (described.data or 0) + described.byte_offset
    _no_negative("from_dlpack", strides)
    _rename(capsule, USED[name])
    handle = current_handle(device)
    owner = _Foreign(ctypes.addressof(managed), managed.deleter, device, handle)
    return _over("from_dlpack", device, address, dtype, shape, strides, owner, copy)


def _no_negative(name: str, strides: tuple[int, ...]) -> None:
    if min(strides, default=0) < 0:
        raise fail(name, f"strides {strides} are negative", "Make it contiguous first.",
                   BufferError)


def _over(name: str, device: Any, address: int, dtype: DType, shape: tuple[int, ...],
          strides: tuple[int, ...], owner: Any, copy: bool | None) -> Tensor:
    """A tensor over foreign memory (strides in elements), for which the current stream waits
    already.  What kernels cannot read as it lies is copied; BufferError where it must not be
    (copy=False).
    """
    from lazygrad_runtime.cuda.memory import DeviceBuffer
    from lazygrad_runtime.cuda.stream import current_handle

    reach = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    reach = 0 if 0 in shape else reach
    handle = current_handle(device)
    buffer: Any = DeviceBuffer(device, address, reach * dtype.itemsize, handle, owner)
    aligned = address % ALIGNMENT == 0
    if copy is False and not aligned:
        raise fail(name, f"memory at {address:#x} is not aligned to {ALIGNMENT} bytes",
                   "Pass copy=True.", BufferError)
    if copy or not aligned or not reach:
        own = device.pool.allocate(buffer.nbytes, handle)
        if reach:
            device.activate()
            device.driver.cuMemcpyDtoDAsync_v2(own.address, address, buffer.nbytes, handle)
            device.driver.cuStreamSynchronize(handle)  # the owner may go at once
        buffer = own
    if strides == _row_major(shape) or not reach:
        return wrap(cells.leaf(buffer, dtype, shape))
    from lazygrad.functional.strided import as_strided
    return as_strided(wrap(cells.leaf(buffer, dtype, (reach,))), shape, strides, 0)


class _Borrowed:
    """An array of another library.  When nobody here needs it any more, its stream waits for ours,
    so that its memory is not written while it is still being read.
    """

    def __init__(self, array: Any, device: Any, ours: int, theirs: int) -> None:
        self._array, self._device, self._era = array, device, device.era
        self.streams, self._theirs = {ours}, theirs

    def __del__(self) -> None:
        if _still_there(self._device, self._era):
            for stream in self.streams - {self._theirs}:
                self._device.pool.order(stream, self._theirs)


def from_array_interface(array: Any, copy: bool | None, name: str) -> Tensor:
    """A tensor over the memory of an array that has `__cuda_array_interface__` (versions 2 and 3):
    see `_over`.  The current stream waits for that of the array, where it names one.
    """
    from lazygrad_runtime.cuda.context import device_of_address
    from lazygrad_runtime.cuda.stream import current_handle

    described = array.__cuda_array_interface__
    version, shape = described.get("version", 0), tuple(described["shape"])
    if version < 2:
        raise fail(name, f"__cuda_array_interface__ of version {version} is not known", "Use an "
                   "array library that speaks version 2 or 3.", BufferError)
    if described.get("mask") is not None:
        raise fail(name, "the array has a mask", "Fill it first.", BufferError)
    try:
        dtype = dtypes.dtype_of_numpy(numpy.dtype(described["typestr"]))
    except TypeError as error:
        raise fail(name, f"type {described['typestr']!r} is no dtype here", "Convert the array "
                   "first.", BufferError) from error
    size, steps = dtype.itemsize, described.get("strides")
    strides = _row_major(shape) if steps is None else tuple(step // size for step in steps)
    _no_negative(name, strides)
    if steps is not None and any(step % size for step in steps):
        raise fail(name, f"strides {tuple(steps)} are no multiples of {size} bytes", "Make it "
                   "contiguous first.", BufferError)
    address = described["data"][0] or 0
    number = device_of_address(address) if 0 not in shape else None
    if number is None and 0 not in shape:
        raise fail(name, f"there is no memory of a CUDA device at {address:#x}",
                   kind=BufferError)
    device = placement.runtime_device(number, name)
    ours, stream = current_handle(device), described.get("stream")
    if stream is not None and (not isinstance(stream, int) or stream <= 0):
        raise fail(name, f"stream {stream!r} is none of CUDA's", "It is None, 1, 2, or the handle "
                   "of a stream.", BufferError)
    theirs = ours if stream is None else 0 if stream == 1 else stream
    if theirs != ours:
        device.pool.order(theirs, ours)
    owner = _Borrowed(array, device, ours, theirs)
    return _over(name, device, address, dtype, shape, strides, owner, copy)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _dtype_of(described: _Tensor) -> DType:
    wanted = described.code, described.bits
    for dtype in dtypes.DTYPES.values():
        if described.lanes == 1 and _type_of(dtype) == wanted:
            return dtype
    raise fail("from_dlpack", f"DLPack's type {wanted} with {described.lanes} lanes is no dtype "
               "here", "Convert the array first.", BufferError)
