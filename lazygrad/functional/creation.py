"""Making tensors: from data, from constants, from counting."""

from __future__ import annotations

import math
from typing import Any

import numpy

from lazygrad._core import cell as cells
from lazygrad._core import graph
from lazygrad._core.context import fail, method, operation
from lazygrad._core.interop import from_cuda_array
from lazygrad._core.tensor import Tensor, array_of, node_of, wrap
from lazygrad._core.types import as_dtype, complex_default, default, promote_types, scalar_dtype
from lazygrad._core.values import check_device
from lazygrad.functional._operands import result_dtype, sizes_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType, dtype_of_numpy
from lazygrad_compiler.ir.node import Node

__all__ = ["tensor", "as_tensor", "from_numpy", "asarray", "zeros", "ones", "full", "empty", "eye",
           "arange", "linspace", "logspace", "zeros_like", "ones_like", "full_like", "empty_like",
           "scalar_tensor", "frombuffer", "from_file", "range"]


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
    elif (scalar := scalar_dtype(data)) is not None and not isinstance(data, numpy.generic):
        return _converted(numpy.array(data), dtype or scalar, name, True)
    elif hasattr(data, "__array__") and not isinstance(data, (list, tuple)):
        array = numpy.asarray(data)
    else:
        if _holds_tensors(data):
            dtype = dtype or _common_dtype(data)
            data = _without_tensors(data)
        try:
            array = numpy.array(data)
        except ValueError:
            raise fail(name, "the nested lists have rows of different lengths",
                       "Pad them to one length.") from None
        if array.dtype == object and dtype is not None and _whole(array):
            return _converted(array, dtype, name, True)
        if array.dtype.kind in "OUSV" or (
                dtype is None and array.dtype == numpy.uint64 and not _holds_numpy(data)):
            raise _no_numbers(name, data, array)
        if dtype is None:
            if array.size == 0 and array.dtype == numpy.float64:
                return array.astype(default.dtype.numpy)
            if not _holds_numpy(data):
                inferred = {"f": default.dtype, "b": dtypes.bool_, "i": dtypes.int64,
                            "u": dtypes.int64, "c": complex_default()}.get(array.dtype.kind)
                if inferred is None:
                    raise fail(name, f"cannot make numbers of {data!r:.60}", kind=TypeError)
                return array.astype(inferred.numpy)
    if dtype is None:
        dtype_of_numpy(array.dtype)
        return array
    return _converted(array, dtype, name, isinstance(data, (list, tuple)))


def _whole(array: numpy.ndarray) -> bool:
    return all(isinstance(each, int) for each in array.flat)


def _no_numbers(name: str, data: Any, array: numpy.ndarray) -> Exception:
    if array.dtype == numpy.uint64 or _whole(array):
        return fail(name, f"{data!r:.60} does not fit into int64", "Give dtype=lazygrad.uint64 or "
                    "a floating dtype.", OverflowError)
    return fail(name, f"cannot make numbers of {data!r:.60}", kind=TypeError)


def _converted(array: numpy.ndarray, dtype: DType, name: str,
               checked: bool = False) -> numpy.ndarray:
    """The array in a dtype; what has no place there is refused, not cut off.

    checked: the numbers are Python's, which must fit.  (Negative ones wrap in unsigned dtypes.)
    """
    kind = array.dtype.kind
    if kind == "O" and not _whole(array):
        raise _no_numbers(name, array, array)
    if kind in "USmM":
        raise fail(name, f"cannot make numbers of {array.dtype}", kind=TypeError)
    if kind == "c" and not dtype.is_complex and dtype.kind != "bool":
        raise fail(name, f"complex numbers do not become {dtype.name}", "Take .real first.",
                   TypeError)
    if not dtype.is_integer:
        return array.astype(dtype.numpy, copy=False)
    if kind == "f":
        if not numpy.isfinite(array).all():
            raise fail(name, f"infinity or NaN does not become {dtype.name}", kind=ValueError)
        return array.astype(numpy.int64).astype(dtype.numpy)
    if checked and array.size and kind in "iuO":
        low, high = (int(limit) for limit in dtype.limits())
        if int(array.max()) > high or int(array.min()) < (low or -high):
            raise fail(name, f"a number does not fit into {dtype.name}, {low}..{high}",
                       kind=OverflowError)
    return array.astype(dtype.numpy, copy=False)


