"""The operations, grouped by subject; `lazygrad` and `lazygrad.nn.functional` export them."""

from __future__ import annotations

import importlib
from typing import Any

MODULES = (
    "activations", "arranging", "attention", "complex_numbers", "contractions", "control_flow",
    "conversion", "convolution", "counting", "creation", "differences", "distances", "draws",
    "dropouts", "elementwise", "embeddings", "gathering", "generators", "joining", "linalg_former",
    "losses", "margins", "masking", "multihead", "noise", "normalization", "norms", "number_parts",
    "ordering", "padding", "pooling", "products", "properties", "quantiles", "random",
    "rearranging", "reductions", "resizing", "sampling", "scans", "segments", "sequence_losses",
    "special_bessel", "special_gamma", "spectrograms", "statistics", "strided", "uniqueness",
    "unpooling", "views", "windows",
)


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        for module in MODULES:
            loaded = importlib.import_module(f"lazygrad.functional.{module}")
            if name in loaded.__all__:
                return getattr(loaded, name)
    raise AttributeError(f"module 'lazygrad.functional' has no attribute {name!r}")
