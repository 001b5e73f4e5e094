"""Activation functions, softmax and its kin."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import TensorTypeError, fail, method, operation
from lazygrad._core.tensor import Tensor, wrap, write
from lazygrad._core.types import as_dtype
from lazygrad.functional._operands import as_node, axes_of, axis_of
from lazygrad.functional.elementwise import INPLACE, sigmoid_node
from lazygrad.functional.norms import widened
from lazygrad.functional.ternary import clamp_node
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["relu", "gelu", "silu", "mish", "softplus", "leaky_relu", "elu", "selu", "celu", "relu6",
           "hardtanh", "hardsigmoid", "hardswish", "hardshrink", "softshrink", "tanhshrink",
           "softsign", "logsigmoid", "threshold", "prelu", "glu", "softmax", "log_softmax",
           "softmin", "normalize", "relu_", "leaky_relu_", "elu_", "celu_", "selu_", "hardtanh_",
           "threshold_", "swish"]


def _rounded_once(formula: Callable[..., Node]) -> Callable[..., Node]:
    """A formula of a node that 16-bit floats pass in float32, to be rounded once, as PyTorch's are:
    1 + erf(x) of a negative bfloat16 would have few digits left.
    """
    @functools.wraps(formula)
    def apply(x: Node, *options: Any) -> Node:
        return graph.cast(formula(widened(x), *options), x.dtype)
    return apply


def relu_node(x: Node) -> Node:
    """max(x, 0); its slope at 0 is 0."""
    return graph.where(graph.make("le", x, graph.like(0, x)), 0, x)


def _floats(name: str, input: Tensor) -> Node:
    node = as_node(name, input)
    if not node.dtype.is_floating:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}", "Convert with .float().",
                   TensorTypeError)
    return node


def _floats_or_complex(name: str, input: Tensor) -> Node:
    node = as_node(name, input)
    return node if node.dtype.is_complex else _floats(name, input)


def _finish(input: Tensor, name: str, node: Node, inplace: bool) -> Tensor:
    return write(input, name, node) if inplace else wrap(node)


@method
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    x = as_node("relu", input)
    if x.dtype.kind in ("bool", "complex"):
        raise fail("relu", f"is not defined for {x.dtype.name}", kind=TensorTypeError)
    return _finish(input, "relu", relu_node(x), inplace)


@operation
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function; approximate="tanh" is the cheaper form."""
    x = _floats("gelu", input)
    if approximate not in ("none", "tanh"):
        raise fail("gelu", f"approximate {approximate!r}; there are 'none' and 'tanh'")
    return wrap(_gelu(x, approximate == "tanh"))


@_rounded_once
def _gelu(x: Node, approximate: bool) -> Node:
    if approximate:
        cube = graph.mul(graph.mul(x, x), x)
        inner = graph.mul(graph.add(x, graph.mul(cube, 0.044715)), math.sqrt(2 / math.pi))
        share = graph.add(graph.unary("tanh", inner), 1)
    else:
        share = graph.add(graph.unary("erf", graph.mul(x, math.sqrt(0.5))), 1)
    return graph.mul(graph.mul(x, 0.5), share)


@_rounded_once
def _silu(x: Node) -> Node:
    return graph.mul(x, sigmoid_node(x))


@operation
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    x = _floats_or_complex("silu", input)
    return _finish(input, "silu", _silu(x), inplace)


swish = silu


@_rounded_once
def softplus_node(x: Node) -> Node:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), with slopes that are right at 0, too."""
    negative = graph.binary("lt", x, 0)
    small = graph.unary("exp", graph.where(negative, x, graph.unary("neg", x)))
    return graph.add(graph.where(negative, 0, x), graph.unary("log1p", small))


@operation
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself above the threshold."""
    x = _floats("softplus", input)
    scaled = x if beta == 1 else graph.mul(x, beta)
    smooth = softplus_node(scaled)
    smooth = smooth if beta == 1 else graph.div(smooth, beta)
    return wrap(graph.where(graph.binary("lt", graph.like(threshold, x), scaled), x, smooth))


