"""Tensors to and from other libraries: DLPack, NumPy's functions, pickle.

DLPack out shares the memory of the value, as `.numpy()` does, and is flagged read-only: a value
never changes in place, and other tensors, also pending ones, may be computed from the same memory
later.  Capsules are NumPy's; bfloat16, which NumPy does not know, travels as uint16 whose type
code is set right in the capsule.  Those over memory of a GPU: `device_dlpack.py`.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy

from lazygrad._core import cell as cells
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, array_of, wrap
from lazygrad._core.values import check_device
from lazygrad_compiler.ir import dtypes

# ---- DLPack

# dlpack.h: DLDataTypeCode, DLDeviceType, and where DLTensor::dtype lies in the managed structs.
_UINT, _BFLOAT = 1, 4
_CPU, _CUDA, _PINNED = 1, 2, 3
_CODE_AT = {b"dltensor": 20, b"dltensor_versioned": 52}

_api = ctypes.pythonapi
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def _type_of(capsule: Any) -> Any:
    """The (code, bits) bytes of the DLDataType inside a capsule, changeable."""
    name = _api.PyCapsule_GetName(capsule)
    if name not in _CODE_AT:
        raise fail("from_dlpack", f"the capsule {name!r} was consumed already, or is not DLPack's",
                   "Ask the producer for a new one.", BufferError)
    start = _api.PyCapsule_GetPointer(capsule, name)
    assert start is not None
    return (ctypes.c_uint8 * 2).from_address(start + _CODE_AT[name])


class _Given:
    """What NumPy wants to import: something that gives out the capsule."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU, 0


def dlpack(self: Tensor, *, stream: Any = None, max_version: tuple[int, int] | None = None,
           dl_device: tuple[Any, int] | None = None, copy: bool | None = None) -> Any:
    """A DLPack capsule over the memory of the value (computed first); with `copy`, over a copy.

    Where the consumer speaks DLPack 1.0 or later, the capsule says that the memory is read-only.
    stream: the consumer's, for memory of a GPU; it is made to wait for the value.  dl_device: the
    tensor's device, or the CPU, to which a tensor of another device is copied.  Raises BufferError
    for tensors that require gradients and for other devices.
    """
    if self.requires_grad:
        raise fail("dlpack", "a tensor that requires gradients cannot be exported",
                   "Use x.detach().", BufferError)
    if self.is_cuda:
        return _dlpack_of_device(self, stream, max_version, dl_device, copy)
    if stream not in (None, -1):
        raise fail("dlpack", f"stream {stream} for memory of the CPU", kind=BufferError)
    if dl_device is not None and int(dl_device[0]) != _CPU:
        raise fail("dlpack", f"the memory is the CPU's, not that of device {tuple(dl_device)}",
                   kind=BufferError)
    array = array_of(self)
    if copy:
        array = numpy.array(array)
    elif max_version is None or max_version[0] < 1:
        # The older protocol cannot say "read-only", and NumPy refuses to export such arrays.
        array = _writable(array)
    bfloat = self.dtype is dtypes.bfloat16
    if bfloat:
        array = array.view(numpy.uint16)
    capsule = array.__dlpack__() if max_version is None else \
        array.__dlpack__(max_version=max_version)
    if bfloat:
        _type_of(capsule)[0] = _BFLOAT
    return capsule


def _dlpack_of_device(tensor: Tensor, stream: Any, max_version: tuple[int, int] | None,
                      dl_device: tuple[Any, int] | None, copy: bool | None) -> Any:
    from lazygrad._core.device_dlpack import capsule_of

    own = dlpack_device(tensor)
    wanted = own if dl_device is None else (int(dl_device[0]), int(dl_device[1]))
    if wanted == (_CPU, 0) and copy is not False:
        return dlpack(tensor.cpu(), max_version=max_version)
    if wanted != own:
        raise fail("dlpack", f"the memory is that of {tensor.device}, not that of device {wanted}",
                   "Copy it first, for instance by x.cpu().", BufferError)
    versioned = max_version is not None and max_version[0] >= 1
    return capsule_of(tensor, stream, versioned, bool(copy))


def _writable(array: numpy.ndarray) -> numpy.ndarray:
    owner: Any = array
    while isinstance(owner.base, numpy.ndarray):
        owner = owner.base
        if owner.flags.writeable:
            view = numpy.ndarray(array.shape, array.dtype, owner, 0, array.strides) \
                if owner.ctypes.data == array.ctypes.data else None
            return numpy.array(array) if view is None else view
    return numpy.array(array)


def dlpack_device(self: Tensor) -> tuple[int, int]:
    """DLPack's (device type, number)."""
    return (_CUDA, self.get_device()) if self.is_cuda else (_CPU, 0)


