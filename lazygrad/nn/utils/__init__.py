"""Helpers around gradients, parameters and sequences.

What is made of modules is loaded when it is asked for, since modules use these helpers themselves.
"""

from __future__ import annotations

import importlib
from typing import Any

from lazygrad.nn.utils import rnn
from lazygrad.nn.utils.clip_grad import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from lazygrad.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters

__all__ = ["clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_",
           "get_total_norm", "parameters_to_vector", "vector_to_parameters", "rnn",
           "weight_norm", "remove_weight_norm", "spectral_norm", "remove_spectral_norm",
           "fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval",
           "fuse_linear_bn_weights", "skip_init", "convert_conv2d_weight_memory_format",
           "convert_conv3d_weight_memory_format", "parametrize", "parametrizations", "fusion",
           "init", "prune", "stateless"]

_MODULES = ("fusion", "init", "parametrizations", "parametrize", "prune", "stateless")
_ELSEWHERE = {
    **dict.fromkeys(("weight_norm", "remove_weight_norm", "spectral_norm",
                     "remove_spectral_norm"), "norms"),
    **dict.fromkeys(("fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval",
                     "fuse_linear_bn_weights"), "fusion"),
    "skip_init": "init",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"lazygrad.nn.utils.{name}")
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(f"lazygrad.nn.utils.{_ELSEWHERE[name]}"), name)
    raise AttributeError(f"module 'lazygrad.nn.utils' has no attribute {name!r}")


def convert_conv2d_weight_memory_format(module: Any, memory_format: Any) -> Any:
    """The module as it is: the compiler chooses how weights lie in memory."""
    return module


convert_conv3d_weight_memory_format = convert_conv2d_weight_memory_format
