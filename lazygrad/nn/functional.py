"""The functions of neural networks, where PyTorch has them.

Activations, convolutions, pooling, norms, losses, attention.
"""
# ruff: noqa: F401, F403


from lazygrad._core.tensor import Tensor
from lazygrad.functional.activations import *
from lazygrad.functional.attention import *
from lazygrad.functional.convolution import *
from lazygrad.functional.gathering import embedding, one_hot
from lazygrad.functional.losses import *
from lazygrad.functional.normalization import *
from lazygrad.functional.pooling import *
from lazygrad.functional.products import bilinear, linear
from lazygrad.functional.random import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_dropout,
    gumbel_softmax,
    rrelu,
)

sigmoid, tanh = Tensor.sigmoid, Tensor.tanh  # type: ignore[attr-defined]
