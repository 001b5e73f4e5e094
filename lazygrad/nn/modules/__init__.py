"""torch.nn.modules and its submodules, where programs import a layer or base class from."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from lazygrad.nn.modules import utils

__all__ = ["utils"]

_FILES = {
    "activation": "activation", "batchnorm": "normalization", "container": "containers",
    "conv": "conv", "dropout": "dropout", "instancenorm": "normalization", "linear": "linear",
    "loss": "loss", "module": "module", "normalization": "normalization", "padding": "padding",
    "pixelshuffle": "vision", "pooling": "pooling", "rnn": "recurrent", "sparse": "embedding",
    "transformer": "transformer", "upsampling": "vision", "fold": "vision",
}
"""PyTorch's file -> ours."""

for _theirs, _ours in _FILES.items():
    _module = importlib.import_module(f"lazygrad.nn.{_ours}")
    sys.modules[f"{__name__}.{_theirs}"] = globals()[_theirs] = _module


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(importlib.import_module("lazygrad.nn"), name)
