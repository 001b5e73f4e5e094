"""The CUDA driver's functions that are used here, typed, each return code checked.

`driver()` loads `libcuda.so.1` on first use and initialises it.  `install(library)` puts anything
with the same functions in its place (tests have a driver over a PTX interpreter).  Everything that
belongs to a driver hangs on its `Driver` object: devices, contexts, memory, modules.

Names and signatures: cuda.h.  `_v2` and later are what the header's macros give to C programs.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

from lazygrad_compiler import forks
from lazygrad_runtime.cuda.errors import LOSING, OUT_OF_MEMORY, CudaError, NoDevice, advice

if TYPE_CHECKING:
    from lazygrad_runtime.cuda.context import Device
    from lazygrad_runtime.cuda.pinned import PinnedPool

LIBRARY = "libcuda.so.1"
OLDEST = 12000
"""Driver for CUDA 12.0: the first with PTX 8.0."""

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (c_void_p,),
    "cuGetErrorName": (c_int, c_void_p),
    "cuGetErrorString": (c_int, c_void_p),
    # devices and contexts
    "cuDeviceGetCount": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetName": (c_void_p, c_int, c_int),
    "cuDeviceGetAttribute": (c_void_p, c_int, c_int),
    "cuDeviceTotalMem_v2": (c_void_p, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuDevicePrimaryCtxReset_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuCtxSynchronize": (),
    # memory
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemGetInfo_v2": (c_void_p, c_void_p),
    "cuMemAllocHost_v2": (c_void_p, c_size_t),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_uint64, c_uint64, c_size_t, c_void_p),
    "cuMemcpyPeerAsync": (c_uint64, c_void_p, c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemsetD8Async": (c_uint64, c_ubyte, c_size_t, c_void_p),
    "cuPointerGetAttribute": (c_void_p, c_int, c_uint64),
    # code
    "cuLinkCreate_v2": (c_uint, c_void_p, c_void_p, c_void_p),
    "cuLinkAddData_v2": (
        c_void_p, c_int, c_void_p, c_size_t, c_char_p, c_uint, c_void_p, c_void_p,
    ),
    "cuLinkComplete": (c_void_p, c_void_p, c_void_p),
    "cuLinkDestroy": (c_void_p,),
    "cuModuleLoadData": (c_void_p, c_void_p),
    "cuModuleUnload": (c_void_p,),
    "cuModuleGetFunction": (c_void_p, c_void_p, c_char_p),
    "cuFuncSetAttribute": (c_void_p, c_int, c_int),
    "cuLaunchKernel": (c_void_p, *[c_uint] * 7, c_void_p, c_void_p, c_void_p),
    "cuTensorMapEncodeTiled": (
        c_void_p, c_int, c_uint, c_uint64, c_void_p, c_void_p, c_void_p, c_void_p, c_int, c_int,
        c_int, c_int,
    ),
    # graphs
    "cuGraphCreate": (c_void_p, c_uint),
    "cuGraphAddKernelNode_v2": (c_void_p, c_void_p, c_void_p, c_size_t, c_void_p),
    "cuGraphInstantiateWithFlags": (c_void_p, c_void_p, c_uint64),
    "cuGraphExecKernelNodeSetParams_v2": (c_void_p, c_void_p, c_void_p),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    # streams and events
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamQuery": (c_void_p,),
    "cuStreamWaitEvent": (c_void_p, c_void_p, c_uint),
    "cuEventCreate": (c_void_p, c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventQuery": (c_void_p,),
    "cuEventElapsedTime": (c_void_p, c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
}  # fmt: skip


class _Current(threading.local):
    """The device whose context this thread uses."""

    device: Device | None = None


class Driver:
    """The functions as attributes: `driver.cuMemFree_v2(pointer)` raises where the code is not 0.

    raw(name): the C function itself.  version: 13000 for CUDA 13.0.  devices: all of them.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        self._functions: dict[str, Any] = {}
        for name, signature in SIGNATURES.items():
            try:
                function = getattr(library, name)
            except AttributeError:
                raise NoDevice(
                    f"[cuda] the driver has no {name}: it is too old. Update it to one for CUDA "
                    f"{OLDEST // 1000}.0 or later."
                ) from None
            function.restype, function.argtypes = c_int, list(signature)
            self._functions[name] = function
            setattr(self, name, functools.partial(self._checked, name, function))
        self.current = _Current()
        self.replaced = False
        self.cuInit(0)
        self.version = self.get("cuDriverGetVersion", c_int)
        if self.version < OLDEST:
            raise NoDevice(
                f"[cuda] the driver is for CUDA {_spelled(self.version)}; version "
                f"{_spelled(OLDEST)} is the oldest that will do. Update the NVIDIA driver."
            )
        self._devices: list[Device] | None = None
        self.pinned: PinnedPool | None = None
        self._lock = forks.lock()

    if TYPE_CHECKING:
        def __getattr__(self, name: str) -> Callable[..., None]: ...

    def _checked(self, name: str, function: Any, *arguments: Any) -> None:
        code = function(*arguments)
        if code:
            raise self.error(name, code)

    def raw(self, name: str) -> Any:
        return self._functions[name]

    def address(self, name: str) -> int:
        """Of the C function, for native code."""
        return ctypes.cast(self._functions[name], c_void_p).value or 0

    def get(self, name: str, kind: Any, *arguments: Any) -> Any:
        """The value that a function writes through its first parameter."""
        result = kind()
        getattr(self, name)(ctypes.byref(result), *arguments)
        return result.value

    def text(self, code: int) -> tuple[str, str]:
        """The driver's name of an error, and its sentence."""
        found = []
        for name in ("cuGetErrorName", "cuGetErrorString"):
            text = c_char_p()
            failed = self._functions[name](code, ctypes.byref(text))
            found.append("" if failed or text.value is None else text.value.decode())
        return found[0] or f"CUDA error {code}", found[1] or "the driver has no text for it"

    def error(self, call: str, code: int, about: str = "") -> CudaError | MemoryError:
        """The exception for a return code: MemoryError, NoDevice or CudaError."""
        name, sentence = self.text(code)
        message = f"[cuda] {call}: {sentence} ({name})"
        message += f", {about}." if about else "."
        device = self.current.device
        hint = advice(code)
        if code in LOSING:
            if device is None:
                hint = "Start the process again; if that does not help, the machine."
            else:
                message += device.lose(sentence)
        if hint:
            message += f" {hint}"
        if code == OUT_OF_MEMORY:
            return MemoryError(message)
        return (NoDevice if code in (100, 101) else CudaError)(message, code, name)

    @property
    def devices(self) -> list[Device]:
        if self._devices is None:
            from lazygrad_runtime.cuda.context import Device

            with self._lock:
                if self._devices is None:
                    count = self.get("cuDeviceGetCount", c_int)
                    self._devices = [Device(self, number) for number in range(count)]
        return self._devices


