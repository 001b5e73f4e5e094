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

from lazygrad._core.context import TensorError
from lazygrad._core.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
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
from lazygrad._core.values import Device as device_type
from lazygrad._core.values import Size, device
from lazygrad.functional.activations import (
    celu,
    cosine_similarity,
    gelu,
    hardshrink,
    log_softmax,
    pairwise_distance,
    prelu,
    relu,
    relu_,
    selu,
    softmax,
    threshold,
)
from lazygrad.functional.conversion import *
from lazygrad.functional.convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from lazygrad.functional.creation import *
from lazygrad.functional.elementwise import *
from lazygrad.functional.gathering import *
from lazygrad.functional.joining import *
from lazygrad.functional.normalization import batch_norm, group_norm, layer_norm, rms_norm
from lazygrad.functional.ordering import *
from lazygrad.functional.pooling import (
    adaptive_avg_pool1d,
    avg_pool1d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from lazygrad.functional.products import *
from lazygrad.functional.random import *
from lazygrad.functional.reductions import *
from lazygrad.functional.views import *
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

from lazygrad import autograd  # isort: skip
from lazygrad._core.capture import compile  # isort: skip
from lazygrad._core import attach as _attach  # isort: skip
from lazygrad.functional import elementwise as _elementwise  # isort: skip

half, float, double = float16, float32, float64
short, int, long = int16, int32, int64
cfloat, cdouble = complex64, complex128


def is_tensor(obj: Any) -> builtins.bool:
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> builtins.bool:
    return input.is_floating_point()


def is_complex(input: Tensor) -> builtins.bool:
    return input.is_complex()


def numel(input: Tensor) -> builtins.int:
    return input.numel()


_attach.attach(_elementwise.INPLACE)

_LAZY = {"nn", "optim", "utils", "serialization", "cuda", "backends", "debug"}
_ELSEWHERE = {"save": "serialization", "load": "serialization", "dump_ir": "debug"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"lazygrad.{name}")
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(f"lazygrad.{_ELSEWHERE[name]}"), name)
    raise AttributeError(f"module 'lazygrad' has no attribute {name!r}")


pi, e, inf, nan = math.pi, math.e, math.inf, math.nan
newaxis = None
strided, contiguous_format, preserve_format = "strided", "contiguous_format", "preserve_format"

if os.environ.get("LAZYGRAD_DUMP"):
    importlib.import_module("lazygrad.debug").install_from_environment()
