"""Devices: what they are, their primary contexts, and what becomes of one that is lost.

A `Device` owns what lives on it: memory, loaded modules, streams.  `activate()` comes before any
work on it and makes its context the thread's.  A kernel that faults destroys the context: the
device is lost, its values are gone, and each use says so until `reset()` makes a new one.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
from collections import deque
from ctypes import c_char, c_int, c_size_t, c_void_p
from typing import TYPE_CHECKING, Any

from lazygrad_compiler import forks
from lazygrad_compiler.ir.node import Location
from lazygrad_runtime.cuda.errors import INVALID_VALUE, CudaError, DeviceLost, NoDevice
from lazygrad_runtime.precision import precision

if TYPE_CHECKING:
    from lazygrad_compiler.cuda_target import CudaTarget
    from lazygrad_runtime.cuda.driver import Driver
    from lazygrad_runtime.cuda.memory import Pool
    from lazygrad_runtime.cuda.module import Modules
    from lazygrad_runtime.cuda.transfer import Staging

ATTRIBUTES = {
    "max_threads_per_block": 1, "warp_size": 10, "clock_rate": 13, "multi_processor_count": 16,
    "memory_clock_rate": 36, "memory_bus_width": 37, "L2_cache_size": 38,
    "max_threads_per_multi_processor": 39, "major": 75, "minor": 76,
    "shared_memory_per_multiprocessor": 81, "regs_per_multiprocessor": 82,
    "shared_memory_per_block_optin": 97,
}  # fmt: skip
"""CUdevice_attribute, under the names of PyTorch's device properties."""

PTX_VERSIONS = (
    (13000, 90), (12090, 88), (12080, 87), (12070, 86), (12050, 85), (12040, 84), (12030, 83),
    (12020, 82), (12010, 81), (12000, 80),
)  # fmt: skip
"""Driver version -> the newest PTX that it takes (PTX ISA, "Release Notes")."""

REMEMBERED = 8
"""Programs of late, named where a fault shows only afterwards."""


@functools.cache
def blocking() -> bool:
    """LAZYGRAD_CUDA_BLOCKING=1: each launch is waited for, so that a fault names its kernel."""
    return os.environ.get("LAZYGRAD_CUDA_BLOCKING", "").strip() not in ("", "0")


