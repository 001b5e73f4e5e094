"""The fake driver's memory: device memory of the interpreter, host memory, copies between."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np

from tests.ptx.driver_state import INVALID_VALUE, SUCCESS, DriverState, call, put
from tests.ptx.memory import MemoryFault


class MemoryCalls(DriverState):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._host: dict[int, Any] = {}

    @call(c_void_p, c_size_t)
    def cuMemAlloc_v2(self, pointer: int, size: int) -> int:
        if not size:
            return INVALID_VALUE
        put(pointer, self.memory.allocate(size))
        return SUCCESS

    @call(c_uint64)
    def cuMemFree_v2(self, pointer: int) -> int:
        if self.order:
            self.order.host_waits_for_all()
        self.memory.free(pointer)
        return SUCCESS

    @call(c_void_p, c_void_p)
    def cuMemGetInfo_v2(self, free: int, total: int) -> int:
        put(free, self.memory.limit - self.memory.allocated)
        put(total, self.memory.limit)
        return SUCCESS

    @call(c_void_p, c_size_t)
    def cuMemAllocHost_v2(self, pointer: int, size: int) -> int:
        buffer = (ctypes.c_uint8 * size)()
        self._host[ctypes.addressof(buffer)] = buffer
        put(pointer, ctypes.addressof(buffer))
        return SUCCESS

    @call(c_void_p)
    def cuMemFreeHost(self, pointer: int) -> int:
        return SUCCESS if self._host.pop(pointer, None) is not None else INVALID_VALUE

    @call(c_uint64, c_void_p, c_size_t, c_void_p)
    def cuMemcpyHtoDAsync_v2(self, target: int, source: int, size: int, stream: int | None) -> int:
        def work() -> int:
            self.memory.write(target, ctypes.string_at(source, size))
            return SUCCESS

        return self.enqueue(stream, work) if size else SUCCESS

    @call(c_void_p, c_uint64, c_size_t, c_void_p)
    def cuMemcpyDtoHAsync_v2(self, target: int, source: int, size: int, stream: int | None) -> int:
        def work() -> int:
            ctypes.memmove(target, self.memory.read(source, size), size)
            return SUCCESS

        return self.enqueue(stream, work) if size else SUCCESS

    @call(c_uint64, c_uint64, c_size_t, c_void_p)
    def cuMemcpyDtoDAsync_v2(self, target: int, source: int, size: int, stream: int | None) -> int:
        def work() -> int:
            self.memory.copy(target, source, size)
            return SUCCESS

        return self.enqueue(stream, work) if size else SUCCESS

    @call(c_uint64, c_void_p, c_uint64, c_void_p, c_size_t, c_void_p)
    def cuMemcpyPeerAsync(
        self, target: int, there: int | None, source: int, here: int | None, size: int,
        stream: int | None,
    ) -> int:  # fmt: skip
        return MemoryCalls.cuMemcpyDtoDAsync_v2(self, target, source, size, stream)

    @call(c_uint64, c_void_p, c_size_t)
    def cuMemcpyHtoD_v2(self, target: int, source: int, size: int) -> int:
        return MemoryCalls.cuMemcpyHtoDAsync_v2(self, target, source, size, None)

    @call(c_void_p, c_uint64, c_size_t)
    def cuMemcpyDtoH_v2(self, target: int, source: int, size: int) -> int:
        return MemoryCalls.cuMemcpyDtoHAsync_v2(self, target, source, size, None)

    @call(c_uint64, c_uint64, c_size_t)
    def cuMemcpyDtoD_v2(self, target: int, source: int, size: int) -> int:
        return MemoryCalls.cuMemcpyDtoDAsync_v2(self, target, source, size, None)

    @call(c_uint64, ctypes.c_ubyte, c_size_t, c_void_p)
    def cuMemsetD8Async(self, target: int, value: int, count: int, stream: int | None) -> int:
        def work() -> int:
            self.memory.fill(target, value, count)
            return SUCCESS

        return self.enqueue(stream, work) if count else SUCCESS

    @call(c_uint64, ctypes.c_ubyte, c_size_t)
    def cuMemsetD8_v2(self, target: int, value: int, count: int) -> int:
        return MemoryCalls.cuMemsetD8Async(self, target, value, count, None)

    @call(c_void_p, c_int, c_uint64)
    def cuPointerGetAttribute(self, data: int, attribute: int, pointer: int) -> int:
        try:
            self.memory.read(pointer, 1)
        except MemoryFault:
            return INVALID_VALUE
        put(data, 0, c_int)
        return SUCCESS

    @call(c_uint64, c_uint, c_size_t, c_void_p)
    def cuMemsetD32Async(self, target: int, value: int, count: int, stream: int | None) -> int:
        def work() -> int:
            self.memory.write(target, np.full(count, value, np.uint32))
            return SUCCESS

        return self.enqueue(stream, work) if count else SUCCESS

    @call(c_uint64, c_uint, c_size_t)
    def cuMemsetD32_v2(self, target: int, value: int, count: int) -> int:
        return MemoryCalls.cuMemsetD32Async(self, target, value, count, None)
