"""Memory of CUDA devices: how much is in use, and giving back what is cached."""

from __future__ import annotations

from typing import Any

from lazygrad._core import placement
from lazygrad._core.context import fail

OutOfMemoryError = MemoryError
"""What is raised where a device has no memory left, under PyTorch's name."""


def _stats(device: Any, name: str) -> dict[str, int]:
    """Of a device's allocator; nothing where no device was used."""
    if not placement.in_use():
        return {}
    return placement.runtime_device(device, name).pool.stats()


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors have on the device."""
    return _stats(device, "cuda.memory_allocated").get("allocated_bytes", 0)


def max_memory_allocated(device: Any = None) -> int:
    """The most that `memory_allocated` was."""
    return _stats(device, "cuda.max_memory_allocated").get("allocated_bytes_peak", 0)


def memory_reserved(device: Any = None) -> int:
    """Bytes that were taken from the driver: those of tensors, and those kept for the next ones."""
    return _stats(device, "cuda.memory_reserved").get("reserved_bytes", 0)


def max_memory_reserved(device: Any = None) -> int:
    """The most that `memory_reserved` was."""
    return _stats(device, "cuda.max_memory_reserved").get("reserved_bytes_peak", 0)


def memory_stats(device: Any = None) -> dict[str, int]:
    """The counters under PyTorch's names."""
    stats = _stats(device, "cuda.memory_stats")
    return {
        "allocated_bytes.all.current": stats.get("allocated_bytes", 0),
        "allocated_bytes.all.peak": stats.get("allocated_bytes_peak", 0),
        "reserved_bytes.all.current": stats.get("reserved_bytes", 0),
        "reserved_bytes.all.peak": stats.get("reserved_bytes_peak", 0),
        "allocation.all.allocated": stats.get("allocations", 0),
        "num_ooms": stats.get("out_of_memory", 0),
    }


def reset_peak_memory_stats(device: Any = None) -> None:
    """Starts measuring peaks afresh from what is in use now."""
    if placement.in_use():
        placement.runtime_device(device, "cuda.reset_peak_memory_stats").pool.reset_peak()


reset_max_memory_allocated = reset_accumulated_memory_stats = reset_peak_memory_stats


def empty_cache() -> None:
    """Gives the memory that no tensor has back to the driver, of all devices."""
    if placement.in_use():
        from lazygrad_runtime.cuda.driver import driver
        for device in driver().devices:
            if device.initialized:
                device.pool.empty_cache()


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Bytes free on the device, and all of them, as the driver sees it."""
    return placement.runtime_device(device, "cuda.mem_get_info").pool.memory_info()


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """The share of the device's memory that this process may take."""
    found = placement.runtime_device(device, "cuda.set_per_process_memory_fraction")
    if not 0 <= fraction <= 1:
        raise fail("cuda.set_per_process_memory_fraction", f"a share of {fraction}",
                   "It is between 0 and 1.", ValueError)
    found.pool.limit = int(fraction * found.total_memory)


def get_per_process_memory_fraction(device: Any = None) -> float:
    """The share of the device's memory that this process may take."""
    found = placement.runtime_device(device, "cuda.get_per_process_memory_fraction")
    limit = found.pool.limit
    return 1.0 if limit is None else limit / found.total_memory


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The counters as a table for people."""
    found = placement.runtime_device(device, "cuda.memory_summary")
    stats = found.pool.stats()
    free, total = found.pool.memory_info()
    rows = [
        ("in use by tensors", stats["allocated_bytes"]),
        ("  at most", stats["allocated_bytes_peak"]),
        ("taken from the driver", stats["reserved_bytes"]),
        ("  at most", stats["reserved_bytes_peak"]),
        ("free on the device", free),
        ("on the device", total),
    ]
    lines = [f"{name:<24}{size / 2**20:12.1f} MiB" for name, size in rows]
    return "\n".join([f"{found.name} ({found.label})", *lines])
