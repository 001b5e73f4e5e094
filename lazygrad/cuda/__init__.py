"""torch.cuda's functions: devices, memory, streams, events.

Tensors come to a device by `x.to("cuda")`, `x.cuda()` or `device="cuda"`.  Without a driver or a
device `is_available()` is False, what programs call unasked (seeding, emptying the cache, memory in
use) does nothing or answers 0, and what needs a device says why there is none.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lazygrad._core import placement
from lazygrad._core.context import fail
from lazygrad.cuda.graphs import (
    CUDAGraph,
    graph,
    graph_pool_handle,
    is_current_stream_capturing,
    make_graphed_callables,
    not_in_captures,
)
from lazygrad.cuda.memory import (
    OutOfMemoryError,
    empty_cache,
    get_per_process_memory_fraction,
    max_memory_allocated,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_reserved,
    memory_stats,
    memory_summary,
    reset_accumulated_memory_stats,
    reset_max_memory_allocated,
    reset_peak_memory_stats,
    set_per_process_memory_fraction,
)
from lazygrad.cuda.streams import (
    Event,
    ExternalStream,
    Stream,
    current_stream,
    default_stream,
    set_stream,
    stream,
)

__all__ = [
    "CUDAGraph", "DeviceProperties", "Event", "ExternalStream", "OutOfMemoryError", "Stream",
    "StreamContext",
    "can_device_access_peer", "current_device", "current_stream", "default_stream",
    "device", "device_count", "device_of", "empty_cache", "get_arch_list", "get_device_capability",
    "get_device_name", "get_device_properties", "get_per_process_memory_fraction",
    "get_rng_state", "graph", "graph_pool_handle", "init", "initial_seed",
    "ipc_collect", "is_available", "is_bf16_supported", "is_current_stream_capturing",
    "is_initialized", "is_tf32_supported", "make_graphed_callables", "manual_seed",
    "manual_seed_all",
    "max_memory_allocated", "max_memory_reserved", "mem_get_info", "memory_allocated",
    "memory_reserved", "memory_stats", "memory_summary", "reset",
    "reset_accumulated_memory_stats", "reset_max_memory_allocated", "reset_peak_memory_stats",
    "seed", "set_device", "set_per_process_memory_fraction", "set_rng_state", "set_stream",
    "stream", "synchronize",
]  # fmt: skip


# ---- what is there


def is_available() -> bool:
    """Whether there is a CUDA device to compute on."""
    return device_count() > 0


def device_count() -> int:
    """How many CUDA devices there are; 0 without a driver."""
    from lazygrad_runtime.cuda.driver import device_count
    return device_count()


def init() -> None:
    """Loads the driver, which happens by itself when a device is first used."""
    placement.runtime_device(None, "cuda.init")


def is_initialized() -> bool:
    """Whether a device was used already."""
    return placement.in_use()


def current_device() -> int:
    """The number of the device that "cuda" stands for."""
    return placement.runtime_device(None, "cuda.current_device").number


def set_device(device: Any) -> None:
    """Makes a device the one that "cuda" stands for."""
    placement.set_current_index(placement.runtime_device(device, "cuda.set_device").number)


class device:
    """Within the block, "cuda" stands for that device."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._before = 0

    def __enter__(self) -> device:
        self._before = placement.current_index()
        if self._device is not None:
            set_device(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        placement.set_current_index(self._before)


class device_of(device):
    """Within the block, "cuda" stands for a tensor's device; nothing changes for one of the CPU."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.get_device() if getattr(obj, "is_cuda", False) else None)


StreamContext = stream


def ipc_collect() -> None:
    """Nothing to collect: memory is not shared with other processes."""


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Never: kernels read their own device's memory; copies between devices work in any case."""
    for each in (device, peer_device):
        placement.runtime_device(each, "cuda.can_device_access_peer")
    return False


def get_device_name(device: Any = None) -> str:
    return placement.runtime_device(device, "cuda.get_device_name").name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """(9, 0) for Hopper: what the hardware can do."""
    return placement.runtime_device(device, "cuda.get_device_capability").capability


@dataclasses.dataclass(frozen=True)
class DeviceProperties:
    """Sizes in bytes, clocks in kHz."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    max_threads_per_block: int
    max_threads_per_multi_processor: int
    regs_per_multiprocessor: int
    shared_memory_per_multiprocessor: int
    shared_memory_per_block_optin: int
    L2_cache_size: int
    clock_rate: int
    memory_clock_rate: int
    memory_bus_width: int


def get_device_properties(device: Any = None) -> DeviceProperties:
    return DeviceProperties(
        **placement.runtime_device(device, "cuda.get_device_properties").properties)


def get_arch_list() -> list[str]:
    """The architectures that code can be generated for; empty where no device is there."""
    if not is_available():
        return []
    from lazygrad_compiler.cuda_target import ARCHITECTURES
    return sorted(ARCHITECTURES)


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return is_available() and get_device_capability()[0] >= 8


def is_tf32_supported() -> bool:
    """Whether there are tensor cores that round float32 to tf32, where that is asked for."""
    return is_available() and get_device_capability()[0] >= 8


# ---- waiting, and beginning anew


def synchronize(device: Any = None) -> None:
    """Waits for everything that the device was given; `lazygrad.synchronize()` computes what is
    pending.  Faults of kernels show here.
    """
    not_in_captures("cuda.synchronize")
    if placement.in_use():
        placement.runtime_device(device, "cuda.synchronize").synchronize()


def reset(device: Any = None) -> None:
    """A new context for a device that was lost.  All values on it are gone."""
    if placement.in_use():
        placement.runtime_device(device, "cuda.reset").reset()


# ---- random numbers: one source serves all devices, with the same bits


def manual_seed(seed: int) -> None:
    """Starts the source of random numbers over, which serves the CPU, too: the same seed gives the
    same numbers on every device.  Nothing where there is no device.
    """
    if is_available():
        from lazygrad.functional.generators import manual_seed
        manual_seed(seed)


manual_seed_all = manual_seed


def seed() -> None:
    """Starts the source of random numbers over with a seed from the system."""
    if is_available():
        from lazygrad.functional.generators import seed
        seed()


seed_all = seed


def initial_seed() -> int:
    from lazygrad.functional.generators import initial_seed
    return initial_seed()


def get_rng_state(device: Any = None) -> Any:
    from lazygrad.functional.generators import get_rng_state
    return get_rng_state()


def set_rng_state(new_state: Any, device: Any = None) -> None:
    from lazygrad.functional.generators import set_rng_state
    set_rng_state(new_state)


def get_rng_state_all() -> list[Any]:
    return [get_rng_state() for _ in range(device_count())]


def set_rng_state_all(new_states: Any) -> None:
    for state in new_states:
        set_rng_state(state)


def current_blas_handle() -> int:
    """Products are compiled, not called."""
    raise fail("cuda.current_blas_handle", "there is no cuBLAS here: products are compiled",
               "Nothing has to be done.")


def __getattr__(name: str) -> Any:
    if name == "amp":
        import importlib
        return importlib.import_module("lazygrad.cuda.amp")
    raise AttributeError(f"module 'lazygrad.cuda' has no attribute {name!r}")
