"""Stochastic gradient descent, with momentum (Sutskever et al. 2013, PyTorch's form) and
Nesterov's.
"""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad._core.context import now
from lazygrad.optim.arithmetic import compute_dtype, descent, rounded, widened
from lazygrad.optim.optimizer import Optimizer, check_not_negative
from lazygrad_compiler.ir.node import Node


@Composite
def sgd(value: Node, gradient: Node, lr: Any, weight_decay: Any, maximize: bool) -> list[Node]:
    """The new value."""
    wide, = widened(value)
    change = descent(wide, gradient, maximize, weight_decay)
    return rounded(value.dtype, graph.sub(wide, graph.mul(change, lr)))


@Composite
def sgd_with_momentum(value: Node, gradient: Node, velocity: Node, lr: Any, weight_decay: Any,
                      maximize: bool, momentum: Any, kept: float, nesterov: bool) -> list[Node]:
    """The new value and velocity; kept: the share of the gradient that dampening leaves."""
    dtype = value.dtype
    value, velocity = widened(value, velocity)
    change = descent(value, gradient, maximize, weight_decay)
    velocity = graph.mul(velocity, momentum)
    velocity = graph.add(velocity, change if kept == 1.0 else graph.mul(change, kept))
    change = graph.add(change, graph.mul(velocity, momentum)) if nesterov else velocity
    return rounded(dtype, graph.sub(value, graph.mul(change, lr)), velocity)


class SGD(Optimizer):
    """v = momentum * v + (1 - dampening) * g;  p = p - lr * v."""

    def __init__(self, params: Any, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, differentiable: bool = False,
                 fused: bool | None = None) -> None:
        check_not_negative("SGD", lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params,
                         {"lr": lr, "momentum": momentum, "dampening": dampening,
                          "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
                          "foreach": foreach, "differentiable": differentiable, "fused": fused})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        for parameter in parameters:
            dtype = compute_dtype(parameter)
            settings = (self._number(index, "lr", group["lr"], dtype),
                        self._number(index, "weight_decay", group["weight_decay"], dtype),
                        group["maximize"])
            if group["momentum"] == 0:
                self._update(sgd, parameter, (), *settings)
                continue
            momentum = self._number(index, "momentum", group["momentum"], dtype)
            kept = 1.0 - group["dampening"]
            if kept != 1.0 and self.state[parameter].get("momentum_buffer") is None:
                kept = 1.0  # the first gradient is not dampened
                if now.recording is not None:
                    now.recording.guards.append(lambda: False)
            self._update(sgd_with_momentum, parameter, ("momentum_buffer",), *settings, momentum,
                         kept, group["nesterov"])
