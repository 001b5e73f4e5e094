"""torch.nn.functional's names: the functions of `lazygrad.functional` that belong to neural networks."""

from __future__ import annotations

import lazygrad.functional as _functional


def __getattr__(name):
    return getattr(_functional, name)
