"""torch.accelerator's questions: there is none, tensors live on the CPU."""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    return False


def device_count() -> int:
    return 0


def current_accelerator(check_available: bool = False) -> None:
    """None: programs fall back to "cpu"."""


def synchronize(device: Any = None) -> None:
    """Nothing to wait for."""
