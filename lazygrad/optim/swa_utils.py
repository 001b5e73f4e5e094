"""Averages of a model's weights over training: stochastic weight averaging (Izmailov et al. 2018)
and exponential moving averages.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lazygrad as lg
from lazygrad import nn
from lazygrad.nn.normalization import _BatchNorm
from lazygrad.optim.lr_scheduler.base import LRScheduler, for_each, number
from lazygrad.optim.optimizer import Optimizer

__all__ = ["AveragedModel", "SWALR", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
           "get_swa_multi_avg_fn", "update_bn"]

Average = Callable[[lg.Tensor, lg.Tensor, Any], lg.Tensor]
MultiAverage = Callable[[Sequence[lg.Tensor], Sequence[lg.Tensor], Any], None]


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The function `(average, value, count)` -> decay * average + (1 - decay) * value."""
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] "
                         "range.")

    def ema_update(average: lg.Tensor, value: lg.Tensor, count: Any) -> lg.Tensor:
        with lg.no_grad():
            return decay * average + (1 - decay) * value

    return ema_update


def get_swa_avg_fn() -> Average:
    """The function `(average, value, count)` -> the average with one more value taken in."""

    def swa_update(average: lg.Tensor, value: lg.Tensor, count: Any) -> lg.Tensor:
        with lg.no_grad():
            return average + (value - average) / (count + 1)

    return swa_update


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """`get_ema_avg_fn` for lists of tensors, in place."""
    return _in_place(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> MultiAverage:
    """`get_swa_avg_fn` for lists of tensors, in place."""
    return _in_place(get_swa_avg_fn())


def _in_place(update: Average) -> MultiAverage:
    def update_all(averages: Sequence[lg.Tensor], values: Sequence[lg.Tensor], count: Any) -> None:
        with lg.no_grad():
            for average, value in zip(averages, values, strict=True):
                average.copy_(update(average, value, count))

    return update_all


class AveragedModel(nn.Module):
    """A copy of a model whose parameters are averages: `update_parameters(model)` takes in the
    present ones.

    avg_fn(average, value, count) gives the new average; multi_avg_fn(averages, values, count)
    writes all of one dtype.  Without either, every update counts the same.  use_buffers: buffers
    are averaged, too, not copied.  The buffer `n_averaged` counts the updates.
    """

    n_averaged: lg.Tensor

    def __init__(self, model: nn.Module, device: Any = None, avg_fn: Average | None = None,
                 multi_avg_fn: MultiAverage | None = None, use_buffers: bool = False) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", lg.tensor(0, dtype=lg.int64))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: nn.Module) -> None:
        """Takes the values of `model` into the averages; the first time they are copied."""
        with lg.no_grad():
            pairs = [(average.detach(), value.detach())
                     for average, value in zip(self._averaged(self.module), self._averaged(model))]
            if not self.use_buffers:
                for ours, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
                    ours.detach().copy_(theirs.detach())
            if self.n_averaged.item() == 0:
                for average, value in pairs:
                    average.copy_(value)
            else:
                self._take_in(pairs)
            self.n_averaged += 1
            lg.synchronize()

    def _averaged(self, model: nn.Module) -> Iterable[lg.Tensor]:
        if self.use_buffers:
            return itertools.chain(model.parameters(), model.buffers())
        return model.parameters()

    def _take_in(self, pairs: list[tuple[lg.Tensor, lg.Tensor]]) -> None:
        if self.avg_fn is not None:
            for average, value in pairs:
                average.copy_(self.avg_fn(average, value, self.n_averaged))
            return
        update = self.multi_avg_fn or get_swa_multi_avg_fn()
        by_dtype: dict[Any, list[tuple[lg.Tensor, lg.Tensor]]] = defaultdict(list)
        for average, value in pairs:
            by_dtype[average.dtype].append((average, value))
        for of_dtype in by_dtype.values():
            update([average for average, _ in of_dtype], [value for _, value in of_dtype],
                   self.n_averaged)


def update_bn(loader: Iterable[Any], model: nn.Module, device: Any = None) -> None:
    """Computes the running statistics of all batch normalisations anew, as averages over one pass.

    loader: gives inputs, or lists and tuples that begin with one.
    """
    momenta = {}
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            momenta[module] = module.momentum
    if not momenta:
        return
    was_training = model.training
    model.train()
    for module in momenta:
        module.momentum = None
    try:
        with lg.no_grad():
            for batch in loader:
                inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(inputs if device is None else inputs.to(device))
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum
        model.train(was_training)


ANNEALING: dict[str, Callable[[float], float]] = {
    "cos": lambda share: (1 - math.cos(math.pi * share)) / 2,
    "linear": lambda share: share,
}
"""By strategy: how much of the way is gone after a share of the epochs."""


class SWALR(LRScheduler):
    """From the current rate to swa_lr in anneal_epochs epochs, and constant from then on."""

    def __init__(self, optimizer: Optimizer, swa_lr: Any, anneal_epochs: int = 10,
                 anneal_strategy: str = "cos", last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if anneal_strategy not in ANNEALING:
            raise ValueError("anneal_strategy must be one of 'cos' or 'linear', instead got "
                             f"{anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError("anneal_epochs must be equal or greater than 0, got "
                             f"{anneal_epochs}")
        groups = optimizer.param_groups
        for group, rate in zip(groups, for_each(groups, swa_lr, "swa_lr")):
            group["swa_lr"] = rate
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        anneal = ANNEALING[self._anneal_strategy]
        before, after = (anneal(max(0, min(1, position / max(1, self.anneal_epochs))))
                         for position in (step - 1, step))
        rates = []
        for group in self.optimizer.param_groups:
            target = number(group["swa_lr"])
            start = target
            if before != 1:
                start = (number(group["lr"]) - before * target) / (1 - before)
            rates.append(target * after + start * (1 - after))
        return rates
