"""Pooling over windows, and over bins of any input size."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad.nn import functional as F
from lazygrad.nn.module import Module


class _MaxPool(Module):
    rank = 0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: lg.Tensor) -> Any:
        return getattr(F, f"max_pool{self.rank}d")(input, self.kernel_size, self.stride,
                                                   self.padding, self.dilation,
                                                   ceil_mode=self.ceil_mode,
                                                   return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class MaxPool1d(_MaxPool):
    """The largest of each window of (N, C, L)."""

    rank = 1


class MaxPool2d(_MaxPool):
    """The largest of each window of (N, C, H, W)."""

    rank = 2


class MaxPool3d(_MaxPool):
    """The largest of each window of (N, C, D, H, W)."""

    rank = 3


class _AvgPool(Module):
    rank = 0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: int | None = None) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return getattr(F, f"avg_pool{self.rank}d")(input, self.kernel_size, self.stride,
                                                   self.padding, self.ceil_mode,
                                                   self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window of (N, C, L)."""

    rank = 1

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True) -> None:
        # PyTorch's repr shows the sizes of this one as tuples.
        sizes = [(value,) if isinstance(value, int) else tuple(value)
                 for value in (kernel_size, kernel_size if stride is None else stride, padding)]
        super().__init__(sizes[0], sizes[1], sizes[2], ceil_mode, count_include_pad)

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                            self.count_include_pad)


class AvgPool2d(_AvgPool):
    """The mean of each window of (N, C, H, W)."""

    rank = 2


class AvgPool3d(_AvgPool):
    """The mean of each window of (N, C, D, H, W)."""

    rank = 3


class _Adaptive(Module):
    function = ""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: lg.Tensor) -> Any:
        return getattr(F, self.function)(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_Adaptive):
    """The mean of each of output_size bins of (N, C, L)."""

    function = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_Adaptive):
    """The mean of each of output_size bins of (N, C, H, W)."""

    function = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_Adaptive):
    """The mean of each of output_size bins of (N, C, D, H, W)."""

    function = "adaptive_avg_pool3d"


class AdaptiveMaxPool1d(_Adaptive):
    """The largest of each of output_size bins of (N, C, L)."""

    function = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_Adaptive):
    """The largest of each of output_size bins of (N, C, H, W)."""

    function = "adaptive_max_pool2d"
