"""`save` and `load`: nested Python data with tensors, in a file that holds data only.  Loading runs
no code.

The file is an uncompressed zip archive:

    manifest.json    {"format": "lazygrad", "version": 1, "root": ..., "tensors": [...], "storages":
    [...]} storages/0 ...   raw little-endian bytes

In `root`, null, booleans, strings, and numbers within JSON's reach stand for themselves; everything
else is an object with one key that names its type.  Tensors that overlap in memory share one
storage and do so again after loading.

Saving writes a temporary file beside the target and renames it when it is complete: whatever fails,
the old file stays.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import stat
import struct
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, BinaryIO

import numpy

import lazygrad as lg
from lazygrad_compiler.ir.dtypes import DTYPES, DType

FORMAT = "lazygrad"
VERSION = 1
MANIFEST = "manifest.json"
MOST_AXES = 64

File = str | os.PathLike | BinaryIO


class FileFormatError(RuntimeError):
    """The file is truncated, damaged, or not one of ours."""


# ---- saving


def save(obj: Any, f: File) -> None:
    """Writes `obj` to a path or a file opened for writing bytes.

    obj: tensors, numbers, strings, bytes, None, dtypes and shapes, in dicts, OrderedDicts, lists
    and tuples. Raises TypeError for anything else, naming its place and what to save instead.
    """
    encoder = _Encoder()
    root = encoder.encode_root(obj)
    if hasattr(f, "write"):
        _write_archive(f, root, encoder)  # type: ignore[arg-type]
        return
    with _replacing(os.fspath(f)) as file:  # type: ignore[arg-type]
        _write_archive(file, root, encoder)


def _write_archive(file: Any, root: Any, encoder: _Encoder) -> None:
    storages = encoder.storages()
    manifest = {"format": FORMAT, "version": VERSION, "root": root, "tensors": encoder.tensors,
                "storages": [len(storage) for storage in storages]}
    text = json.dumps(manifest, ensure_ascii=True, separators=(",", ":"))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(_entry(MANIFEST), text)
        for number, storage in enumerate(storages):
            with archive.open(_entry(f"storages/{number}"), "w",
                              force_zip64=len(storage) > 2**31) as entry:
                entry.write(storage)


def _entry(name: str) -> zipfile.ZipInfo:
    """An archive entry without a time: equal data gives equal files."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


