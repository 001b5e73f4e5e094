"""Tensors as text: PyTorch's layout, through NumPy's array printing."""

from __future__ import annotations

import math
from typing import Any

import numpy

from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor, array_of
from lazygrad._core.types import complex_default, default
from lazygrad_compiler.ir import dtypes


class _Options:
    precision, edgeitems, linewidth = 4, 3, 80
    threshold: float = 1000
    sci_mode: bool | None = None


options = _Options()


_PROFILES: dict[str, tuple[int, float, int, int]] = {
    "default": (4, 1000, 3, 80), "short": (2, 1000, 2, 80), "full": (4, math.inf, 3, 80),
}


def set_printoptions(precision: int | None = None, threshold: float | None = None,
                     edgeitems: int | None = None, linewidth: int | None = None,
                     profile: str | None = None, sci_mode: bool | None = None) -> None:
    """How tensors print: digits, size from which they are shortened, items kept, width.

    profile: "default", "short" (2 digits) or "full" (never shortened), before the others.
    """
    if profile is not None:
        if profile not in _PROFILES:
            raise fail("set_printoptions", f"profile is {profile!r}",
                       f"It is one of {', '.join(_PROFILES)}.")
        for name, preset in zip(("precision", "threshold", "edgeitems", "linewidth"),
                               _PROFILES[profile], strict=True):
            setattr(options, name, preset)
    for name, value in (("precision", precision), ("threshold", threshold),
                        ("edgeitems", edgeitems), ("linewidth", linewidth)):
        if value is not None:
            setattr(options, name, value)
    options.sci_mode = sci_mode


def _float_formatter(array: numpy.ndarray) -> tuple[Any, int]:
    """One format for all elements, and its width, chosen as PyTorch does: from the finite ones."""
    finite = array[numpy.isfinite(array) & (array != 0)].astype(numpy.float64)
    scientific, whole = False, True
    if finite.size:
        sizes = numpy.abs(finite)
        high, low = sizes.max(), sizes.min()
        whole = bool((finite == numpy.ceil(finite)).all())
        scientific = bool(high / low > 1000.0 or high > 1e8 or (low < 1e-4 and not whole))
    if options.sci_mode is not None:
        scientific = options.sci_mode
    if scientific:
        pattern = f"{{:.{options.precision}e}}"
    elif whole:
        pattern = "{:.0f}."
    else:
        pattern = f"{{:.{options.precision}f}}"

    def one(value: Any) -> str:
        value = float(value)
        if math.isnan(value):
            return "nan"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return pattern.format(value)
    return one, max((len(one(value)) for value in finite), default=1)


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
    shown = _shortened(array)
    one: Any = str
    if kind == "f":
        one, width = _float_formatter(shown)
    elif kind == "c":
        (real, wide), (imaginary, narrow) = (
            _float_formatter(shown.real),
            _float_formatter(shown.imag),
        )
        width = wide + narrow + 1

        def one(value: Any) -> str:
            text = imaginary(value.imag)
            ahead = real(value.real).rjust(wide if array.ndim else 0)
            return f"{ahead}{'' if text[0] == '-' else '+'}{text}j"
    else:
        if kind == "b":
            def one(value: Any) -> str:
                return "True" if value else "False"
        width = max((len(one(value)) for value in shown.flat), default=0)
    filled = width if array.ndim and kind != "c" else 0
    return _nested(array, indent, lambda value: one(value).rjust(filled), width,
                   array.size > options.threshold)


def _nested(array: numpy.ndarray, indent: int, one: Any, width: int, shorten: bool) -> str:
    if array.ndim == 0:
        return one(array[()])
    edge = options.edgeitems
    cut = shorten and len(array) > 2 * edge
    rows = [*array[:edge], None, *array[-edge:]] if cut else list(array)
    if array.ndim == 1:
        texts = [" ..." if row is None else one(row) for row in rows]
        if not texts:
            return "[]"
        count = max(1, (options.linewidth - indent) // (width + 2))
        lines = [", ".join(texts[start:start + count]) for start in range(0, len(texts), count)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    texts = ["..." if row is None else _nested(row, indent + 1, one, width, shorten)
             for row in rows]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(texts) + "]"


def _with_suffixes(text: str, suffixes: list[str]) -> str:
    """Each suffix on the last line where it fits, else on a new one under the contents."""
    indent = len("tensor(")
    for suffix in suffixes:
        used = len(text) - text.rfind("\n") + 1
        fits = used + len(suffix) + 2 <= options.linewidth
        text += f", {suffix}" if fits else ",\n" + " " * indent + suffix
    return text


def show(tensor: Tensor) -> str:
    """tensor(...), with what is not the default: dtype, size if empty, requires_grad, grad_fn."""
    dtype = tensor.dtype
    suffixes = []
    if tensor.numel() == 0:
        contents = "[]"
        if tensor.ndim != 1:
            suffixes.append(f"size=({', '.join(map(str, tensor.shape))}{',' * (tensor.ndim == 1)})")
    else:
        contents = _contents(array_of(tensor), len("tensor("))
    plain = dtype is default.dtype or (
        dtype in (complex_default(), dtypes.int64, dtypes.bool_) and tensor.numel())
    if not plain:
        suffixes.append(f"dtype=lazygrad.{dtype.name}")
    if tensor.is_cuda:
        suffixes.insert(0, f"device='{tensor.device}'")
    if (function := tensor.grad_fn) is not None:
        suffixes.append(f"grad_fn={function!r}")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    text = _with_suffixes(f"tensor({contents}", suffixes) + ")"
    if type(tensor) is not Tensor and type(tensor).__name__ == "Parameter":
        return f"Parameter containing:\n{text}"
    return text
