"""Convolutions of one, two and three spatial axes, and transposed ones."""

from __future__ import annotations

import math
from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.nn import functional as F
from lazygrad.nn import init
from lazygrad.nn.linear import check_input
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _sizes(value: Any, rank: int) -> tuple[int, ...]:
    """One number for every axis, or a tuple of them."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank


class _Conv(Module):
    """What all convolutions share.  `rank`: the number of spatial axes."""

    rank = 0
    transposed = False
    output_padding: tuple[int, ...]
    padding: str | tuple[int, ...]

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        name = self._get_name()
        if groups <= 0:
            raise ValueError(f"{name}: groups must be a positive integer")
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{name}: in_channels {in_channels} and out_channels {out_channels} "
                             f"must be divisible by groups {groups}")
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"{name}: padding_mode must be one of {PADDING_MODES}, but got "
                             f"{padding_mode!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _sizes(kernel_size, self.rank)
        self.stride = _sizes(stride, self.rank)
        self.dilation = _sizes(dilation, self.rank)
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"{name}: padding is 'same', 'valid' or numbers, not {padding!r}")
            if padding == "same" and any(step != 1 for step in self.stride):
                raise ValueError(f"{name}: padding='same' is not supported for strided "
                                 "convolutions")
            self.padding = padding
        else:
            self.padding = _sizes(padding, self.rank)
        self.output_padding = (0,) * self.rank
        self.groups = groups
        self.padding_mode = padding_mode
        outer, inner = (in_channels, out_channels) if self.transposed else (out_channels,
                                                                            in_channels)
        self.weight = Parameter(lg.empty(outer, inner // groups, *self.kernel_size, device=device,
                                         dtype=dtype))
        if bias:
            self.bias = Parameter(lg.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in != 0:
                init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def _checked_weight(self, input: lg.Tensor) -> lg.Tensor:
        """The weight, read once: a parametrized one is computed, and may be updated, by reading."""
        weight = self.weight
        if isinstance(input, lg.Tensor) and input.ndim not in (self.rank + 1, self.rank + 2):
            axes = ", ".join(("depth", "height", "width")[-self.rank:] if self.rank > 1
                             else ("length",))
            raise fail(self._get_name(), f"takes (batch, channels, {axes}) or (channels, {axes}), "
                                         f"and got shape {tuple(input.shape)}")
        check_input(self, input, -self.rank - 1, self.in_channels, weight)
        return weight

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        weight = self._checked_weight(input)
        convolve = getattr(F, f"conv{self.rank}d")
        if self.padding_mode == "zeros":
            return convolve(input, weight, self.bias, self.stride, self.padding, self.dilation,
                            self.groups)
        padded = F.pad(input, self._pads(), mode=self.padding_mode)
        return convolve(padded, weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _pads(self) -> list[int]:
        """What `F.pad` takes: (low, high) an axis, the last axis first."""
        pads: list[int] = []
        for axis in reversed(range(self.rank)):
            if isinstance(self.padding, str):
                total = self.dilation[axis] * (self.kernel_size[axis]
                                               - 1) if self.padding == "same" else 0
                pads += [total // 2, total - total // 2]
            else:
                pads += [self.padding[axis], self.padding[axis]]
        return pads

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}"
        text += f", kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.rank:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.rank:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.rank:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class Conv1d(_Conv):
    """Cross-correlation over (N, C, L)."""

    rank = 1


class Conv2d(_Conv):
    """Cross-correlation over (N, C, H, W)."""

    rank = 2


class Conv3d(_Conv):
    """Cross-correlation over (N, C, D, H, W)."""

    rank = 3


class _ConvTranspose(_Conv):
    """The gradient of a convolution with respect to its input, as a layer."""

    transposed = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
                 dilation: Any = 1, padding_mode: str = "zeros", device: Any = None,
                 dtype: Any = None) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {self._get_name()}')
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                         bias, padding_mode, device, dtype)
        self.output_padding = _sizes(output_padding, self.rank)

    def forward(self, input: lg.Tensor, output_size: Any = None) -> lg.Tensor:
        weight = self._checked_weight(input)
        output_padding = self.output_padding
        if output_size is not None:
            output_padding = self._output_padding(input, output_size)
        convolve = getattr(F, f"conv_transpose{self.rank}d")
        return convolve(input, weight, self.bias, self.stride, self.padding, output_padding,
                        self.groups, self.dilation)

    def _output_padding(self, input: lg.Tensor, output_size: Any) -> tuple[int, ...]:
        """The extra size at the end that gives the wanted spatial size."""
        wanted = tuple(output_size)[-self.rank:]
        extra = []
        for axis in range(self.rank):
            least = ((input.shape[axis - self.rank] - 1) * self.stride[axis] - 2
                     * int(self.padding[axis]) + self.dilation[axis] * (self.kernel_size[axis] - 1)
                     + 1)
            if not least <= wanted[axis] < least + self.stride[axis]:
                raise ValueError(f"{self._get_name()}: output size {wanted[axis]} is not between "
                                 f"{least} and {least + self.stride[axis] - 1}")
            extra.append(wanted[axis] - least)
        return tuple(extra)


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over (N, C, L)."""

    rank = 1


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over (N, C, H, W)."""

    rank = 2


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution over (N, C, D, H, W)."""

    rank = 3

_ConvNd = _Conv  # PyTorch's name, for isinstance
