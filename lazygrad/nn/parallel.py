"""torch.nn.parallel: `DataParallel` on the one device; several processes are not supported."""

from __future__ import annotations

from typing import Any, NoReturn

from lazygrad._core.context import fail
from lazygrad.nn.data_parallel import DataParallel

__all__ = ["DataParallel", "DistributedDataParallel"]


def DistributedDataParallel(*arguments: Any, **keywords: Any) -> NoReturn:
    """Not supported."""
    raise fail("DistributedDataParallel", "training in several processes is not supported",
               "Use the module as it is; all cores of this machine work on it.",
               NotImplementedError)
