"""Stochastic gradient descent, with momentum (Sutskever et al. 2013, PyTorch's form) and
Nesterov's.
"""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.context import now
from lazygrad._core.tensor import write
from lazygrad.optim.optimizer import Optimizer, check_not_negative, value_of, with_values


class SGD(Optimizer):
    """v = momentum * v + (1 - dampening) * g;  p = p - lr * v."""

    def __init__(self, params: Any, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, differentiable: bool = False,
                 fused: bool | None = None) -> None:
        check_not_negative("SGD", lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        if differentiable:
            raise NotImplementedError("SGD: differentiable=True is not supported")
        super().__init__(params,
                         {"lr": lr, "momentum": momentum, "dampening": dampening,
                          "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
                          "foreach": foreach, "differentiable": differentiable, "fused": fused})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        for parameter, dtype, value in with_values(parameters):
            lr = self._number(index, "lr", group["lr"], dtype)
            weight_decay = self._number(index, "weight_decay", group["weight_decay"], dtype)
            change = self._gradient(parameter, group, value, weight_decay)
            if group["momentum"] != 0:
                momentum = self._number(index, "momentum", group["momentum"], dtype)
                kept = 1.0 - group["dampening"]
                starts = self.state[parameter].get("momentum_buffer") is None
                buffer = self._state_tensor(parameter, "momentum_buffer")
                if starts and kept != 1.0 and now.recording is not None:
                    now.recording.guards.append(lambda: False)
                velocity = graph.mul(value_of(buffer, dtype), momentum)
                # The first gradient is not dampened.
                velocity = graph.add(velocity, change if starts or kept == 1.0
                                     else graph.mul(change, kept))
                write(buffer, "SGD", velocity)
                change = graph.add(change,
                                   graph.mul(velocity, momentum)) if group["nesterov"] else velocity
            write(parameter, "SGD", graph.sub(value, graph.mul(change, lr)))
