"""Tensors as text: PyTorch's layout, through NumPy's array printing."""

from __future__ import annotations

import math
from typing import Any

import numpy
from lazygrad_compiler.ir import dtypes

from lazygrad._core.tensor import Tensor, array_of
from lazygrad._core.types import default


class _Options:
    precision, threshold, edgeitems, linewidth = 4, 1000, 3, 80
    sci_mode: bool | None = None


options = _Options()


def set_printoptions(precision: int | None = None, threshold: int | None = None,
                     edgeitems: int | None = None, linewidth: int | None = None,
                     profile: str | None = None, sci_mode: bool | None = None) -> None:
    """How tensors print: digits, size from which they are shortened, items kept, width."""
    for name, value in (("precision", precision), ("threshold", threshold),
                        ("edgeitems", edgeitems), ("linewidth", linewidth)):
        if value is not None:
            setattr(options, name, value)
    options.sci_mode = sci_mode


def _float_formatter(array: numpy.ndarray) -> Any:
    """One format for all elements, chosen as PyTorch does."""
    finite = numpy.abs(array[numpy.isfinite(array) & (array != 0)]).astype(numpy.float64)
    digits = options.precision
    if finite.size == 0:
        whole, scientific = not numpy.isnan(array).any() or True, False
    else:
        high, low = finite.max(), finite.min()
        whole = bool((finite == numpy.ceil(finite)).all())
        scientific = high / low > 1000.0 or high > 1e8 or low < 1e-4
        if whole:
            scientific = high / low > 1000.0 and high > 1e8 or high > 1e8
    if options.sci_mode is not None:
        scientific = options.sci_mode
    if scientific:
        pattern = f"{{:.{digits}e}}"
    elif whole:
        pattern = "{:.0f}."
    else:
        pattern = f"{{:.{digits}f}}"

    def one(value: Any) -> str:
        value = float(value)
        if math.isnan(value):
            return "nan"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return pattern.format(value)
    return one


def _shortened(array: numpy.ndarray) -> numpy.ndarray:
    """The elements that will show, for choosing the format."""
    if array.size <= options.threshold:
        return array
    edge = options.edgeitems
    for axis, size in enumerate(array.shape):
        if size > 2 * edge:
            array = numpy.take(array, [*range(edge), *range(size - edge, size)], axis=axis)
    return array


def _contents(array: numpy.ndarray, indent: int) -> str:
    kind = array.dtype.kind
    if array.dtype == dtypes.bfloat16.numpy:
        array, kind = array.astype(numpy.float32), "f"
    if kind == "f":
        one: Any = _float_formatter(_shortened(array))
    elif kind == "b":
        one = lambda value: "True" if value else "False"  # noqa: E731
    elif kind == "c":
        real, imaginary = _float_formatter(array.real), _float_formatter(array.imag)
        one = lambda value: f"{real(value.real)}{'' if imaginary(value.imag)[0] == '-' else '+'}" \
                            f"{imaginary(value.imag)}j"  # noqa: E731
    else:
        one = str
    width = max((len(one(value)) for value in _shortened(array).flat), default=0)
    return _nested(array, indent, lambda value: one(value).rjust(width if array.ndim else 0),
                   array.size > options.threshold)


def _nested(array: numpy.ndarray, indent: int, one: Any, shorten: bool) -> str:
    if array.ndim == 0:
        return one(array[()])
    edge = options.edgeitems
    cut = shorten and len(array) > 2 * edge
    rows = [*array[:edge], None, *array[-edge:]] if cut else list(array)
    if array.ndim == 1:
        texts = ["..." if row is None else one(row) for row in rows]
        if not texts:
            return "[]"
        per_line = max(1, (options.linewidth - indent) // (max(map(len, texts)) + 2))
        lines = [", ".join(texts[start:start + per_line]) for start in range(0, len(texts), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    texts = ["..." if row is None else _nested(row, indent + 1, one, shorten) for row in rows]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(texts) + "]"


def show(tensor: Tensor) -> str:
    """tensor(...), with what is not the default: dtype, size of empty ones, requires_grad, grad_fn."""
    dtype = tensor.dtype
    suffixes = []
    if tensor.numel() == 0:
        contents = "[]"
        if tensor.ndim != 1:
            suffixes.append(f"size=({', '.join(map(str, tensor.shape))}{',' * (tensor.ndim == 1)})")
    else:
        contents = _contents(array_of(tensor), len("tensor("))
    plain = dtype in (default.dtype, dtypes.bool_) or (dtype is dtypes.int64 and tensor.numel())
    if not plain:
        suffixes.append(f"dtype=lazygrad.{dtype.name}")
    if (function := tensor.grad_fn) is not None:
        suffixes.append(f"grad_fn={function!r}")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    text = ", ".join([f"tensor({contents}", *suffixes]) + ")"
    if type(tensor) is not Tensor and type(tensor).__name__ == "Parameter":
        return f"Parameter containing:\n{text}"
    return text
