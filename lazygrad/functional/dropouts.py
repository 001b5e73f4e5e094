"""Dropout: elements or whole channels zeroed by chance, the rest scaled to keep the mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap, write
from lazygrad.functional._operands import as_node
from lazygrad.functional.random import uniform_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["dropout", "dropout_", "alpha_dropout", "alpha_dropout_", "feature_dropout",
           "feature_dropout_", "native_dropout"]

SELU_FLOOR = -1.7580993408473766
"""Where SELU goes for large negative numbers: what alpha dropout puts in place of a value."""


def kept_node(p: float, shape: tuple[int, ...]) -> Node:
    """Where values stay: each with chance 1 - p."""
    return graph.binary("le", graph.const(p, dtypes.float32, shape),
                        uniform_node(shape, dtypes.float32))


def dropout_node(node: Node, p: float, shape: tuple[int, ...]) -> Node:
    """Zeroed with chance p, the rest scaled by 1 / (1 - p); one draw for each place of `shape`."""
    if p == 1:
        return graph.mul(node, 0)
    return graph.where(kept_node(p, shape), graph.mul(node, 1 / (1 - p)), 0)


def checked(name: str, input: Any, p: float) -> Node:
    """The floating node of the input; p has to be a probability."""
    if not 0 <= p <= 1:
        raise fail(name, f"p is a probability, and {p} does not lie in 0..1")
    node = as_node(name, input)
    if not node.dtype.is_differentiable:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}",
                   "Convert with .float().")
    return node


@operation
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Elements zeroed with chance p, the others scaled up to keep the mean."""
    node = checked("dropout", input, p)
    if not training or p == 0:
        return input
    result = dropout_node(node, p, node.shape)
    return write(input, "dropout", result) if inplace else wrap(result)


@operation
def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """(dropout of the input, where it was kept)."""
    node = checked("native_dropout", input, p)
    if train is False or p == 0:
        return wrap(node), wrap(graph.const(True, dtypes.bool_, node.shape))
    kept = kept_node(p, node.shape)
    scale = 1 / (1 - p) if p < 1 else 0.0
    return wrap(graph.where(kept, graph.mul(node, scale), 0)), wrap(kept)


def _of_channels(name: str, ranks: tuple[int, ...], batched: int) -> Callable[..., Tensor]:
    """Dropout of whole channels; without a batch axis where the rank is `batched` - 1."""

    def apply(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
        node = checked(name, input, p)
        if ranks and node.ndim not in ranks:
            raise fail(name, f"takes {' or '.join(map(str, ranks))} axes, not {listed(node.shape)}")
        if node.ndim < 2:
            raise fail(name, f"takes (N, C, *space), not {listed(node.shape)}")
        if not training or p == 0:
            return input
        leading = 1 if node.ndim == batched - 1 else 2
        shape = (*node.shape[:leading], *(1,) * (node.ndim - leading))
        result = dropout_node(node, p, shape)
        return write(input, name, result) if inplace else wrap(result)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = "Whole channels zeroed with chance p, the others scaled up."
    return operation(apply)


feature_dropout = _of_channels("feature_dropout", (), 0)
dropout1d = _of_channels("dropout1d", (2, 3), 3)
dropout2d = _of_channels("dropout2d", (3, 4), 0)  # of three axes the first is the batch, as torch
dropout3d = _of_channels("dropout3d", (4, 5), 5)


@operation
def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False,
                  inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance of SELU networks (Klambauer et al. 2017)."""
    node = checked("alpha_dropout", input, p)
    if not training or p == 0:
        return input
    scale = 1 / math.sqrt((1 - p) * (1 + p * SELU_FLOOR**2)) if p < 1 else 0.0
    mixed = graph.where(kept_node(p, node.shape), node, SELU_FLOOR)
    result = graph.add(graph.mul(mixed, scale), -scale * p * SELU_FLOOR)
    return write(input, "alpha_dropout", result) if inplace else wrap(result)


def dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`dropout`, written into the tensor."""
    return dropout(input, p, train, True)


def feature_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`feature_dropout`, written into the tensor."""
    return feature_dropout(input, p, train, True)


def alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`alpha_dropout`, written into the tensor."""
    return alpha_dropout(input, p, train, True)