@contextlib.contextmanager
def _replacing(path: Any) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is complete and on disk."""
    target = os.path.realpath(path)
    old = None
    with contextlib.suppress(OSError):
        old = os.stat(target)
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(target, "wb") as file:  # a pipe or a device cannot be replaced
            yield file
        return
    folder, name = os.path.split(target)
    handle, temporary = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, stat.S_IMODE(old.st_mode) if old is not None else 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    current = os.umask(0o077)
    os.umask(current)
    return current


INSTEAD = {
    "Module": "save module.state_dict(), and load it into a new module with load_state_dict",
    "Optimizer": "save optimizer.state_dict()",
    "LRScheduler": "save scheduler.state_dict()",
    "ndarray": "save lazygrad.from_numpy(array)",
    "generic": "save value.item()",
    "set": "save sorted(value), or list(value)",
    "frozenset": "save sorted(value), or list(value)",
    "function": "functions are code; save what they are made from",
    "type": "save its name",
    "Counter": "save dict(value)",
    "defaultdict": "save dict(value)",
    "Path": "save str(path)",
    "PurePath": "save str(path)",
    "device": "save str(device)",
    "Device": "save str(device)",
    "Generator": "save generator.get_state()",
}


class _Encoder:
    """Turns data into the manifest's form and collects its tensors."""

    def __init__(self) -> None:
        self.tensors: list[dict[str, Any]] = []
        self._arrays: list[numpy.ndarray] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[lg.Tensor] = []
        self._inside: set[int] = set()

    def encode_root(self, obj: Any) -> Any:
        try:
            return self.encode(obj, "obj")
        except RecursionError:
            raise ValueError("save: the data is nested too deeply") from None

    def encode(self, value: Any, place: str) -> Any:
        """The JSON form of a value; `place` is how errors call it."""
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return {"str": _escaped(value)} if kind is str and not _is_plain(value) else value
        if kind is int:
            return value if abs(value) < 2**53 else {"int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if kind is complex:
            return {"complex": [self.encode(value.real, place), self.encode(value.imag, place)]}
        if kind is bytes:
            return {"bytes": value.hex()}
        if isinstance(value, lg.Tensor):
            return {"tensor": self._tensor(value, place)}
        if isinstance(value, DType):
            return {"dtype": value.name}
        if isinstance(value, lg.Size):
            return {"size": [int(size) for size in value]}
        if kind in (list, tuple, dict, OrderedDict):
            return self._container(value, kind, place)
        raise self._unsupported(value, place)

    def _container(self, value: Any, kind: type, place: str) -> Any:
        if id(value) in self._inside:
            raise ValueError(f"save: {place} contains itself")
        self._inside.add(id(value))
        try:
            if kind is list or kind is tuple:
                return {kind.__name__: [self.encode(inner, f"{place}[{position}]")
                                        for position, inner in enumerate(value)]}
            items = []
            for key, inner in value.items():
                if isinstance(key, lg.Tensor):
                    raise TypeError(f"save: a key of {place} is a Tensor, which is not supported; "
                                    "use its name")
                items.append([self.encode(key, f"a key of {place}"),
                              self.encode(inner, f"{place}[{key!r}]")])
            if kind is dict:
                return {"dict": items}
            metadata = getattr(value, "_metadata", None)
            if metadata is None:
                return {"ordered_dict": items}
            return {"ordered_dict": items, "metadata": self.encode(metadata, f"{place}._metadata")}
        finally:
            self._inside.discard(id(value))

    def _tensor(self, tensor: lg.Tensor, place: str) -> int:
        """The tensor's number; the same object always has the same."""
        number = self._numbers.get(id(tensor))
        if number is not None:
            return number
        array = tensor.detach().numpy()
        if any(stride < 0 for stride in array.strides):
            array = numpy.ascontiguousarray(array)
        number = self._numbers[id(tensor)] = len(self.tensors)
        self._kept.append(tensor)
        self._arrays.append(array)
        kind = "parameter" if isinstance(tensor, lg.nn.Parameter) else "tensor"
        self.tensors.append({"kind": kind, "dtype": tensor.dtype.name,
                             "shape": [int(size) for size in array.shape],
                             "requires_grad": bool(tensor.requires_grad)})
        return number

    def storages(self) -> list[memoryview | bytes]:
        """Overlapping arrays merged to one storage each; notes storage, offset and strides at the
        tensors.
        """
        spans = []
        for number, array in enumerate(self._arrays):
            low = array.__array_interface__["data"][0]
            reach = sum((size - 1) * step for size,
                        step in zip(array.shape, array.strides)) + array.itemsize
            spans.append((low, low + (reach if array.size else 0), number))
        groups: list[list[Any]] = []
        for low, high, number in sorted(spans):
            itemsize = self._arrays[number].itemsize
            if groups and low < groups[-1][1] and high > low and (low
                                                                  - groups[-1][0]) % itemsize == 0:
                groups[-1][1] = max(groups[-1][1], high)
                groups[-1][2].append(number)
            else:
                groups.append([low, high, [number]])
        made: list[memoryview | bytes] = []
        for low, high, members in groups:
            whole = bytearray(high - low) if len(members) > 1 else None
            for number in members:
                array = self._arrays[number]
                entry = self.tensors[number]
                start = array.__array_interface__["data"][0] - low
                strides = [step // array.itemsize for step in array.strides]
                if whole is None:
                    strides = _row_major(array.shape)
                    data = _bytes_of(array)
                else:
                    view = numpy.ndarray(array.shape, array.dtype, whole, start, array.strides)
                    view[...] = array
                entry.update(storage=len(made), offset=start // array.itemsize, strides=strides)
            made.append(data if whole is None else bytes(whole))
        return made

    def _unsupported(self, value: Any, place: str) -> TypeError:
        kind = type(value)
        hint = next((INSTEAD[base.__name__] for base in kind.__mro__ if base.__name__ in INSTEAD),
                    None)
        if hint is None and isinstance(value, dict):
            hint = "save dict(value)"
        elif hint is None and isinstance(value, tuple):
            hint = "save value._asdict(), or tuple(value)"
        elif hint is None and isinstance(value, list):
            hint = "save list(value)"
        elif hint is None and isinstance(value, (int, float, str)):
            plain = next(base for base in (int, float, str) if isinstance(value, base))
            hint = f"save {plain.__name__}(value)"
        elif hint is None and callable(value):
            hint = INSTEAD["function"]
        return TypeError(f"save: {place} is of type {kind.__name__}, which files do not hold; "
                         + (hint or "save its fields as a dict"))


def _is_plain(text: str) -> bool:
    """Whether UTF-8 can hold the text: lone surrogates cannot be."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escaped(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").hex()


def _row_major(shape: tuple[int, ...]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return strides[::-1]


def _bytes_of(array: numpy.ndarray) -> memoryview | bytes:
    """The array's elements in row-major order, little-endian, without a copy where they lie so."""
    if sys.byteorder == "big":
        array = array.byteswap()
    if array.size == 0:
        return b""
    return numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8).data


# ---- loading


def load(f: File, map_location: Any = None, *, weights_only: bool = True,
         mmap: bool | None = None) -> Any:
    """Reads what `save` wrote, from a path or a file opened for reading bytes.  No code in the file
    is ever run.

    Archives written by torch.save are read, too, as far as they hold tensors and plain data.
    Raises FileFormatError for truncated, damaged or foreign files.
    """
    lg.device("cpu" if map_location is None else map_location)
    if hasattr(f, "read"):
        file: Any = f
        if not hasattr(f, "seek") or not f.seekable():  # type: ignore[union-attr]
            file = io.BytesIO(f.read())  # type: ignore[union-attr]
        return _read(file, getattr(f, "name", "the file"))
    with open(f, "rb") as opened:  # type: ignore[arg-type]
        return _read(opened, os.fspath(f))  # type: ignore[arg-type]


def _read(file: Any, name: Any) -> Any:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, struct.error):
        raise FileFormatError(f"load: {name} is truncated, or not a file that save wrote: it is no "
                              "complete zip archive") from None
    with archive:
        try:
            names = archive.namelist()
            if MANIFEST in names:
                return _Decoder(archive).decode_file()
            if any(entry.endswith("/data.pkl") for entry in names):
                from lazygrad.utils.torch_format import read_torch_archive
                return read_torch_archive(archive)
        except FileFormatError as error:
            raise FileFormatError(f"load: {name}: {error}") from None
        except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, zlib_error,
                struct.error) as error:
            raise FileFormatError(f"load: {name} is damaged: {error}") from None
        except OSError as error:
            # EINVAL: a damaged directory made zipfile seek to nowhere.
            if error.errno != errno.EINVAL:
                raise
            raise FileFormatError(f"load: {name} is damaged: {error}") from None
    raise FileFormatError(f"load: {name} is a zip archive without {MANIFEST}: "
                          "save did not write it")


