"""The matrix of operations and defects: legal samples made illegal, one argument at a time.

`cells` derives the calls from a record's samples; `judge` makes one of them in both libraries and
says what is wrong with ours.  A defect has to end in an exception of a class that Python users
expect, or, where PyTorch accepts the call, in PyTorch's result.  `python -m
tests.lazygrad.operations.defects` is the worker that `test_defects.py` starts: a crash or a hang
takes the worker with it, and the parent knows from its output which cell it was.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import random
import re
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy

import lazygrad

from .checks import SENSIBLE, caller, samples_of, show_sample
from .libraries import LAZY, TORCH, Library, Raw, differences, is_tensor, leaves_of, tensors_in
from .record import FULL_FLOATS, OperationRecord, Sample

MOST_ELEMENTS = 1 << 22
"""Results above this size are recorded, and compared by shape, but not computed."""

SLOW = 20.0
"""Seconds of processor time that no cell takes: more is a problem."""

HANGS_IN_TORCH = re.compile(
    r"max_pool1d.* huge \d+ at 1$|(mvlgamma|multigammaln|_polynomial_\w+).* huge \d")
"""Cells that PyTorch computes for years.  It is not asked; ours has to refuse."""

TOO_MANY = 1 << 36
"""No machine has memory for so many elements: computing them has to be a MemoryError."""

STRICT = ("rank", "sizes", "dim", "index", "nonsense", "arguments", "huge", "reduce")
"""Defects where a call that PyTorch refuses must not succeed here.  With others (numbers where
tensors go, dtypes without a kernel in PyTorch) ours may be able to do more."""


@dataclass(frozen=True)
class Cell:
    """One call that should fail: of a record, with a defect at a place of a sample."""

    record: OperationRecord
    defect: str
    sample: Sample

    @property
    def identity(self) -> str:
        return f"{self.record.identity} {self.defect}"


# ---- generating


Place = tuple[Any, ...]


def _places(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value inside nested arguments, and the way to it; containers come before contents."""
    if path:
        yield path, value
    if isinstance(value, (list, tuple)) and len(value) <= 8:
        for number, each in enumerate(value):
            yield from _places(each, (*path, number))
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _places(each, (*path, key))


def _replaced(value: Any, path: Place, new: Any) -> Any:
    if not path:
        return new
    first, *rest = path
    if isinstance(value, dict):
        return {**value, first: _replaced(value[first], tuple(rest), new)}
    items = list(value)
    items[first] = _replaced(items[first], tuple(rest), new)
    return type(value)(items) if not hasattr(value, "_fields") else type(value)(*items)


def _longer(array: numpy.ndarray, axis: int) -> numpy.ndarray:
    """With one more slice along the axis: the first, its elements moved on by one, so that matrices
    keep their rank.
    """
    if not array.shape[axis]:
        return array
    first = numpy.take(array, [0], axis)
    return numpy.concatenate([array, numpy.roll(first.reshape(-1), 1).reshape(first.shape)], axis)


def _array_defects(array: numpy.ndarray) -> Iterator[tuple[str, Any]]:
    yield "rank up", array[None]
    yield "nonsense string", "nonsense"
    yield "nonsense object", Raw(numpy.array([object()]))
    yield "none", None
    yield "number", 1.5
    yield "array", Raw(array)
    for name in ("bool", "int64", "float32", "complex64", "uint8"):
        if array.dtype.name != name:
            with numpy.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield f"dtype {name}", array.astype(name)
    if array.ndim:
        yield "rank 0", numpy.asarray(array.flat[0] if array.size else 0, array.dtype)
        if array.ndim > 1 and array.shape[0]:
            yield "rank down", array[0]
        yield "sizes empty", array[:0]
        for axis in {0, array.ndim - 1}:
            if array.shape[axis] > 1:
                yield f"sizes less {axis}", numpy.take(array, range(array.shape[axis] - 1), axis)
            yield f"sizes more {axis}", _longer(array, axis)
        if array.ndim > 1:
            yield "sizes empty last", array[..., :0]
    if array.dtype.kind in "iu" and array.size:
        for bad in (99, -99, numpy.iinfo(array.dtype).max):
            spoilt = array.copy()
            spoilt.flat[0] = min(max(bad, numpy.iinfo(array.dtype).min),
                                 numpy.iinfo(array.dtype).max)
            yield f"index {bad}", spoilt
        yield "index nan", numpy.full(array.shape, numpy.nan, numpy.float32)


def _number_defects(number: int) -> Iterator[tuple[str, Any]]:
    for bad in (99, -99, -1, 0):
        if bad != number:
            yield f"dim {bad}", bad
    for bad in (1 << 40, 1 << 62, 1 << 64, -(1 << 62)):
        yield f"huge {bad}", bad
    yield "nonsense nan", math.nan
    yield "nonsense 1.5", 1.5
    yield "nonsense string", "nonsense"
    yield "none", None


