"""Batch normalisation folded into the layer ahead of it, for inference."""

from __future__ import annotations

import copy

import lazygrad as lg
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval",
           "fuse_linear_bn_weights"]

Weights = tuple[Parameter, Parameter]


def _fused(weight: lg.Tensor, bias: lg.Tensor | None, mean: lg.Tensor, spread: lg.Tensor,
           eps: float, scale: lg.Tensor | None, shift: lg.Tensor | None, axis: int) -> Weights:
    """(w x + b - mean) / sqrt(spread + eps) * scale + shift as one weight and bias."""
    with lg.no_grad():
        factor = lg.rsqrt(spread + eps)
        factor = factor if scale is None else factor * scale
        shape = [1] * weight.ndim
        shape[axis] = -1
        centred = -mean if bias is None else bias - mean
        moved = centred * factor if shift is None else centred * factor + shift
        return (Parameter((weight * factor.reshape(shape)).to(weight.dtype), weight.requires_grad),
                Parameter(moved.to(weight.dtype if bias is None else bias.dtype),
                          weight.requires_grad if bias is None else bias.requires_grad))


def fuse_conv_bn_weights(conv_w: lg.Tensor, conv_b: lg.Tensor | None, bn_rm: lg.Tensor,
                         bn_rv: lg.Tensor, bn_eps: float, bn_w: lg.Tensor | None,
                         bn_b: lg.Tensor | None, transpose: bool = False) -> Weights:
    """Weight and bias of a convolution with the batch norm after it folded in."""
    return _fused(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 1 if transpose else 0)


def fuse_linear_bn_weights(linear_w: lg.Tensor, linear_b: lg.Tensor | None, bn_rm: lg.Tensor,
                           bn_rv: lg.Tensor, bn_eps: float, bn_w: lg.Tensor,
                           bn_b: lg.Tensor) -> Weights:
    """Weight and bias of a linear layer with the batch norm after it folded in."""
    return _fused(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _check(layer: Module, bn: Module) -> None:
    if layer.training or bn.training:
        raise RuntimeError("fusion is for evaluation: call .eval() on both modules first")
    if bn.running_mean is None or bn.running_var is None:
        raise RuntimeError("a batch norm without running statistics cannot be folded into a layer")


def fuse_conv_bn_eval(conv: Module, bn: Module, transpose: bool = False) -> Module:
    """A copy of the convolution with the batch norm folded in."""
    _check(conv, bn)
    fused = copy.deepcopy(conv)
    weights = fuse_conv_bn_weights(conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps,
                                   bn.weight, bn.bias, transpose)
    fused.weight, fused.bias = weights
    return fused


def fuse_linear_bn_eval(linear: Module, bn: Module) -> Module:
    """A copy of the linear layer with the batch norm folded in."""
    _check(linear, bn)
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise RuntimeError(f"a linear layer of {linear.out_features} features and a batch norm of "
                           f"{bn.num_features} do not go together")
    fused = copy.deepcopy(linear)
    fused.weight, fused.bias = fuse_linear_bn_weights(
        linear.weight, linear.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    return fused
