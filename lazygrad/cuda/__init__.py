"""torch.cuda's questions, answered: tensors live on the CPU.

What programs call unasked (seeding, emptying the cache, memory in use) does nothing or answers 0;
what needs a device says that there is none.
"""

from __future__ import annotations

from typing import Any

from lazygrad._core.context import fail


def is_available() -> bool:
    """False: programs that choose their device by asking run on the CPU."""
    return False


def device_count() -> int:
    return 0


def is_initialized() -> bool:
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return False


def manual_seed(seed: int) -> None:
    """Nothing to seed."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Nothing to empty."""


def synchronize(device: Any = None) -> None:
    """Nothing to wait for; `lazygrad.synchronize()` computes what is pending."""


def memory_allocated(device: Any = None) -> int:
    """0 bytes."""
    return 0


max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated


def reset_peak_memory_stats(device: Any = None) -> None:
    """Nothing to reset."""


reset_max_memory_allocated = reset_peak_memory_stats


def _absent(name: str) -> Any:
    def call(*arguments: Any, **keywords: Any) -> Any:
        raise fail(f"cuda.{name}", "there is no CUDA device: tensors live on the CPU",
                   "Ask cuda.is_available() first.")
    call.__name__ = call.__qualname__ = name
    call.__doc__ = "Needs a CUDA device, and there is none."
    return call


set_device, current_device = _absent("set_device"), _absent("current_device")
get_device_name = _absent("get_device_name")
get_device_properties = _absent("get_device_properties")
get_device_capability = _absent("get_device_capability")
mem_get_info, memory_summary = _absent("mem_get_info"), _absent("memory_summary")
Event, Stream = _absent("Event"), _absent("Stream")
stream, current_stream = _absent("stream"), _absent("current_stream")


def __getattr__(name: str) -> Any:
    if name == "amp":
        import importlib
        return importlib.import_module("lazygrad.cuda.amp")
    raise AttributeError(f"module 'lazygrad.cuda' has no attribute {name!r}")
