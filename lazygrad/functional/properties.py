"""What tensors tell about their memory, and the small methods that ordinary scripts call on them.

There is one layout, so much of this answers a question and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.cell import computed, leaf, leaf_of_array
from lazygrad._core.context import METHODS, fail, method, operation
from lazygrad._core.tensor import (
    Tensor,
    array_of,
    handle,
    node_of,
    shape_of,
    strides_of,
    wrap,
    write,
)
from lazygrad.functional._operands import sizes_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.ops import listed
from lazygrad_runtime.memory import Buffer

__all__ = ["detach", "detach_", "fill", "get_device", "is_complex", "is_floating_point",
           "is_inference", "is_storage", "numel"]


# ---- memory


class UntypedStorage:
    """The memory behind a tensor, as far as scripts ask about it: address and size in bytes."""

    def __init__(self, tensor: Tensor) -> None:
        self._cell = tensor._cell

    def data_ptr(self) -> int:
        return handle(self._cell).data_ptr()

    def nbytes(self) -> int:
        return self._cell.node.nbytes

    size = __len__ = nbytes

    def element_size(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and other._cell is self._cell

    def __hash__(self) -> int:
        return id(self._cell)


@method
def untyped_storage(input: Tensor) -> UntypedStorage:
    return UntypedStorage(input)


METHODS["storage"] = untyped_storage


def is_storage(obj: Any) -> bool:
    return isinstance(obj, UntypedStorage)


@method
def is_set_to(input: Tensor, tensor: Tensor) -> bool:
    """Whether both are the same part of the same memory."""
    return (input._cell is tensor._cell and shape_of(input) == shape_of(tensor)
            and strides_of(input) == strides_of(tensor)
            and input.storage_offset() == tensor.storage_offset())


@method
def dim_order(input: Tensor, *, ambiguity_check: Any = False) -> tuple[int, ...]:
    """The axes from the outermost in memory to the innermost."""
    strides = strides_of(input)
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


@method
def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Another shape: the first elements stay, further ones are zeros."""
    shape = sizes_of("resize_", sizes)
    if self.requires_grad:
        raise fail("resize_", "a tensor that requires gradients cannot be resized",
                   "Use reshape, or resize x.data.")
    node = graph.reshape(node_of(self), (self.numel(),))
    count = math.prod(shape)
    if count > node.size:
        node = graph.pad(node, (0,), (count - node.size,))
    made = wrap(graph.reshape(graph.slice_axis(node, 0, 0, count), shape))
    self._cell, self._view = made._cell, None
    return self


@method
def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """`resize_` to the shape of another tensor."""
    return resize_(self, tuple(the_template.shape))


@method
def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """Summed over the axes that were broadcast from that size."""
    if not size:
        raise fail("sum_to_size", "needs sizes", "Say x.sum_to_size(()) for all elements.",
                   TypeError)
    shape, wanted = shape_of(input), sizes_of("sum_to_size", size)
    missing = len(shape) - len(wanted)
    if missing < 0 or any(want not in (1, have)
                          for want, have in zip(wanted, shape[missing:], strict=True)):
        raise fail("sum_to_size", f"{listed(wanted)} does not broadcast to {listed(shape)}")
    axes = [axis for axis in range(len(shape))
            if axis < missing or (wanted[axis - missing] == 1 != shape[axis])]
    node = node_of(input)
    if axes and not (node.dtype.is_floating or node.dtype.is_complex):
        node = graph.cast(node, dtypes.int64)
    return wrap(graph.reshape(graph.reduce("sum", node, axes), wanted))


# ---- devices


@method
def pin_memory(input: Tensor, device: Any = None) -> Tensor:
    """A copy in page-locked memory, which a CUDA device copies from by itself, so that nothing
    waits; the tensor itself where it lies there, and where there is no device.
    """
    from lazygrad_runtime.cuda.driver import device_count
    if not device_count() or is_pinned(input):
        return input
    if input.is_cuda:
        raise fail("pin_memory", f"a tensor on {input.device} has no host memory to lock",
                   "Pin it before it is copied to the device.")
    from lazygrad_runtime.cuda.transfer import page_locked
    array = array_of(input)
    if not array.flags.c_contiguous:
        array = numpy.ascontiguousarray(array).reshape(array.shape)
    return wrap(leaf(page_locked(Buffer.from_numpy(array)), input.dtype, shape_of(input)))


@method
def is_pinned(input: Tensor, device: Any = None) -> bool:
    """Whether the value lies in page-locked memory."""
    payload = input._cell.node.payload
    return payload is not None and payload.owner.__class__.__name__ == "PinnedBlock"


@method
def share_memory_(input: Tensor) -> Tensor:
    """Refused: memory is not shared between processes, and a program that relies on it would train
    copies without a word.
    """
    raise fail("share_memory_", "memory is not shared between processes: each gets a copy",
               "Leave the call out where processes only read, and send results back through a "
               "queue.", NotImplementedError)


@method
def get_device(input: Tensor) -> int:
    """The number of the CUDA device; -1: the CPU."""
    index = input.device.index
    return -1 if index is None else index


@method
def record_stream(input: Tensor, stream: Any) -> None:
    """The tensor's memory, once it is free, waits for what is on the stream by then.  For kernels
    of others that read at `data_ptr()`: the work of lazygrad says so by itself.
    """
    if not input.is_cuda:
        raise fail("record_stream", "the tensor is on the CPU, which has no streams",
                   "Move it with .cuda() first.")
    buffer: Any = computed(input._cell.node)
    buffer.used_on(stream._stream.handle)