def _sequence_defects(values: list | tuple) -> Iterator[tuple[str, Any]]:
    kind = type(values)
    yield "arguments empty", kind()
    yield "nonsense string", "nonsense"
    if values and all(isinstance(each, int) for each in values):
        yield "dim twice", kind([values[0]] * len(values))
        yield "dim more", kind([*values, values[-1]])
        yield "huge product", kind([1 << 33] * len(values))
    if len(values) > 1:
        yield "arguments less", kind(values[:-1])
    if len(values) and isinstance(values[0], numpy.ndarray):
        yield "nonsense inside", kind([*values[:-1], "nonsense"])


def _defects_of(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, numpy.ndarray):
        yield from _array_defects(value)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int):
        yield from _number_defects(value)
    elif isinstance(value, float):
        yield "nonsense string", "nonsense"
        yield "none", None
    elif isinstance(value, str):
        yield "nonsense string", "nonsense"
        yield "nonsense number", 7
    elif isinstance(value, (list, tuple)):
        yield from _sequence_defects(value)


def _of_sample(sample: Sample) -> Iterator[tuple[str, Sample]]:
    for path, value in _places(sample.arguments):
        for name, bad in _defects_of(value):
            arguments = _replaced(sample.arguments, path, bad)
            yield f"{name} at {'.'.join(map(str, path))}", replace(sample, arguments=arguments)
    for path, value in _places(sample.keywords):
        for name, bad in _defects_of(value):
            keywords = _replaced(sample.keywords, path, bad)
            yield f"{name} at {'.'.join(map(str, path))}", replace(sample, keywords=keywords)
    yield "arguments none", Sample((), {})
    if sample.arguments:
        yield "arguments missing", replace(sample, arguments=sample.arguments[:-1])
    yield "arguments too many", replace(sample, arguments=(*sample.arguments, *["surplus"] * 9))
    yield "arguments unknown", replace(sample, keywords={**sample.keywords, "no_such_keyword": 1})
    arrays = [path for path, value in _places(sample.arguments)
              if isinstance(value, numpy.ndarray) and value.ndim]
    if len(arrays) > 1:
        for name, change in (("sizes all empty", lambda array: array[:0]),
                             ("reduce all empty", lambda array: array[..., :0])):
            arguments: Any = sample.arguments
            for path in arrays:
                value = dict(_places(sample.arguments))[path]
                arguments = _replaced(arguments, path, change(value))
            yield name, replace(sample, arguments=arguments)


def cells(record: OperationRecord, most_samples: int = 2) -> list[Cell]:
    """All defects of the record's first samples, in a fixed order."""
    dtype = next((name for name in FULL_FLOATS if name in record.dtypes), record.dtypes[0])
    found: dict[str, Cell] = {}
    for number, each in enumerate(samples_of(record, dtype)[:most_samples]):
        for name, bad in _of_sample(each):
            found[f"sample {number}: {name}"] = Cell(record, f"sample {number}: {name}", bad)
    return list(found.values())


def chosen(record: OperationRecord, share: int | None) -> list[Cell]:
    """All cells, or so many of them, drawn by a seed that is the record's own."""
    everything = cells(record)
    if share is None or share >= len(everything):
        return everything
    draw = random.Random(zlib.crc32(record.identity.encode()))
    return draw.sample(everything, share)


# ---- judging


def _call(cell: Cell, library: Library) -> Any:
    return caller(cell.record, library)(
        *library.convert(cell.sample.arguments), **library.convert_keywords(cell.sample.keywords)
    )


def _shapes(result: Any) -> Any:
    if is_tensor(result):
        return tuple(result.shape)
    if isinstance(result, (list, tuple)):
        return [_shapes(each) for each in result]
    return type(result).__name__


_OURS = tuple(
    os.path.dirname(os.path.abspath(str(importlib.import_module(name).__file__))) + os.sep
    for name in ("lazygrad", "lazygrad_compiler", "lazygrad_runtime")
)


def _raised_by_the_record(error: BaseException) -> bool:
    """Whether a record's own `call` tripped over the defect, before or after the library."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame.filename.startswith(_OURS) for frame in frames]
    return not any(inside) and "operations" in frames[-1].filename


def _error_problem(error: BaseException) -> str:
    """What is wrong with an exception of ours; empty for a good one."""
    if _raised_by_the_record(error):
        return ""
    kind = type(error)
    if not isinstance(error, SENSIBLE) or isinstance(error, RecursionError):
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"raises {kind.__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})"
    if kind.__name__ == "IRError" and ".py:" not in str(error):
        return f"raises IRError without a line: {error}"
    if not str(error):
        return f"raises {kind.__name__} without a message"
    if not _NAMED.match(str(error)) and not _SIGNATURE.search(str(error)):
        return f"raises {kind.__name__} that names no operation or no line: {error}"
    return ""


_NAMED = re.compile(r"\[[\w.]+[^\]]*\] .*\S+:\d+\b", re.DOTALL)
"""An error of ours: `[operation] what is wrong (file.py:line)`."""

_SIGNATURE = re.compile(r"argument|unexpected keyword")
"""An error of Python's, of a call that does not fit the signature."""


