"""Convolutions and transposed convolutions."""

from __future__ import annotations

from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional._windows import Sizes, per_axis
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
           "conv_tbc"]


def _batched(name: str, input: Tensor, rank: int) -> tuple[Node, bool]:
    """The input with a batch axis, and whether it had none."""
    node = as_node(name, input)
    if node.ndim == rank + 1:
        return graph.unsqueeze(node, 0), True
    if node.ndim != rank + 2:
        raise fail(name, f"takes an input (N, C, {rank} axes) or (C, {rank} axes), not "
                   f"{listed(node.shape)}")
    return node, False


def _check_weight(name: str, node: Node, weight: Node, channels: int, outputs: int,
                  groups: int) -> None:
    """channels: what the weight takes; outputs: what has to split into the groups."""
    if weight.ndim != node.ndim:
        raise fail(name, f"the weight {listed(weight.shape)} does not have {node.ndim} axes")
    if groups < 1 or outputs % groups:
        raise fail(name, f"the weight {listed(weight.shape)} does not split into {groups} groups",
                   "in_channels and out_channels are multiples of groups.")
    if weight.dtype is not node.dtype:
        raise fail(name, f"input is {node.dtype.name}, weight {weight.dtype.name}",
                   "Convert one with .to(...).")
    if 0 in node.shape[2:]:
        raise fail(name, f"the input {listed(node.shape)} has no places",
                   "Only the batch and the channels may be empty.")
    if not node.dtype.is_differentiable:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}", "Convert with .float().")
    if node.shape[1] != channels:
        raise fail(name, f"the weight {listed(weight.shape)} with groups={groups} takes {channels} "
                   f"channels, the input {listed(node.shape)} has {node.shape[1]}")


def _settings(name: str, rank: int, **values: Any) -> list[Sizes]:
    """Settings of each axis: stride and dilation are at least 1, paddings at least 0."""
    result = []
    for what, value in values.items():
        sizes = per_axis(name, value, rank, what)
        least = 0 if "padding" in what else 1
        if min(sizes) < least:
            hint = "Take a slice of the input instead." if what == "padding" else ""
            raise fail(name, f"{what} {value} is below {least}", hint)
        result.append(sizes)
    return result


def _with_bias(name: str, node: Node, bias: Tensor | None, unbatched: bool) -> Tensor:
    if bias is not None:
        given = node_of(bias)
        if given.shape != (node.shape[1],) or given.dtype is not node.dtype:
            raise fail(name, f"the bias is {given.dtype.name} {listed(given.shape)}, and there are "
                       f"{node.shape[1]} output channels of {node.dtype.name}",
                       "It is a vector with one number for each output channel.")
        shape = (1, node.shape[1], *(1,) * (node.ndim - 2))
        node = graph.add(node, graph.reshape(given, shape))
    return wrap(graph.reshape(node, node.shape[1:]) if unbatched else node)


def _convolve(name: str, rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any,
              padding: Any, dilation: Any, groups: int) -> Tensor:
    node, unbatched = _batched(name, input, rank)
    kernel = node_of(weight)
    _check_weight(name, node, kernel, kernel.shape[1] * groups if kernel.ndim > 1 else 0,
                  kernel.shape[0] if kernel.ndim else 0, groups)
    steps, gaps = _settings(name, rank, stride=stride, dilation=dilation)
    if padding == "same":
        if any(step != 1 for step in steps):
            raise fail(name, "padding='same' needs a stride of 1")
        totals = [gap * (size - 1) for gap, size in zip(gaps, kernel.shape[2:], strict=True)]
        pairs = tuple((total // 2, total - total // 2) for total in totals)
    elif padding == "valid":
        pairs = ((0, 0),) * rank
    elif isinstance(padding, str):
        raise fail(name, f"padding {padding!r}; there are 'same', 'valid' and numbers")
    else:
        cuts, = _settings(name, rank, padding=padding)
        pairs = tuple((size, size) for size in cuts)
    result = graph.make("conv", node, kernel, attrs=(steps, pairs, (1,) * rank, gaps, groups))
    return _with_bias(name, result, bias, unbatched)


def _conv(rank: int) -> Any:
    name = f"conv{rank}d"

    def apply(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
              padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
        return _convolve(name, rank, input, weight, bias, stride, padding, dilation, groups)
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"Cross-correlation over {rank} axes; weight (out, in / groups, kernel)."
    return operation(apply)


conv1d, conv2d, conv3d = _conv(1), _conv(2), _conv(3)


def _conv_transpose(rank: int) -> Any:
    name = f"conv_transpose{rank}d"

    def apply(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor:
        node, unbatched = _batched(name, input, rank)
        kernel = node_of(weight)
        inputs = kernel.shape[0] if kernel.ndim else 0
        _check_weight(name, node, kernel, inputs, inputs, groups)
        steps, cuts, extra, gaps = _settings(name, rank, stride=stride, padding=padding,
                                             output_padding=output_padding, dilation=dilation)
        if any(more >= max(step, gap) for more, step, gap in zip(extra, steps, gaps, strict=True)):
            raise fail(name, f"output_padding {extra} must be smaller than stride {steps} or "
                       f"dilation {gaps}")
        space = kernel.shape[2:]
        # (groups * in, out) to (groups * out, in), kernels turned round.
        inside, outside = kernel.shape[0] // groups, kernel.shape[1]
        kernel = graph.reshape(kernel, (groups, inside, outside, *space))
        kernel = graph.permute(kernel, (0, 2, 1, *range(3, 3 + rank)))
        kernel = graph.reshape(kernel, (groups * outside, inside, *space))
        kernel = graph.make("flip", kernel, attrs=(tuple(range(2, 2 + rank)),))
        pairs = tuple(
            (gap * (size - 1) - cut, gap * (size - 1) - cut + more)
            for gap, size, cut, more in zip(gaps, space, cuts, extra, strict=True)
        )
        result = graph.make("conv", node, kernel, attrs=((1,) * rank, pairs, steps, gaps, groups))
        return _with_bias(name, result, bias, unbatched)
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The gradient of conv{rank}d for its input; weight (in, out / groups, kernel)."
    return operation(apply)


conv_transpose1d, conv_transpose2d, conv_transpose3d = (_conv_transpose(rank) for rank in (1, 2, 3))


@operation
def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """conv1d with time first: (T, N, in) with weight (kernel, in, out) gives (T', N, out)."""
    node, kernel = as_node("conv_tbc", input), node_of(weight)
    if node.ndim != 3 or kernel.ndim != 3:
        raise fail("conv_tbc", f"takes (T, N, in) and a weight (kernel, in, out), not "
                   f"{listed(node.shape)} and {listed(kernel.shape)}")
    result = _convolve("conv_tbc", 1, input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, 1, pad,
                       1, 1)
    return result.permute(2, 0, 1)
