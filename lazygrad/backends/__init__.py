"""torch.backends' questions and switches, as far as programs ask before they choose a device.

Each backend is a module, so that `import lazygrad.backends.cudnn as cudnn` works.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from lazygrad._core.settings import get_float32_matmul_precision, set_float32_matmul_precision


class _Absent(types.ModuleType):
    """A backend that is not there; its switches can be set and do nothing."""

    def __init__(self, name: str, **switches: Any) -> None:
        full = f"{__name__}.{name}"
        super().__init__(full, self.__doc__)
        self.__dict__.update(switches)
        sys.modules[full] = self

    @staticmethod
    def is_available() -> bool:
        return False

    @staticmethod
    def is_built() -> bool:
        return False


def _switch(value: bool) -> None:
    """Accepted: there is one implementation of attention."""


class _Products:
    """Switches of products on a GPU.  allow_tf32: see `set_float32_matmul_precision`."""

    allow_fp16_reduced_precision_reduction = False
    allow_bf16_reduced_precision_reduction = False

    @property
    def allow_tf32(self) -> bool:
        return get_float32_matmul_precision() != "highest"

    @allow_tf32.setter
    def allow_tf32(self, allowed: bool) -> None:
        set_float32_matmul_precision("high" if allowed else "highest")


cudnn = _Absent("cudnn", benchmark=False, deterministic=False, enabled=False, allow_tf32=False)
cuda = _Absent("cuda", matmul=_Products(),
    enable_flash_sdp=_switch, enable_mem_efficient_sdp=_switch, enable_math_sdp=_switch)
mps, mkl, mkldnn = _Absent("mps"), _Absent("mkl"), _Absent("mkldnn", enabled=False)
openmp, opt_einsum = _Absent("openmp"), _Absent("opt_einsum", enabled=False)
