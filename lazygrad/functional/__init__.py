"""The operations, grouped by subject; `lazygrad` and `lazygrad.nn.functional` export them."""

from __future__ import annotations

import importlib
from typing import Any

MODULES = (
    "activations", "attention", "conversion", "convolution", "creation", "elementwise",
    "gathering", "joining", "losses", "normalization", "ordering", "pooling", "products",
    "random", "reductions", "views",
)


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        for module in MODULES:
            loaded = importlib.import_module(f"lazygrad.functional.{module}")
            if name in loaded.__all__:
                return getattr(loaded, name)
    raise AttributeError(f"module 'lazygrad.functional' has no attribute {name!r}")
