"""Exchange of memory with other libraries: `to_dlpack`, `from_dlpack`."""

from __future__ import annotations

from lazygrad._core.interop import from_dlpack, to_dlpack

__all__ = ["from_dlpack", "to_dlpack"]
