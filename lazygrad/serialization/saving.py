"""`save`: data into an archive, and the archive into the place of the old file."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import stat
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy

import lazygrad as lg
from lazygrad._core.context import line
from lazygrad.serialization.archive import FORMAT, MANIFEST, VERSION, File
from lazygrad_compiler.ir.dtypes import DType


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
    with replacing(os.fspath(f), "save", line()) as file:  # type: ignore[arg-type]
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
def replacing(path: Any, operation: str, at: str) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is complete and on disk.

    What goes wrong with the disk is an OSError of the same number that names the operation, the
    file, what became of the old one, and the user's line, `at`.
    """
    target = os.path.realpath(path)
    old = None
    with contextlib.suppress(OSError):
        old = os.stat(target)
    try:
        if old is not None and not stat.S_ISREG(old.st_mode):
            with open(target, "wb") as file:  # a pipe or a device cannot be replaced
                yield file
        else:
            with _put_in_place(target, old) as file:
                yield file
    except OSError as error:
        raise OSError(error.errno, f"[{operation}] {error.strerror or error}; "
                      f"{_what_is_left(target, old)} ({at})", os.fspath(path)) from error


def _what_is_left(target: str, old: os.stat_result | None) -> str:
    """After a failure: the state of the file, and a way out."""
    folder = os.path.dirname(target)
    if old is not None and stat.S_ISDIR(old.st_mode):
        return "that is a folder, so name a file in it"
    if not os.path.isdir(folder):
        return f"there is no folder {folder}, so make it first"
    if old is not None and not stat.S_ISREG(old.st_mode):
        return "that is no file that could be replaced"
    what = "there is no file of that name as before" if old is None else "the old file is whole"
    return f"{what}, so make room, or save elsewhere"


@contextlib.contextmanager
def _put_in_place(target: str, old: os.stat_result | None) -> Iterator[BinaryIO]:
    """A temporary file beside the target, which is renamed to it when all is written."""
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(4)}.tmp")
    try:  # which an interrupt may leave from the very moment on that the file is there
        with open(temporary, "xb", opener=_for_the_user_alone) as file:
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


def _for_the_user_alone(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


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
        array = tensor.detach().numpy(force=True)
        if any(stride < 0 for stride in array.strides):
            array = numpy.ascontiguousarray(array)
        number = self._numbers[id(tensor)] = len(self.tensors)
        self._kept.append(tensor)
        self._arrays.append(array)
        kind = "parameter" if isinstance(tensor, lg.nn.Parameter) else "tensor"
        self.tensors.append({"kind": kind, "dtype": tensor.dtype.name,
                             "shape": [int(size) for size in array.shape],
                             "requires_grad": bool(tensor.requires_grad),
                             **({"device": str(tensor.device)} if tensor.is_cuda else {})})
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
