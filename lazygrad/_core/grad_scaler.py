"""`GradScaler`: multiplies the loss so that float16 gradients do not vanish, and leaves steps out
whose gradients overflowed.

The scale is a 0-d tensor, so that its changes compile nothing anew.
"""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad._core.placement import is_there
from lazygrad._core.values import device as device_of

READY, UNSCALED, STEPPED = "ready", "unscaled", "stepped"


class GradScaler:
    """scale(loss).backward(); step(optimizer); update().

    The scale starts at init_scale, is multiplied by backoff_factor after a step with infinite or
    NaN gradients, and by growth_factor after growth_interval steps without.  On a device that is
    not there ("cuda", PyTorch's default) it is off, and hands through what it is given.
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16,
                 growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000, enabled: bool = True) -> None:
        if growth_factor <= 1.0 or not 0.0 < backoff_factor < 1.0:
            raise fail("GradScaler", f"growth_factor {growth_factor} and backoff_factor "
                       f"{backoff_factor}", "One is above 1, the other between 0 and 1.")
        self._enabled = bool(enabled) and is_there(device_of(device).type)
        self._scale = lg.tensor(float(init_scale))
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval, self._growth_tracker = growth_interval, 0
        self._found: dict[int, lg.Tensor] = {}
        self._states: dict[int, str] = {}

    def is_enabled(self) -> bool:
        return self._enabled

    def get_scale(self) -> float:
        return float(self._scale.item()) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        self._growth_interval = new_interval

    def scale(self, outputs: Any) -> Any:
        """A tensor, or a list or tuple of them, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, lg.Tensor):
            return outputs * self._scale.to(outputs.dtype)
        if isinstance(outputs, (list, tuple)):
            return type(outputs)([self.scale(each) for each in outputs])
        raise fail("GradScaler.scale", f"takes tensors, not {type(outputs).__name__}",
                   kind=TypeError)

    def unscale_(self, optimizer: Any) -> None:
        """Divides the gradients of the optimiser's parameters by the scale, in place; for what has
        to see them as they are before the step (clipping).
        """
        if not self._enabled:
            return
        state = self._states.get(id(optimizer), READY)
        if state != READY:
            raise fail("GradScaler.unscale_", "was called already for this optimiser since the "
                       "last update()", kind=RuntimeError)
        inverse = 1.0 / self._scale
        bad: Any = lg.tensor(False)
        with lg.no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    gradient = parameter.grad
                    if gradient is not None:
                        gradient.mul_(inverse.to(gradient.dtype))
                        bad = bad | ~gradient.isfinite().all()
        self._found[id(optimizer)] = bad
        self._states[id(optimizer)] = UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """optimizer.step(), unless a gradient is infinite or NaN; looks at them."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise fail("GradScaler.step", "takes no closure", kind=RuntimeError)
        if self._states.get(id(optimizer), READY) == STEPPED:
            raise fail("GradScaler.step", "was called already since the last update()",
                       kind=RuntimeError)
        if self._states.get(id(optimizer), READY) == READY:
            self.unscale_(optimizer)
        self._states[id(optimizer)] = STEPPED
        return None if bool(self._found[id(optimizer)]) else optimizer.step(*args, **kwargs)

    def update(self, new_scale: Any = None) -> None:
        """Adjusts the scale after the steps of an iteration, or sets it."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = lg.tensor(float(new_scale))
        elif not self._found:
            raise fail("GradScaler.update", "no gradients were looked at since the last update()",
                       "Call step(optimizer) first.", RuntimeError)
        elif any(bool(bad) for bad in self._found.values()):
            self._scale = self._scale * self._backoff_factor
            self._growth_tracker = 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                self._scale = self._scale * self._growth_factor
                self._growth_tracker = 0
        self._found, self._states = {}, {}

    def state_dict(self) -> dict[str, Any]:
        if not self._enabled:
            return {}
        return {"scale": self.get_scale(), "growth_factor": self._growth_factor,
                "backoff_factor": self._backoff_factor, "growth_interval": self._growth_interval,
                "_growth_tracker": self._growth_tracker}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._enabled:
            return
        if not state_dict:
            raise fail("GradScaler.load_state_dict", "the state is empty: it was saved by a scaler "
                       "that was off", kind=RuntimeError)
        self._scale = lg.tensor(float(state_dict["scale"]))
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]
