"""Schedules that raise the rate and lower it again, with momentum going the other way."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

from lazygrad.optim.lr_scheduler.base import LRScheduler, for_each, write_setting
from lazygrad.optim.optimizer import Optimizer

CYCLES: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "triangular": ("cycle", lambda cycle, gamma: 1.0),
    "triangular2": ("cycle", lambda cycle, gamma: 1 / 2.0 ** (cycle - 1)),
    "exp_range": ("iterations", lambda step, gamma: gamma**step),
}
"""By mode: what a cycle's height depends on, and how."""


def has_beta1(optimizer: Optimizer) -> bool:
    """Whether momentum is the first of `betas`; ValueError where there is no momentum."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option "
                         "enabled; pass cycle_momentum=False")
    return "betas" in optimizer.defaults


def set_momentum(group: dict[str, Any], value: float, is_beta1: bool) -> None:
    """Writes a group's momentum."""
    if is_beta1:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


class OneCycleLR(LRScheduler):
    """One rise and fall of the rate, with momentum going the other way (Smith and Topin 2018)."""

    def __init__(self, optimizer: Optimizer, max_lr: Any, total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None,
                 pct_start: float = 0.3, anneal_strategy: str = "cos", cycle_momentum: bool = True,
                 base_momentum: Any = 0.85, max_momentum: Any = 0.95, div_factor: float = 25.0,
                 final_div_factor: float = 1e4, three_phase: bool = False,
                 last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("You must define either total_steps OR (epochs AND "
                                 "steps_per_epoch)")
            if epochs <= 0 or steps_per_epoch <= 0:
                raise ValueError("epochs and steps_per_epoch must be positive integers")
            total_steps = epochs * steps_per_epoch
        if total_steps <= 0 or not isinstance(total_steps, int):
            raise ValueError(f"Expected positive integer total_steps, but got {total_steps}")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError("anneal_strategy must be one of 'cos' or 'linear', instead got "
                             f"{anneal_strategy}")
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        groups = optimizer.param_groups
        if last_epoch == -1:
            for group, highest in zip(groups, for_each(groups, max_lr, "max_lr")):
                group["initial_lr"] = highest / div_factor
                group["max_lr"] = highest
                group["min_lr"] = group["initial_lr"] / final_div_factor
        if cycle_momentum:
            self.use_beta1 = has_beta1(optimizer)
            if last_epoch == -1:
                lows = for_each(groups, base_momentum, "base_momentum")
                highs = for_each(groups, max_momentum, "max_momentum")
                for group, low, high in zip(groups, lows, highs):
                    group["base_momentum"], group["max_momentum"] = low, high
                    set_momentum(group, high, self.use_beta1)
        self._phases = self._make_phases(pct_start, three_phase)
        super().__init__(optimizer, last_epoch)

    def _make_phases(self, share: float, three_phase: bool) -> list[list[Any]]:
        """[last step, rate from, rate to, momentum from, momentum to] of each phase, by name in the
        group.
        """
        top = float(share * self.total_steps) - 1
        rise = [top, "initial_lr", "max_lr", "max_momentum", "base_momentum"]
        if three_phase:
            return [rise,
                    [float(2 * share * self.total_steps) - 2, "max_lr", "initial_lr",
                     "base_momentum", "max_momentum"],
                    [self.total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"]]
        return [rise, [self.total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum"]]

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)

    def get_lr(self) -> list[float]:
        number = self.last_epoch
        if number > self.total_steps:
            raise ValueError(f"Tried to step {number} times. The specified number of total steps "
                             f"is {self.total_steps}")
        rates = []
        for group in self.optimizer.param_groups:
            start: float = 0
            for position, (end, from_lr, to_lr, from_momentum,
                           to_momentum) in enumerate(self._phases):
                if number <= end or position == len(self._phases) - 1:
                    share = (number - start) / (end - start)
                    rates.append(self._between(group[from_lr], group[to_lr], share))
                    if self.cycle_momentum:
                        momentum = self._between(group[from_momentum], group[to_momentum], share)
                        set_momentum(group, momentum, self.use_beta1)
                    break
                start = end
        return rates


class CyclicLR(LRScheduler):
    """Up and down between base_lr and max_lr, with momentum going the other way (Smith 2017).

    mode: "triangular" (all cycles alike), "triangular2" (each half as high as the one before) or
    "exp_range" (height gamma^step); or scale_fn, of the cycle's number or of the step (scale_mode
    "cycle" or "iterations").
    """

    def __init__(self, optimizer: Optimizer, base_lr: Any, max_lr: Any, step_size_up: int = 2000,
                 step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
                 scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
                 cycle_momentum: bool = True, base_momentum: Any = 0.8, max_momentum: Any = 0.9,
                 last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if mode not in CYCLES and scale_fn is None:
            raise ValueError(f"mode {mode!r} is invalid and scale_fn is None; the modes are "
                             f"{', '.join(CYCLES)}")
        groups = optimizer.param_groups
        lows = for_each(groups, base_lr, "base_lr")
        if last_epoch == -1:
            for group, low in zip(groups, lows):
                write_setting(group, "lr", low)
        self.max_lrs = for_each(groups, max_lr, "max_lr")
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = CYCLES[mode][0] if scale_fn is None else scale_mode
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = has_beta1(optimizer)
            self.base_momentums = for_each(groups, base_momentum, "base_momentum")
            self.max_momentums = for_each(groups, max_momentum, "max_momentum")
            if last_epoch == -1:
                for group, low, high in zip(groups, self.base_momentums, self.max_momentums):
                    set_momentum(group, high, self.use_beta1)
                    group["base_momentum"], group["max_momentum"] = low, high
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows

    def scale_fn(self, x: float) -> float:
        """The height of the cycle, from its number or from the step."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        return CYCLES[self.mode][1](x, self.gamma)

    def get_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        position = 1.0 + self.last_epoch / self.total_size - cycle
        if position <= self.step_ratio:
            share = position / self.step_ratio
        else:
            share = (position - 1) / (self.step_ratio - 1)
        height = share * self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, least, most in zip(self.optimizer.param_groups, self.base_momentums,
                                          self.max_momentums):
                set_momentum(group, most - (most - least) * height, self.use_beta1)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs)]

    def state_dict(self) -> dict[str, Any]:
        """Functions are left out; of callable objects, their attributes are kept."""
        state = super().state_dict()
        function = self._scale_fn_custom
        state["_scale_fn_custom"] = None if function is None or isinstance(
            function, types.FunctionType) else dict(function.__dict__)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        attributes = state.pop("_scale_fn_custom", None)
        super().load_state_dict(state)
        if attributes is not None and self._scale_fn_custom is not None:
            self._scale_fn_custom.__dict__.update(attributes)