def _with_torch(cell: Cell) -> tuple[Any, str]:
    try:
        return _call(cell, TORCH), ""
    except Exception as error:
        text = f"{type(error).__name__}: {str(error)[:200]}"
        error.__traceback__ = error.__context__ = None
        return None, text


_LIMITS_OF_TORCH = re.compile(
    r"overflow|too large|allocate|out of memory|not implemented for|INTERNAL ASSERT",
    re.IGNORECASE)
"""Refusals that say what PyTorch cannot do rather than what makes no sense."""


def _may_succeed(cell: Cell, have: Any, refusal: str) -> bool:
    """Whether ours may give a result where PyTorch gives none."""
    kind = cell.defect.partition(": ")[2]
    if refusal.startswith("AttributeError"):  # PyTorch has no such function
        return True
    if kind.startswith("dtype complex"):  # imaginary parts must not get lost
        return any(each.dtype.is_complex for each in tensors_in(have)) or \
            not any(each.dtype.is_floating for each in tensors_in(have))
    if not kind.startswith(STRICT):
        return True
    if _LIMITS_OF_TORCH.search(refusal):
        return True
    # Nothing computed from nothing is well defined.
    return "empty" in kind and all(math.prod(each.shape) == 0 for each in tensors_in(have))


def _tolerance(wanted: dict[str, Any]) -> tuple[float, float]:
    """Garbage is far off: relative to the largest number that is wanted."""
    sizes = [numpy.abs(numpy.asarray(leaf.array, numpy.complex128)) for leaf in wanted.values()
             if leaf.kind == "tensor" and leaf.array.size]
    largest = max((float(numpy.max(size, where=numpy.isfinite(size), initial=0.0))
                   for size in sizes), default=0.0)
    return 1e-3, 1e-3 * max(largest, 1.0)


def judge(cell: Cell, with_torch: bool = True) -> str:
    """What is wrong in a cell, in words; empty where all is right."""
    if HANGS_IN_TORCH.search(cell.identity):
        want, refusal = None, "no result in a lifetime"
    else:
        want, refusal = _with_torch(cell) if with_torch else (None, "")
    try:
        have = _call(cell, LAZY)
        shapes = _shapes(have)
        sizes = [math.prod(each.shape) for each in tensors_in(have)]
        leaves = None if any(MOST_ELEMENTS < size < TOO_MANY for size in sizes) \
            else leaves_of(have)
    except Exception as error:
        problem = _error_problem(error)
        error.__traceback__ = error.__context__ = None
        return problem
    if any(re.search(pattern, cell.defect) for pattern in cell.record.accepts):
        return ""
    if refusal:
        return "" if _may_succeed(cell, have, refusal) else \
            f"gives {shapes}, where PyTorch raises {refusal}"
    if not with_torch or cell.record.reference is not None:
        return ""
    if _shapes(want) != shapes:
        return f"gives {shapes}, PyTorch {_shapes(want)}"
    if leaves is None:
        return ""
    if "nan" in cell.defect:  # how far a NaN spreads is not promised
        return ""
    wanted = leaves_of(want)
    return "; ".join(differences(leaves, wanted, "float32", {"float32": _tolerance(wanted)}))[:600]


# ---- the worker


def load(family: str) -> list[OperationRecord]:
    return list(importlib.import_module(f"tests.lazygrad.operations.{family}").RECORDS)


def _limit_memory(gibibytes: int = 12) -> None:
    """A defect that asks for terabytes gets a MemoryError and not the machine's memory."""
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (gibibytes << 30, gibibytes << 30))


def work(family: str, share: int | None, start: int, skip_torch: int, pattern: str = "") -> None:
    """Judges the cells from number `start` on; a line of JSON before and after each."""
    _limit_memory()
    warnings.simplefilter("ignore")
    import torch
    torch.set_num_threads(1)
    matrix = itertools.chain.from_iterable(
        chosen(record, share) for record in load(family) if pattern in record.identity
    )
    for number, cell in enumerate(matrix):
        if number < start:
            continue
        print(json.dumps({"begin": number, "cell": f"{cell.identity} {show_sample(cell.sample)}"}),
              flush=True)
        began = time.process_time()  # other programs on the machine do not count
        try:
            problem = judge(cell, with_torch=number != skip_torch)
        except BaseException as error:  # a SystemExit is a finding, too
            problem = f"raises {type(error).__name__}: {error}"
        try:
            lazygrad.synchronize()  # what a cell left pending must not fail in the next one
        except Exception as error:
            error.__traceback__ = None
        seconds = time.process_time() - began
        if seconds > SLOW and not problem:
            problem = f"takes {seconds:.0f} s"
        print(json.dumps({"end": number, "problem": problem}), flush=True)
    print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    family, share, start, skip_torch, *pattern = sys.argv[1:]
    work(family, int(share) or None, int(start), int(skip_torch), *pattern)
