"""Adam (Kingma and Ba 2015), AMSGrad (Reddi et al. 2018), and AdamW (Loshchilov and Hutter 2019).

Bias corrections are computed in the graph from the step count: 1 - beta^t = -expm1(t ln beta),
which keeps all digits in float32 where 1 - beta^t would cancel.
"""

from __future__ import annotations

import math
from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad._core.tensor import raw_node
from lazygrad.optim.arithmetic import compute_dtype, descent, rounded, shrunk, widened
from lazygrad.optim.optimizer import Optimizer, check_betas, check_not_negative
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node


@Composite
def adam(value: Node, gradient: Node, first: Node, second: Node, *rest: Any) -> list[Node]:
    """The new value, first moment, second moment, and for AMSGrad the largest second moment.

    rest: the largest second moment where there is one, then count, lr, weight_decay, maximize,
    decoupled, beta2, 1 - beta1, 1 - beta2, log(beta1), log(beta2), eps.
    """
    count, lr, weight_decay, maximize, decoupled, beta2, rest1, rest2, log1, log2, eps = rest[-11:]
    dtype = value.dtype
    value, first, second, *largest = widened(value, first, second, *rest[:-11])
    gradient = descent(value, gradient, maximize, 0 if decoupled else weight_decay)
    count = graph.cast(count, value.dtype)
    if decoupled:
        value = shrunk(value, lr, weight_decay)
    first = graph.add(first, graph.mul(graph.sub(gradient, first), rest1))
    second = graph.add(graph.mul(second, beta2), graph.mul(graph.mul(gradient, gradient), rest2))
    results = [first, second]
    if largest:
        results.append(graph.binary("maximum", largest[0], second))
    root = graph.unary("sqrt", correction(count, log2))
    divisor = graph.add(graph.div(graph.unary("sqrt", results[-1]), root), eps)
    step = graph.div(lr, correction(count, log1))
    value = graph.sub(value, graph.div(graph.mul(first, step), divisor))
    return rounded(dtype, value, *results)


def correction(count: Node, logarithm: Any) -> Node:
    """1 - beta^count, from log(beta); log(0) is given as None."""
    if logarithm is None:
        return graph.like(1.0, count)
    return graph.unary("neg", graph.unary("expm1", graph.mul(count, logarithm)))


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
        super().__init__(params,
                         {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                          "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
                          "capturable": capturable, "differentiable": differentiable,
                          "fused": fused, "decoupled_weight_decay": decoupled_weight_decay})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        beta1, beta2 = (float(beta) for beta in group["betas"])
        states = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        settings: dict[Any, tuple[Any, ...]] = {}

        def of_group(dtype: DType) -> tuple[Any, ...]:
            def number(name: str, value: Any) -> Any:
                return self._number(index, name, value, dtype)

            return (number("lr", group["lr"]), number("weight_decay", group["weight_decay"]),
                    group["maximize"], group["decoupled_weight_decay"], number("beta2", beta2),
                    number("1 - beta1", 1.0 - beta1), number("1 - beta2", 1.0 - beta2),
                    number("log(beta1)", math.log(beta1)) if beta1 else None,
                    number("log(beta2)", math.log(beta2)) if beta2 else None, group["eps"])

        for parameter in parameters:
            dtype = compute_dtype(parameter)
            if dtype not in settings:
                settings[dtype] = of_group(dtype)
            count = raw_node(self.state[parameter]["step"])
            self._update(adam, parameter, states, count, *settings[dtype])


class AdamW(Adam):
    """Adam with weight decay taken off the parameters instead of added to the gradients."""

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
                 maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach,
                         maximize=maximize, capturable=capturable, differentiable=differentiable,
                         fused=fused, decoupled_weight_decay=True)