def _common_dtype(data: Any) -> DType:
    """The common dtype of nested lists that hold tensors."""
    if isinstance(data, (list, tuple)):
        found = [_common_dtype(each) for each in data]
        result = found[0]
        for each in found[1:]:
            result = promote_types(result, each)
        return result
    if isinstance(data, Tensor):
        return data.dtype
    return scalar_dtype(data) or default.dtype


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
    if _on_a_gpu(data):
        made = _over_gpu(data, target, device, True)
        return made.requires_grad_() if requires_grad else made
    array = _array_of(data, target, "tensor")
    if array.base is not None or isinstance(data, (Tensor, numpy.ndarray)):
        array = array.copy()
    return finish(_leaf(array), requires_grad)


def _on_a_gpu(data: Any) -> bool:
    """Whether it is another library's array in memory of a GPU."""
    return not isinstance(data, (list, tuple, float, int, numpy.ndarray, Tensor)) and hasattr(
        data, "__cuda_array_interface__")


def _over_gpu(data: Any, dtype: DType | None, device: Any, copy: bool | None) -> Tensor:
    made = from_cuda_array(data, copy=copy)
    made = made if device is None else made.to(device)
    return made if dtype is None else made.to(dtype)


@operation
def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None,
                  requires_grad: bool = False) -> Tensor:
    return tensor(s, dtype=dtype or default.dtype, device=device, requires_grad=requires_grad)


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
    if _on_a_gpu(data):
        return _over_gpu(data, None if dtype is None else as_dtype(dtype), device, None)
    return wrap(_leaf(_array_of(data, None if dtype is None else as_dtype(dtype), "as_tensor")))


@operation
def asarray(obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """`as_tensor`, or with copy=True `tensor`; also of objects that speak DLPack."""
    check_device(device, "asarray")
    if isinstance(obj, Tensor):
        made = obj.clone() if copy else obj
        made = made if dtype is None else made.to(as_dtype(dtype))
        if requires_grad and not made.requires_grad:
            made = made.detach().requires_grad_()
        return made
    if not isinstance(obj, numpy.ndarray) and hasattr(obj, "__dlpack__"):
        from lazygrad._core.interop import from_dlpack
        made = from_dlpack(obj, copy=copy)
        made = made if dtype is None else made.to(as_dtype(dtype))
    else:
        made = tensor(obj, dtype=dtype, device=device) if copy else as_tensor(obj, dtype, device)
    return made.requires_grad_() if requires_grad else made


@operation
def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0,
               requires_grad: bool = False) -> Tensor:
    """A tensor over the bytes of a buffer (do not change them after): `count` elements from byte
    `offset` on, all for -1.
    """
    target, size = as_dtype(dtype), memoryview(buffer).nbytes
    rest = size - offset
    if not size or count == 0:
        raise fail("frombuffer", f"{size} bytes and {count} elements: there must be some")
    if not 0 <= offset < size or (count < 0 and rest % target.itemsize) \
            or count * target.itemsize > rest:
        raise fail("frombuffer", f"{rest} bytes from {offset} on are not "
                   f"{'a whole number of' if count < 0 else count} elements of {target.itemsize}")
    array = numpy.frombuffer(buffer, target.numpy, count, offset)
    return finish(_leaf(array), requires_grad)


@operation
def from_file(filename: Any, shared: bool | None = None, size: int = 0, *, dtype: Any = None,
              device: Any = None, requires_grad: bool = False) -> Tensor:
    """The first `size` elements of a file of raw numbers, as a tensor of one axis.

    The file is mapped, and read where a program needs it.  shared=True, whose writes would reach
    the file, is refused: values are replaced, not overwritten.
    """
    check_device(device, "from_file")
    if shared:
        raise fail("from_file", "tensors do not write to files",
                   "Use shared=False, and save the result with x.numpy().tofile(...).")
    target = default.dtype if dtype is None else as_dtype(dtype)
    size = size.__index__()
    if size <= 0:
        return finish(graph.const(0, target, (0,)), requires_grad)
    # a private mapping: nothing reaches the file, and it may be read-only
    array = numpy.memmap(filename, target.numpy, "c", 0, (size,))
    return finish(_leaf(numpy.asarray(array)), requires_grad)


