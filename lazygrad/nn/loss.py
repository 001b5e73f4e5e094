"""Losses as modules.  `reduction` is "mean", "sum" or "none"."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.nn import functional as F
from lazygrad.nn.module import Module

REDUCTIONS = ("none", "mean", "sum")


class _Loss(Module):
    reduction: str

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean") -> None:
        super().__init__()
        if size_average is not None or reduce is not None:
            reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
        if reduction not in REDUCTIONS:
            raise ValueError(f"{reduction} is not a valid value for reduction; it is one of "
                             f"{', '.join(REDUCTIONS)}")
        self.reduction = reduction

    def _check_shapes(self, input: lg.Tensor, target: lg.Tensor) -> None:
        """A loss between shapes that would broadcast is nearly always a mistake: (N, 1) against
        (N,).
        """
        if tuple(input.shape) != tuple(target.shape):
            hint = "Both must have the same shape."
            if input.numel() == target.numel():
                hint = ("They have as many elements: reshape one, as in "
                        f"target.reshape{tuple(input.shape)}.")
            raise fail(self._get_name(), f"input {tuple(input.shape)} and target "
                                         f"{tuple(target.shape)} differ", hint)


class MSELoss(_Loss):
    """(input - target) squared."""

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        self._check_shapes(input, target)
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|input - target|."""

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        self._check_shapes(input, target)
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Squared (over 2 beta) below beta, else |difference| - beta / 2."""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        self._check_shapes(input, target)
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Half the square below delta, else delta * (|difference| - delta / 2)."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        self._check_shapes(input, target)
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class _WeightedLoss(_Loss):
    """A loss with a buffer of weights."""

    def __init__(self, weight: lg.Tensor | None = None, size_average: bool | None = None,
                 reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


class NLLLoss(_WeightedLoss):
    """Minus the log-probability of the target class."""

    def __init__(self, weight: lg.Tensor | None = None, size_average: bool | None = None,
                 ignore_index: int = -100, reduce: bool | None = None,
                 reduction: str = "mean") -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        return F.nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index,
                          reduction=self.reduction)


class CrossEntropyLoss(_WeightedLoss):
    """log_softmax and nll_loss in one; targets are class numbers or class probabilities."""

    def __init__(self, weight: lg.Tensor | None = None, size_average: bool | None = None,
                 ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
                 label_smoothing: float = 0.0) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        return F.cross_entropy(input, target, weight=self.weight, ignore_index=self.ignore_index,
                               reduction=self.reduction, label_smoothing=self.label_smoothing)


class BCELoss(_WeightedLoss):
    """Binary cross entropy of probabilities."""

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        self._check_shapes(input, target)
        return F.binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of logits."""

    def __init__(self, weight: lg.Tensor | None = None, size_average: bool | None = None,
                 reduce: bool | None = None, reduction: str = "mean",
                 pos_weight: lg.Tensor | None = None) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        self._check_shapes(input, target)
        return F.binary_cross_entropy_with_logits(input, target, self.weight,
                                                  pos_weight=self.pos_weight,
                                                  reduction=self.reduction)


class KLDivLoss(_Loss):
    """target * (log target - input), with input in log space; `reduction` may also be
    "batchmean".
    """

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(size_average, reduce, "mean" if reduction == "batchmean" else reduction)
        if reduction == "batchmean":
            self.reduction = reduction
        self.log_target = log_target

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class PoissonNLLLoss(_Loss):
    """Minus the log-likelihood of Poisson counts, up to a constant unless `full`."""

    def __init__(self, log_input: bool = True, full: bool = False, size_average: bool | None = None,
                 eps: float = 1e-8, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, input: lg.Tensor, target: lg.Tensor) -> lg.Tensor:
        return F.poisson_nll_loss(input, target, log_input=self.log_input, full=self.full,
                                  eps=self.eps, reduction=self.reduction)


class CosineSimilarity(Module):
    """The cosine of the angle between x1 and x2 along `dim`."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Any, x2: Any) -> lg.Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)
