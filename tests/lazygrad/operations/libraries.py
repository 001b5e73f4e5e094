"""One way to talk to both libraries: conversion of samples, and results as comparable leaves.

A check is written once, as a program over a `Library`; it runs with PyTorch and with lazygrad, and
`differences` compares what the two return: structure, names of fields, dtypes, shapes, values.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy
import torch

import lazygrad

TOLERANCE = {
    "float16": (4e-3, 4e-3),
    "bfloat16": (2e-2, 2e-2),
    "float32": (3e-5, 1e-5),
    "complex64": (3e-5, 1e-5),
    "float64": (1e-9, 1e-9),
    "complex128": (1e-9, 1e-9),
}
"""Relative and absolute, by the coarser of the dtype under test and the dtype of the result."""


@dataclass(frozen=True)
class Raw:
    """A value that is handed to both libraries as it is, arrays included."""

    value: Any


@dataclass(frozen=True)
class Library:
    """PyTorch or lazygrad."""

    name: str
    module: Any
    make_tensor: Callable[[numpy.ndarray], Any]
    dtypes: Any

    @property
    def is_lazy(self) -> bool:
        return self.module is lazygrad

    def dtype(self, name: str) -> Any:
        return getattr(self.dtypes, name)

    def function(self, name: str) -> Any:
        """The public function of a dotted name; AttributeError where there is none."""
        found = self.module
        path = self.module.__name__
        for part in name.split("."):
            path = f"{path}.{part}"
            try:
                found = getattr(found, part)
            except AttributeError:
                try:
                    found = importlib.import_module(path)
                except ImportError:
                    raise AttributeError(f"{self.name} has no {name}") from None
        return found

    def convert(self, value: Any, make: Callable[[numpy.ndarray], Any] | None = None) -> Any:
        """Arrays as tensors, also inside lists, tuples and dictionaries; NumPy dtypes as dtypes."""
        if isinstance(value, Raw):
            return value.value
        if isinstance(value, numpy.ndarray):
            return (make or self.make_tensor)(value)
        if isinstance(value, (list, tuple)):
            inside = [self.convert(each, make) for each in value]
            if hasattr(value, "_fields"):
                return type(value)(*inside)
            return type(value)(inside)
        if isinstance(value, dict):
            return {key: self.convert(each, make) for key, each in value.items()}
        if isinstance(value, numpy.dtype):
            return self.dtype(value.name)
        if isinstance(value, type) and issubclass(value, numpy.generic):
            return self.dtype(numpy.dtype(value).name)
        return value

    def convert_keywords(
        self, keywords: dict[str, Any], make: Callable[[numpy.ndarray], Any] | None = None
    ) -> dict[str, Any]:
        """As `convert`; a string given as `dtype=` names a dtype."""
        return {
            key: self.dtype(value) if key == "dtype" and isinstance(value, str)
            and hasattr(self.dtypes, value) else self.convert(value, make)
            for key, value in keywords.items()
        }


def torch_tensor(array: numpy.ndarray) -> torch.Tensor:
    array = numpy.array(array)  # a copy: programs may write to it
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(numpy.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


TORCH = Library("torch", torch, torch_tensor, torch)
LAZY = Library("lazygrad", lazygrad, lazygrad.tensor, lazygrad)


# ---- results


@dataclass(frozen=True)
class Leaf:
    """One value of a result. kind: "tensor", "number" (of Python) or "other"."""

    kind: str
    dtype: str
    array: Any

    def __str__(self) -> str:
        if self.kind == "other":
            return repr(self.array)
        text = numpy.array2string(numpy.asarray(self.array), threshold=40, precision=9)
        return f"{self.dtype}{list(numpy.shape(self.array))} {text}"


def array_of(tensor: Any) -> numpy.ndarray:
    """A copy of the values of a tensor of either library."""
    if isinstance(tensor, torch.Tensor):
        tensor = tensor.detach().resolve_conj().resolve_neg()
        if tensor.dtype == torch.bfloat16:
            raw = tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
            return raw.reshape(tuple(tensor.shape)).copy()
        return tensor.numpy(force=True).copy()
    return numpy.array(tensor.detach().cpu().numpy())


def is_tensor(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, lazygrad.Tensor))


def tensors_in(value: Any) -> Iterator[Any]:
    """The tensors of a nested result, in order."""
    if is_tensor(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
    if hasattr(kind, "_fields"):
        return tuple(kind._fields)
    if kind.__module__ == "torch.return_types":
        return tuple(kind.__match_args__)  # type: ignore[attr-defined]
    return ()


def leaves_of(value: Any, path: str = "") -> dict[str, Leaf]:
    """Path -> leaf; paths use the names of fields where the result has names."""
    if is_tensor(value):
        array = array_of(value)
        name = str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) \
            else value.dtype.name
        return {path: Leaf("tensor", name, array)}
    if isinstance(value, numpy.ndarray):
        return {path: Leaf("tensor", value.dtype.name, value)}
    if isinstance(value, (list, tuple)):
        names = _field_names(type(value)) or range(len(value))
        found: dict[str, Leaf] = {}
        for name, each in zip(names, value, strict=True):
            found |= leaves_of(each, f"{path}.{name}")
        return found or {path: Leaf("other", "", ())}
    if isinstance(value, dict):
        found = {}
        for name, each in value.items():
            found |= leaves_of(each, f"{path}[{name!r}]")
        return found
    if isinstance(value, (bool, int, float, complex)):
        return {path: Leaf("number", type(value).__name__, value)}
    if isinstance(value, torch.dtype):
        return {path: Leaf("other", "", str(value).removeprefix("torch."))}
    if isinstance(value, type(lazygrad.float32)):
        return {path: Leaf("other", "", value.name)}
    if isinstance(value, (str, type(None))):
        return {path: Leaf("other", "", value)}
    return {path: Leaf("other", "", str(value))}


def tolerance_for(
    tested: str, result: str, own: dict[str, tuple[float, float]] | None = None
) -> tuple[float, float]:
    """(relative, absolute) for a result of a dtype, in a check of the dtype `tested`."""
    if own and tested in own:
        return own[tested]
    pairs = [TOLERANCE[name] for name in (tested, result) if name in TOLERANCE]
    return max(pairs, default=(0.0, 0.0))


def _close(have: Any, want: Any, relative: float, absolute: float) -> bool:
    have, want = numpy.asarray(have), numpy.asarray(want)
    if have.dtype.kind in "biu" and want.dtype.kind in "biu":
        return bool(numpy.array_equal(have, want))
    if have.dtype.kind == "c" or want.dtype.kind == "c":
        have, want = have.astype(numpy.complex128), want.astype(numpy.complex128)
        plain = numpy.isfinite(have) & numpy.isfinite(want)
        near = numpy.abs(numpy.where(plain, have - want, 0)) <= (
            absolute + relative * numpy.abs(numpy.where(plain, want, 0))
        )
        odd = plain | (_same_part(have.real, want.real) & _same_part(have.imag, want.imag))
        return bool((near & odd).all())
    with numpy.errstate(all="ignore"):
        return bool(
            numpy.isclose(
                have.astype(numpy.float64), want.astype(numpy.float64), relative, absolute, True
            ).all()
        )


def _same_part(have: numpy.ndarray, want: numpy.ndarray) -> numpy.ndarray:
    """Of complex numbers that are not finite: each part NaN, the same infinity, or close."""
    return numpy.isclose(have, want, 1e-4, 1e-6, equal_nan=True)


def differences(
    have: dict[str, Leaf],
    want: dict[str, Leaf],
    tested: str = "float32",
    own: dict[str, tuple[float, float]] | None = None,
    check_dtype: bool = True,
) -> list[str]:
    """What differs between a result of ours and the one wanted, in words."""
    if have.keys() != want.keys():
        return [f"the structure is {list(have)}, not {list(want)}"]
    found = []
    for path, wanted in want.items():
        ours = have[path]
        problem = ""
        if ours.kind != wanted.kind:
            problem = f"a {ours.kind}, not a {wanted.kind}"
        elif wanted.kind == "other":
            problem = "" if ours.array == wanted.array else "different"
        elif check_dtype and ours.dtype != wanted.dtype:
            problem = f"dtype {ours.dtype}, not {wanted.dtype}"
        elif numpy.shape(ours.array) != numpy.shape(wanted.array):
            problem = f"shape {numpy.shape(ours.array)}, not {numpy.shape(wanted.array)}"
        else:
            name = wanted.dtype if wanted.kind == "tensor" else "float64"
            limits = tolerance_for(tested, name, own)
            if not _close(ours.array, wanted.array, *limits):
                problem = f"values differ by more than {limits}"
        if problem:
            found.append(f"result{path}: {problem}\n  lazygrad: {ours}\n  wanted:   {wanted}")
    return found
