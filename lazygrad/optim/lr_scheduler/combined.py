"""Schedules made of schedules: one after the other, or all at the same time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lazygrad.optim.lr_scheduler.base import LRScheduler, not_in_recordings, write_setting
from lazygrad.optim.lr_scheduler.plateau import ReduceLROnPlateau
from lazygrad.optim.optimizer import Optimizer


def check_parts(name: str, schedulers: Sequence[Any], optimizer: Any) -> None:
    """Raises TypeError or ValueError for what cannot be part of a combined schedule."""
    for position, scheduler in enumerate(schedulers):
        if not hasattr(scheduler, "optimizer"):
            raise TypeError(f"{name} at index {position} should have `optimizer` as its attribute; "
                            f"it is of type {type(scheduler).__name__}")
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError(f"{name} does not support `ReduceLROnPlateau`, found at index "
                             f"{position}: its step needs a metric; step it on its own")
        if scheduler.optimizer is not optimizer:
            raise ValueError(f"{name} expects all schedulers to belong to the same optimizer, and "
                             f"{type(scheduler).__name__} at index {position} has another one")


def simple_parts(schedulers: Iterable[LRScheduler]) -> Iterator[LRScheduler]:
    """The schedules that are not combined ones, inside combined ones, too."""
    for scheduler in schedulers:
        inner = getattr(scheduler, "_schedulers", None)
        if inner is None:
            yield scheduler
        else:
            yield from simple_parts(inner)


class SequentialLR(LRScheduler):
    """Several schedules one after the other; each starts at its milestone."""

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int],
                 last_epoch: int = -1) -> None:
        if len(schedulers) < 1:
            raise ValueError("SequentialLR expects at least one scheduler")
        if len(milestones) != len(schedulers) - 1:
            raise ValueError("Sequential Schedulers expects number of schedulers provided to be "
                             "one more than the number of milestone points, but got number of "
                             f"schedulers {len(schedulers)} and the number of milestones to be "
                             f"equal to {len(milestones)}")
        check_parts("SequentialLR", schedulers, optimizer)
        self.optimizer = optimizer
        self._schedulers = schedulers
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        # Every schedule took its first step when it was made; only the one's at the start counts.
        for group in optimizer.param_groups:
            write_setting(group, "lr", group["initial_lr"])
        for scheduler in simple_parts(schedulers):
            scheduler.last_epoch -= 1
            scheduler._step_count -= 1
        first = schedulers[bisect_right(milestones, 0)]
        first.step()
        self._last_lr = first.get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        not_in_recordings()
        self.last_epoch += 1
        position = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[position]
        if position > 0 and self._milestones[position - 1] == self.last_epoch:
            scheduler.step(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items()
                 if name not in ("optimizer", "_schedulers")}
        return {**state, "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        for scheduler, inner in zip(self._schedulers, state.pop("_schedulers")):
            scheduler.load_state_dict(inner)
        self.__dict__.update(state)


class ChainedScheduler(SequentialLR):
    """Several schedules at the same time, each working on what the one before left."""

    def __init__(self, schedulers: Sequence[LRScheduler],
                 optimizer: Optimizer | None = None) -> None:
        schedulers = list(schedulers)
        if len(schedulers) < 1:
            raise ValueError("ChainedScheduler expects at least one scheduler")
        owner = optimizer or getattr(schedulers[0], "optimizer", None)
        check_parts("ChainedScheduler", schedulers, owner)
        assert owner is not None
        self.optimizer = owner
        self._schedulers = schedulers
        self._last_lr = schedulers[-1].current()

    def step(self, epoch: int | None = None) -> None:
        not_in_recordings()
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._schedulers[-1].current()
