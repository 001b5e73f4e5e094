"""Adadelta (Zeiler 2012)."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad.optim.arithmetic import compute_dtype, descent, rounded, widened
from lazygrad.optim.optimizer import Optimizer, check_not_negative
from lazygrad_compiler.ir.node import Node


@Composite
def adadelta(value: Node, gradient: Node, squares: Node, changes: Node, lr: Node, weight_decay: Any,
             maximize: bool, rho: Any, rest: Any, eps: float) -> list[Node]:
    """The new value, average square of the gradient and of the change; rest: 1 - rho."""
    dtype = value.dtype
    value, squares, changes = widened(value, squares, changes)
    gradient = descent(value, gradient, maximize, weight_decay)
    squares = graph.add(graph.mul(squares, rho), graph.mul(graph.mul(gradient, gradient), rest))
    change = graph.div(graph.unary("sqrt", graph.add(changes, eps)),
                       graph.unary("sqrt", graph.add(squares, eps)))
    change = graph.mul(change, gradient)
    changes = graph.add(graph.mul(changes, rho), graph.mul(graph.mul(change, change), rest))
    return rounded(dtype, graph.sub(value, graph.mul(change, lr)), squares, changes)


class Adadelta(Optimizer):
    """p = p - lr * sqrt(average change^2 + eps) / sqrt(average g^2 + eps) * g."""

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0, foreach: bool | None = None, *, capturable: bool = False,
                 maximize: bool = False, differentiable: bool = False) -> None:
        check_not_negative("Adadelta", lr=lr, eps=eps, weight_decay=weight_decay)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Adadelta: invalid rho: {rho}; it must be in [0, 1]")
        super().__init__(params,
                         {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay,
                          "maximize": maximize, "capturable": capturable, "foreach": foreach,
                          "differentiable": differentiable})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        for parameter in parameters:
            dtype = compute_dtype(parameter)
            self._update(adadelta, parameter, ("square_avg", "acc_delta"),
                         self._number(index, "lr", group["lr"], dtype),
                         self._number(index, "weight_decay", group["weight_decay"], dtype),
                         group["maximize"],
                         self._number(index, "rho", group["rho"], dtype),
                         self._number(index, "1 - rho", 1.0 - group["rho"], dtype), group["eps"])
