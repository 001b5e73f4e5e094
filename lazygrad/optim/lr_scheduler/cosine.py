"""Cosine annealing (Loshchilov and Hutter 2017), with and without restarts."""

from __future__ import annotations

import math

from lazygrad.optim.lr_scheduler.base import LRScheduler, not_in_recordings
from lazygrad.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to eta_min in T_max epochs (Loshchilov and Hutter
    2017).
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        epoch = self.last_epoch
        if epoch == 0:
            return self.current()
        if self._step_count == 1 and epoch > 0:
            return self.closed_form(epoch)
        if (epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [rate + (base - self.eta_min) * rise for rate,
                    base in zip(self.current(), self.base_lrs)]
        ratio = (1 + math.cos(math.pi * epoch / self.T_max)) / (1
                                                                + math.cos(math.pi * (epoch - 1)
                                                                           / self.T_max))
        return [ratio * (rate - self.eta_min) + self.eta_min for rate in self.current()]

    def closed_form(self, epoch: int) -> list[float]:
        share = (1 + math.cos(math.pi * epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing started anew after T_0 epochs, then after T_mult times as many each time."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        if T_0 <= 0 or not isinstance(T_0, int):
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if T_mult < 1 or not isinstance(T_mult, int):
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        share = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:  # type: ignore[override]
        """Goes one epoch on, or to a given one, which may be a fraction."""
        not_in_recordings()
        position = (self.last_epoch + 1) if epoch is None else epoch
        if position < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        if self.T_mult == 1:
            self.T_i, self.T_cur = self.T_0, position % self.T_0
        else:
            restarts = int(math.log(position / self.T_0 * (self.T_mult - 1) + 1, self.T_mult)
                           + 1e-9)
            begun = self.T_0 * (self.T_mult**restarts - 1) // (self.T_mult - 1)
            self.T_i, self.T_cur = self.T_0 * self.T_mult**restarts, position - begun
        self._step_count += 1
        self.last_epoch = math.floor(position)
        self._write(self.get_lr())
