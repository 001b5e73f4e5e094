"""torch.accelerator's questions: the CUDA devices, where there are some."""

from __future__ import annotations

from typing import Any

from lazygrad import cuda
from lazygrad._core.values import Device
from lazygrad.cuda import current_device as current_device_index
from lazygrad.cuda import device_count, is_available, synchronize
from lazygrad.cuda import set_device as set_device_index

__all__ = ["current_accelerator", "current_device_index", "device_count", "is_available",
           "set_device_index", "synchronize"]


def current_accelerator(check_available: bool = False) -> Any:
    """The CUDA device type; None without one: programs fall back to "cpu"."""
    return Device("cuda") if cuda.is_available() else None
