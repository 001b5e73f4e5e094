"""lazygrad: a lazy deep-learning framework with PyTorch's names.

`import lazygrad as torch` runs ordinary PyTorch code.  Operations record a graph; values are
computed when they are looked at.
"""

from __future__ import annotations

import builtins
import importlib
import math
import os
from typing import Any

from lazygrad._core.context import METHODS as _METHODS
from lazygrad._core.context import TensorError
from lazygrad._core.interop import from_cuda_array, from_dlpack, to_dlpack
from lazygrad._core.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from lazygrad._core.settings import (
    are_deterministic_algorithms_enabled,
    get_default_device,
    get_float32_matmul_precision,
    get_num_threads,
    set_default_device,
    set_default_tensor_type,
    set_float32_matmul_precision,
    set_num_threads,
    use_deterministic_algorithms,
)
from lazygrad._core.show import set_printoptions
from lazygrad._core.tensor import Tensor, synchronize
from lazygrad._core.types import (
    finfo,
    get_default_dtype,
    iinfo,
    promote_types,
    set_default_dtype,
)
from lazygrad._core.values import STRIDED, Size, device
from lazygrad._core.values import Device as device_type
from lazygrad._core.values import Layout as layout
from lazygrad._core.values import MemoryFormat as memory_format
from lazygrad.functional.activations import (
    celu,
    celu_,
    gelu,
    hardshrink,
    log_softmax,
    prelu,
    relu,
    relu_,
    selu,
    selu_,
    softmax,
    threshold,
    threshold_,
)
from lazygrad.functional.arranging import *
from lazygrad.functional.complex_numbers import *
from lazygrad.functional.contractions import *
from lazygrad.functional.control_flow import *
from lazygrad.functional.conversion import *
from lazygrad.functional.convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_tbc,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from lazygrad.functional.counting import *
from lazygrad.functional.creation import *
from lazygrad.functional.differences import *
from lazygrad.functional.distances import *
from lazygrad.functional.draws import *
from lazygrad.functional.dropouts import *
from lazygrad.functional.elementwise import *
from lazygrad.functional.embeddings import embedding_bag
from lazygrad.functional.gathering import *
from lazygrad.functional.joining import *
from lazygrad.functional.linalg_former import *
from lazygrad.functional.losses import (
    binary_cross_entropy_with_logits,
    kl_div,
    poisson_nll_loss,
)
from lazygrad.functional.margins import (
    cosine_embedding_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    triplet_margin_loss,
)
from lazygrad.functional.masking import *
from lazygrad.functional.native import *
from lazygrad.functional.noise import (
    feature_alpha_dropout,
    feature_alpha_dropout_,
    rrelu,
    rrelu_,
)
from lazygrad.functional.normalization import (
    rms_norm,
)
from lazygrad.functional.norms import *
from lazygrad.functional.number_parts import *
from lazygrad.functional.ordering import *
from lazygrad.functional.pooling import (
    adaptive_avg_pool1d,
    adaptive_max_pool1d_with_indices,
    avg_pool1d,
    max_pool1d,
    max_pool1d_with_indices,
    max_pool2d,
    max_pool3d,
)
from lazygrad.functional.products import *
from lazygrad.functional.properties import *
from lazygrad.functional.quantiles import *
from lazygrad.functional.random import *
from lazygrad.functional.rearranging import (
    channel_shuffle,
    native_channel_shuffle,
    pixel_shuffle,
    pixel_unshuffle,
)
from lazygrad.functional.recurrence import scan
from lazygrad.functional.reductions import *
from lazygrad.functional.scans import *
from lazygrad.functional.segments import *
from lazygrad.functional.sequence_losses import ctc_loss
from lazygrad.functional.special_bessel import *
from lazygrad.functional.special_gamma import *
from lazygrad.functional.spectrograms import *
from lazygrad.functional.statistics import *
from lazygrad.functional.strided import *
from lazygrad.functional.ternary import *
from lazygrad.functional.uniqueness import *
from lazygrad.functional.views import *
from lazygrad.functional.windows import *
from lazygrad.version import __version__
from lazygrad_compiler.ir.dtypes import (
    DType as dtype,
)
from lazygrad_compiler.ir.dtypes import (
    bfloat16,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from lazygrad_compiler.ir.dtypes import (
    bool_ as bool,
)

from lazygrad.functional import indexing, inplace  # isort: skip
from lazygrad.functional.indexing import index_put, index_put_  # isort: skip
from lazygrad.functional.generators import generator as default_generator  # isort: skip

from lazygrad import autograd  # isort: skip
from lazygrad._core.capture import compile  # isort: skip
from lazygrad._core import attach as _attach  # isort: skip
from lazygrad._core import einops_backend as _einops_backend  # isort: skip
from lazygrad.functional import elementwise as _elementwise  # isort: skip

_einops_backend.watch()

adaptive_max_pool1d = adaptive_max_pool1d_with_indices
half, float, double = float16, float32, float64
short, int, long = int16, int32, int64
cfloat, cdouble = complex64, complex128


def is_tensor(obj: Any) -> builtins.bool:
    return isinstance(obj, Tensor)


_attach.attach(_elementwise.INPLACE)

_LAZY = {"nn", "optim", "utils", "serialization", "cuda", "backends", "debug", "array_api",
         "linalg", "fft", "func", "special", "random", "signal", "amp", "jit", "distributions",
         "accelerator", "mps", "distributed", "multiprocessing", "testing", "version"}
_ELSEWHERE = {"vmap": "func", "save": "serialization", "load": "serialization", "dump_ir": "debug",
              **dict.fromkeys(("autocast", "is_autocast_enabled", "get_autocast_dtype",
                               "is_autocast_available", "GradScaler"), "amp")}
_ABSENT = {
    "sparse": "sparse tensors: use a dense matrix, or index_add_ and scatter_add_ over the edges",
    "nested": "nested tensors: use nn.utils.rnn.pad_sequence and a mask",
    "quantize": "quantised tensors",
    "hub": "downloads of models: load a file with lazygrad.load",
    "onnx": "ONNX files",
    "profiler": "profiler of PyTorch's kind: see the command lazygrad dump-ir",
}
"""How a name begins -> what is not supported, and what to use."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"lazygrad.{name}")
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(f"lazygrad.{_ELSEWHERE[name]}"), name)
    if name.endswith("_") and name in _METHODS and not name.startswith("_"):
        return _METHODS[name]  # torch.sin_(x) is x.sin_()
    for beginning, what in _ABSENT.items():
        if name.startswith(beginning):
            raise AttributeError(f"lazygrad.{name} is not there; no {what}")
    raise AttributeError(f"module 'lazygrad' has no attribute {name!r}")


pi, e, inf, nan = math.pi, math.e, math.inf, math.nan
newaxis = None
strided = STRIDED
contiguous_format, preserve_format = memory_format("contiguous_format"), memory_format(
    "preserve_format")
legacy_contiguous_format = contiguous_format
channels_last, channels_last_3d = memory_format("channels_last"), memory_format("channels_last_3d")

if os.environ.get("LAZYGRAD_DUMP"):
    importlib.import_module("lazygrad.debug").install_from_environment()
