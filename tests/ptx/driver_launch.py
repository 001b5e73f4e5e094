"""The fake driver's modules and launches: PTX by the interpreter, linked to itself, and the tensor
maps that launches take.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from tests.ptx.driver_state import (
    ILLEGAL_ADDRESS,
    INVALID_PTX,
    INVALID_VALUE,
    LAUNCH_FAILED,
    NOT_FOUND,
    SUCCESS,
    DriverState,
    call,
    put,
)
from tests.ptx.machine import LaunchError, Module
from tests.ptx.memory import MemoryFault
from tests.ptx.parser import PtxError, parse
from tests.ptx.tensor_copies import TensorMap


class LaunchCalls(DriverState):
    def _load(self, module: int, image: int) -> int:
        try:
            loaded = Module(ctypes.string_at(image).decode(), self.memory)
        except PtxError as error:
            self.last_error = str(error)
            return INVALID_PTX
        put(module, self.handle(loaded))
        return SUCCESS

    @call(c_void_p, c_void_p)
    def cuModuleLoadData(self, module: int, image: int) -> int:
        return self._load(module, image)

    @call(c_void_p, c_void_p, c_uint, c_void_p, c_void_p)
    def cuModuleLoadDataEx(
        self, module: int, image: int, count: int, options: int | None, values: int | None
    ) -> int:
        return self._load(module, image)

    @call(c_void_p)
    def cuModuleUnload(self, module: int) -> int:
        self.handles.pop(module).unload()
        return SUCCESS

    @call(c_void_p, c_void_p, ctypes.c_char_p)
    def cuModuleGetFunction(self, function: int, module: int, name: bytes) -> int:
        loaded = self.handles[module]
        if name.decode() not in loaded.programs:
            return NOT_FOUND
        put(function, self.handle([loaded, name.decode(), 48 * 1024]))
        return SUCCESS

    @call(c_void_p, c_void_p, c_void_p, ctypes.c_char_p)
    def cuModuleGetGlobal_v2(
        self, pointer: int | None, size: int | None, module: int, name: bytes
    ) -> int:
        variables = self.handles[module].variables
        if name.decode() not in variables:
            return NOT_FOUND
        for where, value in zip((pointer, size), variables[name.decode()]):
            if where:
                put(where, value)
        return SUCCESS

    @call(c_void_p, c_int, c_void_p)
    def cuFuncGetAttribute(self, value: int, attribute: int, function: int) -> int:
        module, name, dynamic = self.handles[function]
        program = module.programs[name]
        known = {0: 1024, 1: program.shared_bytes, 2: 0, 3: program.local_bytes, 4: 0, 8: dynamic}
        if attribute not in known:
            return INVALID_VALUE
        put(value, known[attribute], c_int)
        return SUCCESS

    @call(c_void_p, c_int, c_int)
    def cuFuncSetAttribute(self, function: int, attribute: int, value: int) -> int:
        if attribute == 8:
            if value > self.attributes[97]:
                return INVALID_VALUE
            self.handles[function][2] = value
        return SUCCESS

    @call(c_void_p, *[c_uint] * 7, c_void_p, c_void_p, c_void_p)
    def cuLaunchKernel(
        self, function: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int,
        stream: int | None, parameters: int | None, extra: int | None,
    ) -> int:  # fmt: skip
        if extra:
            return INVALID_VALUE
        work = self.launch_work(function, (gx, gy, gz), (bx, by, bz), shared, parameters)
        return self.enqueue(stream, work) if callable(work) else work

    def launch_work(
        self, function: int, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int,
        parameters: int | None,
    ) -> Callable[[], int] | int:  # fmt: skip
        """A launch to run later, or the code of why it cannot."""
        module, name, dynamic = self.handles[function]
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
                self.sticky = ILLEGAL_ADDRESS if memory else LAUNCH_FAILED
            return SUCCESS

        return work

    # ---- the linker: its "cubin" is the PTX itself

    @call(c_uint, c_void_p, c_void_p, c_void_p)
    def cuLinkCreate_v2(
        self, count: int, options: int | None, values: int | None, state: int
    ) -> int:
        put(state, self.handle([b""]))
        return SUCCESS

    @call(c_void_p, c_int, c_void_p, c_size_t, c_void_p, c_uint, c_void_p, c_void_p)
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
        self.handles[state][0] += text
        return SUCCESS

    @call(c_void_p, c_void_p, c_void_p)
    def cuLinkComplete(self, state: int, cubin: int, size: int) -> int:
        buffer = ctypes.create_string_buffer(self.handles[state][0])
        self.handles[state].append(buffer)
        put(cubin, ctypes.addressof(buffer))
        put(size, len(buffer))
        return SUCCESS

    @call(c_void_p)
    def cuLinkDestroy(self, state: int) -> int:
        self.handles.pop(state)
        return SUCCESS

    # ---- tensor maps

    @call(
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
