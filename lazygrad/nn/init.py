"""Initialisation in place, under PyTorch's names and with its distributions.

Every function fills the tensor it is given, without recording gradients, and returns it.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import lazygrad as lg

__all__ = ["calculate_gain", "uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_",
           "eye_", "dirac_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
           "kaiming_normal_", "orthogonal_", "sparse_"]


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity shrinks the standard deviation, inverted (PyTorch's
    table).
    """
    if nonlinearity in ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
                        "conv_transpose2d", "conv_transpose3d", "sigmoid"):
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        if param is None:
            slope = 0.01
        elif isinstance(param, (int, float)) and not isinstance(param, bool):
            slope = param
        else:
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


def _random(tensor: lg.Tensor, method: str, *args: float, generator: Any) -> lg.Tensor:
    with lg.no_grad():
        return getattr(tensor, method)(*args,
                                       **({} if generator is None else {"generator": generator}))


def uniform_(tensor: lg.Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> lg.Tensor:
    """Uniform between a and b."""
    return _random(tensor, "uniform_", a, b, generator=generator)


def normal_(tensor: lg.Tensor, mean: float = 0.0, std: float = 1.0,
            generator: Any = None) -> lg.Tensor:
    """Normal with that mean and standard deviation."""
    return _random(tensor, "normal_", mean, std, generator=generator)


def trunc_normal_(tensor: lg.Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0,
                  b: float = 2.0, generator: Any = None) -> lg.Tensor:
    """Normal, cut off to [a, b], by inverting the distribution function of a uniform number."""
    def below(x: float) -> float:
        return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0

    low, high = below((a - mean) / std), below((b - mean) / std)
    with lg.no_grad():
        _random(tensor, "uniform_", 2 * low - 1, 2 * high - 1, generator=generator)
        values = _inverse_erf(tensor) * (std * math.sqrt(2.0)) + mean
        return tensor.copy_(values.clamp(min=a, max=b))


def _inverse_erf(x: lg.Tensor) -> lg.Tensor:
    """The inverse of erf: Winitzki's approximation (2008), and two steps of Newton's method."""
    curvature = 0.147
    logarithm = lg.log1p(-x * x)
    middle = 2.0 / (math.pi * curvature) + logarithm / 2.0
    y = lg.sign(x) * (lg.sqrt(middle * middle - logarithm / curvature) - middle).sqrt()
    for _ in range(2):
        y = y - (lg.erf(y) - x) * lg.exp(y * y) * (math.sqrt(math.pi) / 2.0)
    return y


def constant_(tensor: lg.Tensor, val: float) -> lg.Tensor:
    """Every element `val`."""
    with lg.no_grad():
        return tensor.fill_(val)


def ones_(tensor: lg.Tensor) -> lg.Tensor:
    return constant_(tensor, 1.0)


def zeros_(tensor: lg.Tensor) -> lg.Tensor:
    return constant_(tensor, 0.0)


def eye_(tensor: lg.Tensor) -> lg.Tensor:
    """The identity matrix."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    with lg.no_grad():
        return tensor.copy_(lg.eye(*tensor.shape, dtype=tensor.dtype))


def dirac_(tensor: lg.Tensor, groups: int = 1) -> lg.Tensor:
    """Convolution weights that pass the input channels through."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups:
        raise ValueError("dim 0 must be divisible by groups")
    per_group = tensor.shape[0] // groups
    kept = min(per_group, tensor.shape[1])
    centre = tuple(size // 2 for size in tensor.shape[2:])
    with lg.no_grad():
        tensor.fill_(0.0)
        for group in range(groups):
            for channel in range(kept):
                tensor[(group * per_group + channel, channel, *centre)] = 1.0
    return tensor


def _calculate_fan_in_and_fan_out(tensor: lg.Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 "
                         f"dimensions: shape {tuple(tensor.shape)}")
    receptive = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive, tensor.shape[0] * receptive


def _fan(tensor: lg.Tensor, mode: str) -> int:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return fan_in if mode == "fan_in" else fan_out


def xavier_uniform_(tensor: lg.Tensor, gain: float = 1.0, generator: Any = None) -> lg.Tensor:
    """Glorot and Bengio 2010, uniform."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: lg.Tensor, gain: float = 1.0, generator: Any = None) -> lg.Tensor:
    """Glorot and Bengio 2010, normal."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor))),
                   generator)


def kaiming_uniform_(tensor: lg.Tensor, a: float = 0, mode: str = "fan_in",
                     nonlinearity: str = "leaky_relu", generator: Any = None) -> lg.Tensor:
    """He et al. 2015, uniform; `a` is the slope of the leaky ReLU that follows."""
    if 0 in tensor.shape:
        return tensor
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: lg.Tensor, a: float = 0, mode: str = "fan_in",
                    nonlinearity: str = "leaky_relu", generator: Any = None) -> lg.Tensor:
    """He et al. 2015, normal."""
    if 0 in tensor.shape:
        return tensor
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)),
                   generator)


def orthogonal_(tensor: lg.Tensor, gain: float = 1, generator: Any = None) -> lg.Tensor:
    """Saxe et al. 2013: rows or columns orthonormal, uniformly drawn."""
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if 0 in tensor.shape:
        return tensor
    rows = tensor.shape[0]
    columns = math.prod(tensor.shape) // rows
    with lg.no_grad():
        draw = normal_(lg.empty(rows, columns, dtype=tensor.dtype), 0.0, 1.0, generator)
        factor, triangle = lg.linalg.qr(draw.t() if rows < columns else draw)
        # The signs of the triangle's diagonal make the draw uniform (Mezzadri 2007).
        factor = factor * triangle.diagonal().sign()
        factor = factor.t() if rows < columns else factor
        return tensor.copy_((factor * gain).reshape(tensor.shape))


def sparse_(tensor: lg.Tensor, sparsity: float, std: float = 0.01,
            generator: Any = None) -> lg.Tensor:
    """Martens 2010: a share `sparsity` of every column is zero, the rest normal."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    from lazygrad.utils.data.randomness import numpy_generator

    order = numpy_generator(generator).random((rows, columns)).argsort(axis=0)
    with lg.no_grad():
        normal_(tensor, 0.0, std, generator)
        return tensor.mul_(lg.from_numpy(order >= zeros).to(tensor.device, tensor.dtype))


def _old_name(name: str, function: Any) -> Any:
    def apply(*arguments: Any, **keywords: Any) -> lg.Tensor:
        warnings.warn(f"`nn.init.{name}` is now deprecated in favor of `nn.init.{name}_`.",
                      FutureWarning, stacklevel=2)
        return function(*arguments, **keywords)
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The old name of `{name}_`."
    return apply


uniform, normal, constant, eye, dirac = (
    _old_name(each.__name__[:-1], each) for each in (uniform_, normal_, constant_, eye_, dirac_))
xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal = (
    _old_name(each.__name__[:-1], each)
    for each in (xavier_uniform_, xavier_normal_, kaiming_uniform_, kaiming_normal_))
orthogonal, sparse = _old_name("orthogonal", orthogonal_), _old_name("sparse", sparse_)
