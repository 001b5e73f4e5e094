"""RMSprop (Hinton's lecture 6e), optionally centred (Graves 2013) and with momentum."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad.optim.arithmetic import compute_dtype, descent, rounded, widened
from lazygrad.optim.optimizer import Optimizer, check_not_negative
from lazygrad_compiler.ir.node import Node


@Composite
def rmsprop(value: Node, gradient: Node, *rest: Any) -> list[Node]:
    """The new value, squares, average (where centred) and momentum buffer (where there is one).

    rest: those states, then lr, weight_decay, maximize, alpha, 1 - alpha, momentum, eps, centered.
    """
    states, settings = rest[:-8], rest[-8:]
    lr, weight_decay, maximize, alpha, remainder, momentum, eps, centered = settings
    dtype = value.dtype
    value, squares, *others = widened(value, *states)
    gradient = descent(value, gradient, maximize, weight_decay)
    squares = graph.add(graph.mul(squares, alpha),
                        graph.mul(graph.mul(gradient, gradient), remainder))
    results = [squares]
    spread = squares
    if centered:
        average = others.pop(0)
        average = graph.add(average, graph.mul(graph.sub(gradient, average), remainder))
        results.append(average)
        spread = graph.sub(squares, graph.mul(average, average))
    change = graph.div(gradient, graph.add(graph.unary("sqrt", spread), eps))
    if others:
        change = graph.add(graph.mul(others.pop(0), momentum), change)
        results.append(change)
    return rounded(dtype, graph.sub(value, graph.mul(change, lr)), *results)


class RMSprop(Optimizer):
    """p = p - lr * g / (sqrt(average of g^2) + eps)."""

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0, momentum: float = 0, centered: bool = False,
                 capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False) -> None:
        check_not_negative("RMSprop", lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay,
                           momentum=momentum)
        super().__init__(params,
                         {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps,
                          "centered": centered, "weight_decay": weight_decay,
                          "capturable": capturable, "foreach": foreach, "maximize": maximize,
                          "differentiable": differentiable})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        states = ["square_avg"]
        if group["centered"]:
            states.append("grad_avg")
        if group["momentum"] > 0:
            states.append("momentum_buffer")
        for parameter in parameters:
            dtype = compute_dtype(parameter)
            self._update(rmsprop, parameter, states,
                         self._number(index, "lr", group["lr"], dtype),
                         self._number(index, "weight_decay", group["weight_decay"], dtype),
                         group["maximize"],
                         self._number(index, "alpha", group["alpha"], dtype),
                         self._number(index, "1 - alpha", 1.0 - group["alpha"], dtype),
                         self._number(index, "momentum", group["momentum"], dtype),
                         group["eps"], group["centered"])
