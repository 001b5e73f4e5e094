"""`load`: data out of an archive, trusting nothing in it."""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import sys
import zipfile
from collections import OrderedDict
from typing import Any

import numpy

import lazygrad as lg
from lazygrad._core.values import check_device
from lazygrad.serialization.archive import (
    FORMAT,
    MANIFEST,
    VERSION,
    File,
    FileFormatError,
    as_tensor_view,
    read_entry,
)
from lazygrad_compiler.ir.dtypes import DTYPES


def load(f: File, map_location: Any = None, *, weights_only: bool = True,
         mmap: bool | None = None) -> Any:
    """Reads what `save` wrote, from a path or a file opened for reading bytes.  No code in the file
    is ever run.

    Archives written by torch.save are read, too, as far as they hold tensors and plain data.
    Tensors come to the device that they were saved from, those of torch.save to the CPU.
    map_location: where they come instead: a device, or a dict of devices, as in PyTorch; with a
    function they come to the CPU.  weights_only=False reads nothing more, and mmap changes nothing.
    Raises FileFormatError for truncated, damaged or foreign files, TensorError for a device that is
    not there.
    """
    if not isinstance(map_location, dict) and not callable(map_location):
        check_device(map_location, "load")
    if hasattr(f, "read"):
        file: Any = f
        if not hasattr(f, "seek") or not f.seekable():  # type: ignore[union-attr]
            file = io.BytesIO(f.read())  # type: ignore[union-attr]
        return _read(file, getattr(f, "name", "the file"), map_location)
    with open(f, "rb") as opened:  # type: ignore[arg-type]
        return _read(opened, os.fspath(f), map_location)  # type: ignore[arg-type]


def _target(saved: str, where: Any) -> Any:
    """The device that a tensor comes to."""
    if where is None:
        return saved
    if isinstance(where, dict):
        return next((target for source, target in where.items() if str(source) == saved), saved)
    return "cpu" if callable(where) else where


def _moved(value: Any, where: Any) -> Any:
    """Tensors of the CPU in nested data, at their place."""
    target = _target("cpu", where)
    if str(target) == "cpu":
        return value
    if isinstance(value, lg.Tensor):
        return _placed(value, target)
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _moved(item, where)
    elif type(value) in (list, tuple):
        return type(value)(_moved(item, where) for item in value)
    return value


def _placed(tensor: Any, device: Any) -> Any:
    """A tensor or parameter on a device, a leaf as it was."""
    made = tensor.detach().to(device)
    if isinstance(tensor, lg.nn.Parameter):
        return lg.nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made.detach().requires_grad_(tensor.requires_grad)


OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that torch.save wrote before PyTorch 1.6."""


def _read(file: Any, name: Any, where: Any) -> Any:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, struct.error):
        raise FileFormatError(f"load: {name} {_told_from_start(file)}") from None
    with archive:
        try:
            names = archive.namelist()
            if MANIFEST in names:
                return _Decoder(archive, where).decode_file()
            if any(entry.endswith("/data.pkl") for entry in names):
                from lazygrad.utils.torch_format import read_torch_archive
                return _moved(read_torch_archive(archive), where)
        except FileFormatError as error:
            raise FileFormatError(f"load: {name}: {error}") from None
        except lg.TensorError:
            raise
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


def _told_from_start(file: Any) -> str:
    """What is wrong with a file that is no archive."""
    file.seek(0)
    start = file.read(len(OLD_TORCH))
    if start == OLD_TORCH:
        return ("is in the format of PyTorch before 1.6, which is not read; load it with PyTorch, "
                "and write it again with torch.save")
    if start[8:10] == b'{"':
        return ("looks like a safetensors file; read it with "
                "lazygrad.utils.safetensors.load_file")
    return ("is truncated, or not a file that save wrote: it is no complete zip archive")


try:
    from zlib import error as zlib_error
except ImportError:  # an interpreter built without zlib: our files are not compressed
    zlib_error = EOFError  # type: ignore[misc,assignment]


class _Decoder:
    """Reads the manifest and rebuilds the data, trusting nothing in it."""

    def __init__(self, archive: zipfile.ZipFile, where: Any) -> None:
        self.archive = archive
        self.where = where
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
        except lg.TensorError:
            raise
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
            target = _target(str(entry.get("device", "cpu")), self.where)
            self.tensors.append(tensor if str(target) == "cpu" else _placed(tensor, target))

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
