"""torch.mps' functions that programs call unasked; there is no such device."""

from __future__ import annotations


def is_available() -> bool:
    return False


def manual_seed(seed: int) -> None:
    """Nothing to seed."""


def empty_cache() -> None:
    """Nothing to empty."""


def synchronize() -> None:
    """Nothing to wait for."""
