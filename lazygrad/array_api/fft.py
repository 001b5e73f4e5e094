"""The standard's `fft` extension: `lazygrad.fft` with the standard's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lazygrad
from lazygrad._core.tensor import Tensor

_ONE_AXIS = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
_SOME_AXES = ["fftn", "ifftn", "rfftn", "irfftn"]
_SHIFTS = ["fftshift", "ifftshift"]
_FREQUENCIES = ["fftfreq", "rfftfreq"]

__all__ = [*_ONE_AXIS, *_SOME_AXES, *_SHIFTS, *_FREQUENCIES]


def _named(function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`lazygrad.fft.{name}`."
    return function


def _one_axis(name: str) -> Callable[..., Tensor]:
    def transform(x: Tensor, /, *, n: int | None = None, axis: int = -1,
                  norm: str = "backward") -> Tensor:
        return getattr(lazygrad.fft, name)(x, n, axis, norm)

    return _named(transform, name)


def _some_axes(name: str) -> Callable[..., Tensor]:
    def transform(x: Tensor, /, *, s: Any = None, axes: Any = None,
                  norm: str = "backward") -> Tensor:
        return getattr(lazygrad.fft, name)(x, s, axes, norm)

    return _named(transform, name)


def _shift(name: str) -> Callable[..., Tensor]:
    def shift(x: Tensor, /, *, axes: Any = None) -> Tensor:
        return getattr(lazygrad.fft, name)(x, axes)

    return _named(shift, name)


def _frequencies(name: str) -> Callable[..., Tensor]:
    def frequencies(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
        return getattr(lazygrad.fft, name)(n, d, dtype=dtype, device=device)

    return _named(frequencies, name)


for _name in _ONE_AXIS:
    globals()[_name] = _one_axis(_name)
for _name in _SOME_AXES:
    globals()[_name] = _some_axes(_name)
for _name in _SHIFTS:
    globals()[_name] = _shift(_name)
for _name in _FREQUENCIES:
    globals()[_name] = _frequencies(_name)
