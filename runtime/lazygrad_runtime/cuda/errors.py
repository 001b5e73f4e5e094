"""What goes wrong on a GPU, in words: exceptions, and what to do about each of the driver's codes.

Codes: `CUresult` of the CUDA Driver API reference.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lazygrad_compiler.ir.node import Location
from lazygrad_runtime.program import LaunchError

if TYPE_CHECKING:
    from lazygrad_compiler.loops.kernel import Launch

INVALID_VALUE = 1
OUT_OF_MEMORY = 2
NOT_READY = 600

ADVICE = {
    1: "This is a defect of lazygrad; please report the program.",
    3: "The driver was not initialised; ask lazygrad.cuda.is_available() first.",
    4: "The process is ending, and the driver has shut down.",
    46: "Another process holds the device for itself; wait for it, or choose another device.",
    100: "Check that nvidia-smi lists a device, and that CUDA_VISIBLE_DEVICES does not hide it.",
    101: "lazygrad.cuda.device_count() says how many devices there are.",
    200: "The kernel's code is damaged; delete the compile cache (`lazygrad cache clear`).",
    209: "The driver knows no code for this architecture; update the driver.",
    218: "The PTX was refused; update the driver, or report the program with the log.",
    222: "The driver is older than the PTX; update the driver.",
    223: "Compiling PTX was switched off in the driver; unset CUDA_DISABLE_PTX_JIT.",
    304: "The driver could not use the operating system; is /dev/nvidia* readable?",
    701: "The kernel wants more registers or shared memory than the device has; report it.",
    802: "The system's GPU services are not running yet; start nvidia-fabricmanager.",
    803: "The driver's library and its kernel module differ in version; restart the machine.",
    804: "This GPU does not take a newer driver library than its kernel module; update the driver.",
}
"""Driver code -> what to do."""

LOSING = frozenset(
    {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999}
)
"""Codes after which the context is of no use any more: memory on the device is lost.  999 (unknown)
is taken for one of them."""


class CudaError(RuntimeError):
    """The driver reported an error.  code: its number; name: the driver's name of it."""

    def __init__(self, message: str, code: int = 0, name: str = "") -> None:
        self.code = code
        self.name = name
        super().__init__(message)


class LaunchFailed(CudaError, LaunchError):
    """A launch was refused, or faulted while launches were waited for.

    said: the driver's part of the message.  launch: its number.  launches: of the artifact; its
    lines are those of the program's first recording, and `recorded` knows the present ones.
    """

    def __init__(self, said: CudaError, launch: int,
                 launches: Sequence[tuple[str, str, Location]]) -> None:
        self.said = said
        self.launch = launch
        self.kernel, self.about, location = launches[launch]
        super().__init__(self._message(location), said.code, said.name)

    def recorded(self, launches: Sequence[Launch]) -> CudaError:
        """The error with the lines of the present recording."""
        location = launches[self.launch].location
        return CudaError(self._message(location), self.code, self.name)

    def _message(self, location: Location) -> str:
        lines = ", ".join(f"{os.path.basename(file)}:{line}" for file, line in location)
        return (f"{self.said} It was launch {self.launch}, {self.about}, kernel {self.kernel}"
                + (f" ({lines})." if lines else "."))


class NoDevice(CudaError):
    """There is no driver, no device, or one that is of no use."""


class DeviceLost(CudaError):
    """A fault destroyed a device's context, and with it every value on the device."""


def advice(code: int) -> str:
    if code in LOSING:
        return (
            "The device's context is lost, and with it every value on the device. What is on the "
            "CPU stays usable. lazygrad.cuda.reset() gives the device a new context; where that "
            "fails, start the process again. With LAZYGRAD_CUDA_BLOCKING=1 the error names the "
            "kernel."
        )
    return ADVICE.get(code, "")
