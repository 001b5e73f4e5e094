"""torch.cuda's questions, answered: tensors live on the CPU."""

from __future__ import annotations


def is_available() -> bool:
    """False: programs that choose their device by asking run on the CPU."""
    return False


def device_count() -> int:
    return 0


def is_initialized() -> bool:
    return False


def manual_seed(seed: int) -> None:
    """Nothing to seed."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Nothing to empty."""


def synchronize() -> None:
    """Nothing to wait for."""
