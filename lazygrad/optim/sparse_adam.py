"""SparseAdam: Adam that leaves rows alone which had no part in the loss.

There are no sparse tensors here: the gradient of an embedding is dense, with zeros in the rows that
were not looked up. So a row whose gradient is all zeros is one that PyTorch's sparse gradient would
not list, and keeps its value and its moments.
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
def sparse_adam_rate(count: Node, lr: Node, beta1: Any, beta2: Any) -> list[Node]:
    """lr * sqrt(1 - beta2^count) / (1 - beta1^count)."""
    count = graph.cast(count, float64)
    first, second = (complement(power(number_node(beta, float64), count))
                     for beta in (beta1, beta2))
    return [graph.div(graph.mul(lr, graph.unary("sqrt", second)), first)]


@Composite
def sparse_adam(value: Node, gradient: Node, first: Node, second: Node, rate: Node, maximize: bool,
                rest1: Any, rest2: Any, eps: float) -> list[Node]:
    """The new value and moments, changed in the rows that have a gradient; rest1 and rest2:
    1 - beta1 and 1 - beta2.
    """
    dtype = value.dtype
    value, first, second = old = widened(value, first, second)
    gradient = descent(value, gradient, maximize, 0)
    present = graph.binary("ne", gradient, graph.like(0.0, gradient))
    if value.ndim > 1:
        present = graph.reduce("max", present, range(1, value.ndim), keepdim=True)
        present = graph.broadcast(present, value.shape)
    first = graph.add(first, graph.mul(graph.sub(gradient, first), rest1))
    square = graph.mul(gradient, gradient)
    second = graph.add(second, graph.mul(graph.sub(square, second), rest2))
    change = graph.div(first, graph.add(graph.unary("sqrt", second), eps))
    new = (graph.sub(value, graph.mul(change, rate)), first, second)
    return rounded(dtype, *(graph.where(present, after, before)
                            for after, before in zip(new, old)))


class SparseAdam(Optimizer):
    """Adam on the rows whose gradient is not all zeros, for nn.Embedding(..., sparse=True)."""

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, maximize: bool = False) -> None:
        check_not_negative("SparseAdam", lr=lr, eps=eps)
        if not eps > 0.0:
            raise ValueError(f"SparseAdam: invalid eps: {eps}; it must be above 0")
        if not isinstance(lr, lg.Tensor) and not lr > 0.0:
            raise ValueError(f"SparseAdam: invalid lr: {lr}; it must be above 0")
        check_betas("SparseAdam", betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        if any(parameter.dtype.is_complex for group in self.param_groups
               for parameter in group["params"]):
            raise ValueError("SparseAdam does not support complex parameters; use Adam")

    def state_dict(self) -> dict[str, Any]:
        """PyTorch's layout, in which the step counts of this optimiser are ints."""
        found = super().state_dict()
        for values in found["state"].values():
            values["step"] = int(values["step"].item())
        return found

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        beta1, beta2 = (float(beta) for beta in group["betas"])

        def schedule(state: dict[str, Any]) -> Sequence[Any]:
            return sparse_adam_rate(raw_node(state["step"]),
                                    self._number(index, "lr", group["lr"], float64),
                                    self._number(index, "beta1", beta1, float64),
                                    self._number(index, "beta2", beta2, float64))

        for parameter, (rate,) in self._per_count(parameters, schedule):
            dtype = compute_dtype(parameter)
            self._update(sparse_adam, parameter, ("exp_avg", "exp_avg_sq"), rate,
                         group["maximize"], self._number(index, "1 - beta1", 1.0 - beta1, dtype),
                         self._number(index, "1 - beta2", 1.0 - beta2, dtype), group["eps"])
