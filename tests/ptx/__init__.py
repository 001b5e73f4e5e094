"""A PTX interpreter on NumPy: runs the kernels that LLVM's NVPTX target writes, without a GPU.

`Module(text).launch("kernel", grid, block, arguments)` over a `DeviceMemory`; `driver.FakeDriver`
puts the CUDA driver's functions on top.  parser → compiler (with the instruction files) → machine.
"""

from tests.ptx.compiler import UnknownInstruction
from tests.ptx.machine import KernelFault, LaunchError, Module
from tests.ptx.memory import DeviceMemory, MemoryFault
from tests.ptx.parser import PtxError, PtxSyntaxError

__all__ = [
    "DeviceMemory", "KernelFault", "LaunchError", "MemoryFault", "Module", "PtxError",
    "PtxSyntaxError", "UnknownInstruction",
]  # fmt: skip
