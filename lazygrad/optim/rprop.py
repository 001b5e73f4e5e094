"""Rprop: steps by the sign of the gradient alone (Riedmiller and Braun 1993)."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad.optim.arithmetic import compute_dtype, descent, number_node, rounded, widened
from lazygrad.optim.optimizer import Optimizer, check_not_negative
from lazygrad_compiler.ir.node import Node


@Composite
def rprop(value: Node, gradient: Node, previous: Node, size: Node, maximize: bool, shrink: Any,
          grow: Any, least: Any, most: Any) -> list[Node]:
    """The new value, gradient to compare with, and size of step."""
    dtype = value.dtype
    value, previous, size = widened(value, previous, size)
    gradient = descent(value, gradient, maximize, 0)
    product = graph.mul(gradient, previous)
    zero = graph.like(0.0, product)
    turned, kept = graph.binary("lt", product, zero), graph.binary("lt", zero, product)
    factor = graph.where(turned, graph.broadcast(shrink, product.shape),
                         graph.where(kept, grow, graph.like(1.0, product)))
    size = graph.mul(size, factor)
    size = graph.binary("minimum", graph.binary("maximum", size, least), most)
    gradient = graph.where(turned, 0.0, gradient)
    change = graph.mul(graph.unary("sign", gradient), size)
    return rounded(dtype, graph.sub(value, change), gradient, size)


class Rprop(Optimizer):
    """p = p - sign(g) * size; each size grows while its gradient keeps its sign."""

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False,
                 foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False) -> None:
        check_not_negative("Rprop", lr=lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Rprop: invalid etas: {etas[0]}, {etas[1]}; they must be such that "
                             "0 < etas[0] < 1 < etas[1]")
        super().__init__(params,
                         {"lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach,
                          "maximize": maximize, "differentiable": differentiable,
                          "capturable": capturable})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        numbers = {"etas[0]": group["etas"][0], "etas[1]": group["etas"][1],
                   "step_sizes[0]": group["step_sizes"][0], "step_sizes[1]": group["step_sizes"][1]}
        for parameter in parameters:
            dtype = compute_dtype(parameter)
            if "step_size" not in self.state[parameter]:
                size = float(group["lr"])
                self._state_tensor(parameter, "prev")
                self._state_tensor(parameter, "step_size",
                                   complex(size, size) if parameter.dtype.is_complex else size)
            self._update(rprop, parameter, ("prev", "step_size"), group["maximize"],
                         *(number_node(self._number(index, name, float(value), dtype), dtype)
                           for name, value in numbers.items()))
