"""RMSprop (Hinton's lecture 6e), optionally centred (Graves 2013) and with momentum."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.tensor import write
from lazygrad.optim.optimizer import Optimizer, check_not_negative, value_of, with_values


class RMSprop(Optimizer):
    """p = p - lr * g / (sqrt(average of g^2) + eps)."""

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0, momentum: float = 0, centered: bool = False,
                 capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False) -> None:
        check_not_negative("RMSprop", lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay,
                           momentum=momentum)
        if differentiable:
            raise NotImplementedError("RMSprop: differentiable=True is not supported")
        super().__init__(params,
                         {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps,
                          "centered": centered, "weight_decay": weight_decay,
                          "capturable": capturable, "foreach": foreach, "maximize": maximize,
                          "differentiable": differentiable})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        for parameter, dtype, value in with_values(parameters):
            lr = self._number(index, "lr", group["lr"], dtype)
            alpha = self._number(index, "alpha", group["alpha"], dtype)
            rest = self._number(index, "1 - alpha", 1.0 - group["alpha"], dtype)
            weight_decay = self._number(index, "weight_decay", group["weight_decay"], dtype)
            gradient = self._gradient(parameter, group, value, weight_decay)
            squares = self._state_tensor(parameter, "square_avg")
            second = graph.add(graph.mul(value_of(squares, dtype), alpha),
                               graph.mul(graph.mul(gradient, gradient), rest))
            write(squares, "RMSprop", second)
            if group["centered"]:
                average = self._state_tensor(parameter, "grad_avg")
                first = value_of(average, dtype)
                first = graph.add(first, graph.mul(graph.sub(gradient, first), rest))
                write(average, "RMSprop", first)
                second = graph.sub(second, graph.mul(first, first))
            change = graph.div(gradient, graph.add(graph.unary("sqrt", second), group["eps"]))
            if group["momentum"] > 0:
                buffer = self._state_tensor(parameter, "momentum_buffer")
                momentum = self._number(index, "momentum", group["momentum"], dtype)
                change = graph.add(graph.mul(value_of(buffer, dtype), momentum), change)
                write(buffer, "RMSprop", change)
            write(parameter, "RMSprop", graph.sub(value, graph.mul(change, lr)))
