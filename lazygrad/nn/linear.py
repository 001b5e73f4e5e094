"""Linear layers, and the modules that only reshape: Identity, Linear, Bilinear, Flatten,
Unflatten.
"""

from __future__ import annotations

import math
from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail, now
from lazygrad.nn import functional as F
from lazygrad.nn import init
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter


class Identity(Module):
    """Gives back its input; takes and ignores any arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return input


class Linear(Module):
    """y = x A^T + b.  Input (..., in_features), output (..., out_features).

    weight (out_features, in_features) and bias start uniform in +-1/sqrt(in_features).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(lg.empty(out_features, in_features, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(lg.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        weight = self.weight
        if not isinstance(input, lg.Tensor) or input.dtype is not weight.dtype \
                or input.shape[-1:] != weight.shape[-1:]:
            check_input(self, input, -1, self.in_features, weight)
        return F.linear(input, weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}")


class NonDynamicallyQuantizableLinear(Linear):
    """What `MultiheadAttention.out_proj` is called in PyTorch's repr."""


class Bilinear(Module):
    """y = x1^T A x2 + b, one matrix A for every output feature."""

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        if in1_features <= 0:
            raise ValueError(f"in1_features must be > 0, but got {in1_features}")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = Parameter(lg.empty(out_features, in1_features, in2_features, device=device,
                                         dtype=dtype))
        if bias:
            self.bias = Parameter(lg.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.weight.shape[1])
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: lg.Tensor, input2: lg.Tensor) -> lg.Tensor:
        weight = self.weight
        for input, expected in ((input1, self.in1_features), (input2, self.in2_features)):
            check_input(self, input, -1, expected, weight)
        return F.bilinear(input1, input2, weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")


class Flatten(Module):
    """Axes start_dim to end_dim made one; by default all but the first."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One axis split into several."""

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        super().__init__()
        if not isinstance(dim, int):
            raise TypeError("Unflatten: named dimensions are not supported; give the axis by "
                            f"number, not {dim!r}")
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        dim = self.dim % input.ndim
        sizes = tuple(self.unflattened_size)
        known = math.prod(size for size in sizes if size != -1)
        if -1 in sizes and known:
            sizes = tuple(input.shape[dim] // known if size == -1 else size for size in sizes)
        if math.prod(sizes) != input.shape[dim]:
            raise fail("Unflatten", f"axis {dim} of {tuple(input.shape)} does not split into "
                                    f"{tuple(self.unflattened_size)}")
        return input.reshape(*input.shape[:dim], *sizes, *input.shape[dim + 1:])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


def check_input(module: Module, input: lg.Tensor, axis: int, expected: int,
                weight: lg.Tensor) -> None:
    """Explains the usual mistakes: no tensor, whole numbers, another dtype, another number of
    features.
    """
    called = f"{module._get_name()}({module.extra_repr()})"
    name = module._get_name()
    if not isinstance(input, lg.Tensor):
        raise fail(name, f"{called} takes a Tensor, not {type(input).__name__}",
                   "Convert it: lazygrad.as_tensor(x).", TypeError)
    if input.ndim < -axis or (axis >= 0 and input.ndim <= axis):
        raise fail(name, f"{called} expects {expected} features, and the input of shape "
                         f"{tuple(input.shape)} has no such axis", "Add one: x.unsqueeze(-1) or "
                                                                   "x[None].")
    got = input.shape[axis]
    if got != expected:
        where = "in the last axis" if axis == -1 else f"in axis {axis % input.ndim}"
        hint = ""
        if axis == -1 and input.ndim > 1 and math.prod(input.shape[1:]) == expected:
            hint = f"Flattening fits: x.flatten(1) has {expected}."
        elif axis == -1 and input.ndim > 1 and input.shape[-2] == expected:
            hint = "The axis before has that size: did you mean x.transpose(-1, -2)?"
        elif axis < -1 and input.ndim > 2 and input.shape[-1] == expected:
            hint = "The last axis has that size: did you mean x.movedim(-1, 1)?"
        raise fail(name, f"{called} expects {expected} features {where}, and got {got}: "
                         f"the input has shape {tuple(input.shape)}", hint)
    if now.autocast is not None and input.is_floating_point():
        return  # both will be converted
    if input.dtype != weight.dtype:
        target = str(weight.dtype).rpartition(".")[2]
        got_type = str(input.dtype).rpartition(".")[2]
        whole = not input.is_floating_point() and not input.is_complex()
        hint = f"Convert it: x.to(lazygrad.{target})" + ("." if whole
                                                         else ", or the module: "
                                                              f"module.{_cast(input)}.")
        raise fail(name, f"{called} has {target} weights, and the input is {got_type}"
                         + (" (whole numbers)" if whole else ""), hint)


def _cast(input: lg.Tensor) -> str:
    return f"to(lazygrad.{str(input.dtype).rpartition('.')[2]})"
