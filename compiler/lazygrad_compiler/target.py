"""Target descriptions: what the compiler may know of the machine it compiles for.

A `Target` is data; `host()` reads the present machine, and others can be written down, so that code
can be generated for a machine one is not on.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Target:
    """triple, cpu, features: LLVM's words.  simd_bytes: width of a vector register; registers: how
    many of them. l1_bytes, l2_bytes: data caches of one core.
    """

    triple: str
    cpu: str
    features: str
    simd_bytes: int
    registers: int
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024

    kind: ClassVar[str] = "cpu"

    @property
    def function_attributes(self) -> str:
        bits = self.simd_bytes * 8
        return f'nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}"'

    def has(self, feature: str) -> bool:
        """Whether the processor has a feature, by LLVM's name."""
        return "+" + feature in self.features.split(",")

    @property
    def has_wide_addresses(self) -> bool:
        """Whether an access may name a base, a scaled index and any distance, as on x86."""
        return self.triple.startswith("x86_64")

    def lanes(self, bits: int) -> int:
        """Elements of so many bits in one vector register."""
        return max(self.simd_bytes * 8 // bits, 1)


def _cache_bytes(level: int, default: int) -> int:
    root = "/sys/devices/system/cpu/cpu0/cache"
    try:
        for entry in sorted(os.listdir(root)):
            if not entry.startswith("index"):
                continue
            with (
                open(f"{root}/{entry}/level") as level_file,
                open(f"{root}/{entry}/type") as type_file,
            ):
                matches = int(level_file.read()) == level and type_file.read().strip() in (
                    "Data",
                    "Unified",
                )
            if matches:
                with open(f"{root}/{entry}/size") as size_file:
                    found = re.match(r"(\d+)([KM])", size_file.read())
                if found:
                    return int(found[1]) * (1024 if found[2] == "K" else 1024 * 1024)
    except (OSError, ValueError):
        pass
    return default


FEATURES_USED = [
    "sse2",
    "sse4.1",
    "sse4.2",
    "popcnt",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "bmi",
    "bmi2",
    "lzcnt",
    "movbe",
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
    "avx512vbmi",
    "avx512vbmi2",
    "avx512vnni",
    "avx512bf16",
    "avx512bitalg",
    "avx512vpopcntdq",
    "avx512fp16",
    "avxvnni",
    "neon",
    "fullfp16",
    "bf16",
    "dotprod",
    "sve",
    "sve2",
]
"""The features that code generation may depend on; others are left out, so that the cache key names
only what matters.
"""


@functools.cache
def host() -> Target:
    """The machine this process runs on.  LAZYGRAD_CPU_FEATURES (a comma-separated list) narrows
    what is used; the processor's name is not given then: LLVM's code for one without the SSE4 that
    its name stands for gave wrong sums and positions.
    """
    import llvmlite.binding as llvm

    present = llvm.get_host_cpu_features()
    features = {name: bool(present.get(name)) for name in FEATURES_USED if name in present}
    triple, cpu = llvm.get_process_triple(), llvm.get_host_cpu_name()
    wanted = os.environ.get("LAZYGRAD_CPU_FEATURES")
    if wanted is not None:
        allowed = {name.strip() for name in wanted.split(",")}
        if any(on and name not in allowed for name, on in features.items()):
            cpu = "x86-64" if triple.startswith("x86_64") else "generic"
        features = {name: on and name in allowed for name, on in features.items()}
    if (
        features.get("avx512f")
        and features.get("avx512vl")
        and features.get("avx512bw")
        and features.get("avx512dq")
    ):
        simd, registers = 64, 32
    elif features.get("avx2"):
        simd, registers = 32, 16
    elif features.get("neon"):
        simd, registers = 16, 32
    else:
        simd, registers = 16, 16
    spelled = ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
    return Target(
        triple,
        cpu,
        spelled,
        simd,
        registers,
        _cache_bytes(1, 32 * 1024),
        _cache_bytes(2, 512 * 1024),
    )
