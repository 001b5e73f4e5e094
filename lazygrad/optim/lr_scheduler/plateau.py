"""A schedule that lowers the rate when a metric stops getting better."""

from __future__ import annotations

import math
from typing import Any

from lazygrad.optim.lr_scheduler.base import (
    LRScheduler,
    for_each,
    not_in_recordings,
    write_setting,
)
from lazygrad.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """Times factor when a metric has not got better for more than `patience` epochs:
    `step(metric)`.
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1,
                 patience: int = 10, threshold: float = 1e-4, threshold_mode: str = "rel",
                 cooldown: int = 0, min_lr: Any = 0, eps: float = 1e-8) -> None:
        if factor >= 1.0:
            raise ValueError("Factor should be < 1.0.")
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown!")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_mode} is unknown!")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self.factor = factor
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.min_lrs = for_each(optimizer.param_groups, min_lr, "min_lr")
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.last_epoch = 0
        self._last_lr = self.current()
        self._reset()

    def _reset(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        not_in_recordings()
        value = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(value, self.best):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._add_least_rates()
            for group, least, rate in zip(self.optimizer.param_groups, self.min_lrs,
                                          self.current()):
                reduced = max(rate * self.factor, least)
                if rate - reduced > self.eps:
                    write_setting(group, "lr", reduced)
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self.current()

    def _add_least_rates(self) -> None:
        """Makes up for groups that were added since."""
        missing = len(self.optimizer.param_groups) - len(self.min_lrs)
        if missing and self.default_min_lr is None:
            raise RuntimeError(f"the optimizer has {len(self.optimizer.param_groups)} parameter "
                               f"groups, and there are {len(self.min_lrs)} min_lrs; append one for "
                               "each group that was added")
        self.min_lrs += [self.default_min_lr] * missing

    @property
    def in_cooldown(self) -> bool:
        return self.cooldown_counter > 0

    def is_better(self, a: float, best: float) -> bool:
        """Whether a metric is better than the best by more than the threshold."""
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return a * sign > best * (1 + sign * self.threshold) * sign
        return a * sign > best * sign + self.threshold
