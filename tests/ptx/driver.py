"""The CUDA driver's functions over the interpreter, for machines without a GPU.

`FakeDriver().table` maps the names of libcuda's exports to ctypes functions with C signatures, so
that they can stand in for `ctypes.CDLL("libcuda.so.1")`, by name or by address.  Numbers,
signatures and return codes are those of the CUDA Driver API reference (cuda.h).  Device pointers
belong to the `DeviceMemory`, host pointers are real.

Work runs at once, but faults show as on a GPU: the launch succeeds, and from then on every call
returns the error until the primary context is reset.  `fault` holds the exception with its text.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable
from ctypes import c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np

from tests.ptx.machine import LaunchError, Module
from tests.ptx.memory import DeviceMemory, MemoryFault
from tests.ptx.parser import PtxError, parse
from tests.ptx.tensor_copies import TensorMap

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

_SIGNATURES: dict[str, tuple[Any, ...]] = {}
_FUNCTIONS: dict[str, Callable[..., int]] = {}
_ALWAYS = ("cuGetErrorName", "cuGetErrorString", "cuDevicePrimaryCtxReset_v2", "cuInit")


def _call(*signature: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Registers a method as the driver's function of that name."""

    def register(method: Callable[..., int]) -> Callable[..., int]:
        _SIGNATURES[method.__name__], _FUNCTIONS[method.__name__] = signature, method
        return method

    return register


def _put(pointer: int, value: int, type_: Any = c_uint64) -> None:
    type_.from_address(pointer).value = value


