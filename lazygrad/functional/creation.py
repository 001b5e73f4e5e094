"""Making tensors: from data, from constants, from counting."""

from __future__ import annotations

import math
from typing import Any

import numpy

from lazygrad._core import cell as cells
from lazygrad._core import graph
from lazygrad._core.context import fail, method, operation
from lazygrad._core.tensor import Tensor, array_of, node_of, wrap
from lazygrad._core.types import as_dtype, default, scalar_dtype
from lazygrad._core.values import check_device
from lazygrad.functional._operands import result_dtype, sizes_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType, dtype_of_numpy
from lazygrad_compiler.ir.node import Node

__all__ = ["tensor", "as_tensor", "from_numpy", "asarray", "zeros", "ones", "full", "empty", "eye",
           "arange", "linspace", "logspace", "zeros_like", "ones_like", "full_like", "empty_like",
           "scalar_tensor", "complex"]


def finish(node: Node, requires_grad: bool) -> Tensor:
    """The tensor of a new value, as a leaf where gradients are wanted."""
    result = wrap(node)
    return result.requires_grad_() if requires_grad else result


def _array_of(data: Any, dtype: DType | None, name: str) -> numpy.ndarray:
    """The data as an array of the dtype that PyTorch would infer."""
    if isinstance(data, Tensor):
        array = array_of(data)
    elif isinstance(data, (numpy.ndarray, numpy.generic)):
        array = numpy.asarray(data)
    elif (scalar := scalar_dtype(data)) is not None:
        return numpy.full((), data, (dtype or scalar).numpy)
    elif hasattr(data, "__array__") and not isinstance(data, (list, tuple)):
        array = numpy.asarray(data)
    else:
        if _holds_tensors(data):
            data = _without_tensors(data)
        try:
            array = numpy.array(data)
        except ValueError:
            raise fail(name, "the nested lists have rows of different lengths",
                       "Pad them to one length.") from None
        if array.dtype == object:
            raise fail(name, f"cannot make numbers of {data!r:.60}", kind=TypeError)
        if dtype is None:
            if array.size == 0 and array.dtype == numpy.float64:
                return array.astype(default.dtype.numpy)
            if not _holds_numpy(data):
                inferred = {"f": default.dtype, "b": dtypes.bool_, "i": dtypes.int64,
                            "u": dtypes.int64, "c": dtypes.complex64}.get(array.dtype.kind)
                if inferred is None:
                    raise fail(name, f"cannot make numbers of {data!r:.60}", kind=TypeError)
                return array.astype(inferred.numpy)
    if dtype is None:
        dtype_of_numpy(array.dtype)
        return array
    if dtype.is_integer and array.dtype.kind == "f":
        return array.astype(numpy.int64).astype(dtype.numpy)
    return array.astype(dtype.numpy, copy=False)


def _holds_tensors(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, Tensor)


def _holds_numpy(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (numpy.ndarray, numpy.generic))


def _without_tensors(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_without_tensors(each) for each in data]
    return array_of(data) if isinstance(data, Tensor) else data


def _leaf(array: numpy.ndarray) -> Node:
    if not array.flags.c_contiguous:
        array = numpy.ascontiguousarray(array).reshape(array.shape)
    return cells.leaf_of_array(array)


@operation
def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
           pin_memory: bool = False) -> Tensor:
    """A tensor with a copy of the data: numbers, nested lists, arrays."""
    check_device(device, "tensor")
    target = None if dtype is None else as_dtype(dtype)
    array = _array_of(data, target, "tensor")
    if array.base is not None or isinstance(data, (Tensor, numpy.ndarray)):
        array = array.copy()
    return finish(_leaf(array), requires_grad)


@operation
def scalar_tensor(s: Any, *, dtype: Any = None) -> Tensor:
    return tensor(s, dtype=dtype or default.dtype)


@operation
def from_numpy(ndarray: numpy.ndarray) -> Tensor:
    """A tensor over the array's memory where it is contiguous (do not change the array after)."""
    if not isinstance(ndarray, numpy.ndarray):
        raise fail("from_numpy", f"takes an array, not {type(ndarray).__name__}",
                   "Use lazygrad.tensor(...).", TypeError)
    dtype_of_numpy(ndarray.dtype)
    return wrap(_leaf(ndarray))


@operation
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """The data as a tensor, without a copy where it is one already or a contiguous array."""
    check_device(device, "as_tensor")
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(as_dtype(dtype))
    return wrap(_leaf(_array_of(data, None if dtype is None else as_dtype(dtype), "as_tensor")))


@operation
def asarray(obj: Any, *, dtype: Any = None, copy: bool | None = None) -> Tensor:
    return tensor(obj, dtype=dtype) if copy else as_tensor(obj, dtype)


@operation
def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None,
         requires_grad: bool = False, out: Any = None, layout: Any = None) -> Tensor:
    """One number in every place."""
    check_device(device, "full")
    shape = sizes_of("full", (size,) if not isinstance(size, tuple) else size)
    if isinstance(fill_value, Tensor):
        node = node_of(fill_value)
        node = node if dtype is None else graph.cast(node, as_dtype(dtype))
        return wrap(graph.broadcast(node, shape))
    found = as_dtype(dtype) if dtype is not None else scalar_dtype(fill_value)
    if found is None:
        raise fail("full", f"fills with a number, not {type(fill_value).__name__}", kind=TypeError)
    return finish(graph.const(fill_value, found, shape), requires_grad)


