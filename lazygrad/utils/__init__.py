"""Utilities: `lazygrad.utils.data`, `lazygrad.utils.dlpack`, `lazygrad.utils.checkpoint`."""

from lazygrad.utils import checkpoint, data, dlpack

__all__ = ["checkpoint", "data", "dlpack"]
