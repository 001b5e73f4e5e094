"""What the parts of the fake driver share: codes, the table of functions, handles.

Numbers, signatures and return codes are those of the CUDA Driver API reference (cuda.h).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from ctypes import c_uint64
from typing import Any

from tests.ptx.driver_order import Order
from tests.ptx.memory import DeviceMemory
from tests.ptx.parser import PtxError

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED = 0, 1, 2, 3
NO_DEVICE, INVALID_DEVICE, INVALID_CONTEXT, INVALID_PTX = 100, 101, 201, 218
INVALID_HANDLE, NOT_FOUND, NOT_READY, ILLEGAL_ADDRESS, LAUNCH_FAILED = 400, 500, 600, 700, 719
DESCRIPTIONS = {
    SUCCESS: ("CUDA_SUCCESS", "no error"),
    INVALID_VALUE: ("CUDA_ERROR_INVALID_VALUE", "invalid argument"),
    OUT_OF_MEMORY: ("CUDA_ERROR_OUT_OF_MEMORY", "out of memory"),
    NOT_INITIALIZED: ("CUDA_ERROR_NOT_INITIALIZED", "initialization error"),
    NO_DEVICE: ("CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"),
    INVALID_DEVICE: ("CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"),
    INVALID_CONTEXT: ("CUDA_ERROR_INVALID_CONTEXT", "invalid device context"),
    INVALID_PTX: ("CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"),
    INVALID_HANDLE: ("CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"),
    NOT_FOUND: ("CUDA_ERROR_NOT_FOUND", "named symbol not found"),
    NOT_READY: ("CUDA_ERROR_NOT_READY", "device not ready"),
    ILLEGAL_ADDRESS: ("CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    LAUNCH_FAILED: ("CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"),
}

DEFAULT_ATTRIBUTES = {
    1: 1024, 2: 1024, 3: 1024, 4: 64, 5: 2**31 - 1, 6: 65535, 7: 65535, 8: 48 * 1024, 9: 65536,
    10: 32, 12: 65536, 13: 1_980_000, 16: 132, 36: 2_619_000, 37: 5120, 38: 50 << 20, 39: 2048,
    41: 1, 75: 9, 76: 0, 81: 228 * 1024, 82: 65536, 97: 227 * 1024, 106: 32, 111: 1024,
}  # fmt: skip
"""CUdevice_attribute: limits of a Hopper GPU."""

SIGNATURES: dict[str, tuple[Any, ...]] = {}
FUNCTIONS: dict[str, Callable[..., int]] = {}
ALWAYS = ("cuGetErrorName", "cuGetErrorString", "cuDevicePrimaryCtxReset_v2", "cuInit")


def call(*signature: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Registers a method as the driver's function of that name."""

    def register(method: Callable[..., int]) -> Callable[..., int]:
        SIGNATURES[method.__name__], FUNCTIONS[method.__name__] = signature, method
        return method

    return register


def put(pointer: int, value: int, type_: Any = c_uint64) -> None:
    type_.from_address(pointer).value = value


class DriverState:
    """What calls read and change.  sticky: the code that every call returns after a fault.
    capturing: work of the streams whose work is captured.  order: finds accesses of several streams
    that no event orders, where that was asked for.
    """

    def __init__(self, memory: DeviceMemory, attributes: dict[int, int]) -> None:
        self.memory, self.attributes = memory, attributes
        self.calls: list[str] = []
        self.fault: PtxError | None = None
        self.last_error = ""
        self.sticky = SUCCESS
        self.handles: dict[int, Any] = {}
        self.capturing: dict[int, list[Callable[[], int]]] = {}
        self.order: Order | None = None
        self._numbers = itertools.count(0x1000)

    def handle(self, value: Any) -> int:
        number = next(self._numbers)
        self.handles[number] = value
        return number

    def enqueue(self, stream: int | None, work: Callable[[], int]) -> int:
        captured = self.capturing.get(stream or 0)
        if captured is not None:
            captured.append(work)
            return SUCCESS
        with self.order.work(stream) if self.order else contextlib.nullcontext():
            return work()
