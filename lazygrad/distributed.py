"""torch.distributed's questions: one process, rank 0 of 1."""

from __future__ import annotations

from typing import Any, NoReturn

from lazygrad._core.context import fail


def is_available() -> bool:
    """False: programs that ask train in this process."""
    return False


def is_initialized() -> bool:
    return False


def get_rank(group: Any = None) -> int:
    return 0


def get_world_size(group: Any = None) -> int:
    return 1


def barrier(group: Any = None) -> None:
    """Nobody to wait for."""


def init_process_group(*arguments: Any, **keywords: Any) -> NoReturn:
    """Not supported."""
    raise fail("distributed.init_process_group", "training in several processes is not supported",
               "Ask distributed.is_available() first, and train in one.", NotImplementedError)