class FakeDriver:
    """One device over `memory`.

    table: the functions by name.  calls: the names called so far.  fail_next(name, code): the next
    call of that name returns the code (-1: every name), to test what the runtime does then.
    """

    def __init__(
        self,
        memory: DeviceMemory | None = None,
        attributes: dict[int, int] | None = None,
        devices: int = 1,
        version: int = 13000,
    ) -> None:
        self.memory = memory if memory is not None else DeviceMemory()
        self.attributes = DEFAULT_ATTRIBUTES | (attributes or {})
        self.devices, self.version = devices, version
        self.calls: list[str] = []
        self.fault: PtxError | None = None
        self.last_error: str = ""
        self._sticky = SUCCESS
        self._initialized = False
        self._failures: dict[str, int] = {}
        self._numbers = itertools.count(0x1000)
        self._handles: dict[int, Any] = {}
        self._host: dict[int, Any] = {}
        self._capturing: dict[int, list[Callable[[], int]]] = {}
        self._texts: list[Any] = []
        self.table = {
            name: ctypes.CFUNCTYPE(c_int, *signature)(functools.partial(self._enter, name))
            for name, signature in _SIGNATURES.items()
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
        if not self._initialized and name not in _ALWAYS:
            return NOT_INITIALIZED
        if self._sticky and name not in _ALWAYS:
            return self._sticky
        try:
            return _FUNCTIONS[name](self, *arguments)
        except MemoryError as error:
            self.last_error = str(error)
            return OUT_OF_MEMORY
        except KeyError as error:
            self.last_error = f"{name}: no such handle {error}"
            return INVALID_HANDLE
        except Exception as error:
            self.last_error = f"{name}: {error!r}"
            return INVALID_VALUE

    def _handle(self, value: Any) -> int:
        number = next(self._numbers)
        self._handles[number] = value
        return number

    def _enqueue(self, stream: int | None, work: Callable[[], int]) -> int:
        captured = self._capturing.get(stream or 0)
        if captured is not None:
            captured.append(work)
            return SUCCESS
        return work()

    # ---- the device and its context

    @_call(c_uint)
    def cuInit(self, flags: int) -> int:
        self._initialized = True
        return SUCCESS if self.devices else NO_DEVICE

    @_call(c_void_p)
    def cuDriverGetVersion(self, version: int) -> int:
        _put(version, self.version, c_int)
        return SUCCESS

    @_call(c_void_p)
    def cuDeviceGetCount(self, count: int) -> int:
        _put(count, self.devices, c_int)
        return SUCCESS

    @_call(c_void_p, c_int)
    def cuDeviceGet(self, device: int, ordinal: int) -> int:
        if not 0 <= ordinal < self.devices:
            return INVALID_DEVICE
        _put(device, ordinal, c_int)
        return SUCCESS

    @_call(c_void_p, c_int, c_int)
    def cuDeviceGetName(self, name: int, length: int, device: int) -> int:
        text = b"PTX interpreter"[: length - 1] + b"\0"
        ctypes.memmove(name, text, len(text))
        return SUCCESS

    @_call(c_void_p, c_int, c_int)
    def cuDeviceGetAttribute(self, value: int, attribute: int, device: int) -> int:
        if attribute not in self.attributes:
            self.last_error = f"cuDeviceGetAttribute: attribute {attribute} is not known"
            return INVALID_VALUE
        _put(value, self.attributes[attribute], c_int)
        return SUCCESS

    @_call(c_void_p, c_int)
    def cuDeviceTotalMem_v2(self, size: int, device: int) -> int:
        _put(size, self.memory.limit)
        return SUCCESS

    @_call(c_void_p, c_int)
    def cuDevicePrimaryCtxRetain(self, context: int, device: int) -> int:
        _put(context, 1 + device)
        return SUCCESS

    @_call(c_int)
    def cuDevicePrimaryCtxRelease_v2(self, device: int) -> int:
        return SUCCESS

    @_call(c_int)
    def cuDevicePrimaryCtxReset_v2(self, device: int) -> int:
        self._sticky, self.fault = SUCCESS, None
        return SUCCESS

    @_call(c_void_p)
    def cuCtxSetCurrent(self, context: int | None) -> int:
        return SUCCESS

    @_call(c_void_p)
    def cuCtxGetCurrent(self, context: int) -> int:
        _put(context, 1)
        return SUCCESS

    @_call()
    def cuCtxSynchronize(self) -> int:
        return SUCCESS

    @_call(c_int, c_void_p)
    def cuGetErrorName(self, code: int, text: int) -> int:
        return self._text(code, 0, text)

    @_call(c_int, c_void_p)
    def cuGetErrorString(self, code: int, text: int) -> int:
        return self._text(code, 1, text)

    def _text(self, code: int, which: int, pointer: int) -> int:
        if code not in DESCRIPTIONS:
            return INVALID_VALUE
        buffer = ctypes.create_string_buffer(DESCRIPTIONS[code][which].encode())
        self._texts.append(buffer)
        _put(pointer, ctypes.addressof(buffer))
        return SUCCESS

    # ---- memory

    @_call(c_void_p, c_size_t)
    def cuMemAlloc_v2(self, pointer: int, size: int) -> int:
        if not size:
            return INVALID_VALUE
        _put(pointer, self.memory.allocate(size))
        return SUCCESS

    @_call(c_uint64)
    def cuMemFree_v2(self, pointer: int) -> int:
        self.memory.free(pointer)
        return SUCCESS

    @_call(c_void_p, c_void_p)
    def cuMemGetInfo_v2(self, free: int, total: int) -> int:
        _put(free, self.memory.limit - self.memory.allocated)
        _put(total, self.memory.limit)
        return SUCCESS

    @_call(c_void_p, c_size_t)
    def cuMemAllocHost_v2(self, pointer: int, size: int) -> int:
        buffer = (ctypes.c_uint8 * size)()
        self._host[ctypes.addressof(buffer)] = buffer
        _put(pointer, ctypes.addressof(buffer))
        return SUCCESS

    @_call(c_void_p)
    def cuMemFreeHost(self, pointer: int) -> int:
        return SUCCESS if self._host.pop(pointer, None) is not None else INVALID_VALUE

    @_call(c_uint64, c_void_p, c_size_t, c_void_p)
    def cuMemcpyHtoDAsync_v2(self, target: int, source: int, size: int, stream: int | None) -> int:
        def work() -> int:
            self.memory.write(target, ctypes.string_at(source, size))
            return SUCCESS

        return self._enqueue(stream, work) if size else SUCCESS

    @_call(c_void_p, c_uint64, c_size_t, c_void_p)
    def cuMemcpyDtoHAsync_v2(self, target: int, source: int, size: int, stream: int | None) -> int:
        def work() -> int:
            ctypes.memmove(target, self.memory.read(source, size), size)
            return SUCCESS

        return self._enqueue(stream, work) if size else SUCCESS

    @_call(c_uint64, c_uint64, c_size_t, c_void_p)
    def cuMemcpyDtoDAsync_v2(self, target: int, source: int, size: int, stream: int | None) -> int:
        def work() -> int:
            self.memory.copy(target, source, size)
            return SUCCESS

        return self._enqueue(stream, work) if size else SUCCESS

    @_call(c_uint64, c_void_p, c_uint64, c_void_p, c_size_t, c_void_p)
    def cuMemcpyPeerAsync(
        self, target: int, there: int | None, source: int, here: int | None, size: int,
        stream: int | None,
    ) -> int:  # fmt: skip
        return FakeDriver.cuMemcpyDtoDAsync_v2(self, target, source, size, stream)

    @_call(c_uint64, c_void_p, c_size_t)
    def cuMemcpyHtoD_v2(self, target: int, source: int, size: int) -> int:
        return FakeDriver.cuMemcpyHtoDAsync_v2(self, target, source, size, None)

    @_call(c_void_p, c_uint64, c_size_t)
    def cuMemcpyDtoH_v2(self, target: int, source: int, size: int) -> int:
        return FakeDriver.cuMemcpyDtoHAsync_v2(self, target, source, size, None)

    @_call(c_uint64, c_uint64, c_size_t)
    def cuMemcpyDtoD_v2(self, target: int, source: int, size: int) -> int:
        return FakeDriver.cuMemcpyDtoDAsync_v2(self, target, source, size, None)

    @_call(c_uint64, ctypes.c_ubyte, c_size_t, c_void_p)
    def cuMemsetD8Async(self, target: int, value: int, count: int, stream: int | None) -> int:
        def work() -> int:
            self.memory.fill(target, value, count)
            return SUCCESS

        return self._enqueue(stream, work) if count else SUCCESS

    @_call(c_uint64, ctypes.c_ubyte, c_size_t)
    def cuMemsetD8_v2(self, target: int, value: int, count: int) -> int:
        return FakeDriver.cuMemsetD8Async(self, target, value, count, None)

    @_call(c_uint64, c_uint, c_size_t, c_void_p)
    def cuMemsetD32Async(self, target: int, value: int, count: int, stream: int | None) -> int:
        def work() -> int:
            self.memory.write(target, np.full(count, value, np.uint32))
            return SUCCESS

        return self._enqueue(stream, work) if count else SUCCESS

    @_call(c_uint64, c_uint, c_size_t)
    def cuMemsetD32_v2(self, target: int, value: int, count: int) -> int:
        return FakeDriver.cuMemsetD32Async(self, target, value, count, None)

    # ---- modules and launches

    def _load(self, module: int, image: int) -> int:
        try:
            loaded = Module(ctypes.string_at(image).decode(), self.memory)
        except PtxError as error:
            self.last_error = str(error)
            return INVALID_PTX
        _put(module, self._handle(loaded))
        return SUCCESS

    @_call(c_void_p, c_void_p)
    def cuModuleLoadData(self, module: int, image: int) -> int:
        return self._load(module, image)

    @_call(c_void_p, c_void_p, c_uint, c_void_p, c_void_p)
    def cuModuleLoadDataEx(
        self, module: int, image: int, count: int, options: int | None, values: int | None
    ) -> int:
        return self._load(module, image)

    @_call(c_void_p)
    def cuModuleUnload(self, module: int) -> int:
        self._handles.pop(module).unload()
        return SUCCESS

    @_call(c_void_p, c_void_p, ctypes.c_char_p)
    def cuModuleGetFunction(self, function: int, module: int, name: bytes) -> int:
        loaded = self._handles[module]
        if name.decode() not in loaded.programs:
            return NOT_FOUND
        _put(function, self._handle([loaded, name.decode(), 48 * 1024]))
        return SUCCESS

    @_call(c_void_p, c_void_p, c_void_p, ctypes.c_char_p)
    def cuModuleGetGlobal_v2(
        self, pointer: int | None, size: int | None, module: int, name: bytes
    ) -> int:
        variables = self._handles[module].variables
        if name.decode() not in variables:
            return NOT_FOUND
        for where, value in zip((pointer, size), variables[name.decode()]):
            if where:
                _put(where, value)
        return SUCCESS

    @_call(c_void_p, c_int, c_void_p)
    def cuFuncGetAttribute(self, value: int, attribute: int, function: int) -> int:
        module, name, dynamic = self._handles[function]
        program = module.programs[name]
        known = {0: 1024, 1: program.shared_bytes, 2: 0, 3: program.local_bytes, 4: 0, 8: dynamic}
        if attribute not in known:
            return INVALID_VALUE
        _put(value, known[attribute], c_int)
        return SUCCESS

    @_call(c_void_p, c_int, c_int)
    def cuFuncSetAttribute(self, function: int, attribute: int, value: int) -> int:
        if attribute == 8:
            if value > self.attributes[97]:
                return INVALID_VALUE
            self._handles[function][2] = value
        return SUCCESS

    @_call(c_void_p, *[c_uint] * 7, c_void_p, c_void_p, c_void_p)
    def cuLaunchKernel(
        self, function: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int,
        stream: int | None, parameters: int | None, extra: int | None,
    ) -> int:  # fmt: skip
        if extra:
            return INVALID_VALUE
        work = self._launch(function, (gx, gy, gz), (bx, by, bz), shared, parameters)
        return self._enqueue(stream, work) if callable(work) else work

    def _launch(
        self, function: int, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int,
        parameters: int | None,
    ) -> Callable[[], int] | int:  # fmt: skip
        """A launch to run later, or the code of why it cannot."""
        module, name, dynamic = self._handles[function]
        program = module.programs[name]
        if shared > dynamic or not all((*grid, *block)):
            return INVALID_VALUE
        # Arguments are copied now, as the driver does it; the work may run later.
        raw = bytearray(program.parameter_bytes)
        declared = module.syntax.kernels[name].parameters
        for index, (one, offset) in enumerate(zip(declared, program.parameter_offsets)):
            assert parameters is not None
            pointer = c_uint64.from_address(parameters + 8 * index).value
            raw[offset : offset + one.size] = ctypes.string_at(pointer, one.size)

        def work() -> int:
            try:
                module.launch_raw(name, grid, block, bytes(raw), shared)
            except LaunchError as error:
                self.last_error = str(error)
                return INVALID_VALUE
            except PtxError as error:
                self.fault, self.last_error = error, str(error)
                memory = isinstance(error, MemoryFault) or "address" in str(error)
                self._sticky = ILLEGAL_ADDRESS if memory else LAUNCH_FAILED
            return SUCCESS

        return work

    # ---- streams, events, graphs

    @_call(c_void_p, c_uint)
    def cuStreamCreate(self, stream: int, flags: int) -> int:
        _put(stream, self._handle("stream"))
        return SUCCESS

    @_call(c_void_p)
    def cuStreamDestroy_v2(self, stream: int) -> int:
        self._handles.pop(stream)
        return SUCCESS

    @_call(c_void_p)
    def cuStreamSynchronize(self, stream: int | None) -> int:
        return SUCCESS

    @_call(c_void_p)
    def cuStreamQuery(self, stream: int | None) -> int:
        return SUCCESS

    @_call(c_void_p, c_void_p, c_uint)
    def cuStreamWaitEvent(self, stream: int | None, event: int, flags: int) -> int:
        return SUCCESS if event in self._handles else INVALID_HANDLE

    @_call(c_void_p, c_uint)
    def cuEventCreate(self, event: int, flags: int) -> int:
        _put(event, self._handle([0]))
        return SUCCESS

    @_call(c_void_p, c_void_p)
    def cuEventRecord(self, event: int, stream: int | None) -> int:
        self._handles[event][0] = len(self.calls)
        return SUCCESS

    @_call(c_void_p)
    def cuEventSynchronize(self, event: int) -> int:
        return SUCCESS if event in self._handles else INVALID_HANDLE

    @_call(c_void_p)
    def cuEventQuery(self, event: int) -> int:
        return SUCCESS if event in self._handles else INVALID_HANDLE

    @_call(c_void_p, c_void_p, c_void_p)
    def cuEventElapsedTime(self, milliseconds: int, start: int, end: int) -> int:
        """Not a time: the number of driver calls between, in thousandths."""
        passed = self._handles[end][0] - self._handles[start][0]
        c_float.from_address(milliseconds).value = passed / 1000
        return SUCCESS

    @_call(c_void_p)
    def cuEventDestroy_v2(self, event: int) -> int:
        self._handles.pop(event)
        return SUCCESS

    @_call(c_void_p, c_int)
    def cuStreamBeginCapture_v2(self, stream: int, mode: int) -> int:
        self._capturing[stream] = []
        return SUCCESS

    @_call(c_void_p, c_void_p)
    def cuStreamEndCapture(self, stream: int, graph: int) -> int:
        _put(graph, self._handle(self._capturing.pop(stream)))
        return SUCCESS

    @_call(c_void_p, c_uint)
    def cuGraphCreate(self, graph: int, flags: int) -> int:
        if flags:
            return INVALID_VALUE
        _put(graph, self._handle([]))
        return SUCCESS

    def _node_work(self, described: int) -> Callable[[], int] | int:
        """The launch that a CUDA_KERNEL_NODE_PARAMS_v2 describes: function, grid, block, shared
        bytes, parameters, extra, kernel, context.
        """
        function = c_uint64.from_address(described).value
        sizes = list((c_uint * 7).from_address(described + 8))
        parameters, extra = (c_uint64 * 2).from_address(described + 40)
        if extra:
            return INVALID_VALUE
        grid, block = (sizes[0], sizes[1], sizes[2]), (sizes[3], sizes[4], sizes[5])
        return self._launch(function, grid, block, sizes[6], parameters)

    @_call(c_void_p, c_void_p, c_void_p, c_size_t, c_void_p)
    def cuGraphAddKernelNode_v2(
        self, node: int, graph: int, before: int | None, count: int, described: int
    ) -> int:
        """Nodes run in the order they were added in, which must be a chain."""
        launches = self._handles[graph]
        wanted = [(graph, len(launches) - 1)] if launches else []
        named = (c_uint64 * count).from_address(before) if before and count else ()
        if [self._handles[each] for each in named] != wanted:
            self.last_error = "cuGraphAddKernelNode_v2: not after the node before"
            return INVALID_VALUE
        work = self._node_work(described)
        if not callable(work):
            return work
        _put(node, self._handle((graph, len(launches))))
        launches.append(work)
        return SUCCESS

    @_call(c_void_p, c_void_p, c_void_p)
    def cuGraphExecKernelNodeSetParams_v2(
        self, executable: int, node: int, described: int
    ) -> int:
        graph, number = self._handles[node]
        if graph not in self._handles:
            return INVALID_HANDLE
        work = self._node_work(described)
        if not callable(work):
            return work
        self._handles[executable][number] = work
        return SUCCESS

    @_call(c_void_p, c_void_p, c_uint64)
    def cuGraphInstantiateWithFlags(self, executable: int, graph: int, flags: int) -> int:
        _put(executable, self._handle(list(self._handles[graph])))
        return SUCCESS

    @_call(c_void_p, c_void_p)
    def cuGraphLaunch(self, executable: int, stream: int | None) -> int:
        for work in self._handles[executable]:
            code = work()
            if code:
                return code
        return SUCCESS

    @_call(c_void_p)
    def cuGraphExecDestroy(self, executable: int) -> int:
        self._handles.pop(executable)
        return SUCCESS

    @_call(c_void_p)
    def cuGraphDestroy(self, graph: int) -> int:
        self._handles.pop(graph)
        return SUCCESS

    # ---- the linker: its "cubin" is the PTX itself

    @_call(c_uint, c_void_p, c_void_p, c_void_p)
    def cuLinkCreate_v2(
        self, count: int, options: int | None, values: int | None, state: int
    ) -> int:
        _put(state, self._handle([b""]))
        return SUCCESS

    @_call(c_void_p, c_int, c_void_p, c_size_t, c_void_p, c_uint, c_void_p, c_void_p)
    def cuLinkAddData_v2(
        self, state: int, kind: int, data: int, size: int, name: int | None, count: int,
        options: int | None, values: int | None,
    ) -> int:  # fmt: skip
        text = ctypes.string_at(data, size).rstrip(b"\0")
        try:
            parse(text.decode())
        except PtxError as error:
            self.last_error = str(error)
            return INVALID_PTX
        self._handles[state][0] += text
        return SUCCESS

    @_call(c_void_p, c_void_p, c_void_p)
    def cuLinkComplete(self, state: int, cubin: int, size: int) -> int:
        buffer = ctypes.create_string_buffer(self._handles[state][0])
        self._handles[state].append(buffer)
        _put(cubin, ctypes.addressof(buffer))
        _put(size, len(buffer))
        return SUCCESS

    @_call(c_void_p)
    def cuLinkDestroy(self, state: int) -> int:
        self._handles.pop(state)
        return SUCCESS

    # ---- tensor maps

    @_call(
        c_void_p, c_int, c_uint, c_uint64, c_void_p, c_void_p, c_void_p, c_void_p, c_int, c_int,
        c_int, c_int,
    )  # fmt: skip
    def cuTensorMapEncodeTiled(
        self, target: int, data_type: int, rank: int, address: int, sizes: int, strides: int,
        box: int, steps: int, interleave: int, swizzle: int, promotion: int, fill: int,
    ) -> int:  # fmt: skip
        def numbers(pointer: int, type_: Any, count: int) -> tuple[int, ...]:
            return tuple((type_ * count).from_address(pointer)) if count else ()

        tensor = TensorMap(
            data_type, address, numbers(sizes, c_uint64, rank), numbers(strides, c_uint64, rank -
            1), numbers(box, c_uint, rank), numbers(steps, c_uint, rank), swizzle, fill,
        )  # fmt: skip
        inner = tensor.box[0] * tensor.element_bytes
        widths = (1 << 30, 32, 64, 128)
        wrong = (
            interleave or fill or address % 16 or target % 64 or inner % 16 or inner >
            widths[swizzle] or any(stride % 16 for stride in tensor.strides)
            or any(not 1 <= size <= 256 for size in tensor.box)
            or any(step != 1 for step in tensor.element_strides)
        )  # fmt: skip
        if wrong:
            self.last_error = f"cuTensorMapEncodeTiled: {tensor} does not keep the driver's rules"
            return INVALID_VALUE
        ctypes.memmove(target, tensor.encode(), 128)
        return SUCCESS
