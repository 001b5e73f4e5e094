"""For the tests of the interpreter: LLVM text to PTX, and ptxas over every text that is run."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import llvmlite.binding as llvm
import pytest

TRIPLE = "nvptx64-nvidia-cuda"


def some(every: Iterable[tuple[Any, ...]], kept: Callable[..., bool]) -> list[Any]:
    """Parameters of a test, of which those that are not kept are left to the slow tests."""
    return [
        pytest.param(*each, marks=() if kept(*each) else pytest.mark.slow) for each in every
    ]


def in_turn(*axes: Sequence[Any]) -> list[Any]:
    """All combinations of the axes.  By default only some are run, such that every value is met: of
    two axes each value of the first with one of the second, of more each pair of the first two with
    one combination of the others, in turn.
    """
    leading = list(itertools.product(*axes[:-1] if len(axes) == 2 else axes[:2]))
    following = list(itertools.product(*axes[len(leading[0]) :]))
    chosen = {
        (*each, *following[number % len(following)]) for number, each in enumerate(leading)
    }
    return some(itertools.product(*axes), lambda *each: each in chosen)


@functools.cache
def _machine(cpu: str) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(TRIPLE)
    return target.create_target_machine(cpu=cpu, features="+ptx90", opt=3)


def to_ptx(text: str, cpu: str = "sm_80") -> str:
    """The PTX that LLVM writes for a module of LLVM text."""
    machine = _machine(cpu)
    module = llvm.parse_assembly(text)
    module.triple = TRIPLE
    module.data_layout = str(machine.target_data)
    module.verify()
    return machine.emit_assembly(module)


def ptxas_path() -> str | None:
    found = shutil.which("ptxas")
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    inside = os.path.join(home, "bin", "ptxas")
    return found or (inside if os.path.exists(inside) else None)


@functools.cache
def ptxas() -> str:
    """Its path; the test is skipped where there is none that knows PTX 9.0."""
    path = ptxas_path()
    if path is None:
        pytest.skip("no ptxas on this machine")
    version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    release = version.partition("release ")[2].partition(",")[0]
    if not release or int(release.split(".")[0]) < 13:
        pytest.skip(f"ptxas of CUDA {release or 'unknown'}: 13 or later is needed for PTX 9.0")
    return path


def assemble(text: str, cpu: str) -> None:
    """Skips where there is no ptxas that knows PTX 9.0; fails where it does not take the text."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "kernel.ptx")
        with open(source, "w") as file:
            file.write(text)
        run = subprocess.run(
            [ptxas(), f"-arch={cpu}", "-O1", source, "-o", os.path.join(folder, "kernel.cubin")],
            capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0, f"{run.stdout}{run.stderr}\n{text}"


def kernel_text(
    body: str, parameters: int = 2, cpu: str = "sm_80", shared: int = 0, head: str = ""
) -> str:
    """A kernel written by hand.

    Its parameters are pointers, already in %a0, %a1, …; %t holds the thread; registers %p, %h, %r,
    %f, %d (64 bits), %w (doubles) are declared, 64 of each; `tile` names shared memory.
    """
    names = [f"\t.param .u64 kernel_param_{i}" for i in range(parameters)]
    loads = [f"\tld.param.u64 %a{i}, [kernel_param_{i}];" for i in range(parameters)]
    tile = f"\t.shared .align 1024 .b8 tile[{shared}];\n" if shared else ""
    return (
        f".version 9.0\n.target {cpu}\n.address_size 64\n{head}\n.visible .entry kernel(\n"
        + ",\n".join(names)
        + "\n)\n{\n\t.reg .pred %p<64>;\n\t.reg .b16 %h<64>;\n\t.reg .b32 %r<64>;\n"
        "\t.reg .b32 %f<160>;\n\t.reg .b64 %d<64>;\n\t.reg .f64 %w<64>;\n\t.reg .b64 %a<8>;\n"
        f"\t.reg .b32 %t;\n{tile}\tmov.u32 %t, %tid.x;\n"
        + "\n".join(loads)
        + f"\n{body}\n\tret;\n}}\n"
    )
