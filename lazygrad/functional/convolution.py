"""Convolutions, transposed convolutions, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
           "pad"]


def per_axis(name: str, value: Any, rank: int, what: str) -> tuple[int, ...]:
    """One number for every axis, given as a number or a sequence."""
    if isinstance(value, int):
        return (value,) * rank
    values = tuple(int(each) for each in value)
    if len(values) == 1:
        return values * rank
    if len(values) != rank:
        raise fail(name, f"{what} {values} does not have {rank} numbers")
    return values


def _batched(name: str, input: Tensor, rank: int) -> tuple[Node, bool]:
    """The input with a batch axis, and whether it had none."""
    node = as_node(name, input)
    if node.ndim == rank + 1:
        return graph.unsqueeze(node, 0), True
    if node.ndim != rank + 2:
        raise fail(name, f"takes an input (N, C, {rank} axes) or (C, {rank} axes), not "
                   f"{listed(node.shape)}")
    return node, False


def _check_weight(name: str, node: Node, weight: Node, channels: int, groups: int) -> None:
    if weight.ndim != node.ndim:
        raise fail(name, f"the weight {listed(weight.shape)} does not have {node.ndim} axes")
    if weight.dtype is not node.dtype:
        raise fail(name, f"input is {node.dtype.name}, weight {weight.dtype.name}",
                   "Convert one with .to(...).")
    if node.shape[1] != channels:
        raise fail(name, f"the weight {listed(weight.shape)} with groups={groups} takes {channels} "
                   f"channels, the input {listed(node.shape)} has {node.shape[1]}")


def _with_bias(node: Node, bias: Tensor | None, unbatched: bool) -> Tensor:
    if bias is not None:
        shape = (1, node.shape[1], *(1,) * (node.ndim - 2))
        node = graph.add(node, graph.reshape(node_of(bias), shape))
    return wrap(graph.reshape(node, node.shape[1:]) if unbatched else node)


def _convolve(name: str, rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any,
              padding: Any, dilation: Any, groups: int) -> Tensor:
    node, unbatched = _batched(name, input, rank)
    kernel = node_of(weight)
    _check_weight(name, node, kernel, kernel.shape[1] * groups if kernel.ndim > 1 else 0, groups)
    steps = per_axis(name, stride, rank, "stride")
    gaps = per_axis(name, dilation, rank, "dilation")
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
        pairs = tuple((size, size) for size in per_axis(name, padding, rank, "padding"))
        if any(size < 0 for size, _ in pairs):
            raise fail(name, f"padding {padding} is below 0", "Take a slice of the input instead.")
    result = graph.make("conv", node, kernel, attrs=(steps, pairs, (1,) * rank, gaps, groups))
    return _with_bias(result, bias, unbatched)


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
        _check_weight(name, node, kernel, kernel.shape[0], groups)
        steps = per_axis(name, stride, rank, "stride")
        cuts = per_axis(name, padding, rank, "padding")
        extra = per_axis(name, output_padding, rank, "output_padding")
        gaps = per_axis(name, dilation, rank, "dilation")
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
        return _with_bias(result, bias, unbatched)
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The gradient of conv{rank}d for its input; weight (in, out / groups, kernel)."
    return operation(apply)


conv_transpose1d, conv_transpose2d, conv_transpose3d = (_conv_transpose(rank) for rank in (1, 2, 3))


def _wrapped_pad(node: Node, axis: int, low: int, high: int, mode: str) -> Node:
    """Padding of one axis by its own values."""
    size = node.shape[axis]
    limit = {"reflect": size - 1, "circular": size}.get(mode)
    if limit is not None and max(low, high) > limit:
        raise fail("pad", f"{mode} padding of {max(low, high)} for an axis of size {size}")

    def cut(start: int, stop: int) -> Node:
        return graph.slice_axis(node, axis, start, stop)

    def turned(part: Node) -> Node:
        return graph.make("flip", part, attrs=((axis,),))

    pieces = []
    if mode == "reflect":
        before, after = turned(cut(1, low + 1)), turned(cut(size - 1 - high, size - 1))
    elif mode == "circular":
        before, after = cut(size - low, size), cut(0, high)
    else:
        shape = list(node.shape)
        shape[axis] = low
        before = graph.broadcast(cut(0, 1), tuple(shape))
        shape[axis] = high
        after = graph.broadcast(cut(size - 1, size), tuple(shape))
    pieces = [piece for piece, wanted in ((before, low), (node, True), (after, high)) if wanted]
    return graph.concat(pieces, axis)


@operation
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Tensor:
    """Values added around the last axes: (before last, after last, before the one ahead, …)."""
    node = as_node("pad", input)
    amounts = [int(each) for each in pad]
    if len(amounts) % 2 or len(amounts) // 2 > node.ndim:
        raise fail(
            "pad", f"pad {tuple(amounts)} for {listed(node.shape)}: give pairs, last axis first"
        )
    low, high = [0] * node.ndim, [0] * node.ndim
    for place in range(len(amounts) // 2):
        low[node.ndim - 1 - place], high[node.ndim - 1 - place] = amounts[2 * place:2 * place + 2]
    if mode == "constant":
        if any(size + a + b < 0 for size, a, b in zip(node.shape, low, high, strict=True)):
            raise fail("pad", f"pad {tuple(amounts)} cuts more than {listed(node.shape)} has")
        return wrap(graph.pad(node, low, high, 0 if value is None else value))
    if mode not in ("reflect", "replicate", "circular"):
        raise fail(
            "pad", f"mode {mode!r}; there are 'constant', 'reflect', 'replicate', 'circular'"
        )
    for axis in range(node.ndim):
        before, after = max(low[axis], 0), max(high[axis], 0)
        if before or after:
            node = _wrapped_pad(node, axis, before, after, mode)
        cut = max(-low[axis], 0), max(-high[axis], 0)
        node = graph.slice_axis(node, axis, cut[0], node.shape[axis] - cut[1])
    return wrap(node)
