"""Adamax: Adam with the largest gradient in place of the second moment (Kingma and Ba 2015,
section 7.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad._core.tensor import raw_node
from lazygrad.optim.arithmetic import (
    complement,
    compute_dtype,
    descent,
    number_node,
    power,
    rounded,
    widened,
)
from lazygrad.optim.optimizer import Optimizer, check_betas, check_not_negative
from lazygrad_compiler.ir.dtypes import float64
from lazygrad_compiler.ir.node import Node


@Composite
def adamax_rate(count: Node, lr: Node, beta1: Any) -> list[Node]:
    """lr / (1 - beta1^count)."""
    count = graph.cast(count, float64)
    return [graph.div(lr, complement(power(number_node(beta1, float64), count)))]


@Composite
def adamax(value: Node, gradient: Node, first: Node, largest: Node, rate: Node, weight_decay: Any,
           maximize: bool, rest1: Any, beta2: Any, eps: float) -> list[Node]:
    """The new value, first moment and decayed largest gradient; rest1: 1 - beta1."""
    dtype = value.dtype
    value, first, largest = widened(value, first, largest)
    gradient = descent(value, gradient, maximize, weight_decay)
    first = graph.add(first, graph.mul(graph.sub(gradient, first), rest1))
    largest = graph.binary("maximum", graph.mul(largest, beta2),
                           graph.add(graph.unary("abs", gradient), eps))
    change = graph.mul(graph.div(first, largest), rate)
    return rounded(dtype, graph.sub(value, change), first, largest)


class Adamax(Optimizer):
    """u = max(beta2 * u, |g| + eps);  p = p - lr / (1 - beta1^t) * m / u."""

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, foreach: bool | None = None, *,
                 maximize: bool = False, differentiable: bool = False,
                 capturable: bool = False) -> None:
        check_not_negative("Adamax", lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas("Adamax", betas)
        super().__init__(params,
                         {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                          "foreach": foreach, "maximize": maximize,
                          "differentiable": differentiable, "capturable": capturable})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        beta1, beta2 = (float(beta) for beta in group["betas"])

        def schedule(state: dict[str, Any]) -> Sequence[Any]:
            return adamax_rate(raw_node(state["step"]),
                               self._number(index, "lr", group["lr"], float64),
                               self._number(index, "beta1", beta1, float64))

        for parameter, (rate,) in self._per_count(parameters, schedule):
            dtype = compute_dtype(parameter)
            self._update(adamax, parameter, ("exp_avg", "exp_inf"), rate,
                         self._number(index, "weight_decay", group["weight_decay"], dtype),
                         group["maximize"], self._number(index, "1 - beta1", 1.0 - beta1, dtype),
                         self._number(index, "beta2", beta2, dtype), group["eps"])