def cuda_array_interface(self: Tensor) -> dict[str, Any]:
    """The memory of a tensor on a GPU for Numba, CuPy and others (version 3), to be read only.

    AttributeError for tensors of the CPU; TensorError where the tensor requires gradients, or for
    bfloat16, which the interface cannot say.
    """
    if not self.is_cuda:
        raise AttributeError("__cuda_array_interface__: the tensor is on the CPU")
    from lazygrad._core import device_dlpack
    return device_dlpack.cuda_array_interface(self)


@operation
def from_cuda_array(array: Any, *, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of an array on a GPU that has `__cuda_array_interface__` (CuPy,
    Numba, PyTorch), ready for the current stream.

    Shares memory (do not change it afterwards: a tensor takes its value for fixed), but with
    `copy=True`, and where its address is no multiple of 16 bytes; `copy=False` raises BufferError
    there.  BufferError, too, for masks, negative strides, and memory that is none of CUDA's.
    """
    if isinstance(array, Tensor):
        return from_dlpack(array, copy=copy)
    if not hasattr(array, "__cuda_array_interface__"):
        raise fail("from_cuda_array", f"takes an array with __cuda_array_interface__, not "
                   f"{type(array).__name__}", kind=TypeError)
    from lazygrad._core.device_dlpack import from_array_interface
    return from_array_interface(array, copy, "from_cuda_array")


@operation
def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of another library's array, or of a DLPack capsule.

    Shares memory (do not change it afterwards: a tensor takes its value for fixed), but for
    negative strides and with `copy=True`.  `copy=False` raises BufferError where sharing is
    impossible.  Memory of a GPU stays there; the producer makes it ready for the current stream.
    """
    check_device(device, "from_dlpack")
    if isinstance(ext_tensor, Tensor):
        if ext_tensor.requires_grad:
            raise fail("from_dlpack", "a tensor that requires gradients cannot be exported",
                       "Use x.detach().", BufferError)
        return ext_tensor.clone() if copy else ext_tensor.detach()
    capsule = ext_tensor
    if hasattr(ext_tensor, "__dlpack__"):
        kind, number = (int(each) for each in ext_tensor.__dlpack_device__())
        if kind == _CUDA:
            from lazygrad._core.device_dlpack import from_producer
            return from_producer(ext_tensor, number, copy)
        if kind not in (_CPU, _PINNED):
            raise fail("from_dlpack", f"the array is on device type {kind}, not in CPU memory",
                       "Copy it to the CPU first.", BufferError)
        try:
            capsule = ext_tensor.__dlpack__(max_version=(1, 0))
        except TypeError:
            capsule = ext_tensor.__dlpack__()
    elif type(ext_tensor).__name__ != "PyCapsule":
        raise fail("from_dlpack", f"takes an array with __dlpack__, or a capsule, not "
                   f"{type(ext_tensor).__name__}", kind=TypeError)
    from lazygrad._core.device_dlpack import from_capsule, is_of_device
    if is_of_device(capsule):
        return from_capsule(capsule, copy)
    kind = _type_of(capsule)
    bfloat = tuple(kind) == (_BFLOAT, 16)
    if bfloat:
        kind[0] = _UINT
    array = numpy.from_dlpack(_Given(capsule))
    if bfloat:
        array = array.view(dtypes.bfloat16.numpy)
    dtypes.dtype_of_numpy(array.dtype)
    if copy:
        array = numpy.array(array, order="C")
    elif not array.flags.c_contiguous:
        shared = _strided(array)
        if shared is not None:
            return shared
        if copy is False:
            raise fail("from_dlpack", f"strides {array.strides} of shape {array.shape} cannot be "
                       "shared", "Pass copy=True, or make it contiguous.", BufferError)
        array = numpy.array(array, order="C")
    return wrap(cells.leaf_of_array(array))


def _strided(array: numpy.ndarray) -> Tensor | None:
    """A view of the run of memory that the array's elements lie in; None for negative strides."""
    size = array.itemsize
    if min(array.strides, default=0) < 0 or any(stride % size for stride in array.strides):
        return None
    strides = tuple(stride // size for stride in array.strides)
    reach = 1 + sum((count - 1) * stride
                    for count, stride in zip(array.shape, strides, strict=True))
    run = numpy.lib.stride_tricks.as_strided(array, (reach,), (size,), writeable=False)
    from lazygrad.functional.strided import as_strided
    return as_strided(wrap(cells.leaf_of_array(run)), array.shape, strides, 0)


def to_dlpack(tensor: Tensor) -> Any:
    """`tensor.__dlpack__()`."""
    return dlpack(tensor)


# ---- NumPy's functions

_UFUNCS = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div",
    "floor_divide": "floor_divide", "remainder": "remainder", "power": "pow", "negative": "neg",
    "positive": "positive", "absolute": "abs", "matmul": "matmul", "maximum": "maximum",
    "minimum": "minimum", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
    "equal": "eq", "not_equal": "ne", "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or",
    "bitwise_xor": "bitwise_xor", "invert": "bitwise_not", "left_shift": "bitwise_left_shift",
    "right_shift": "bitwise_right_shift", "logical_and": "logical_and", "logical_or": "logical_or",
    "logical_not": "logical_not", "logical_xor": "logical_xor", "isnan": "isnan",
    "isinf": "isinf", "isfinite": "isfinite",
}
_FLOAT_UFUNCS = {
    **{name: name for name in (
        "sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "exp2", "expm1", "log", "log2",
        "log10", "log1p", "sqrt", "floor", "ceil", "trunc", "square", "reciprocal", "hypot",
        "copysign", "fmod", "fmax", "fmin", "logaddexp", "logaddexp2", "sign", "deg2rad",
        "rad2deg", "nextafter")},
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "rint": "round",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
}
"""NumPy computes these of integers in float64, which the tensor operations do not."""


def array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
    """NumPy's functions of tensors give tensors: lazily and differentiably where there is such an
    operation, else computed by NumPy.
    """
    if method == "__call__" and not keywords:
        name = _UFUNCS.get(ufunc.__name__)
        if name is None and all(value.is_floating_point() for value in inputs
                                if isinstance(value, Tensor)):
            name = _FLOAT_UFUNCS.get(ufunc.__name__)
        function = getattr(Tensor, name, None) if name is not None else None
        if function is not None:
            if not isinstance(inputs[0], Tensor) and isinstance(inputs[0], numpy.ndarray):
                from lazygrad.functional.creation import from_numpy
                inputs = (from_numpy(inputs[0]), *inputs[1:])
            elif not isinstance(inputs[0], Tensor):
                reflected = getattr(Tensor, f"__r{_REFLECTED.get(name or '', '')}__", None)
                if reflected is not None:
                    return reflected(inputs[1], inputs[0])
                from lazygrad.functional.creation import tensor
                inputs = (tensor(inputs[0]), *inputs[1:])
            return function(*inputs)
    out = keywords.pop("out", ())
    if any(not isinstance(each, Tensor) for each in out):
        keywords["out"] = out
    results = getattr(ufunc, method)(
        *(value.numpy() if isinstance(value, Tensor) else value for value in inputs), **keywords)
    if "out" in keywords:
        return results
    several = results if isinstance(results, tuple) else (results,)
    made = tuple(array_wrap(self, numpy.asarray(each)) for each in several)
    for place, value in zip(out, made, strict=False):
        place.copy_(value)
    made = out or made
    return made if isinstance(results, tuple) else made[0]


_REFLECTED = {"add": "add", "sub": "sub", "mul": "mul", "div": "truediv", "pow": "pow",
              "floor_divide": "floordiv", "remainder": "mod", "matmul": "matmul",
              "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor"}


def array_wrap(self: Tensor, array: numpy.ndarray, context: Any = None,
               return_scalar: bool = False) -> Tensor:
    """A tensor for what NumPy made of one."""
    from lazygrad.functional.creation import from_numpy
    return from_numpy(numpy.array(array))


# ---- pickle

_HANDLE_STATE = frozenset(
    ("_grad", "_hooks", "_post_hooks", "_retains_grad", "_after_hooks"))


def reduce_tensor(self: Tensor, protocol: Any) -> Any:
    """Value, dtype, device, whether it requires gradients, and attributes that the user set.
    History, `.grad` and hooks stay behind, as with PyTorch.
    """
    array = array_of(self)
    if self.dtype.numpy.kind == "V":  # NumPy's own dtypes need no import to be read
        array = array.view(f"u{self.dtype.itemsize}")
    extra = {name: value for name, value in self.__dict__.items() if name not in _HANDLE_STATE}
    return rebuild_tensor, (type(self), numpy.array(array), self.dtype.name, self.requires_grad,
                            extra, *((str(self.device),) if self.is_cuda else ()))


def rebuild_tensor(kind: type, array: numpy.ndarray, dtype: str, requires_grad: bool,
                   extra: dict[str, Any], device: str = "cpu") -> Any:
    """The tensor of a pickle.  Raises TensorError where its device is not there."""
    wanted = dtypes.DTYPES[dtype].numpy
    contiguous = numpy.ascontiguousarray(array).reshape(array.shape).view(wanted)
    result: Any = object.__new__(kind)
    result.__dict__.update(extra)
    result._cell = wrap(cells.leaf_of_array(contiguous)).to(device)._cell
    result._view, result._detached = None, False
    return result.requires_grad_() if requires_grad else result


for _name, _function in (("__dlpack__", dlpack), ("__dlpack_device__", dlpack_device),
                         ("__cuda_array_interface__", property(cuda_array_interface)),
                         ("__array_ufunc__", array_ufunc), ("__array_wrap__", array_wrap),
                         ("__reduce_ex__", reduce_tensor)):
    setattr(Tensor, _name, _function)
