"""Normalisation over batches, channels, groups and features.

Batch and instance norm keep running statistics as buffers; in training they are updated in the same
graph that computes the output, so no value is looked at.
"""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core.cell import hold_as_data
from lazygrad._core.context import fail
from lazygrad.nn import functional as F
from lazygrad.nn import init
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter


def _add_affine(module: Module, size: int, affine: bool, bias: bool, device: Any,
                dtype: Any) -> None:
    """Scale and shift per channel, or None in their places."""
    for name, present in (("weight", affine), ("bias", affine and bias)):
        value = Parameter(lg.empty(size, device=device, dtype=dtype)) if present else None
        module.register_parameter(name, value)


class _Norm(Module):
    """Scale and shift per channel, and running statistics: what batch and instance norm share."""

    _version = 2
    allowed_ndim: tuple[int, ...] = ()
    channel_axis_from_end: int | None = None

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        _add_affine(self, num_features, affine, bias, device, dtype)
        if track_running_stats:
            self.register_buffer("running_mean", lg.zeros(num_features, device=device, dtype=dtype))
            self.register_buffer("running_var", lg.ones(num_features, device=device, dtype=dtype))
            self.register_buffer("num_batches_tracked", lg.tensor(0, dtype=lg.int64, device=device))
        else:
            self.register_buffer("running_mean", None)
            self.register_buffer("running_var", None)
            self.register_buffer("num_batches_tracked", None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        if self.track_running_stats:
            with lg.no_grad():
                self.running_mean.zero_()
                self.running_var.fill_(1)
                self.num_batches_tracked.zero_()
            for statistic in (self.running_mean, self.running_var, self.num_batches_tracked):
                hold_as_data(statistic._cell)

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check(self, input: lg.Tensor) -> None:
        name = self._get_name()
        if not isinstance(input, lg.Tensor):
            raise fail(name, f"takes a Tensor, not {type(input).__name__}", kind=TypeError)
        if input.ndim not in self.allowed_ndim:
            raise fail(name, f"takes input with {' or '.join(map(str, self.allowed_ndim))} axes, "
                             f"and got shape {tuple(input.shape)}", kind=ValueError)
        channels = input.shape[self._channel_axis(input)]
        if channels != self.num_features and (self.affine or self.track_running_stats):
            raise fail(name, f"{name}({self.num_features}) expects {self.num_features} channels in "
                             f"axis {self._channel_axis(input)}, and got {channels}: the input has "
                             f"shape {tuple(input.shape)}")

    def _channel_axis(self, input: lg.Tensor) -> int:
        return 1

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
                f"affine={self.affine}, bias={self.bias is not None}, "
                f"track_running_stats={self.track_running_stats}")


class _BatchNorm(_Norm):
    def forward(self, input: lg.Tensor) -> lg.Tensor:
        self._check(input)
        factor = 0.0 if self.momentum is None else self.momentum
        use_batch = self.training or self.running_mean is None
        if self.training and self.track_running_stats:
            with lg.no_grad():
                self.num_batches_tracked.add_(1)
            if self.momentum is None:
                return self._with_cumulative_average(input)
        keeps = not self.training or self.track_running_stats
        return F.batch_norm(input, self.running_mean if keeps else None, self.running_var if keeps
                            else None, self.weight, self.bias, use_batch, factor, self.eps)

    def _with_cumulative_average(self, input: lg.Tensor) -> lg.Tensor:
        """momentum=None: the running statistics are plain averages, weighted by a count that stays
        in the graph.
        """
        axes = [axis for axis in range(input.ndim) if axis != 1]
        count = input.numel() // input.shape[1]
        with lg.no_grad():
            factor = 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)
            mean = input.detach().mean(axes)
            variance = input.detach().var(axes, unbiased=count > 1)
            self.running_mean.add_(factor * (mean - self.running_mean))
            self.running_var.add_(factor * (variance - self.running_var))
        return F.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) (Ioffe and Szegedy 2015)."""

    allowed_ndim = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W)."""

    allowed_ndim = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W)."""

    allowed_ndim = (5,)


class _InstanceNorm(_Norm):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1,
                 affine: bool = False, track_running_stats: bool = False, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias=bias)

    def _channel_axis(self, input: lg.Tensor) -> int:
        return input.ndim - (max(self.allowed_ndim) - 1)

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        self._check(input)
        batched = input if input.ndim == max(self.allowed_ndim) else input.unsqueeze(0)
        output = F.instance_norm(batched, self.running_mean, self.running_var, self.weight,
                                 self.bias, self.training or not self.track_running_stats,
                                 self.momentum or 0.0, self.eps)
        return output if batched is input else output.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N, C, L) or (C, L)."""

    allowed_ndim = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of (N, C, H, W) or (C, H, W)."""

    allowed_ndim = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of (N, C, D, H, W) or (C, D, H, W)."""

    allowed_ndim = (4, 5)


