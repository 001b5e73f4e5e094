"""The safetensors format: named tensors behind a JSON header, for exchange with other libraries.

A file is the header's length (8 bytes, little-endian), the header ({name: {"dtype", "shape",
"data_offsets"}}, and {"__metadata__": {text: text}}), and the tensors' bytes in row-major order
without gaps (https://github.com/huggingface/safetensors, "Format").  Nothing in it is code.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy

import lazygrad as lg
from lazygrad._core.context import line
from lazygrad._core.values import check_device
from lazygrad.serialization.archive import MOST_AXES, FileFormatError
from lazygrad.serialization.saving import replacing
from lazygrad_compiler.ir.dtypes import DTYPES

__all__ = ["load", "load_file", "read_metadata", "save", "save_file"]

NAMES = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16",
         "float16": "F16", "bfloat16": "BF16", "uint32": "U32", "int32": "I32", "float32": "F32",
         "uint64": "U64", "int64": "I64", "float64": "F64", "complex64": "C64"}
"""Our dtypes and the format's names for them."""

KINDS = {text: DTYPES[name] for name, text in NAMES.items()}
LONGEST_HEADER = 100_000_000


def save_file(tensors: Mapping[str, lg.Tensor], filename: str | os.PathLike,
              metadata: Mapping[str, str] | None = None) -> None:
    """Writes named tensors to a file; a complete file takes the place of the old one at the end.

    Tensors that share memory are written once each.  TypeError for anything but text and tensors.
    """
    parts = _encoded(tensors, metadata)
    with replacing(os.fspath(filename), "save_file", line()) as file:
        for part in parts:
            file.write(part)


def save(tensors: Mapping[str, lg.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The file's bytes."""
    return b"".join(_encoded(tensors, metadata))


def load_file(filename: str | os.PathLike, device: Any = "cpu") -> dict[str, lg.Tensor]:
    """Reads all tensors of a file, onto a device.  FileFormatError for truncated, damaged and
    foreign files.
    """
    check_device(device, "load_file")
    with open(filename, "rb") as file:
        found = _decoded(bytearray(file.read()), os.fspath(filename))[0]
    return {name: tensor.to(device) for name, tensor in found.items()}


def load(data: bytes) -> dict[str, lg.Tensor]:
    """Reads all tensors from a file's bytes."""
    return _decoded(bytearray(data), "the data")[0]


def read_metadata(filename: str | os.PathLike) -> dict[str, str]:
    """The texts that were saved beside the tensors."""
    with open(filename, "rb") as file:
        return _decoded(bytearray(file.read()), os.fspath(filename))[1]


def _encoded(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None) -> list[Any]:
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, lg.Tensor):
            raise TypeError(f"safetensors: {name!r} is of type {type(tensor).__name__}; the format "
                            "holds tensors by name, in one dict")
        if tensor.dtype.name not in NAMES:
            raise TypeError(f"safetensors: {name!r} is {tensor.dtype}, which the format does not "
                            "have; convert it, or use view_as_real")
    notes = dict(metadata or {})
    if any(not isinstance(text, str) for pair in notes.items() for text in pair):
        raise TypeError("safetensors: metadata must be texts by name")
    header: dict[str, Any] = {"__metadata__": notes} if notes else {}
    # Wide elements first: then every tensor lies at a multiple of its element's size.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    parts, offset = [], 0
    for name in order:
        array = numpy.ascontiguousarray(tensors[name].detach().numpy(force=True))
        if sys.byteorder == "big":
            array = array.byteswap()
        header[name] = {"dtype": NAMES[tensors[name].dtype.name],
                        "shape": [int(size) for size in tensors[name].shape],
                        "data_offsets": [offset, offset + array.nbytes]}
        parts.append(array.tobytes())
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *parts]


def _decoded(data: bytearray, name: Any) -> tuple[dict[str, lg.Tensor], dict[str, str]]:
    try:
        return _parsed(data)
    except FileFormatError as error:
        raise FileFormatError(f"safetensors: {name}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError,
            RecursionError) as error:
        raise FileFormatError(f"safetensors: {name} is damaged, or no safetensors file "
                              f"({type(error).__name__}: {error})") from None


def _parsed(data: bytearray) -> tuple[dict[str, lg.Tensor], dict[str, str]]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, LONGEST_HEADER):
        raise FileFormatError("it is truncated, or no safetensors file")
    header = json.loads(bytes(data[8:8 + length]).decode("utf-8"))
    metadata = header.pop("__metadata__", {})
    body = memoryview(data)[8 + length:]
    expected = 0
    found = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        shape = entry["shape"]
        if entry["dtype"] not in KINDS:
            raise FileFormatError(f"{name!r} has the dtype {entry['dtype']}, which is not "
                                  "supported")
        dtype = KINDS[entry["dtype"]]
        if any(type(number) is not int or number < 0 for number in (begin, end, *shape)) \
                or len(shape) > MOST_AXES:
            raise FileFormatError(f"the entry of {name!r} makes no sense")
        if begin != expected or end - begin != math.prod(shape) * dtype.itemsize:
            raise FileFormatError(f"the bytes of {name!r} do not fit its shape {shape}, or leave a "
                                  "gap")
        if end > len(body):
            raise FileFormatError(f"it is truncated: {name!r} ends {end - len(body)} bytes after "
                                  "the file")
        expected = end
        array = numpy.array(numpy.frombuffer(body[begin:end], dtype.numpy))
        if sys.byteorder == "big":
            array = array.byteswap()
        found[name] = lg.from_numpy(array.reshape(shape))
    if expected != len(body):
        raise FileFormatError(f"it has {len(body) - expected} bytes that belong to no tensor")
    return found, metadata