def _spelled(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


class _State:
    """Of the process: the driver, or why there is none."""

    driver: Driver | None = None
    problem: str | None = None
    process: int = 0


_state = _State()
_lock = forks.rlock()


def driver() -> Driver:
    """The driver, loaded and initialised on first use.  NoDevice where there is none."""
    found = _state.driver
    if found is not None and _state.process == os.getpid():
        return found
    with _lock:
        if _state.driver is not None:
            if _state.process != os.getpid():
                raise NoDevice(
                    "[cuda] CUDA was used before this process was forked, and does not work in the "
                    "child. Start processes with the method 'spawn', or leave CUDA to the parent."
                )
            return _state.driver
        if _state.problem is None:
            try:
                install(ctypes.CDLL(LIBRARY))
            except OSError:
                _state.problem = (
                    f"[cuda] there is no NVIDIA driver ({LIBRARY} cannot be loaded). Install the "
                    "driver, or stay on device='cpu'."
                )
            except CudaError as error:
                _state.problem = str(error)
        if _state.driver is None:
            raise NoDevice(str(_state.problem))
        return _state.driver


def install(library: Any) -> None:
    """Makes `library` the driver of this process; all that hung on another one is forgotten.

    None: none is loaded until it is asked for again.
    """
    with _lock:
        if _state.driver is not None:
            _state.driver.replaced = True
        _state.driver, _state.problem = None, None
        if library is not None:
            _state.driver, _state.process = Driver(library), os.getpid()


def device_count() -> int:
    """How many devices there are; 0 where there is no driver.  Never raises."""
    found = _state.driver
    if found is None and _state.problem is not None:
        return 0
    try:
        return len(driver().devices)
    except (CudaError, MemoryError):
        return 0
