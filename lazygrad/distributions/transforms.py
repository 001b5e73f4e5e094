"""Invertible functions, with the logarithm of their derivative, for `TransformedDistribution`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lazygrad as lg
from lazygrad._core.entries import Entry
from lazygrad.nn import functional as F


class Transform(Entry):
    """Called as a function; `inv` is the way back, a transform as well.

    Subclasses give `_call`, `_inverse` and `log_abs_det_jacobian`.
    """

    bijective = True

    def __init__(self, cache_size: int = 0) -> None:
        self.cache_size = cache_size

    def __call__(self, x: lg.Tensor) -> lg.Tensor:
        return self._call(x)

    @property
    def inv(self) -> Transform:
        return _Inverse(self)

    def _call(self, x: lg.Tensor) -> lg.Tensor:
        raise NotImplementedError

    def _inverse(self, y: lg.Tensor) -> lg.Tensor:
        raise NotImplementedError

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        """log |dy/dx| of each element."""
        raise NotImplementedError


class _Inverse(Transform):
    """A transform read from y to x."""

    def __init__(self, forward: Transform) -> None:
        super().__init__(forward.cache_size)
        self._forward = forward

    @property
    def inv(self) -> Transform:
        return self._forward

    def _call(self, x: lg.Tensor) -> lg.Tensor:
        return self._forward._inverse(x)

    def _inverse(self, y: lg.Tensor) -> lg.Tensor:
        return self._forward(y)

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        return -self._forward.log_abs_det_jacobian(y, x)


class ComposeTransform(Transform):
    """Several transforms, the first one first."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = list(parts)

    def _call(self, x: lg.Tensor) -> lg.Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: lg.Tensor) -> lg.Tensor:
        for part in reversed(self.parts):
            y = part._inverse(y)
        return y

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        total = lg.zeros_like(x)
        for part in self.parts:
            after = part(x)
            total = total + part.log_abs_det_jacobian(x, after)
            x = after
        return total


class ExpTransform(Transform):
    """y = exp(x)."""

    def _call(self, x: lg.Tensor) -> lg.Tensor:
        return x.exp()

    def _inverse(self, y: lg.Tensor) -> lg.Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        return x


class TanhTransform(Transform):
    """y = tanh(x)."""

    def _call(self, x: lg.Tensor) -> lg.Tensor:
        return x.tanh()

    def _inverse(self, y: lg.Tensor) -> lg.Tensor:
        return y.atanh()

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        """log(1 - tanh(x)^2), written so that large x lose no digits."""
        return 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))


class SigmoidTransform(Transform):
    """y = 1 / (1 + exp(-x))."""

    def _call(self, x: lg.Tensor) -> lg.Tensor:
        return x.sigmoid()

    def _inverse(self, y: lg.Tensor) -> lg.Tensor:
        return y.logit()

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        return -F.softplus(-x) - F.softplus(x)


class AffineTransform(Transform):
    """y = loc + scale * x."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale = loc, scale

    def _call(self, x: lg.Tensor) -> lg.Tensor:
        return self.loc + self.scale * x  # type: ignore[no-any-return]

    def _inverse(self, y: lg.Tensor) -> lg.Tensor:
        return (y - self.loc) / self.scale  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        scale = lg.as_tensor(self.scale, dtype=x.dtype)
        return scale.abs().log().expand(x.shape)


class PowerTransform(Transform):
    """y = x ** exponent, of positive x."""

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent: float | lg.Tensor = exponent

    def _call(self, x: lg.Tensor) -> lg.Tensor:
        return x ** self.exponent

    def _inverse(self, y: lg.Tensor) -> lg.Tensor:
        return y ** (1 / self.exponent)

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        return (self.exponent * y / x).abs().log()


class SoftplusTransform(Transform):
    """y = log(1 + exp(x))."""

    def _call(self, x: lg.Tensor) -> lg.Tensor:
        return F.softplus(x)

    def _inverse(self, y: lg.Tensor) -> lg.Tensor:
        return (-y).expm1().neg().log() + y

    def log_abs_det_jacobian(self, x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        return -F.softplus(-x)
