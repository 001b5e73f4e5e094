"""Signal processing: `lazygrad.signal.windows`."""

from lazygrad.signal import windows

__all__ = ["windows"]
