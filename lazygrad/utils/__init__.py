"""Utilities: `lazygrad.utils.data`."""

from lazygrad.utils import data

__all__ = ["data"]
