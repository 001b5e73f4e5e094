"""Adagrad (Duchi et al. 2011)."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.tensor import raw_node, write
from lazygrad.optim.optimizer import Optimizer, _scalar, check_not_negative, value_of, with_values
from lazygrad_compiler.ir.dtypes import float32


class Adagrad(Optimizer):
    """p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(sum of g^2) + eps)."""

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10,
                 foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        check_not_negative("Adagrad", lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
                           initial_accumulator_value=initial_accumulator_value, eps=eps)
        if differentiable:
            raise NotImplementedError("Adagrad: differentiable=True is not supported")
        super().__init__(params,
                         {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                          "initial_accumulator_value": initial_accumulator_value,
                          "foreach": foreach, "maximize": maximize,
                          "differentiable": differentiable, "fused": fused})
        for group in self.param_groups:
            count = _scalar(0.0, float32)
            for parameter in group["params"]:
                self.state[parameter]["step"] = count
                self._state_tensor(parameter, "sum", group["initial_accumulator_value"])

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        for parameter, dtype, value in with_values(parameters):
            lr = self._number(index, "lr", group["lr"], dtype)
            if group["lr_decay"] != 0:
                passed = graph.sub(graph.cast(raw_node(self.state[parameter]["step"]), dtype), 1.0)
                lr = graph.div(lr, graph.add(graph.mul(passed, group["lr_decay"]), 1.0))
            weight_decay = self._number(index, "weight_decay", group["weight_decay"], dtype)
            gradient = self._gradient(parameter, group, value, weight_decay)
            total = self._state_tensor(parameter, "sum", group["initial_accumulator_value"])
            squares = graph.add(value_of(total, dtype), graph.mul(gradient, gradient))
            write(total, "Adagrad", squares)
            divisor = graph.add(graph.unary("sqrt", squares), group["eps"])
            write(parameter, "Adagrad",
                  graph.sub(value, graph.mul(graph.div(gradient, divisor), lr)))
