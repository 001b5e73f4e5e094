"""Lazy modules: layers whose number of input features is taken from the first input.

Their parameters are `UninitializedParameter`s until then.  At the first call the module fills them
and turns into the plain layer.
"""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core.tensor import Tensor
from lazygrad.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from lazygrad.nn.linear import Linear
from lazygrad.nn.module import Module
from lazygrad.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from lazygrad.nn.parameter import Buffer, Parameter


class UninitializedTensor:
    """What parameters and buffers without a shape share."""

    becomes: type[Tensor] = Tensor

    def materialize(self: Any, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Gives the tensor its shape; its values are not initialised."""
        self.data = lg.empty(tuple(shape), device=device, dtype=dtype or self.dtype)
        self.__class__ = self.becomes

    @property
    def shape(self) -> Any:
        raise RuntimeError("an uninitialized parameter or buffer has no shape yet; call the module "
                           "with an input first")


class UninitializedParameter(UninitializedTensor, Parameter):
    """A parameter whose shape is not known yet."""

    becomes = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None,
                dtype: Any = None) -> UninitializedParameter:
        return Tensor._make_subclass(cls, lg.empty(0, device=device, dtype=dtype), requires_grad)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"<{type(self).__name__}>"


class UninitializedBuffer(UninitializedTensor, Buffer):
    """A buffer whose shape is not known yet."""

    becomes = Buffer

    def __new__(cls, requires_grad: bool = False, device: Any = None, dtype: Any = None,
                persistent: bool = True) -> UninitializedBuffer:
        made = Tensor._make_subclass(cls, lg.empty(0, device=device, dtype=dtype), requires_grad)
        made.persistent = persistent
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"<{type(self).__name__}>"


def is_lazy(value: Any) -> bool:
    return isinstance(value, UninitializedTensor)


class LazyModuleMixin(Module):
    """Put before a layer: `initialize_parameters(input)` runs at the first call."""

    cls_to_become: type[Module] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._load_hook = self.register_load_state_dict_pre_hook(self._take_shapes)
        self._initialize_hook = self.register_forward_pre_hook(self._infer, with_kwargs=True)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"initialize_parameters is not implemented for "
                                  f"{type(self).__name__}")

    def has_uninitialized_params(self) -> bool:
        return any(map(is_lazy, (*self._parameters.values(), *self._buffers.values())))

    def _take_shapes(self, module: Module, state_dict: dict, prefix: str, *_: Any) -> None:
        """Parameters without a shape get that of the value about to be loaded."""
        for name, value in (*self._parameters.items(), *self._buffers.items()):
            given = state_dict.get(prefix + name)
            if isinstance(value, UninitializedTensor) and given is not None \
                    and not is_lazy(given):
                with lg.no_grad():
                    value.materialize(given.shape)

    def _infer(self, module: Any, args: tuple, kwargs: dict) -> None:
        self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise RuntimeError(f"module {self._get_name()} has not been fully initialized")
        self._initialize_hook.remove()
        self._load_hook.remove()
        del self._initialize_hook, self._load_hook
        if self.cls_to_become is not None:
            self.__class__ = self.cls_to_become  # type: ignore[assignment]


class LazyLinear(LazyModuleMixin, Linear):
    """`Linear` whose in_features come from the first input."""

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(0, 0, False)
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_features = out_features
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.in_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: lg.Tensor) -> None:  # type: ignore[override]
        if self.has_uninitialized_params():
            with lg.no_grad():
                self.in_features = input.shape[-1]
                self.weight.materialize((self.out_features, self.in_features))
                if self.bias is not None:
                    self.bias.materialize((self.out_features,))
                self.reset_parameters()
        self.in_features = self.weight.shape[-1]


class _LazyConv(LazyModuleMixin):
    """in_channels come from the first input."""

    in_channels: int
    out_channels: int
    weight: Any
    bias: Any
    rank = 0
    transposed = False

    def _lazy(self, out_channels: int, bias: bool, device: Any, dtype: Any) -> None:
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_channels = out_channels
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.in_channels != 0:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: lg.Tensor, *_: Any) -> None:  # type: ignore[override]
        if self.has_uninitialized_params():
            if input.ndim not in (self.rank + 1, self.rank + 2):
                raise RuntimeError(f"{self._get_name()} takes {self.rank + 1} or {self.rank + 2} "
                                   f"axes, and got an input of shape {tuple(input.shape)}")
            self.in_channels = input.shape[-self.rank - 1]
            if self.in_channels % self.groups or self.out_channels % self.groups:
                raise ValueError("in_channels and out_channels must be divisible by groups")
            outer, inner = self.out_channels, self.in_channels
            if self.transposed:
                outer, inner = inner, outer
            with lg.no_grad():
                self.weight.materialize((outer, inner // self.groups, *self.kernel_size))
                if self.bias is not None:
                    self.bias.materialize((self.out_channels,))
                self.reset_parameters()
        self.in_channels = self.weight.shape[0 if self.transposed else 1] * (
            1 if self.transposed else self.groups)


class _LazyForward(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 dilation: Any = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode)
        self._lazy(out_channels, bias, device, dtype)


class _LazyTransposed(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, output_padding, groups, False,
                         dilation, padding_mode)
        self._lazy(out_channels, bias, device, dtype)


class _LazyNorm(LazyModuleMixin):
    """num_features come from the first input."""

    num_features: int
    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True,
                 device: Any = None, dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(0, eps, momentum, False, False)
        self.affine = affine
        self.track_running_stats = track_running_stats
        made = {"device": device, "dtype": dtype}
        if self.affine:
            self.weight = UninitializedParameter(**made)
            if bias:
                self.bias = UninitializedParameter(**made)
        if self.track_running_stats:
            self.running_mean = UninitializedBuffer(**made)
            self.running_var = UninitializedBuffer(**made)
            self.num_batches_tracked = lg.tensor(0, dtype=lg.int64, device=device)

    def reset_running_stats(self) -> None:
        if not self.has_uninitialized_params() and self.num_features != 0:
            super().reset_running_stats()  # type: ignore[misc]

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.num_features != 0:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: lg.Tensor) -> None:  # type: ignore[override]
        if self.has_uninitialized_params():
            self.num_features = input.shape[self._channel_axis(input)]
            for value in (*self._parameters.values(), *self._buffers.values()):
                if isinstance(value, UninitializedTensor):
                    value.materialize((self.num_features,))
            self.reset_parameters()
        elif not self.num_features:
            known = next((value for value in (*self._parameters.values(), *self._buffers.values())
                          if value is not None and value.ndim == 1), None)
            self.num_features = input.shape[self._channel_axis(input)] if known is None \
                else known.shape[0]


def _make(name: str, mixin: type, layer: type, **members: Any) -> Any:
    about = f"`{layer.__name__}` whose number of channels comes from the first input."
    return type(name, (mixin, layer), {"cls_to_become": layer, "__doc__": about,
                                       "__module__": __name__, "transposed": getattr(
                                           layer, "transposed", False), **members})


def _ranked(layer: Any) -> dict[str, int]:
    return {"rank": layer.rank}


LazyConv1d = _make("LazyConv1d", _LazyForward, Conv1d, **_ranked(Conv1d))
LazyConv2d = _make("LazyConv2d", _LazyForward, Conv2d, **_ranked(Conv2d))
LazyConv3d = _make("LazyConv3d", _LazyForward, Conv3d, **_ranked(Conv3d))
LazyConvTranspose1d = _make("LazyConvTranspose1d", _LazyTransposed, ConvTranspose1d,
                            **_ranked(ConvTranspose1d))
LazyConvTranspose2d = _make("LazyConvTranspose2d", _LazyTransposed, ConvTranspose2d,
                            **_ranked(ConvTranspose2d))
LazyConvTranspose3d = _make("LazyConvTranspose3d", _LazyTransposed, ConvTranspose3d,
                            **_ranked(ConvTranspose3d))
LazyBatchNorm1d = _make("LazyBatchNorm1d", _LazyNorm, BatchNorm1d)
LazyBatchNorm2d = _make("LazyBatchNorm2d", _LazyNorm, BatchNorm2d)
LazyBatchNorm3d = _make("LazyBatchNorm3d", _LazyNorm, BatchNorm3d)
LazyInstanceNorm1d = _make("LazyInstanceNorm1d", _LazyNorm, InstanceNorm1d)
LazyInstanceNorm2d = _make("LazyInstanceNorm2d", _LazyNorm, InstanceNorm2d)
LazyInstanceNorm3d = _make("LazyInstanceNorm3d", _LazyNorm, InstanceNorm3d)
