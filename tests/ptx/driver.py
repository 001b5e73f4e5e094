"""The CUDA driver's functions over the interpreter, for machines without a GPU.

`FakeDriver().table` maps the names of libcuda's exports to ctypes functions with C signatures, so
that they can stand in for `ctypes.CDLL("libcuda.so.1")`, by name or by address.  Device pointers
belong to the `DeviceMemory`, host pointers are real.

Work runs at once, but faults show as on a GPU: the launch succeeds, and from then on every call
returns the error until the primary context is reset.  `fault` holds the exception with its text.

    driver_state.py    codes, the table of functions, handles
    driver_memory.py   allocations and copies
    driver_launch.py   modules, launches, the linker, tensor maps
    driver_streams.py  streams, events, graphs
    driver_order.py    which work is ordered behind which
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_int, c_uint, c_void_p
from typing import Any

from tests.ptx.driver_memory import MemoryCalls
from tests.ptx.driver_order import Order
from tests.ptx.driver_state import (
    ALWAYS,
    DEFAULT_ATTRIBUTES,
    DESCRIPTIONS,
    FUNCTIONS,
    INVALID_DEVICE,
    INVALID_HANDLE,
    INVALID_VALUE,
    NO_DEVICE,
    NOT_INITIALIZED,
    OUT_OF_MEMORY,
    SIGNATURES,
    SUCCESS,
    call,
    put,
)
from tests.ptx.driver_streams import StreamCalls
from tests.ptx.memory import DeviceMemory


class FakeDriver(MemoryCalls, StreamCalls):
    """One device over `memory`.

    table: the functions by name.  calls: the names called so far.  fail_next(name, code): the next
    call of that name returns the code, to test what the runtime does then.  ordered: `order` then
    finds what no event orders.
    """

    def __init__(
        self,
        memory: DeviceMemory | None = None,
        attributes: dict[int, int] | None = None,
        devices: int = 1,
        version: int = 13000,
        ordered: bool = False,
    ) -> None:
        super().__init__(memory or DeviceMemory(), DEFAULT_ATTRIBUTES | (attributes or {}))
        self.order = Order(self.memory) if ordered else None
        self.devices, self.version = devices, version
        self._initialized = False
        self._failures: dict[str, int] = {}
        self._texts: list[Any] = []
        self.table = {
            name: ctypes.CFUNCTYPE(c_int, *signature)(functools.partial(self._enter, name))
            for name, signature in SIGNATURES.items()
        }
        # As attributes they are the C functions; the methods below stay behind them.
        self.__dict__.update(self.table)

    def fail_next(self, name: str, code: int) -> None:
        self._failures[name] = code

    def _enter(self, name: str, *arguments: Any) -> int:
        """Every call comes through here: no exception may leave a callback."""
        self.calls.append(name)
        if name in self._failures:
            return self._failures.pop(name)
        if not self._initialized and name not in ALWAYS:
            return NOT_INITIALIZED
        if self.sticky and name not in ALWAYS:
            return self.sticky
        try:
            return FUNCTIONS[name](self, *arguments)
        except MemoryError as error:
            self.last_error = str(error)
            return OUT_OF_MEMORY
        except KeyError as error:
            self.last_error = f"{name}: no such handle {error}"
            return INVALID_HANDLE
        except Exception as error:
            self.last_error = f"{name}: {error!r}"
            return INVALID_VALUE

    # ---- the device and its context

    @call(c_uint)
    def cuInit(self, flags: int) -> int:
        self._initialized = True
        return SUCCESS if self.devices else NO_DEVICE

    @call(c_void_p)
    def cuDriverGetVersion(self, version: int) -> int:
        put(version, self.version, c_int)
        return SUCCESS

    @call(c_void_p)
    def cuDeviceGetCount(self, count: int) -> int:
        put(count, self.devices, c_int)
        return SUCCESS

    @call(c_void_p, c_int)
    def cuDeviceGet(self, device: int, ordinal: int) -> int:
        if not 0 <= ordinal < self.devices:
            return INVALID_DEVICE
        put(device, ordinal, c_int)
        return SUCCESS

    @call(c_void_p, c_int, c_int)
    def cuDeviceGetName(self, name: int, length: int, device: int) -> int:
        text = b"PTX interpreter"[: length - 1] + b"\0"
        ctypes.memmove(name, text, len(text))
        return SUCCESS

    @call(c_void_p, c_int, c_int)
    def cuDeviceGetAttribute(self, value: int, attribute: int, device: int) -> int:
        if attribute not in self.attributes:
            self.last_error = f"cuDeviceGetAttribute: attribute {attribute} is not known"
            return INVALID_VALUE
        put(value, self.attributes[attribute], c_int)
        return SUCCESS

    @call(c_void_p, c_int)
    def cuDeviceTotalMem_v2(self, size: int, device: int) -> int:
        put(size, self.memory.limit)
        return SUCCESS

    @call(c_void_p, c_int)
    def cuDevicePrimaryCtxRetain(self, context: int, device: int) -> int:
        put(context, 1 + device)
        return SUCCESS

    @call(c_int)
    def cuDevicePrimaryCtxRelease_v2(self, device: int) -> int:
        return SUCCESS

    @call(c_int)
    def cuDevicePrimaryCtxReset_v2(self, device: int) -> int:
        self.sticky, self.fault = SUCCESS, None
        return SUCCESS

    @call(c_void_p)
    def cuCtxSetCurrent(self, context: int | None) -> int:
        return SUCCESS

    @call(c_void_p)
    def cuCtxGetCurrent(self, context: int) -> int:
        put(context, 1)
        return SUCCESS

    @call()
    def cuCtxSynchronize(self) -> int:
        if self.order:
            self.order.host_waits_for_all()
        return SUCCESS

    @call(c_int, c_void_p)
    def cuGetErrorName(self, code: int, text: int) -> int:
        return self._text(code, 0, text)

    @call(c_int, c_void_p)
    def cuGetErrorString(self, code: int, text: int) -> int:
        return self._text(code, 1, text)

    def _text(self, code: int, which: int, pointer: int) -> int:
        if code not in DESCRIPTIONS:
            return INVALID_VALUE
        buffer = ctypes.create_string_buffer(DESCRIPTIONS[code][which].encode())
        self._texts.append(buffer)
        put(pointer, ctypes.addressof(buffer))
        return SUCCESS
