"""Reads archives written by torch.save: tensors and plain data, nothing else.

The pickle inside is read by an unpickler that knows a dozen names (how tensors are put together,
OrderedDict, dtypes, shapes) and refuses every other, so that no code of the file's choosing runs.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from typing import Any, NamedTuple

import numpy

import lazygrad as lg
from lazygrad._core.values import Device
from lazygrad.serialization.archive import FileFormatError, as_tensor_view, read_entry
from lazygrad_compiler.ir.dtypes import DTYPES, DType

STORAGE_DTYPES = {"FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
                  "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
                  "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
                  "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
                  "ComplexDoubleStorage": "complex128"}


class _StorageKind(NamedTuple):
    """What a storage class of PyTorch's stands for here; dtype None: bytes without a type."""

    dtype: DType | None


class _Storage(NamedTuple):
    """The bytes of a storage, and its elements where it has a dtype."""

    data: bytearray
    dtype: DType | None
    bases: dict[str, Any]

    def elements(self, dtype: DType) -> numpy.ndarray:
        flat = numpy.frombuffer(self.data, dtype.numpy, len(self.data) // dtype.itemsize)
        return flat.byteswap() if sys.byteorder == "big" else flat


def _tensor(storage: Any, offset: int, size: Any, stride: Any, requires_grad: bool = False,
            hooks: Any = None, metadata: Any = None, dtype: Any = None) -> Any:
    """A tensor on a storage, as `torch._utils._rebuild_tensor_v2` and `_v3` make them."""
    if not isinstance(storage, _Storage):
        raise FileFormatError("a tensor's storage is not a storage")
    kind = dtype or storage.dtype
    if not isinstance(kind, DType):
        raise FileFormatError("a tensor has no dtype")
    flat = storage.elements(kind)
    if kind.name not in storage.bases:
        storage.bases[kind.name] = lg.from_numpy(flat)
    whole = offset == 0 and list(stride) == _row_major(size) and _product(size) == flat.size
    base = storage.bases[kind.name]
    made = base.view(tuple(size)) if whole else as_tensor_view(flat, base, offset, list(size),
                                                               list(stride))
    made = made.detach()
    for flag, resolved in LAZY_FLAGS.items():
        if isinstance(metadata, dict) and metadata.get(flag):
            made = resolved(made)
    return made.requires_grad_() if requires_grad else made


LAZY_FLAGS = {"conj": lambda tensor: lg.conj(tensor).clone(), "neg": lambda tensor: -tensor}
"""What PyTorch notes at a tensor instead of doing it to the bytes."""


def _tensor_v3(storage: Any, offset: int, size: Any, stride: Any, requires_grad: bool, hooks: Any,
               dtype: Any, metadata: Any = None) -> Any:
    return _tensor(storage, offset, size, stride, requires_grad, hooks, metadata, dtype)


def _product(size: Any) -> int:
    total = 1
    for one in size:
        total *= one
    return total


def _row_major(size: Any) -> list[int]:
    strides, step = [], 1
    for one in reversed(list(size)):
        strides.append(step)
        step *= max(one, 1)
    return strides[::-1]


def _text_bytes(text: Any, encoding: Any = "latin1") -> bytes:
    """How pickles of protocol 2 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise FileFormatError("the PyTorch file has bytes in an unknown form")
    return text.encode("latin1")


def _bytearray(data: Any = b"") -> bytearray:
    """Of bytes only: of a number it would be as many zeros, however many."""
    if not isinstance(data, bytes):
        raise FileFormatError("the PyTorch file has a bytearray in an unknown form")
    return bytearray(data)


def _device(kind: Any, index: Any = None) -> Device:
    if not isinstance(kind, str) or not (index is None or isinstance(index, int)):
        raise FileFormatError("the PyTorch file has a device that is none")
    return Device(kind, index)


class _Factory(NamedTuple):
    """A type that a defaultdict may make its values with; a pickle cannot call it."""

    kind: type


def _defaultdict(factory: Any = None) -> defaultdict:
    if factory is not None and not isinstance(factory, _Factory):
        raise FileFormatError("the PyTorch file has a defaultdict that calls a function")
    return defaultdict(None if factory is None else factory.kind)


def _parameter(data: Any, requires_grad: bool = True, hooks: Any = None, state: Any = None) -> Any:
    return lg.nn.Parameter(data, requires_grad=bool(requires_grad))


def _size(values: Any = ()) -> Any:
    return lg.Size(tuple(int(value) for value in values))


class _Allowed(NamedTuple):
    """A function that a pickle may call.  Immutable: a pickle can set attributes of what it
    names.
    """

    function: Any

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Allowed(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Allowed(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): _Allowed(_tensor_v3),
    ("torch._utils", "_rebuild_parameter"): _Allowed(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Allowed(_parameter),
    ("torch", "Size"): _Allowed(_size),
    ("torch", "device"): _Allowed(_device),
    ("collections", "Counter"): _Allowed(Counter),
    ("collections", "defaultdict"): _Allowed(_defaultdict),
    ("_codecs", "encode"): _Allowed(_text_bytes),
    **{(module, kind.__name__): _Allowed(kind) for module in ("builtins", "__builtin__")
       for kind in (complex, set, frozenset)},
    **{(module, "bytearray"): _Allowed(_bytearray) for module in ("builtins", "__builtin__")},
    **{(module, kind.__name__): _Factory(kind) for module in ("builtins", "__builtin__")
       for kind in (list, dict, int, float, str)},
    ("torch.storage", "UntypedStorage"): _StorageKind(None),
    ("torch.storage", "TypedStorage"): _StorageKind(None),
    **{("torch", name): _StorageKind(DTYPES[dtype]) for name, dtype in STORAGE_DTYPES.items()},
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
}
"""Everything that a pickle may name."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, text: bytes, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(text), encoding="utf-8")
        self._archive = archive
        self._prefix = prefix
        self._storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return KNOWN[(module, name)]
        except KeyError:
            raise FileFormatError(f"the PyTorch file needs {module}.{name}, and only tensors and "
                                  "plain data are read; save a state_dict with "
                                  "torch.save(model.state_dict(), ...) instead") from None

    def persistent_load(self, identity: Any) -> _Storage:
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage" \
                or not isinstance(identity[1], _StorageKind) or not isinstance(identity[2], str):
            raise FileFormatError("the PyTorch file refers to something that is no storage")
        _, kind, key, _, _ = identity
        if key not in self._storages:
            data = bytearray(read_entry(self._archive, f"{self._prefix}data/{key}"))
            self._storages[key] = _Storage(data, kind.dtype, {})
        return self._storages[key]


def read_torch_archive(archive: zipfile.ZipFile) -> Any:
    """The data of an archive that torch.save wrote."""
    name = next(entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
    prefix = name[:-len("data.pkl")]
    if f"{prefix}byteorder" in archive.namelist() and read_entry(archive,
                                                                 f"{prefix}byteorder") != b"little":
        raise FileFormatError("the PyTorch file is big-endian, which is not supported")
    try:
        return _Unpickler(read_entry(archive, name), archive, prefix).load()
    except FileFormatError:
        raise
    except Exception as error:
        raise FileFormatError(
            f"the PyTorch file cannot be read ({type(error).__name__}: {error})") from None
