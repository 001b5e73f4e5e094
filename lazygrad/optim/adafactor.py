"""Adafactor (Shazeer and Stern 2018), in PyTorch's form: row and column averages in place of a full
second moment, clipped updates, steps relative to the size of the parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad._core.tensor import raw_node
from lazygrad.optim.arithmetic import (
    compute_dtype,
    descent,
    number_node,
    power,
    reciprocal,
    rounded,
    shrunk,
    widened,
)
from lazygrad.optim.optimizer import Optimizer, check_not_negative
from lazygrad_compiler.ir.dtypes import float64
from lazygrad_compiler.ir.node import Node


@Composite
def adafactor_rates(count: Node, lr: Node, beta2_decay: Any) -> list[Node]:
    """The largest relative step min(lr, 1 / sqrt(count)), and the weight of the new gradient."""
    count = graph.cast(count, float64)
    relative = graph.binary("minimum", lr, reciprocal(graph.unary("sqrt", count)))
    return [relative, power(count, number_node(beta2_decay, float64))]


def _size(node: Node) -> Node:
    """The root of the mean square, 0-d."""
    return graph.unary("sqrt", graph.mean(graph.mul(node, node), range(node.ndim)))


def _toward(old: Node, new: Node, weight: Node) -> Node:
    return graph.add(old, graph.mul(graph.sub(new, old), weight))


@Composite
def adafactor(value: Node, gradient: Node, *rest: Any) -> list[Node]:
    """The new value and variances.

    rest: the averages of the squared gradient over rows and over columns, or the one average of
    all elements; then relative, weight, lr, weight_decay, maximize, eps1, eps2, d.
    """
    relative, weight, lr, weight_decay, maximize, eps1, eps2, d = rest[-8:]
    dtype = value.dtype
    value, *variances = widened(value, *rest[:-8])
    gradient = descent(value, gradient, maximize, 0)
    rate = graph.mul(graph.binary("maximum", _size(value), eps2), relative)
    value = shrunk(value, lr, weight_decay)
    squares = graph.mul(gradient, gradient)
    if len(variances) == 2:
        last = value.ndim - 1
        rows = _toward(variances[0], graph.mean(squares, [last], keepdim=True), weight)
        columns = _toward(variances[1], graph.mean(squares, [last - 1], keepdim=True), weight)
        results = [rows, columns]
        total = graph.binary("maximum", graph.mean(rows, [last - 1], keepdim=True), eps1)
        spread = graph.div(graph.mul(rows, columns), total)
    else:
        results = [_toward(variances[0], squares, weight)]
        spread = results[0]
    change = graph.div(gradient,
                       graph.unary("sqrt", graph.binary("maximum", spread, eps1 * eps1)))
    clipped = graph.binary("maximum", graph.div(_size(change), d), 1.0)
    change = graph.mul(change, graph.div(rate, clipped))
    return rounded(dtype, graph.sub(value, change), *results)


class Adafactor(Optimizer):
    """p = p - max(eps2, size of p) * min(lr, 1 / sqrt(t)) * clipped g / sqrt(v)."""

    step_is_counted = True

    def __init__(self, params: Any, lr: Any = 1e-2, beta2_decay: float = -0.8,
                 eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0,
                 weight_decay: float = 0.0, *, foreach: bool | None = None,
                 maximize: bool = False) -> None:
        check_not_negative("Adafactor", lr=lr, weight_decay=weight_decay, epsilon2=eps[1],
                           epsilon1=0.0 if eps[0] is None else eps[0])
        if not beta2_decay <= 0.0:
            raise ValueError(f"Adafactor: invalid beta2_decay: {beta2_decay}; it must be at most 0")
        if not d >= 1.0:
            raise ValueError(f"Adafactor: invalid clipping threshold d: {d}; it must be at least 1")
        super().__init__(params,
                         {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
                          "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize})

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        def schedule(state: dict[str, Any]) -> Sequence[Any]:
            return adafactor_rates(raw_node(state["step"]),
                                   self._number(index, "lr", group["lr"], float64),
                                   self._number(index, "beta2_decay", group["beta2_decay"],
                                                float64))

        eps1, eps2 = group["eps"]
        for parameter, rates in self._per_count(parameters, schedule):
            if parameter.dtype.is_complex:
                raise RuntimeError("Adafactor does not support complex parameters; use Adam")
            dtype = compute_dtype(parameter)
            names = ("row_var", "col_var") if parameter.ndim > 1 else ("variance",)
            for name in names:
                self._state_tensor(parameter, name, shape=self._state_shape(name, parameter))
            least = lg.finfo(parameter.dtype).eps if eps1 is None else eps1
            self._update(adafactor, parameter, names, *rates,
                         self._number(index, "lr", group["lr"], dtype),
                         self._number(index, "weight_decay", group["weight_decay"], dtype),
                         group["maximize"], float(least), float(eps2), float(group["d"]))

    def _state_shape(self, name: str, parameter: lg.Tensor) -> tuple[int, ...]:
        shape = tuple(parameter.shape)
        if name == "row_var":
            return (*shape[:-1], 1)
        return (*shape[:-2], 1, shape[-1]) if name == "col_var" else shape