try:
    from zlib import error as zlib_error
except ImportError:  # an interpreter built without zlib: our files are not compressed
    zlib_error = EOFError  # type: ignore[misc,assignment]


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's bytes.  Compressed entries are refused: a small file could fill the memory."""
    try:
        information = archive.getinfo(name)
    except KeyError:
        raise FileFormatError(f"the entry {name} is missing") from None
    if information.compress_type != zipfile.ZIP_STORED:
        raise FileFormatError(f"the entry {name} is compressed, which save never does")
    return archive.read(name)


def as_tensor_view(storage: numpy.ndarray, base: Any, offset: Any, shape: Any, strides: Any) -> Any:
    """A tensor over a flat storage, given in elements; FileFormatError where it would reach
    outside.

    storage: flat array.  base: None, or the flat tensor that several views share.
    """
    numbers = [offset, *shape, *strides]
    if any(type(number) is not int or not 0 <= number < 2**62 for number in numbers) \
            or len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise FileFormatError(f"a tensor of shape {shape}, strides {strides} and offset {offset} "
                              "makes no sense")
    empty = 0 in shape
    reach = 0 if empty else offset + 1 + sum((size - 1) * step for size,
                                             step in zip(shape, strides))
    if reach > storage.size:
        raise FileFormatError(f"a tensor of shape {shape} reaches over the end of its data")
    if empty:
        return lg.from_numpy(numpy.zeros(shape, storage.dtype))
    if base is not None:
        aliasing = _strided_view(base, offset, shape, strides)
        if aliasing is not None:
            return aliasing
    view = numpy.lib.stride_tricks.as_strided(
        storage[offset:], shape, [step * storage.itemsize for step in strides])
    return lg.from_numpy(view if view.flags.c_contiguous else numpy.array(view, order="C"))


