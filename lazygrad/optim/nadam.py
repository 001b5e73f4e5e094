"""NAdam: Adam with Nesterov's momentum (Dozat 2016), whose momentum grows with the steps."""

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
    rounded,
    shrunk,
    widened,
)
from lazygrad.optim.optimizer import Optimizer, check_betas, check_not_negative
from lazygrad_compiler.ir.dtypes import float64
from lazygrad_compiler.ir.node import Node

MOMENTUM_GROWTH = 0.96
"""The base of the momentum's schedule (Dozat 2016, section 3)."""


@Composite
def nadam_rates(product: Node, count: Node, lr: Node, beta1: Any, beta2: Any,
                momentum_decay: Any) -> list[Node]:
    """The new product of momenta; factors of gradient and first moment; 1 - beta2^count."""
    count = graph.cast(count, float64)
    beta1, beta2 = number_node(beta1, float64), number_node(beta2, float64)

    def momentum(at: Node) -> Node:
        """beta1 * (1 - 0.96^(at * momentum_decay) / 2)."""
        grown = power(number_node(MOMENTUM_GROWTH, float64), graph.mul(at, momentum_decay))
        return graph.mul(beta1, complement(graph.mul(grown, 0.5)))

    now, following = momentum(count), momentum(graph.add(count, 1.0))
    product = graph.mul(product, graph.cast(now, product.dtype))
    wide = graph.cast(product, float64)
    of_gradient = graph.div(graph.mul(lr, complement(now)), complement(wide))
    of_moment = graph.div(graph.mul(lr, following), complement(graph.mul(wide, following)))
    return [product, of_gradient, of_moment, complement(power(beta2, count))]


@Composite
def nadam(value: Node, gradient: Node, first: Node, second: Node, of_gradient: Node,
          of_moment: Node, correction: Node, lr: Node, weight_decay: Any, maximize: bool,
          decoupled: bool, rest1: Any, beta2: Any, rest2: Any, eps: float) -> list[Node]:
    """The new value and moments; rest1 and rest2: 1 - beta1 and 1 - beta2."""
    dtype = value.dtype
    value, first, second = widened(value, first, second)
    gradient = descent(value, gradient, maximize, 0 if decoupled else weight_decay)
    if decoupled:
        value = shrunk(value, lr, weight_decay)
    first = graph.add(first, graph.mul(graph.sub(gradient, first), rest1))
    second = graph.add(graph.mul(second, beta2), graph.mul(graph.mul(gradient, gradient), rest2))
    divisor = graph.add(graph.unary("sqrt", graph.div(second, correction)), eps)
    change = graph.add(graph.mul(gradient, of_gradient), graph.mul(first, of_moment))
    return rounded(dtype, graph.sub(value, graph.div(change, divisor)), first, second)


class NAdam(Optimizer):
    """Adam that looks one step ahead along the first moment.

    weight_decay is added to the gradient, or, with decoupled_weight_decay, taken off the parameter.
    """

    step_is_counted = True
    moving_numbers = {"mu_product": 1.0}

    def __init__(self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, momentum_decay: float = 4e-3,
                 decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        check_not_negative("NAdam", lr=lr, eps=eps, weight_decay=weight_decay,
                           momentum_decay=momentum_decay)
        check_betas("NAdam", betas)
        super().__init__(params,
                         {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                          "momentum_decay": momentum_decay,
                          "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize,
                          "foreach": foreach, "capturable": capturable,
                          "differentiable": differentiable})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        beta1, beta2 = (float(beta) for beta in group["betas"])

        def schedule(state: dict[str, Any]) -> Sequence[Any]:
            product, *rates = nadam_rates(
                raw_node(state["mu_product"]), raw_node(state["step"]),
                self._number(index, "lr", group["lr"], float64),
                self._number(index, "beta1", beta1, float64),
                self._number(index, "beta2", beta2, float64),
                self._number(index, "momentum_decay", group["momentum_decay"], float64))
            assert product is not None
            write(state["mu_product"], "NAdam", product)
            return rates

        for parameter, rates in self._per_count(parameters, schedule):
            dtype = compute_dtype(parameter)
            self._update(nadam, parameter, ("exp_avg", "exp_avg_sq"), *rates,
                         self._number(index, "lr", group["lr"], dtype),
                         self._number(index, "weight_decay", group["weight_decay"], dtype),
                         group["maximize"], group["decoupled_weight_decay"],
                         self._number(index, "1 - beta1", 1.0 - beta1, dtype),
                         self._number(index, "beta2", beta2, dtype),
                         self._number(index, "1 - beta2", 1.0 - beta2, dtype), group["eps"])
