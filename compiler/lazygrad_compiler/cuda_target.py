"""CUDA targets: what the compiler may know of the GPU it compiles for.

`cuda_target("cuda:sm_90a")` describes an architecture; no GPU, driver or toolkit is asked, so PTX
can be written on any machine.  What an architecture can do is data: names in `instructions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

TRIPLE = "nvptx64-nvidia-cuda"
AMPERE = ("cp.async", "ldmatrix", "mma.sync.bf16", "mma.sync.f16", "mma.sync.tf32")
HOPPER = (*AMPERE, "mbarrier", "tma", "wgmma")
BLACKWELL = (*AMPERE, "mbarrier", "tcgen05", "tma")
LATER = (*AMPERE, "mbarrier", "tma")
"""Instructions beyond plain SIMT code, by generation.  Later consumer parts have no `tcgen05`."""


@dataclass(frozen=True, slots=True)
class CudaTarget:
    """arch, features: LLVM's words ("sm_90a", "+ptx90").  multiprocessors: how many the usual part
    has; it guides how work is cut, and results must not depend on it.  shared_bytes: shared memory
    that one block may have.  l2_bytes: of the whole device.  instructions: sorted names.  tf32:
    whether products of float32 may be rounded to tf32 for the tensor cores; asked for by name.
    """

    arch: str
    features: str = "+ptx90"
    multiprocessors: int = 108
    shared_bytes: int = 99 * 1024
    l2_bytes: int = 40 << 20
    instructions: tuple[str, ...] = AMPERE
    tf32: bool = False

    kind: ClassVar[str] = "cuda"
    triple: ClassVar[str] = TRIPLE
    function_attributes: ClassVar[str] = "nounwind"

    @property
    def cpu(self) -> str:
        """What LLVM calls the processor."""
        return self.arch

    def has(self, instruction: str) -> bool:
        """Whether the architecture has it: "mma.sync.bf16", "wgmma", "tma", …"""
        return instruction in self.instructions

    @property
    def name(self) -> str:
        """What `cuda_target` takes."""
        return f"cuda:{self.arch}"


ARCHITECTURES = {
    target.arch: target
    for target in (
        CudaTarget("sm_80", "+ptx90", 108, 163 * 1024, 40 << 20, AMPERE),
        CudaTarget("sm_86", "+ptx90", 82, 99 * 1024, 6 << 20, AMPERE),
        CudaTarget("sm_89", "+ptx90", 128, 99 * 1024, 72 << 20, AMPERE),
        CudaTarget("sm_90", "+ptx90", 132, 227 * 1024, 50 << 20, (*AMPERE, "mbarrier", "tma")),
        CudaTarget("sm_90a", "+ptx90", 132, 227 * 1024, 50 << 20, HOPPER),
        CudaTarget("sm_100a", "+ptx90", 148, 227 * 1024, 126 << 20, BLACKWELL),
        CudaTarget("sm_120a", "+ptx90", 170, 99 * 1024, 96 << 20, LATER),
    )
}
"""Capacities: CUDA C++ Programming Guide, "Compute Capabilities"."""


class UnknownArchitecture(ValueError):
    """A CUDA target that the compiler does not know."""


def cuda_target(name: str) -> CudaTarget:
    """The target of a name like "cuda:sm_90a" (or "sm_90a" alone).  UnknownArchitecture where there
    is none.
    """
    arch = name.removeprefix("cuda:")
    if arch not in ARCHITECTURES:
        known = ", ".join(sorted(f"cuda:{each}" for each in ARCHITECTURES))
        raise UnknownArchitecture(f"no CUDA target {name!r}; there are {known}")
    return ARCHITECTURES[arch]