def _strided_view(base: Any, offset: int, shape: list[int], strides: list[int]) -> Any:
    """A view of a flat tensor made by slicing a row-major shape and reordering its axes; None where
    that cannot be.

    The axes in order of falling strides s0, s1, ... are cut out of the shape (size // s0, s0 // s1,
    s1 // s2, ...).
    """
    axes = sorted((axis for axis, size in enumerate(shape) if size != 1),
                  key=lambda axis: -strides[axis])
    steps = [strides[axis] for axis in axes]
    if 0 in steps or any(outer % inner for outer, inner in pairwise(steps)):
        return None
    if not axes:
        return base[offset].reshape(shape)
    rows = base.numel() // steps[0]
    parents = [rows, *(outer // inner for outer, inner in pairwise(steps)), steps[-1]]
    index: list[Any] = []
    rest = offset
    for axis, step, parent in zip(axes, steps, parents):
        start, rest = divmod(rest, step)
        if start + shape[axis] > parent:
            return None
        index.append(slice(start, start + shape[axis]))
    view = base[:rows * steps[0]].view(parents)[(*index, rest)]
    view = view.permute(sorted(range(len(axes)), key=lambda position: axes[position]))
    for axis, size in enumerate(shape):
        if size == 1:
            view = view.unsqueeze(axis)
    return view


class _Decoder:
    """Reads the manifest and rebuilds the data, trusting nothing in it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.tensors: list[Any] = []

    def decode_file(self) -> Any:
        text = read_entry(self.archive, MANIFEST)
        try:
            manifest = json.loads(text)
        except (ValueError, RecursionError):
            raise FileFormatError("its manifest cannot be read") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise FileFormatError("its manifest is not one of lazygrad's")
        version = manifest.get("version")
        if version != VERSION:
            raise FileFormatError(f"it has format version {version}, and this lazygrad reads "
                                  f"version {VERSION}")
        try:
            self._make_tensors(manifest["tensors"], manifest["storages"])
            return self.decode(manifest["root"])
        except RecursionError:
            raise FileFormatError("its data is nested too deeply") from None
        except (KeyError, IndexError, TypeError, ValueError, AttributeError,
                OverflowError) as error:
            raise FileFormatError(
                f"its manifest is damaged ({type(error).__name__}: {error})") from None

    def _make_tensors(self, entries: list[dict[str, Any]], sizes: list[int]) -> None:
        blobs = []
        for number, size in enumerate(sizes):
            blob = bytearray(read_entry(self.archive, f"storages/{number}"))
            if len(blob) != size:
                raise FileFormatError(f"storage {number} has {len(blob)} bytes in place of {size}")
            blobs.append(blob)
        users: dict[int, int] = {}
        for entry in entries:
            users[entry["storage"]] = users.get(entry["storage"], 0) + 1
        bases: dict[tuple[int, str], Any] = {}
        for entry in entries:
            number, dtype = entry["storage"], DTYPES[entry["dtype"]]
            if type(number) is not int or not 0 <= number < len(blobs):
                raise FileFormatError(f"there is no storage {number}")
            blob = blobs[number]
            flat = numpy.frombuffer(blob, dtype.numpy, len(blob) // dtype.itemsize)
            if sys.byteorder == "big":
                flat = flat.byteswap()
            base = None
            if users[number] > 1:
                key = (number, dtype.name)
                if key not in bases:
                    bases[key] = lg.from_numpy(flat)
                base = bases[key]
            tensor = as_tensor_view(flat, base, entry["offset"], entry["shape"], entry["strides"])
            if entry["kind"] == "parameter":
                tensor = lg.nn.Parameter(tensor, requires_grad=entry["requires_grad"] is True)
            elif entry["requires_grad"] is True:
                tensor = tensor.detach().requires_grad_()
            self.tensors.append(tensor)

    def decode(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if not isinstance(value, dict) or not value:
            raise FileFormatError("its manifest has a value without a type")
        kind = next(iter(value))
        inner = value[kind]
        if kind == "tensor":
            if type(inner) is not int or inner < 0:
                raise FileFormatError(f"there is no tensor {inner}")
            return self.tensors[inner]
        if kind == "list":
            return [self.decode(item) for item in inner]
        if kind == "tuple":
            return tuple(self.decode(item) for item in inner)
        if kind == "dict":
            return {self.decode(key): self.decode(item) for key, item in inner}
        if kind == "ordered_dict":
            ordered = OrderedDict((self.decode(key), self.decode(item)) for key, item in inner)
            if "metadata" in value:
                ordered._metadata = self.decode(value["metadata"])  # type: ignore[attr-defined]
            return ordered
        if kind == "size":
            return lg.Size(tuple(int(size) for size in inner))
        if kind == "dtype":
            return DTYPES[inner]
        if kind == "int":
            return int(inner, 16)
        if kind == "float":
            return float(inner)
        if kind == "complex":
            return complex(*(self.decode(part) for part in inner))
        if kind == "bytes":
            return bytes.fromhex(inner)
        if kind == "str":
            return bytes.fromhex(inner).decode("utf-8", "surrogatepass")
        raise FileFormatError(f"it holds a value of the unknown type {kind!r}")


__all__ = ["FileFormatError", "load", "save"]