class Device:
    """One GPU.  number: of the device.  label: "cuda:0".  lost: why its context is gone, or "".
    era: counts the contexts that it had.
    """

    def __init__(self, driver: Driver, number: int) -> None:
        self.driver = driver
        self.number = number
        self.label = f"cuda:{number}"
        self.handle: int = driver.get("cuDeviceGet", c_int, number)
        self.lost = ""
        self.era = 0
        self.recent: deque[tuple[str, Location]] = deque(maxlen=REMEMBERED)
        self._process = os.getpid()
        self._lock = forks.rlock()
        self._context: int | None = None
        self._make_current = driver.raw("cuCtxSetCurrent")
        self._clear()

    def _clear(self) -> None:
        self._pool: Pool | None = None
        self._staging: Staging | None = None
        self._modules: Modules | None = None

    def __repr__(self) -> str:
        return f"<{self.label}>"

    # ---- what it is

    def attribute(self, name: str) -> int:
        return self.driver.get("cuDeviceGetAttribute", c_int, ATTRIBUTES[name], self.handle)

    @functools.cached_property
    def capability(self) -> tuple[int, int]:
        return self.attribute("major"), self.attribute("minor")

    @functools.cached_property
    def name(self) -> str:
        text = (c_char * 256)()
        self.driver.cuDeviceGetName(ctypes.byref(text), len(text), self.handle)
        return text.value.decode(errors="replace")

    @functools.cached_property
    def total_memory(self) -> int:
        return self.driver.get("cuDeviceTotalMem_v2", c_size_t, self.handle)

    @functools.cached_property
    def properties(self) -> dict[str, Any]:
        """By the names that PyTorch gives them."""
        found: dict[str, Any] = {name: self.attribute(name) for name in ATTRIBUTES}
        return {"name": self.name, "total_memory": self.total_memory, **found}

    @property
    def target(self) -> CudaTarget:
        """What the compiler generates code for.  NoDevice where it knows no such architecture."""
        strict = self._strict_target
        return dataclasses.replace(strict, tf32=True) if precision.tf32 else strict

    @functools.cached_property
    def _strict_target(self) -> CudaTarget:
        from lazygrad_compiler.cuda_target import ARCHITECTURES

        major, minor = self.capability
        name = f"sm_{major}{minor}a"  # holds for this capability alone, plain ones for later, too
        if name not in ARCHITECTURES:
            plain = [each for each in ARCHITECTURES if not each.endswith("a")]
            older = [each for each in plain if int(each[3:]) <= 10 * major + minor]
            if not older:
                raise NoDevice(
                    f"[cuda] {self.name} ({self.label}) has compute capability {major}.{minor}; "
                    f"code is generated for {', '.join(sorted(ARCHITECTURES))}. Use another "
                    "device, or the CPU."
                )
            name = max(older, key=lambda each: int(each[3:]))
        target = ARCHITECTURES[name]
        version = next((ptx for driver, ptx in PTX_VERSIONS if driver <= self.driver.version), 80)
        return dataclasses.replace(
            target,
            features=f"+ptx{version}",
            multiprocessors=self.attribute("multi_processor_count"),
            shared_bytes=self.attribute("shared_memory_per_block_optin"),
            l2_bytes=self.attribute("L2_cache_size"),
        )

    # ---- the context

    def activate(self) -> None:
        """Makes the context the thread's, each time: another library (or `reset` in another thread)
        may have put something else in its place.  DeviceLost where it is gone.
        """
        if self.lost:
            raise DeviceLost(
                f"[cuda] {self.label} was lost: {self.lost}. Values on it are gone; those on the "
                "CPU are not. lazygrad.cuda.reset() gives the device a new context."
            )
        code = self._make_current(self._context or self.context)
        if code:
            raise self.driver.error("cuCtxSetCurrent", code)
        self.driver.current.device = self

    @property
    def context(self) -> int:
        if self._context is None:
            with self._lock:
                if self._context is None:
                    self._context = self.driver.get(
                        "cuDevicePrimaryCtxRetain", c_void_p, self.handle
                    )
        return self._context or 0

    @property
    def initialized(self) -> bool:
        return self._context is not None

    def holds(self, era: int) -> bool:
        """Whether what was made in a context is there still, and may be given back."""
        return (era == self.era and not self.lost and not self.driver.replaced
                and self._process == os.getpid())

    def synchronize(self) -> None:
        """Waits for all work on the device; faults of earlier launches show here."""
        self.activate()
        self.driver.cuCtxSynchronize()
        self.recent.clear()

    def lose(self, reason: str) -> str:
        """Notes that the context is gone; gives back what ran of late, for the message."""
        if not self.lost:
            self.lost = reason
        ran = [
            f"{about} (first at "
            f"{', '.join(f'{os.path.basename(file)}:{line}' for file, line in where)})"
            for about, where in dict.fromkeys(self.recent)
        ]
        return f" {self.label} ran of late: {'; '.join(ran)}." if ran else ""

    def reset(self) -> None:
        """A new context.  All values on the device are gone, and say so when they are read."""
        with self._lock:
            self.era += 1
            self._clear()
            self.recent.clear()
            if self._context is not None:
                self.driver.cuDevicePrimaryCtxReset_v2(self.handle)
                self._context = None
            self.lost = ""
            self.driver.current.device = None

    # ---- what lives on it

    @property
    def pool(self) -> Pool:
        if self._pool is None:
            from lazygrad_runtime.cuda.memory import Pool

            with self._lock:
                self._pool = self._pool or Pool(self)
        return self._pool

    @property
    def staging(self) -> Staging:
        if self._staging is None:
            from lazygrad_runtime.cuda.transfer import Staging

            with self._lock:
                self._staging = self._staging or Staging(self)
        return self._staging

    @property
    def modules(self) -> Modules:
        if self._modules is None:
            from lazygrad_runtime.cuda.module import Modules

            with self._lock:
                self._modules = self._modules or Modules(self)
        return self._modules


def device_at(label: str) -> Device:
    """The device of a label such as "cuda:1".  NoDevice where there is none."""
    from lazygrad_runtime.cuda.driver import driver

    devices = driver().devices
    number = int(label.partition(":")[2] or 0)
    if not devices:
        raise NoDevice(
            "[cuda] the driver finds no device. Check that nvidia-smi lists one, and that "
            "CUDA_VISIBLE_DEVICES does not hide it."
        )
    if not 0 <= number < len(devices):
        raise NoDevice(
            f"[cuda] there is no {label}: this machine has {len(devices)} CUDA device"
            f"{'s, cuda:0 to cuda:' + str(len(devices) - 1) if len(devices) > 1 else ', cuda:0'}."
        )
    return devices[number]


DEVICE_OF_POINTER = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


def device_of_address(address: int) -> int | None:
    """The number of the device whose memory lies there; None for memory that is none of CUDA's."""
    from lazygrad_runtime.cuda.driver import driver

    found, known = c_int(), driver()
    code = known.raw("cuPointerGetAttribute")(ctypes.byref(found), DEVICE_OF_POINTER, address)
    if code == INVALID_VALUE:
        return None
    if code:
        raise known.error("cuPointerGetAttribute", code)
    return found.value


__all__ = ["CudaError", "Device", "DeviceLost", "NoDevice", "blocking", "device_at",
           "device_of_address"]
