"""Elementwise activations and softmaxes, as modules.

`inplace=True` is accepted: the input then holds the result, too, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad.nn import functional as F
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter


class _Inplace(Module):
    """An activation whose only setting is `inplace`."""

    inplace: bool

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(_Inplace):
    """max(x, 0)."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.relu(input, inplace=self.inplace)


class ReLU6(_Inplace):
    """min(max(x, 0), 6)."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.relu6(input, inplace=self.inplace)


class SiLU(_Inplace):
    """x * sigmoid(x)."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.silu(input, inplace=self.inplace)


class Mish(_Inplace):
    """x * tanh(softplus(x))."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.mish(input, inplace=self.inplace)


class SELU(_Inplace):
    """The self-normalising ELU."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.selu(input, inplace=self.inplace)


class Hardsigmoid(_Inplace):
    """relu6(x + 3) / 6."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.hardsigmoid(input, inplace=self.inplace)


class Hardswish(_Inplace):
    """x * relu6(x + 3) / 6."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.hardswish(input, inplace=self.inplace)


class LeakyReLU(Module):
    """x where positive, else negative_slope * x."""

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.leaky_relu(input, self.negative_slope, inplace=self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class ELU(Module):
    """x where positive, else alpha * (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.elu(input, self.alpha, inplace=self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class CELU(ELU):
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.celu(input, self.alpha, inplace=self.inplace)


class GELU(Module):
    """x * Phi(x); `approximate` is "none" or "tanh"."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Sigmoid(Module):
    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return lg.sigmoid(input)


class LogSigmoid(Module):
    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.logsigmoid(input)


class Tanh(Module):
    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return lg.tanh(input)


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.softsign(input)


class Tanhshrink(Module):
    """x - tanh(x)."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return input - lg.tanh(input)


class Hardtanh(Module):
    """x cut off to [min_val, max_val]."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False,
                 min_value: float | None = None, max_value: float | None = None) -> None:
        super().__init__()
        # PyTorch's old names of the first two.
        min_val = min_val if min_value is None else min_value
        max_val = max_val if max_value is None else max_value
        if min_val >= max_val:
            raise ValueError(f"Hardtanh: min_val {min_val} is not below max_val {max_val}")
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, inplace=self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace
                                                                    else "")


class Softplus(Module):
    """log(1 + exp(beta x)) / beta; the identity above threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class _Shrink(Module):
    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        return str(self.lambd)


class Softshrink(_Shrink):
    """x moved towards 0 by lambd."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.softshrink(input, self.lambd)


class Hardshrink(_Shrink):
    """x where |x| > lambd, else 0."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.hardshrink(input, self.lambd)


class Threshold(Module):
    """x above threshold, else value."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.threshold(input, self.threshold, self.value, inplace=self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}" + (", inplace=True" if self.inplace
                                                                    else "")


class RReLU(Module):
    """Leaky ReLU whose slope is drawn from lower..upper in training, and their mean otherwise."""

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3,
                 inplace: bool = False) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace
                                                            else "")


class GLU(Module):
    """The first half times the sigmoid of the second, along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class PReLU(Module):
    """Leaky ReLU with a learnt slope, one or one per channel."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(lg.empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        lg.nn.init.constant_(self.weight, self.init)

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Softmax(Module):
    """exp(x) / sum(exp(x)) along `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.softmax(input, _axis(self.dim, input))

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """log(softmax(x)) along `dim`."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.log_softmax(input, _axis(self.dim, input))


class Softmin(Softmax):
    """softmax(-x) along `dim`."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.softmax(-input, _axis(self.dim, input))


class Softmax2d(Module):
    """Softmax over the channels of (N, C, H, W) or (C, H, W)."""

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d takes (N, C, H, W) or (C, H, W), not {tuple(input.shape)}")
        return F.softmax(input, -3)


def _axis(dim: int | None, input: lg.Tensor) -> int:
    """PyTorch's implicit choice where `dim` was not given: axis 0 of 0-d, 1-d and 3-d input, else
    axis 1.
    """
    if dim is None:
        return 0 if input.ndim in (0, 1, 3) else 1
    return dim
