"""Averaged stochastic gradient descent (Polyak and Juditsky 1992; schedule of Bottou 2010)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad._core.tensor import raw_node, write
from lazygrad.optim.arithmetic import (
    complement,
    compute_dtype,
    descent,
    number_node,
    power,
    reciprocal,
    rounded,
    widened,
)
from lazygrad.optim.optimizer import Optimizer, check_not_negative
from lazygrad_compiler.ir.dtypes import float32, float64
from lazygrad_compiler.ir.node import Node


@Composite
def asgd_rates(eta: Node, mu: Node, count: Node, lr: Node, lambd: Any, alpha: Any,
               t0: Any) -> list[Node]:
    """The next eta and mu; this step's decay 1 - lambd * eta, eta and mu."""
    count, wide = graph.cast(count, float64), graph.cast(eta, float64)
    lambd, alpha = number_node(lambd, float64), number_node(alpha, float64)
    decay = complement(graph.mul(lambd, wide))
    growth = graph.add(graph.mul(graph.mul(lambd, lr), count), 1.0)
    following = graph.div(lr, power(growth, alpha))
    passed = graph.binary("maximum", graph.sub(count, t0), 1.0)
    return [graph.cast(following, float32), graph.cast(reciprocal(passed), float32), decay,
            wide, graph.cast(mu, float64)]


@Composite
def asgd(value: Node, gradient: Node, average: Node, decay: Node, eta: Node, mu: Node,
         weight_decay: Any, maximize: bool) -> list[Node]:
    """The new value and average."""
    dtype = value.dtype
    value, average = widened(value, average)
    gradient = descent(value, gradient, maximize, weight_decay)
    value = graph.sub(graph.mul(value, decay), graph.mul(gradient, eta))
    moved = graph.add(average, graph.mul(graph.sub(value, average), mu))
    first = graph.binary("eq", mu, graph.like(1.0, mu))
    return rounded(dtype, value, graph.where(first, value, moved))


class ASGD(Optimizer):
    """p = (1 - lambd * eta) * p - eta * g; the state `ax` averages p from step t0 on."""

    step_is_counted = True
    moving_numbers = {"eta": "lr", "mu": 1.0}

    def __init__(self, params: Any, lr: Any = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
                 t0: float = 1e6, weight_decay: float = 0, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False,
                 capturable: bool = False) -> None:
        check_not_negative("ASGD", lr=lr, weight_decay=weight_decay)
        super().__init__(params,
                         {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0,
                          "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
                          "differentiable": differentiable, "capturable": capturable})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        def schedule(state: dict[str, Any]) -> Sequence[Any]:
            numbers = [self._number(index, name, group[name], float64)
                       for name in ("lr", "lambd", "alpha", "t0")]
            eta, mu, *rates = asgd_rates(raw_node(state["eta"]), raw_node(state["mu"]),
                                         raw_node(state["step"]), *numbers)
            assert eta is not None and mu is not None
            write(state["eta"], "ASGD", eta)
            write(state["mu"], "ASGD", mu)
            return rates

        for parameter, rates in self._per_count(parameters, schedule):
            dtype = compute_dtype(parameter)
            self._update(asgd, parameter, ("ax",), *rates,
                         self._number(index, "weight_decay", group["weight_decay"], dtype),
                         group["maximize"])
