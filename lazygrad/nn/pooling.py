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
                                                   self.padding, self.dilation, self.ceil_mode,
                                                   self.return_indices)

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


class _LPPool(Module):
    rank = 0

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return getattr(F, f"lp_pool{self.rank}d")(input, float(self.norm_type), self.kernel_size,
                                                  self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}, ceil_mode={self.ceil_mode}")


class LPPool1d(_LPPool):
    """The p-norm of each window of (N, C, L)."""

    rank = 1


class LPPool2d(_LPPool):
    """The p-norm of each window of (N, C, H, W)."""

    rank = 2


class LPPool3d(_LPPool):
    """The p-norm of each window of (N, C, D, H, W)."""

    rank = 3


def _sizes(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if hasattr(value, "__index__") else tuple(value)


class _MaxUnpool(Module):
    rank = 0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size = _sizes(kernel_size, self.rank)
        self.stride = _sizes(kernel_size if stride is None else stride, self.rank)
        self.padding = _sizes(padding, self.rank)

    def forward(self, input: lg.Tensor, indices: lg.Tensor, output_size: Any = None) -> lg.Tensor:
        return getattr(F, f"max_unpool{self.rank}d")(input, indices, self.kernel_size, self.stride,
                                                     self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Puts what `MaxPool1d(return_indices=True)` found back where it was."""

    rank = 1


class MaxUnpool2d(_MaxUnpool):
    """Puts what `MaxPool2d(return_indices=True)` found back where it was."""

    rank = 2


class MaxUnpool3d(_MaxUnpool):
    """Puts what `MaxPool3d(return_indices=True)` found back where it was."""

    rank = 3


class _FractionalMaxPool(Module):
    rank = 0

    def __init__(self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
                 return_indices: bool = False, _random_samples: Any = None) -> None:
        super().__init__()
        if (output_size is None) == (output_ratio is None):
            raise ValueError(f"{self._get_name()} takes one of output_size and output_ratio")
        self.kernel_size = _sizes(kernel_size, self.rank)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else _sizes(output_size, self.rank)
        self.output_ratio = output_ratio
        if output_ratio is not None:
            ratios = (output_ratio,) * self.rank if isinstance(output_ratio, (int, float)) \
                else tuple(output_ratio)
            if not all(0 < ratio < 1 for ratio in ratios):
                raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")
            self.output_ratio = ratios

    def forward(self, input: lg.Tensor) -> Any:
        return getattr(F, f"fractional_max_pool{self.rank}d")(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
            _random_samples=self._random_samples)


class FractionalMaxPool2d(_FractionalMaxPool):
    """The largest of bins with random borders (Graham 2014) of (N, C, H, W)."""

    rank = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """The largest of bins with random borders of (N, C, D, H, W)."""

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


class _AdaptiveMax(_Adaptive):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: lg.Tensor) -> Any:
        return getattr(F, self.function)(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMax):
    """The largest of each of output_size bins of (N, C, L)."""

    function = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_AdaptiveMax):
    """The largest of each of output_size bins of (N, C, H, W)."""

    function = "adaptive_max_pool2d"


class AdaptiveMaxPool3d(_AdaptiveMax):
    """The largest of each of output_size bins of (N, C, D, H, W)."""

    function = "adaptive_max_pool3d"
