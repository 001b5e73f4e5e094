"""Operators of PyTorch's C++ side whose arguments `torch.*` takes in another order than
`torch.nn.functional`: weights first, and a last word about cuDNN, which says nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad._core.tensor import Tensor
from lazygrad.functional import embeddings, normalization

__all__ = ["batch_norm", "embedding", "group_norm", "instance_norm", "layer_norm"]


def batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None,
               running_mean: Tensor | None, running_var: Tensor | None, training: bool,
               momentum: float, eps: float, cudnn_enabled: bool = True) -> Tensor:
    """Normalised over all axes but 1: by the batch in training, else by the running statistics."""
    return normalization.batch_norm(input, running_mean, running_var, weight, bias, training,
                                    momentum, eps)


def instance_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None,
                  running_mean: Tensor | None, running_var: Tensor | None, use_input_stats: bool,
                  momentum: float, eps: float, cudnn_enabled: bool = True) -> Tensor:
    """Normalised for each sample and channel over the axes of space."""
    return normalization.instance_norm(input, running_mean, running_var, weight, bias,
                                       use_input_stats, momentum, eps)


def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5,
               cudnn_enable: bool = True) -> Tensor:
    """Normalised over the last axes."""
    return normalization.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5,
               cudnn_enabled: bool = True) -> Tensor:
    """Normalised over groups of channels of each sample."""
    return normalization.group_norm(input, num_groups, weight, bias, eps)


def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Rows of `weight` by number; -1: no row is padding."""
    return embeddings.embedding(indices, weight, None if padding_idx < 0 else padding_idx,
                                scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
