"""Dropout: in training, elements or whole channels zeroed at random and the rest scaled up."""

from __future__ import annotations

import lazygrad as lg
from lazygrad.nn import functional as F
from lazygrad.nn.module import Module


class _Dropout(Module):
    function = "dropout"

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return getattr(F, self.function)(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Each element is zero with probability p, else divided by 1 - p."""


class Dropout1d(_Dropout):
    """Whole channels of (N, C, L) dropped."""

    function = "dropout1d"


class Dropout2d(_Dropout):
    """Whole channels of (N, C, H, W) dropped."""

    function = "dropout2d"


class Dropout3d(_Dropout):
    """Whole channels of (N, C, D, H, W) dropped."""

    function = "dropout3d"


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance under SELU."""

    function = "alpha_dropout"


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels."""

    function = "feature_alpha_dropout"