for _name, _answer in (("is_shared", False), ("is_distributed", False)):
    METHODS[_name] = lambda self, *arguments, _answer=_answer: _answer


@method
def is_inference(input: Tensor) -> bool:
    return False


@method
def to_dense(input: Tensor, dtype: Any = None, *, masked_grad: bool = True) -> Tensor:
    """The tensor itself, as all are dense."""
    return input if dtype is None else input.to(dtype)


# ---- elements, one by one in Python


def _applied(name: str, self: Tensor, function: Callable[..., Any], *others: Tensor) -> Tensor:
    if self.requires_grad:
        raise fail(name, "a tensor that requires gradients cannot be changed in place",
                   "Use x.detach().")
    dtype = self.dtype.numpy
    columns = [numpy.broadcast_to(array_of(each), shape_of(self)).reshape(-1).tolist()
               for each in (self, *others)]
    values = [function(*row) for row in zip(*columns, strict=True)]
    array = numpy.array(values, dtype=dtype).reshape(shape_of(self))
    return write(self, name, leaf_of_array(array))


@method
def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replaces each element by what a Python function makes of it (slow; looks at the values)."""
    return _applied("apply_", self, callable)


@method
def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replaces each element by a Python function of it and that of another tensor (slow)."""
    return _applied("map_", self, callable, tensor)


# ---- typed names


class _Typed(type):
    """lazygrad.FloatTensor and its kin: makes tensors of a dtype, and recognises them."""

    dtype: DType

    def __call__(cls, *arguments: Any) -> Tensor:
        if len(arguments) == 1 and not isinstance(arguments[0], (int, Tensor)):
            from lazygrad.functional.creation import tensor
            return tensor(arguments[0], dtype=cls.dtype)
        return Tensor(*arguments).to(cls.dtype)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.dtype


TYPED: dict[str, Any] = {
    name: _Typed(name, (), {"dtype": dtype, "__module__": "lazygrad",
                            "__doc__": f"Tensors of dtype {dtype.name}."})
    for name, dtype in (
        ("FloatTensor", dtypes.float32), ("DoubleTensor", dtypes.float64),
        ("HalfTensor", dtypes.float16), ("BFloat16Tensor", dtypes.bfloat16),
        ("LongTensor", dtypes.int64), ("IntTensor", dtypes.int32), ("ShortTensor", dtypes.int16),
        ("CharTensor", dtypes.int8), ("ByteTensor", dtypes.uint8), ("BoolTensor", dtypes.bool_),
    )
}
_TYPE_NAMES = {kind.dtype: f"lazygrad.{name}" for name, kind in TYPED.items()}
globals().update(TYPED)
__all__ += list(TYPED)


@method
def type(input: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The name of the tensor's type; with a dtype or such a name, the tensor converted."""
    if dtype is None:
        return _TYPE_NAMES.get(input.dtype, f"lazygrad.{input.dtype.name}")
    if isinstance(dtype, str) and dtype.rpartition(".")[2] in TYPED:
        dtype = TYPED[dtype.rpartition(".")[2]]
    return input.to(dtype.dtype if isinstance(dtype, _Typed) else dtype)


@method
def new(input: Tensor, *arguments: Any) -> Tensor:
    """`Tensor(...)` in the dtype of this one."""
    if len(arguments) == 1 and not isinstance(arguments[0], int):
        return input.new_tensor(arguments[0])
    return input.new_empty(arguments or (0,))


# ---- Python's protocols


@operation
def contains(self: Tensor, element: Any) -> bool:
    """Whether any element equals `element`; looks at the values."""
    if not isinstance(element, (Tensor, int, float, complex, numpy.generic)):
        raise fail("contains", f"a tensor holds no {element.__class__.__name__}",
                   "Ask for a number or a tensor.", RuntimeError)
    equal: Any = self == element
    return bool(equal.any())


@operation
def reverse(self: Tensor) -> Tensor:
    """The tensor with its first axis reversed."""
    return self.flip(0) if self.ndim else self


setattr(Tensor, "__contains__", contains)  # noqa: B010
setattr(Tensor, "__reversed__", reverse)  # noqa: B010


def _is_view(self: Tensor) -> bool:
    return self._view is not None and bool(self._view.steps)


def _base(self: Tensor) -> Tensor | None:
    if not _is_view(self):
        return None
    return handle(self._cell)


setattr(Tensor, "_is_view", _is_view)  # noqa: B010
setattr(Tensor, "_base", property(_base))  # noqa: B010
setattr(Tensor, "output_nr", property(lambda self: 0))  # noqa: B010


# ---- functions that are methods elsewhere


@operation
def is_floating_point(input: Tensor) -> bool:
    return bool(input.dtype.is_floating)


@operation
def is_complex(input: Tensor) -> bool:
    return bool(input.dtype.is_complex)


@operation
def numel(input: Tensor) -> int:
    """How many elements there are."""
    return math.prod(input.shape)


@operation
def detach(input: Tensor) -> Tensor:
    return input.detach()


@operation
def detach_(input: Tensor) -> Tensor:
    return input.detach_()


@operation
def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor of the shape of `input` with one number in every place."""
    return input.clone().fill_(value)
