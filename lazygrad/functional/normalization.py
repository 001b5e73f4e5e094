"""Normalisation over batches, features, groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of, wrap, write
from lazygrad.functional._operands import as_node
from lazygrad.functional.statistics import variance
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm",
           "local_response_norm"]


def _scaled(node: Node, center: Node, spread: Node, eps: float) -> Node:
    """(x - center) / sqrt(spread + eps)."""
    inverse = graph.div(graph.like(1, spread), graph.unary("sqrt", graph.add(spread, eps)))
    return graph.mul(graph.sub(node, center), inverse)


def _affine(name: str, node: Node, weight: Tensor | None, bias: Tensor | None,
            shape: tuple[int, ...], per_channel: bool = True) -> Node:
    """weight * x + bias, both of the shape given, or, per channel, vectors for its places."""
    for what, given in (("weight", weight), ("bias", bias)):
        if given is not None and tuple(given.shape) != (
                expected := (math.prod(shape),) if per_channel else shape):
            raise fail(name, f"the {what} is {listed(given.shape)}, and {listed(node.shape)} needs "
                       f"{listed(expected)}")
        if given is not None and given.dtype.is_complex and not node.dtype.is_complex:
            raise fail(name, f"the {what} is {given.dtype.name}, the input {node.dtype.name}",
                       "Take .real first.")
    if weight is not None:
        node = graph.mul(node, graph.cast(graph.reshape(node_of(weight), shape), node.dtype))
    if bias is not None:
        node = graph.add(node, graph.cast(graph.reshape(node_of(bias), shape), node.dtype))
    return node


def _floats(name: str, input: Tensor) -> Node:
    node = as_node(name, input)
    if not node.dtype.is_floating:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}", "Convert with .float().")
    return node


def _check_running(name: str, channels: int, *running: Tensor | None) -> None:
    for each in running:
        if each is not None and tuple(each.shape) != (channels,):
            raise fail(name, f"running statistics {listed(each.shape)} for {channels} channels")
        if each is not None and each.dtype.is_complex:
            raise fail(name, f"running statistics are real, not {each.dtype.name}")


def _update(running: Tensor, new: Node, momentum: float) -> None:
    """running = (1 - momentum) * running + momentum * new, without history."""
    from lazygrad._core.modes import no_grad
    with no_grad():
        fresh = graph.cast(graph.stop_gradient(new), running.dtype)
        old = node_of(running)
        write(running, "batch_norm", graph.add(graph.mul(old, 1 - momentum),
                                               graph.mul(fresh, momentum)))


@operation
def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Normalised over all axes but 1: by the batch in training, else by the running statistics."""
    node = _floats("batch_norm", input)
    if node.ndim < 2:
        raise fail("batch_norm", f"takes (N, C, …), not {listed(node.shape)}")
    if isinstance(momentum, str):
        raise fail("batch_norm", f"momentum is a number, not {momentum!r}", kind=TypeError)
    _check_running("batch_norm", node.shape[1], running_mean, running_var)
    axes = (0, *range(2, node.ndim))
    shape = (1, node.shape[1], *(1,) * (node.ndim - 2))
    if not training:
        if running_mean is None or running_var is None:
            raise fail("batch_norm", "outside training it needs running_mean and running_var")
        center = graph.reshape(node_of(running_mean), shape)
        spread = graph.reshape(node_of(running_var), shape)
        return wrap(_affine("batch_norm", _scaled(node, center, spread, eps), weight, bias, shape))
    count = math.prod(node.shape[axis] for axis in axes)
    if count < 2:
        raise fail("batch_norm", f"needs more than one value for each channel in training, and "
                   f"{listed(node.shape)} has {count}", kind=ValueError)
    spread, center = variance(node, axes, 0, True)
    if running_mean is not None:
        _update(running_mean, graph.reshape(center, (node.shape[1],)), momentum)
    if running_var is not None:
        unbiased = graph.mul(graph.reshape(spread, (node.shape[1],)), count / (count - 1))
        _update(running_var, unbiased, momentum)
    return wrap(_affine("batch_norm", _scaled(node, center, spread, eps), weight, bias, shape))