@operation
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x))."""
    x = _floats("mish", input)
    return _finish(input, "mish", _mish(x), inplace)


@_rounded_once
def _mish(x: Node) -> Node:
    return graph.mul(x, graph.unary("tanh", softplus_node(x)))


@operation
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    x = _floats("logsigmoid", input)
    return wrap(graph.unary("neg", softplus_node(graph.unary("neg", x))))


def _positive(x: Node) -> Node:
    return graph.make("lt", graph.like(0, x), x)


@operation
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, else negative_slope * x."""
    x = _floats("leaky_relu", input)
    return _finish(input, "leaky_relu",
                   graph.where(_positive(x), x, graph.mul(x, negative_slope)), inplace)


@_rounded_once
def _elu(x: Node, alpha: float, scale: float, stretch: float) -> Node:
    below = graph.where(_positive(x), 0, x)
    curve = graph.unary("expm1", below if stretch == 1 else graph.mul(below, stretch))
    return graph.where(_positive(x), graph.mul(x, scale), graph.mul(curve, alpha * scale))


@operation
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else alpha * (exp(x) - 1)."""
    return _finish(input, "elu", _elu(_floats("elu", input), alpha, 1.0, 1.0), inplace)


@operation
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """ELU scaled so that activations normalise themselves (Klambauer et al. 2017)."""
    node = _elu(_floats("selu", input), 1.6732632423543772848, 1.0507009873554804934, 1.0)
    return _finish(input, "selu", node, inplace)


@operation
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """ELU with a continuous slope."""
    return _finish(input, "celu", _elu(_floats("celu", input), alpha, 1.0, 1.0 / alpha), inplace)


def _between(x: Node, low: float, high: float) -> Node:
    """clamp whose slope is 0 at the bounds, too; NaN stays."""
    x = graph.where(graph.binary("le", x, low), low, x)
    return graph.where(graph.make("le", graph.like(high, x), x), high, x)


@operation
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0,
             inplace: bool = False) -> Tensor:
    """clamp to min_val..max_val."""
    if min_val > max_val:
        raise fail("hardtanh", f"min_val {min_val} is greater than max_val {max_val}",
                   kind=ValueError)
    return _finish(
        input, "hardtanh", _between(as_node("hardtanh", input), min_val, max_val), inplace
    )


@operation
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """clamp to 0..6."""
    return _finish(input, "relu6", _between(as_node("relu6", input), 0.0, 6.0), inplace)


def _hard_sigmoid(x: Node) -> Node:
    return graph.div(_between(graph.add(x, 3), 0.0, 6.0), 6)


@operation
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """clamp(x + 3, 0, 6) / 6."""
    return _finish(input, "hardsigmoid", _hard_sigmoid(_floats("hardsigmoid", input)), inplace)


@operation
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x)."""
    x = _floats("hardswish", input)
    return _finish(input, "hardswish", _hard_swish(x), inplace)


@_rounded_once
def _hard_swish(x: Node) -> Node:
    return graph.mul(x, _hard_sigmoid(x))


@method
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """0 within -lambd..lambd, x beyond."""
    x = _floats("hardshrink", input)
    return wrap(graph.where(graph.binary("le", graph.unary("abs", x), lambd), 0, x))


@operation
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambd, and 0 within it."""
    x = _floats("softshrink", input)
    if lambd < 0:
        raise fail("softshrink", f"lambd {lambd} must be greater or equal to 0")
    within = graph.where(graph.make("ne", x, x), x, 0)
    below = graph.where(graph.binary("lt", x, -lambd), graph.add(x, lambd), within)
    return wrap(
        graph.where(graph.binary("lt", graph.like(lambd, x), x), graph.sub(x, lambd), below)
    )


@operation
def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    x = _floats_or_complex("tanhshrink", input)
    return wrap(graph.sub(x, graph.unary("tanh", x)))


@operation
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    x = _floats_or_complex("softsign", input)
    divisor = graph.add(graph.unary("abs", x), 1)
    return wrap(graph.div(x, graph.cast(divisor, x.dtype)))


@operation
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x above the threshold, else value."""
    x = as_node("threshold", input)
    return _finish(
        input, "threshold", graph.where(graph.binary("le", x, threshold), value, x), inplace
    )


