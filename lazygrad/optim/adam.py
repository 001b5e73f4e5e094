"""Adam (Kingma and Ba 2015), AMSGrad (Reddi et al. 2018), and AdamW (Loshchilov and Hutter 2019).

Bias corrections are computed in the graph from the step count: 1 - beta^t = -expm1(t ln beta),
which keeps all digits in float32 where 1 - beta^t would cancel.
"""

from __future__ import annotations

import math
from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.tensor import raw_node, write
from lazygrad.optim.optimizer import (
    Optimizer,
    check_betas,
    check_not_negative,
    value_of,
    with_values,
)
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node


class Adam(Optimizer):
    """First and second moments of the gradient; p = p - lr * m' / (sqrt(v') + eps).

    weight_decay is added to the gradient, or, with decoupled_weight_decay, taken off the parameter.
    """

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *,
                 foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False, fused: bool | None = None,
                 decoupled_weight_decay: bool = False) -> None:
        name = type(self).__name__
        check_not_negative(name, lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(name, betas)
        if differentiable:
            raise NotImplementedError(f"{name}: differentiable=True is not supported")
        super().__init__(params,
                         {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                          "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
                          "capturable": capturable, "differentiable": differentiable,
                          "fused": fused, "decoupled_weight_decay": decoupled_weight_decay})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        decoupled, amsgrad, eps = group["decoupled_weight_decay"], group["amsgrad"], group["eps"]
        factors: dict[tuple[int, DType], tuple[Any, ...]] = {}
        # Broadcast once for each shape: most of a recorded update would be broadcasting otherwise.
        broadcast: dict[tuple[int, DType, Any], list[Any]] = {}
        name = type(self).__name__
        for parameter, dtype, value in with_values(parameters):
            count = self.state[parameter]["step"]
            key = (id(count), dtype)
            if key not in factors:
                factors[key] = self._factors(index, group, raw_node(count), dtype)
            shaped = broadcast.get((*key, value.shape))
            if shaped is None:
                shaped = broadcast[(*key, value.shape)] = [
                    _shaped(factor, dtype, value.shape) for factor in (*factors[key], eps)]
            beta2, rest1, rest2, step_size, root_correction, kept, weight_decay, tiny = shaped
            gradient = self._gradient(parameter, group, value, 0 if decoupled else weight_decay)
            if kept is not None:
                value = graph.mul(value, kept)
            average = self._state_tensor(parameter, "exp_avg")
            squares = self._state_tensor(parameter, "exp_avg_sq")
            first = value_of(average, dtype)
            first = graph.add(first, graph.mul(graph.sub(gradient, first), rest1))
            second = graph.add(graph.mul(value_of(squares, dtype), beta2),
                               graph.mul(graph.mul(gradient, gradient), rest2))
            write(average, name, first)
            write(squares, name, second)
            if amsgrad:
                largest = self._state_tensor(parameter, "max_exp_avg_sq")
                second = graph.binary("maximum", value_of(largest, dtype), second)
                write(largest, name, second)
            divisor = graph.add(graph.div(graph.unary("sqrt", second), root_correction), tiny)
            write(parameter, name,
                  graph.sub(value, graph.div(graph.mul(first, step_size), divisor)))

    def _factors(self, index: int, group: dict[str, Any], count: Node, dtype: DType) -> tuple[Any,
                                                                                              ...]:
        """The 0-d numbers that all parameters with the same step count share."""
        beta1, beta2 = (float(beta) for beta in group["betas"])
        lr = self._number(index, "lr", group["lr"], dtype)
        weight_decay = self._number(index, "weight_decay", group["weight_decay"], dtype)
        kept = None
        if group["decoupled_weight_decay"] and group["weight_decay"] != 0:
            kept = graph.sub(graph.const(1.0, dtype), graph.mul(lr, weight_decay))
        count = graph.cast(count, dtype)
        corrections = []
        for position, beta in ((1, beta1), (2, beta2)):
            if beta == 0.0:
                corrections.append(graph.const(1.0, dtype))
                continue
            logarithm = self._number(index, f"log(beta{position})", math.log(beta), dtype)
            corrections.append(graph.unary("neg",
                                           graph.unary("expm1", graph.mul(count, logarithm))))
        return (self._number(index, "beta2", beta2, dtype),
                self._number(index, "1 - beta1", 1.0 - beta1, dtype),
                self._number(index, "1 - beta2", 1.0 - beta2, dtype), graph.div(lr, corrections[0]),
                graph.unary("sqrt", corrections[1]), kept, weight_decay)


def _shaped(factor: Any, dtype: DType, shape: Any) -> Any:
    """A factor as a node of a shape; None and 0 mean that there is nothing to do, and stay."""
    if factor is None or (factor.__class__ is not Node and factor == 0):
        return factor
    if factor.__class__ is Node:
        return graph.broadcast(factor, shape)
    return graph.const(factor, dtype, shape)


class AdamW(Adam):
    """Adam with weight decay taken off the parameters instead of added to the gradients."""

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
                 maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach,
                         maximize=maximize, capturable=capturable, differentiable=differentiable,
                         fused=fused, decoupled_weight_decay=True)
