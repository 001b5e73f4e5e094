"""Invertible functions, with the logarithm of their derivative, for `TransformedDistribution`."""

from __future__ import annotations

import math
from typing import Any

import lazygrad as lg
from lazygrad._core.entries import Entry
from lazygrad.nn import functional as F


class Transform(Entry):
    """Called as a function; `inv` is the way back."""

    def __init__(self, cache_size: int = 0) -> None:
        self.cache_size = cache_size

    def __call__(self, x: lg.Tensor) -> lg.Tensor:
        raise NotImplementedError

    def inv(self, y: lg.Tensor) -> lg.Tensor:
        raise NotImplementedError

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        """log |dy/dx| of each element."""
        raise NotImplementedError


class ExpTransform(Transform):
    """y = exp(x)."""

    def __call__(self, x: lg.Tensor) -> lg.Tensor:
        return x.exp()

    def inv(self, y: lg.Tensor) -> lg.Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        return x


class TanhTransform(Transform):
    """y = tanh(x)."""

    def __call__(self, x: lg.Tensor) -> lg.Tensor:
        return x.tanh()

    def inv(self, y: lg.Tensor) -> lg.Tensor:
        return y.atanh()

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        """log(1 - tanh(x)^2), written so that large x lose no digits."""
        return 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))


class SigmoidTransform(Transform):
    """y = 1 / (1 + exp(-x))."""

    def __call__(self, x: lg.Tensor) -> lg.Tensor:
        return x.sigmoid()

    def inv(self, y: lg.Tensor) -> lg.Tensor:
        return y.logit()

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        return -F.softplus(-x) - F.softplus(x)


class AffineTransform(Transform):
    """y = loc + scale * x."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale = loc, scale

    def __call__(self, x: lg.Tensor) -> lg.Tensor:
        return self.loc + self.scale * x  # type: ignore[no-any-return]

    def inv(self, y: lg.Tensor) -> lg.Tensor:
        return (y - self.loc) / self.scale  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        scale = lg.as_tensor(self.scale, dtype=x.dtype)
        return scale.abs().log().expand(x.shape)