@method
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, else weight * x; one weight, or one a channel (axis 1)."""
    x, slope = _floats("prelu", input), as_node("prelu", weight)
    if slope.dtype is not x.dtype:
        raise fail("prelu", f"input is {x.dtype.name}, weight {slope.dtype.name}",
                   "Convert one with .to(...).")
    channels = x.shape[1] if x.ndim > 1 else 1
    if slope.ndim > 1 or slope.size not in (1, channels):
        raise fail("prelu", f"the weight {listed(slope.shape)} has neither 1 number nor one for "
                   f"each of the {channels} channels of {listed(x.shape)}")
    if slope.size == 1:
        slope = graph.reshape(slope, (1,) * x.ndim)
    else:
        slope = graph.reshape(slope, (1, slope.size, *(1,) * (x.ndim - 2)))
    return wrap(graph.where(_positive(x), x, graph.mul(x, slope)))


@operation
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along an axis times the sigmoid of the second."""
    x = _floats("glu", input)
    if not x.ndim:
        raise fail("glu", "does not take a 0-d tensor: there is no axis to halve")
    axis = axis_of("glu", dim, x.ndim)
    size = x.shape[axis]
    if size % 2:
        raise fail("glu", f"axis {dim} has {size} places, which do not halve")
    gate = graph.slice_axis(x, axis, size // 2, size)
    return wrap(graph.mul(graph.slice_axis(x, axis, 0, size // 2), sigmoid_node(gate)))


# ---- softmax


def softmax_node(x: Node, axis: int) -> Node:
    """exp(x - max) over its sum."""
    top = graph.stop_gradient(graph.reduce("max", x, (axis,), True))
    power = graph.unary("exp", graph.sub(x, top))
    return graph.div(power, graph.reduce("sum", power, (axis,), True))


def log_softmax_node(x: Node, axis: int) -> Node:
    """x - max - log(sum(exp(x - max)))."""
    top = graph.stop_gradient(graph.reduce("max", x, (axis,), True))
    shifted = graph.sub(x, top)
    total = graph.reduce("sum", graph.unary("exp", shifted), (axis,), True)
    return graph.sub(shifted, graph.unary("log", total))


def _over_axis(name: str, compute: Callable[[Node, int], Node], about: str) -> Any:
    def apply(input: Tensor, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
        node = as_node(name, input)
        if isinstance(_stacklevel, DType):  # the third argument of PyTorch's method
            dtype = _stacklevel
        if dtype is not None:
            node = graph.cast(node, as_dtype(dtype))
        if not node.dtype.is_floating:
            raise fail(
                name, f"needs a floating dtype, not {node.dtype.name}", "Convert with .float()."
            )
        if dim is None:
            dim = 0 if node.ndim in (0, 1, 3) else 1
        axis = axis_of(name, dim, node.ndim)
        if not node.ndim:
            return wrap(graph.reshape(compute(graph.reshape(node, (1,)), 0), ()))
        if not node.size:
            return wrap(node)
        return wrap(compute(node, axis))
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = about
    return (operation if name == "softmin" else method)(apply)


softmax = _over_axis(
    "softmax", softmax_node, "exp(x) over its sum along an axis, without overflow."
)
log_softmax = _over_axis("log_softmax", log_softmax_node, "log(softmax(x)) along an axis.")
softmin = _over_axis("softmin", lambda x, axis: softmax_node(graph.unary("neg", x), axis),
                     "softmax(-x) along an axis.")


@operation
def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """x over its p-norm along an axis or several (at least eps)."""
    from lazygrad.functional.norms import norm_node
    x = _floats_or_complex("normalize", input)
    size = norm_node(x, p, axes_of("normalize", dim, x.ndim), True)
    return wrap(graph.div(x, graph.cast(clamp_node(size, eps, None), x.dtype)))


def _in_place(function: Any) -> Any:
    def apply(input: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        return function(input, *arguments, **keywords, inplace=True)
    apply.__name__ = apply.__qualname__ = function.__name__ + "_"
    apply.__doc__ = f"{function.__name__}, written into the tensor."
    return apply


relu_, leaky_relu_, elu_, celu_, selu_, hardtanh_, threshold_ = (
    _in_place(each) for each in (relu, leaky_relu, elu, celu, selu, hardtanh, threshold))
INPLACE.append("relu")
