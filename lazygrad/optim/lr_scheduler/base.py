"""Base of the learning-rate schedules.

`get_lr()` goes from the current value to the next, so that schedules can be chained;
`closed_form(epoch)` says what a schedule alone would give, and serves `step(epoch)`, which
`SequentialLR` uses to start a schedule.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import lazygrad as lg
from lazygrad._core.context import now
from lazygrad._core.entries import Entry
from lazygrad.optim.optimizer import Optimizer


def not_in_recordings() -> None:
    if now.recording is not None:
        now.recording.refuse("a scheduler's step takes part in no replay; call it outside the "
                             "compiled function")


class LRScheduler(Entry):
    """Base class: counts epochs (or steps) in `last_epoch` and writes the rates of all groups."""

    _get_lr_called_within_step = True
    """Subclasses written for PyTorch ask for it in `get_lr`."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for position, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", number(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(f"param 'initial_lr' is not specified in param_groups[{position}] "
                               "when resuming an optimizer")
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._last_lr: list[float] = []
        self._start()

    def _start(self) -> None:
        self.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser, and but functions."""
        return {name: value for name, value in self.__dict__.items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[float]:
        """The rates written last, one for each group."""
        return self._last_lr

    def current(self) -> list[float]:
        """The rates that the groups have now."""
        return [number(group["lr"]) for group in self.optimizer.param_groups]

    def get_lr(self) -> list[float]:
        """The rates at `last_epoch`, from the current ones."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr")

    def closed_form(self, epoch: int) -> list[float] | None:
        """The rates at an epoch, from the initial ones; None where the schedule has no such
        form.
        """
        return None

    def _get_closed_form_lr(self) -> list[float] | None:
        """What subclasses written for PyTorch define in place of `closed_form`."""
        return self.closed_form(self.last_epoch)

    def step(self, epoch: int | None = None) -> None:
        """Goes one epoch on, or to a given one, and writes the rates."""
        not_in_recordings()
        if self._step_count == 1 and not self.optimizer.steps_taken and epoch is None:
            warnings.warn("lr_scheduler.step() was called before optimizer.step(): the first "
                          "value of the schedule is skipped. Call optimizer.step() first.",
                          UserWarning, stacklevel=2)
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = self._get_closed_form_lr()
            rates = self.get_lr() if closed is None else closed
        self._write(rates)

    def _write(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates):
            write_setting(group, "lr", rate)
        self._last_lr = self.current()


_LRScheduler = LRScheduler


def number(value: Any) -> float:
    return value.item() if isinstance(value, lg.Tensor) else value


def write_setting(group: dict[str, Any], name: str, value: Any) -> None:
    """Writes a setting; a tensor stays the same tensor."""
    if isinstance(group[name], lg.Tensor):
        with lg.no_grad():
            group[name].copy_(lg.as_tensor(value))
    else:
        group[name] = value


def for_each(groups: list[dict[str, Any]], value: Any, name: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value] * len(groups)
    if len(value) != len(groups):
        raise ValueError(f"expected {len(groups)} values for {name}, got {len(value)}")
    return list(value)
