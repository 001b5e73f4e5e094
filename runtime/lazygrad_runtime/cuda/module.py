"""Kernels on a device: PTX through the driver's linker to machine code, kept on disk, loaded.

The machine code (cubin) of a kernel is an entry of the compile cache, by the PTX text, the
architecture and the driver's version.  Loaded functions are shared by all programs of the process.
The driver's compiler works without the interpreter lock: kernels of one program are compiled side
by side.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_size_t, c_void_p
from typing import Any

from lazygrad_compiler import forks
from lazygrad_runtime import store
from lazygrad_runtime.cuda.context import Device
from lazygrad_runtime.cuda.errors import LOSING, CudaError

# CUjit_option and CUjitInputType
INFO_LOG, INFO_LOG_BYTES, ERROR_LOG, ERROR_LOG_BYTES = 3, 4, 5, 6
TARGET = 9
INPUT_PTX = 1
REFUSED = frozenset({200, 209, 218})
"""Codes for code that is not for the target."""
ACCELERATED = 0x10000
"""CU_COMPUTE_ACCELERATED_TARGET_BASE: what a CUjit_target with an "a" has beyond its number."""
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
DEFAULT_SHARED = 48 * 1024
LOG_BYTES = 1 << 14
CUBIN_BLOB = "cubin"
MOST_COMPILERS = 8


class Modules:
    """The loaded kernels of one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._lock = forks.rlock()
        self._functions: dict[str, int] = {}
        self._shared: dict[str, int] = {}
        self.linked = 0
        """Kernels that the driver compiled, in this process."""

    def functions(self, kernels: Mapping[str, bytes]) -> dict[str, int]:
        """The driver's handle of each kernel; what is not loaded yet is."""
        with self._lock:
            missing = [name for name in kernels if name not in self._functions]
            if missing:
                self.device.activate()
                for name, cubin in self._cubins({name: kernels[name] for name in missing}).items():
                    self._functions[name] = self._load(name, cubin)
            return {name: self._functions[name] for name in kernels}

    def allow_shared(self, name: str, nbytes: int) -> None:
        """Lets a kernel have so much dynamic shared memory."""
        with self._lock:
            if nbytes > self._shared.get(name, DEFAULT_SHARED):
                self.device.activate()
                self.device.driver.cuFuncSetAttribute(
                    self._functions[name], MAX_DYNAMIC_SHARED, nbytes
                )
                self._shared[name] = nbytes

    def _cubins(self, kernels: Mapping[str, bytes]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        fields = {name: self._fields(ptx) for name, ptx in kernels.items()}
        for name in kernels:
            entry = store.disk().lookup(fields[name])
            if entry is not None:
                found[name] = entry.read(CUBIN_BLOB)
        absent = [name for name in kernels if name not in found]
        if len(absent) > 1:
            with ThreadPoolExecutor(min(len(absent), MOST_COMPILERS)) as workers:
                made = list(workers.map(lambda name: self._link(name, kernels[name]), absent))
        else:
            made = [self._link(name, kernels[name]) for name in absent]
        for name, cubin in zip(absent, made, strict=True):
            found[name] = cubin
            store.disk().store(fields[name], {CUBIN_BLOB: cubin}, {"kernel": name, "needs": []})
        return found

    def _fields(self, ptx: bytes) -> dict[str, Any]:
        major, minor = self.device.capability
        return {
            "kind": "cubin",
            "ptx": hashlib.sha256(ptx).hexdigest(),
            "arch": f"{major}.{minor}",
            "driver": self.device.driver.version,
        }

    def _link(self, name: str, ptx: bytes) -> bytes:
        """Machine code by the driver's linker: for what the context's device is, or else for the
        architecture that the text names ("sm_90a").  CudaError with its log where it refuses both.
        """
        self.device.activate()
        try:
            return self._linked(name, ptx, ())
        except CudaError as error:
            major, minor = self.device.capability
            if error.code not in REFUSED or f".target sm_{major}{minor}a" not in ptx.decode():
                raise
            return self._linked(name, ptx, ((TARGET, ACCELERATED + 10 * major + minor),))

    def _linked(self, name: str, ptx: bytes, more: Sequence[tuple[int, int]]) -> bytes:
        """more: options besides those for logs, with their values."""
        driver = self.device.driver
        log = ctypes.create_string_buffer(LOG_BYTES)
        info = ctypes.create_string_buffer(LOG_BYTES)
        given = (
            (INFO_LOG, ctypes.addressof(info)), (INFO_LOG_BYTES, LOG_BYTES),
            (ERROR_LOG, ctypes.addressof(log)), (ERROR_LOG_BYTES, LOG_BYTES), *more,
        )  # fmt: skip
        options = (ctypes.c_int * len(given))(*(option for option, _ in given))
        values = (c_void_p * len(given))(*(value for _, value in given))
        state = c_void_p()
        driver.cuLinkCreate_v2(len(given), options, values, ctypes.byref(state))
        try:
            text = ptx + b"\0"
            cubin, size = c_void_p(), c_size_t()
            code = driver.raw("cuLinkAddData_v2")(
                state, INPUT_PTX, text, len(text), name.encode(), 0, None, None
            )
            call = "cuLinkAddData_v2"
            if not code:
                call = "cuLinkComplete"
                code = driver.raw(call)(state, ctypes.byref(cubin), ctypes.byref(size))
            if code:
                said = log.value.decode(errors="replace").strip()
                raise driver.error(call, code, f"kernel {name}: {said}")
            self.linked += 1
            return ctypes.string_at(cubin.value or 0, size.value)
        finally:
            driver.raw("cuLinkDestroy")(state)

    def _load(self, name: str, cubin: bytes) -> int:
        driver = self.device.driver
        module = c_void_p()
        driver.cuModuleLoadData(ctypes.byref(module), cubin)
        try:
            function = driver.get("cuModuleGetFunction", c_void_p, module, name.encode())
        except RuntimeError as error:
            if getattr(error, "code", 0) not in LOSING:
                driver.raw("cuModuleUnload")(module)
            raise
        return function or 0
