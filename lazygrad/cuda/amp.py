"""The older names of mixed precision, for CUDA; there is none, so they are off and say so."""

from __future__ import annotations

from typing import Any

from lazygrad import amp
from lazygrad.amp import custom_bwd, custom_fwd
from lazygrad_compiler.ir import dtypes

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]


class autocast(amp.autocast):
    """`amp.autocast("cuda", ...)`."""

    def __init__(self, enabled: bool = True, dtype: Any = dtypes.float16,
                 cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(amp.GradScaler):
    """`amp.GradScaler("cuda", ...)`."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__("cuda", *arguments, **keywords)