def _filled(name: str, value: float, about: str) -> Any:
    def make(
        *sizes: Any,
        size: Any = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        out: Any = None,
        layout: Any = None,
        pin_memory: bool = False,
        memory_format: Any = None,
    ) -> Tensor:
        check_device(device, name)
        target = default.dtype if dtype is None else as_dtype(dtype)
        shape = sizes_of(name, sizes if size is None else (size,))
        return finish(graph.const(value, target, shape), requires_grad)
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"A tensor of {about}, of the sizes given."
    return operation(make)


zeros = _filled("zeros", 0, "zeros")
ones = _filled("ones", 1, "ones")
empty = _filled("empty", 0, "values of no meaning (zeros)")


def _filled_like(name: str, value: float, about: str) -> Any:
    def make(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
             memory_format: Any = None, layout: Any = None) -> Tensor:
        check_device(device, name)
        target = input.dtype if dtype is None else as_dtype(dtype)
        return finish(graph.const(value, target, tuple(input.shape)), requires_grad)
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"A tensor of {about}, of the shape and dtype of `input`."
    return operation(make)


zeros_like = _filled_like("zeros_like", 0, "zeros")
ones_like = _filled_like("ones_like", 1, "ones")
empty_like = _filled_like("empty_like", 0, "values of no meaning (zeros)")


@operation
def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None,
              requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """One number in every place of the shape of `input`."""
    return full(tuple(input.shape), fill_value, dtype=dtype or input.dtype, device=device,
                requires_grad=requires_grad)


@method
def new_tensor(input: Tensor, data: Any, *, dtype: Any = None, device: Any = None,
               requires_grad: bool = False) -> Tensor:
    return tensor(data, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


@method
def new_zeros(input: Tensor, *size: Any, dtype: Any = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    return zeros(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


@method
def new_ones(input: Tensor, *size: Any, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    return ones(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


@method
def new_empty(input: Tensor, *size: Any, dtype: Any = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    return empty(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


@method
def new_full(input: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    return full(size, fill_value, dtype=dtype or input.dtype, device=device,
                requires_grad=requires_grad)


@operation
def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None,
        requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    check_device(device, "eye")
    shape = (n, n if m is None else m)
    same = graph.make("eq", graph.iota(0, shape), graph.iota(1, shape))
    return finish(
        graph.cast(same, default.dtype if dtype is None else as_dtype(dtype)), requires_grad
    )


def counting(count: int, start: Any, step: Any, dtype: DType) -> Node:
    """start, start + step, …; floats are computed in float64 and rounded once."""
    if dtype.is_floating:
        node = graph.iota(0, (count,), dtypes.float64)
        node = graph.add(graph.mul(node, float(step)), float(start))
        return graph.cast(node, dtype)
    node = graph.iota(0, (count,), dtypes.int64)
    node = graph.mul(node, int(step)) if step != 1 else node
    node = graph.add(node, int(start)) if start else node
    return graph.cast(node, dtype)


@operation
def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None,
           requires_grad: bool = False, out: Any = None) -> Tensor:
    """Numbers from start to before end."""
    check_device(device, "arange")
    if end is None:
        start, end = 0, start
    start, end, step = (value.item() if isinstance(value, Tensor) else value
                        for value in (start, end, step))
    if step == 0:
        raise fail("arange", "the step is 0")
    if (end - start) * step < 0:
        raise fail("arange", f"a step of {step} does not lead from {start} to {end}")
    target = as_dtype(dtype) if dtype is not None else result_dtype([start, end, step])
    count = max(math.ceil((end - start) / step), 0)
    return finish(counting(count, start, step, target), requires_grad)


@operation
def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """`steps` numbers evenly spaced from start to end, both included."""
    check_device(device, "linspace")
    start, end = (value.item() if isinstance(value, Tensor) else value for value in (start, end))
    target = default.dtype if dtype is None else as_dtype(dtype)
    gap = (end - start) / (steps - 1) if steps > 1 else 0.0
    position = graph.iota(0, (steps,), dtypes.float64)
    up = graph.add(graph.mul(position, gap), float(start))
    down = graph.sub(
        graph.const(end, dtypes.float64, (steps,)),
        graph.mul(graph.sub(graph.const(steps - 1, dtypes.float64, (steps,)), position), gap),
    )
    node = graph.where(graph.binary("lt", position, steps / 2), up, down)
    return finish(graph.cast(node, target), requires_grad)


@operation
def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None
) -> Tensor:
    """`steps` numbers evenly spaced in their logarithm."""
    exponents = node_of(linspace(start, end, steps, dtype=dtypes.float64))
    node = graph.binary("pow", graph.const(base, dtypes.float64, exponents.shape), exponents)
    return wrap(graph.cast(node, default.dtype if dtype is None else as_dtype(dtype)))


@operation
def complex(real: Tensor, imag: Tensor) -> Tensor:
    """Complex numbers of their parts."""
    target = dtypes.complex128 if real.dtype is dtypes.float64 else dtypes.complex64
    rotated = graph.mul(graph.cast(node_of(imag), target), 1j)
    return wrap(graph.add(graph.cast(node_of(real), target), rotated))