@operation
def range(start: Any = 0, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None,
          requires_grad: bool = False) -> Tensor:
    """Numbers from start to end, which is included where the steps meet it (arange is clearer)."""
    check_device(device, "range")
    if end is None:
        raise fail("range", "needs an end", "Say range(start, end).", TypeError)
    if step == 0 or (end - start) * step < 0:
        raise fail("range", f"a step of {step} does not lead from {start} to {end}")
    target = default.dtype if dtype is None else as_dtype(dtype)
    count = math.floor((end - start) / step) + 1
    return finish(counting(count, start, step, target), requires_grad)


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
        if not sizes and size is None:
            raise fail(name, "needs sizes", f"Say {name}(()) for a 0-d tensor.", TypeError)
        shape = sizes_of(name, sizes if size is None else (size,))
        return finish(graph.const(value, target, shape), requires_grad)
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"A tensor of {about}, of the sizes given."
    return operation(make)


zeros = _filled("zeros", 0, "zeros")
ones = _filled("ones", 1, "ones")
empty = _filled("empty", 0, "values of no meaning (zeros)")


def _no_tensor(name: str, value: Any) -> Exception:
    return fail(name, f"takes a tensor, not {type(value).__name__}",
                "Make one with lazygrad.tensor(...).", TypeError)


def _filled_like(name: str, value: float, about: str) -> Any:
    def make(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
             memory_format: Any = None, layout: Any = None) -> Tensor:
        check_device(device, name)
        if not isinstance(input, Tensor):
            raise _no_tensor(name, input)
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
    if not isinstance(input, Tensor):
        raise _no_tensor("full_like", input)
    return full(tuple(input.shape), fill_value, dtype=dtype or input.dtype, device=device,
                requires_grad=requires_grad)


@method
def new_tensor(input: Tensor, data: Any, *, dtype: Any = None, device: Any = None,
               requires_grad: bool = False) -> Tensor:
    if not isinstance(input, Tensor):
        raise _no_tensor("new_tensor", input)
    return tensor(data, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


@method
def new_zeros(input: Tensor, *size: Any, dtype: Any = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    if not isinstance(input, Tensor):
        raise _no_tensor("new_zeros", input)
    return zeros(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


@method
def new_ones(input: Tensor, *size: Any, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    if not isinstance(input, Tensor):
        raise _no_tensor("new_ones", input)
    return ones(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


@method
def new_empty(input: Tensor, *size: Any, dtype: Any = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    if not isinstance(input, Tensor):
        raise _no_tensor("new_empty", input)
    return empty(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


@method
def new_full(input: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    if not isinstance(input, Tensor):
        raise _no_tensor("new_full", input)
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
    if target is dtypes.int64:
        start, end, step = int(start), int(end), int(step)
        if step == 0:
            raise fail("arange", "the step is 0 as an integer", "Give a floating dtype.")
    count = max(math.ceil((end - start) / step), 0)
    return finish(counting(count, start, step, target), requires_grad)


@operation
def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """`steps` numbers evenly spaced from start to end, both included."""
    check_device(device, "linspace")
    start, end = (value.item() if isinstance(value, Tensor) else value for value in (start, end))
    target = default.dtype if dtype is None else as_dtype(dtype)
    if not (target.is_floating or target.is_complex) and not math.isfinite(end - start):
        raise fail("linspace", f"from {start} to {end} there are no numbers of {target.name}",
                   kind=ValueError)
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
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Tensor:
    """`steps` numbers evenly spaced in their logarithm."""
    check_device(device, "logspace")
    exponents = node_of(linspace(start, end, steps, dtype=dtypes.float64))
    node = graph.binary("pow", graph.const(base, dtypes.float64, exponents.shape), exponents)
    target = default.dtype if dtype is None else as_dtype(dtype)
    return finish(graph.cast(node, target), requires_grad)
