"""Utilities: `lazygrad.utils.data`, `.dlpack`, `.checkpoint`, `.hooks`, `.safetensors`."""

from lazygrad.utils import checkpoint, data, dlpack, hooks, safetensors

__all__ = ["checkpoint", "data", "dlpack", "hooks", "safetensors"]