def _as_shape(normalized_shape: Any) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)


def _check_features(module: Any, input: lg.Tensor) -> None:
    expected = module.normalized_shape
    if tuple(input.shape[-len(expected):]) != expected:
        name = module._get_name()
        raise fail(name, f"{name}({expected}) expects input ending in {expected}, "
                         f"and got shape {tuple(input.shape)}")


class LayerNorm(Module):
    """Normalises over the last axes (Ba et al. 2016)."""

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.normalized_shape = _as_shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        for name, present in (("weight", elementwise_affine),
                              ("bias", elementwise_affine and bias)):
            value = lg.empty(self.normalized_shape, device=device, dtype=dtype) if present else None
            self.register_parameter(name, None if value is None else Parameter(value))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        _check_features(self, input)
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}")


class RMSNorm(Module):
    """Divides by the root mean square over the last axes (Zhang and Sennrich 2019).

    eps=None: the smallest step of the input's dtype at 1.
    """

    def __init__(self, normalized_shape: Any, eps: float | None = None,
                 elementwise_affine: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.normalized_shape = _as_shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        if elementwise_affine:
            self.weight = Parameter(lg.empty(self.normalized_shape, device=device, dtype=dtype))
        else:
            self.register_parameter("weight", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        _check_features(self, input)
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}")


class GroupNorm(Module):
    """Normalises over groups of channels (Wu and He 2018)."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
                 device: Any = None, dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups "
                             f"({num_groups})")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        _add_affine(self, num_channels, affine, bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        if input.ndim < 2 or input.shape[1] != self.num_channels:
            raise fail("GroupNorm", f"GroupNorm({self.extra_repr()}) expects {self.num_channels} "
                                    f"channels in axis 1, and got shape {tuple(input.shape)}")
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation of any (N, C, *space).  There is one process, whose batch is all there
    is, so that it does what `BatchNorm2d` does.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True, process_group: Any = None,
                 device: Any = None, dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias=bias)
        self.process_group = process_group

    allowed_ndim = (2, 3, 4, 5)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """The module with every BatchNorm in it replaced, parameters and buffers kept."""
        result = module
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
            result = cls(module.num_features, module.eps, module.momentum, module.affine,
                         module.track_running_stats, process_group)
            for name, parameter in module._parameters.items():
                result._parameters[name] = parameter
            for name, buffer in module._buffers.items():
                result._buffers[name] = buffer
            result.training = module.training
        for name, child in module.named_children():
            result.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return result


class LocalResponseNorm(Module):
    """Divides by a power of the mean square over neighbouring channels (Krizhevsky et al. 2012)."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(LocalResponseNorm):
    """`LocalResponseNorm` of images, the window reaching (size - 1) / 2 channels to either side.

    PyTorch's sums, which it updates from channel to channel, never lose the first one; this
    computes what both document.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__(size, alpha, beta, k)

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        if input.ndim != 4:
            raise fail("CrossMapLRN2d", f"takes (N, C, H, W), not shape {tuple(input.shape)}")
        side = int((self.size - 1) / 2)
        return F.local_response_norm(input, 2 * side + 1,
                                     self.alpha * (2 * side + 1) / self.size, self.beta, self.k)
