"""Muon: momentum whose singular values are all brought near 1 (Jordan et al. 2024, "Muon: an
optimizer for hidden layers in neural networks"), for matrices.
"""

from __future__ import annotations

import math
from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad.functional.products import matmul_node
from lazygrad.optim.arithmetic import compute_dtype, rounded, shrunk, widened
from lazygrad.optim.optimizer import Optimizer, check_not_negative
from lazygrad_compiler.ir.dtypes import bfloat16, float32
from lazygrad_compiler.ir.node import Node

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""The quintic of the paper's Newton-Schulz iteration: steepest at 0, within 0.3 of 1 after 5."""

ADJUSTMENTS = {
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}
"""How the rate depends on the shape: as Jordan has it, or so that updates are as large as AdamW's
(Liu et al. 2025, "Muon is scalable for LLM training").
"""


def orthogonalized(matrix: Node, coefficients: tuple[float, float, float], steps: int,
                   eps: float) -> Node:
    """U V^T, roughly, of matrix = U S V^T: x = a x + (b x x^T + c (x x^T)^2) x, in bfloat16."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = graph.cast(matrix, bfloat16)
    if tall:
        x = graph.permute(x, (1, 0))
    wide = graph.cast(x, float32)
    size = graph.unary("sqrt", graph.reduce("sum", graph.mul(wide, wide), (0, 1)))
    x = graph.cast(graph.div(wide, graph.binary("maximum", size, eps)), bfloat16)
    for _ in range(steps):
        gram = matmul_node(x, graph.permute(x, (1, 0)))
        inner = _sum(gram, b, matmul_node(gram, gram), c)
        x = _sum(x, a, matmul_node(inner, x), 1.0)
    return graph.permute(x, (1, 0)) if tall else x


def _sum(left: Node, of_left: float, right: Node, of_right: float) -> Node:
    """of_left * left + of_right * right of bfloat16 nodes, rounded once."""
    left, right = graph.cast(left, float32), graph.cast(right, float32)
    return graph.cast(graph.add(graph.mul(left, of_left), graph.mul(right, of_right)), bfloat16)


@Composite
def muon(value: Node, gradient: Node, average: Node, lr: Node, weight_decay: Any, momentum: Any,
         rest: Any, nesterov: bool, ratio: float, coefficients: tuple[float, float, float],
         steps: int, eps: float) -> list[Node]:
    """The new value and momentum; rest: 1 - momentum; ratio: the rate's factor for the shape."""
    dtype = value.dtype
    value, average = widened(value, average)
    gradient = graph.cast(gradient, value.dtype)
    average = graph.add(average, graph.mul(graph.sub(gradient, average), rest))
    change = average
    if nesterov:
        change = graph.add(gradient, graph.mul(graph.sub(average, gradient), momentum))
    change = graph.cast(orthogonalized(change, coefficients, steps, eps), value.dtype)
    value = shrunk(value, lr, weight_decay)
    return rounded(dtype, graph.sub(value, graph.mul(change, graph.mul(lr, ratio))), average)


class Muon(Optimizer):
    """Momentum, orthogonalised, for parameters of two axes; others want another optimiser."""

    def __init__(self, params: Any, lr: Any = 1e-3, weight_decay: float = 0.1,
                 momentum: float = 0.95, nesterov: bool = True,
                 ns_coefficients: tuple[float, float, float] = COEFFICIENTS, eps: float = 1e-7,
                 ns_steps: int = 5, adjust_lr_fn: str | None = None) -> None:
        check_not_negative("Muon", lr=lr, momentum=momentum, weight_decay=weight_decay)
        if adjust_lr_fn is not None and adjust_lr_fn not in ADJUSTMENTS:
            raise ValueError(f"Muon: adjust_lr_fn {adjust_lr_fn!r} is not supported; it is one of "
                             f"{', '.join(ADJUSTMENTS)}")
        if not 0 <= ns_steps < 100:
            raise ValueError(f"Muon: ns_steps must be in [0, 100), and it is {ns_steps}")
        if len(ns_coefficients) != 3:
            raise ValueError("Muon: ns_coefficients must have 3 values, and it has "
                             f"{len(ns_coefficients)}")
        super().__init__(params,
                         {"lr": lr, "weight_decay": weight_decay, "momentum": momentum,
                          "nesterov": nesterov, "ns_coefficients": ns_coefficients, "eps": eps,
                          "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.ndim != 2 or parameter.dtype.is_complex:
                self.param_groups.pop()
                raise ValueError("Muon only supports real 2D parameters, and one has shape "
                                 f"{tuple(parameter.shape)} and dtype {parameter.dtype}; give it "
                                 "to another optimizer, such as AdamW")

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        ratio_of = ADJUSTMENTS[group["adjust_lr_fn"] or "original"]
        for parameter in parameters:
            dtype = compute_dtype(parameter)
            self._update(muon, parameter, ("momentum_buffer",),
                         self._number(index, "lr", group["lr"], dtype),
                         self._number(index, "weight_decay", group["weight_decay"], dtype),
                         self._number(index, "momentum", group["momentum"], dtype),
                         self._number(index, "1 - momentum", 1.0 - group["momentum"], dtype),
                         group["nesterov"], float(ratio_of(*parameter.shape)),
                         tuple(group["ns_coefficients"]), group["ns_steps"], group["eps"])