@operation
def instance_norm(input: Tensor, running_mean: Tensor | None = None,
                  running_var: Tensor | None = None, weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1,
                  eps: float = 1e-5) -> Tensor:
    """Normalised for each sample and channel over the axes of space.

    input: (N, C, *space).  use_input_stats=False: by the running statistics, as batch_norm.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    node = _floats("instance_norm", input)
    count = math.prod(node.shape[2:])
    if node.ndim < 3:
        raise fail("instance_norm", f"takes (N, C, *space), not {listed(node.shape)}")
    if count < 2:
        raise fail("instance_norm", f"needs more than one value in the space of each channel, and "
                   f"{listed(node.shape)} has {count}", kind=ValueError)
    _check_running("instance_norm", node.shape[1], running_mean, running_var)
    spread, center = variance(node, tuple(range(2, node.ndim)), 0, True)
    for running, new, factor in ((running_mean, center, 1.0),
                                 (running_var, spread, count / max(count - 1, 1))):
        if running is not None:
            flat = graph.mean(graph.reshape(new, node.shape[:2]), (0,))
            _update(running, graph.mul(flat, factor), momentum)
    shape = (1, node.shape[1], *(1,) * (node.ndim - 2))
    return wrap(_affine("instance_norm", _scaled(node, center, spread, eps), weight, bias, shape))


def _last_axes(
    name: str, node: Node, normalized_shape: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not sizes or node.shape[-len(sizes):] != sizes:
        raise fail(name, f"{listed(node.shape)} does not end in normalized_shape {listed(sizes)}")
    return sizes, tuple(range(node.ndim - len(sizes), node.ndim))


@operation
def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Normalised over the last axes."""
    node = _floats("layer_norm", input)
    sizes, axes = _last_axes("layer_norm", node, normalized_shape)
    spread, center = variance(node, axes, 0, True)
    return wrap(_affine("layer_norm", _scaled(node, center, spread, eps), weight, bias, sizes,
                        False))


@operation
def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """Divided by the root of the mean square over the last axes."""
    from lazygrad._core.types import finfo
    node = as_node("rms_norm", input)
    node = node if node.dtype.is_complex else _floats("rms_norm", input)
    sizes, axes = _last_axes("rms_norm", node, normalized_shape)
    square = graph.mean(graph.mul(node, node), axes, True)
    root = graph.unary("sqrt", graph.add(square, finfo(node.dtype).eps if eps is None else eps))
    scaled = graph.mul(node, graph.div(graph.like(1, root), root))
    return wrap(_affine("rms_norm", scaled, weight, None, sizes, False))


@operation
def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Normalised over groups of channels of each sample."""
    node = _floats("group_norm", input)
    if node.ndim < 2 or num_groups < 1 or node.shape[1] % num_groups:
        raise fail(
            "group_norm",
            f"the channels of {listed(node.shape)} do not split into {num_groups} groups",
        )
    parts = graph.reshape(node, (node.shape[0], num_groups, node.shape[1] // num_groups,
                                 *node.shape[2:]))
    spread, center = variance(parts, tuple(range(2, parts.ndim)), 0, True)
    result = graph.reshape(_scaled(parts, center, spread, eps), node.shape)
    shape = (1, node.shape[1], *(1,) * (node.ndim - 2))
    return wrap(_affine("group_norm", result, weight, bias, shape))


@operation
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75,
                        k: float = 1.0) -> Tensor:
    """Divided by (k + alpha * mean of squares over `size` neighbouring channels) ** beta."""
    node = _floats("local_response_norm", input)
    if node.ndim < 3 or size < 1:
        raise fail("local_response_norm", f"takes (N, C, *space) and a size of at least 1, not "
                   f"{listed(node.shape)} and {size}", kind=ValueError)
    low, high = [0] * node.ndim, [0] * node.ndim
    low[1], high[1] = min(size // 2, node.shape[1]), min((size - 1) // 2, node.shape[1])
    squares = graph.pad(graph.mul(node, node), low, high)
    width = low[1] + 1 + high[1]
    windows = graph.make("window", squares, attrs=((1,), (width,), (1,), (1,)))
    around = graph.div(graph.reduce("sum", windows, (windows.ndim - 1,)), size)
    return wrap(graph.div(node, graph.binary("pow", graph.add(graph.mul(around, alpha), k), beta)))
