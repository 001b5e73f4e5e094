"""The functions of neural networks, where PyTorch has them.

Activations, convolutions, pooling, norms, losses, attention.
"""
# ruff: noqa: F401, F403


from lazygrad._core.tensor import Tensor
from lazygrad.functional.activations import *
from lazygrad.functional.attention import *
from lazygrad.functional.contractions import pdist
from lazygrad.functional.convolution import *
from lazygrad.functional.distances import *
from lazygrad.functional.draws import gumbel_softmax
from lazygrad.functional.dropouts import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
)
from lazygrad.functional.embeddings import *
from lazygrad.functional.gathering import one_hot
from lazygrad.functional.losses import *
from lazygrad.functional.margins import *
from lazygrad.functional.multihead import *
from lazygrad.functional.noise import *
from lazygrad.functional.normalization import *
from lazygrad.functional.padding import *
from lazygrad.functional.pooling import *
from lazygrad.functional.products import bilinear, linear
from lazygrad.functional.rearranging import *
from lazygrad.functional.resizing import *
from lazygrad.functional.sampling import *
from lazygrad.functional.sequence_losses import *
from lazygrad.functional.unpooling import *

sigmoid, tanh = Tensor.sigmoid, Tensor.tanh  # type: ignore[attr-defined]
