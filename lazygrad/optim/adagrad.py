"""Adagrad (Duchi et al. 2011)."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad._core.tensor import raw_node
from lazygrad.optim.arithmetic import compute_dtype, descent, rounded, widened
from lazygrad.optim.optimizer import Optimizer, _scalar, check_not_negative
from lazygrad_compiler.ir.dtypes import float32
from lazygrad_compiler.ir.node import Node


@Composite
def adagrad(value: Node, gradient: Node, total: Node, count: Node, lr: Any, weight_decay: Any,
            maximize: bool, lr_decay: float, eps: float) -> list[Node]:
    """The new value and sum of squares."""
    dtype = value.dtype
    value, total = widened(value, total)
    gradient = descent(value, gradient, maximize, weight_decay)
    if lr_decay != 0:
        passed = graph.sub(graph.cast(count, value.dtype), 1.0)
        divisor = graph.add(graph.mul(passed, lr_decay), 1.0)
        lr = graph.div(lr, divisor) if isinstance(lr, Node) else graph.div(
            graph.like(lr, divisor), divisor)
    total = graph.add(total, graph.mul(gradient, gradient))
    change = graph.div(gradient, graph.add(graph.unary("sqrt", total), eps))
    return rounded(dtype, graph.sub(value, graph.mul(change, lr)), total)


class Adagrad(Optimizer):
    """p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(sum of g^2) + eps)."""

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10,
                 foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        check_not_negative("Adagrad", lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
                           initial_accumulator_value=initial_accumulator_value, eps=eps)
        super().__init__(params,
                         {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                          "initial_accumulator_value": initial_accumulator_value,
                          "foreach": foreach, "maximize": maximize,
                          "differentiable": differentiable, "fused": fused})
        for group in self.param_groups:
            counts = {place: _scalar(0.0, float32, place)
                      for place in {parameter.device for parameter in group["params"]}}
            for parameter in group["params"]:
                self.state[parameter]["step"] = counts[parameter.device]
                self._state_tensor(parameter, "sum", _first_sum(group, parameter))

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        for parameter in parameters:
            dtype = compute_dtype(parameter)
            self._state_tensor(parameter, "sum", _first_sum(group, parameter))
            self._update(adagrad, parameter, ("sum",), raw_node(self.state[parameter]["step"]),
                         self._number(index, "lr", group["lr"], dtype),
                         self._number(index, "weight_decay", group["weight_decay"], dtype),
                         group["maximize"], group["lr_decay"], group["eps"])


def _first_sum(group: dict[str, Any], parameter: lg.Tensor) -> complex:
    """What the sum of squares starts from; both parts of a complex parameter alike."""
    value = group["initial_accumulator_value"]
    return complex(value, value) if parameter.dtype.is_complex else value
