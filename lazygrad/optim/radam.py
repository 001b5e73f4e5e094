"""RAdam: Adam whose step is rectified while its second moment is uncertain (Liu et al. 2020)."""

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
    reciprocal,
    rounded,
    shrunk,
    widened,
)
from lazygrad.optim.optimizer import Optimizer, check_betas, check_not_negative
from lazygrad_compiler.ir.dtypes import float64
from lazygrad_compiler.ir.node import Node

CERTAIN = 5.0
"""Above this length of the moving average the variance is tractable, and the step adaptive."""


@Composite
def radam_rates(count: Node, lr: Node, beta1: Any, beta2: Any) -> list[Node]:
    """Factor of the first moment; factor of first moment over root of the second, or 0 while the
    step is not adaptive (Liu et al. 2020, algorithm 2).
    """
    count = graph.cast(count, float64)
    beta1, beta2 = number_node(beta1, float64), number_node(beta2, float64)
    powered = power(beta2, count)
    correction = complement(powered)
    most = graph.sub(graph.mul(reciprocal(complement(beta2)), 2.0), 1.0)
    length = graph.sub(most, graph.div(graph.mul(graph.mul(count, powered), 2.0), correction))

    def spread(of: Node) -> Node:
        return graph.mul(graph.sub(of, 4.0), graph.sub(of, 2.0))

    above = graph.mul(graph.mul(spread(length), most), correction)
    rectified = graph.unary("sqrt", graph.div(above, graph.mul(spread(most), length)))
    rate = graph.div(lr, complement(power(beta1, count)))
    adaptive = graph.binary("lt", graph.like(CERTAIN, length), length)
    return [graph.where(adaptive, 0.0, rate),
            graph.where(adaptive, graph.mul(rate, rectified), 0.0)]


@Composite
def radam(value: Node, gradient: Node, first: Node, second: Node, plain: Node, adaptive: Node,
          lr: Node, weight_decay: Any, maximize: bool, decoupled: bool, rest1: Any, beta2: Any,
          rest2: Any, eps: float) -> list[Node]:
    """The new value and moments; rest1 and rest2: 1 - beta1 and 1 - beta2."""
    dtype = value.dtype
    value, first, second = widened(value, first, second)
    gradient = descent(value, gradient, maximize, 0 if decoupled else weight_decay)
    if decoupled:
        value = shrunk(value, lr, weight_decay)
    first = graph.add(first, graph.mul(graph.sub(gradient, first), rest1))
    second = graph.add(graph.mul(second, beta2), graph.mul(graph.mul(gradient, gradient), rest2))
    # eps may be 0, and 0 / 0 must not reach a step that is not adaptive
    root = graph.add(graph.unary("sqrt", second), eps)
    is_plain = graph.binary("eq", adaptive, graph.like(0.0, adaptive))
    factor = graph.where(is_plain, plain, graph.div(adaptive, root))
    return rounded(dtype, graph.sub(value, graph.mul(first, factor)), first, second)


class RAdam(Optimizer):
    """Adam with a rectified step; plain momentum while the second moment is too uncertain.

    weight_decay is added to the gradient, or, with decoupled_weight_decay, taken off the parameter.
    """

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, decoupled_weight_decay: bool = False,
                 *, foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        check_not_negative("RAdam", lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas("RAdam", betas)
        super().__init__(params,
                         {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                          "maximize": maximize, "foreach": foreach, "capturable": capturable,
                          "decoupled_weight_decay": decoupled_weight_decay,
                          "differentiable": differentiable})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        beta1, beta2 = (float(beta) for beta in group["betas"])

        def schedule(state: dict[str, Any]) -> Sequence[Any]:
            return radam_rates(raw_node(state["step"]),
                               self._number(index, "lr", group["lr"], float64),
                               self._number(index, "beta1", beta1, float64),
                               self._number(index, "beta2", beta2, float64))

        for parameter, rates in self._per_count(parameters, schedule):
            dtype = compute_dtype(parameter)
            self._update(radam, parameter, ("exp_avg", "exp_avg_sq"), *rates,
                         self._number(index, "lr", group["lr"], dtype),
                         self._number(index, "weight_decay", group["weight_decay"], dtype),
                         group["maximize"], group["decoupled_weight_decay"],
                         self._number(index, "1 - beta1", 1.0 - beta1, dtype),
                         self._number(index, "beta2", beta2, dtype),
                         self._number(index, "1 - beta2", 1.0 - beta2, dtype), group["eps"])
