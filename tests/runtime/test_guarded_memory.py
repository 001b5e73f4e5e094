"""Kernels touch their buffers and nothing beside them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.runtime.guarded_memory import guarded

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([ROOT, f"{ROOT}/compiler", f"{ROOT}/runtime"])
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": path}, check=False)


@pytest.mark.parametrize("behind", [True, False])
def test_the_guard_is_there(behind):
    """A check that could not fail would be none: one byte too far is a segmentation fault."""
    buffer = guarded(64, behind)
    assert buffer.pointer % 64 == 0
    code = (
        "import ctypes; from tests.runtime.guarded_memory import guarded\n"
        f"b = guarded(64, {behind})\n"
        "ctypes.memset(b.pointer, 1, 64); print('inside', flush=True)\n"
        f"ctypes.memset(b.pointer + {64 if behind else -1}, 1, 1); print('outside')"
    )
    done = run("-c", code)
    assert done.stdout.split() == ["inside"] and done.returncode < 0


@pytest.mark.parametrize("end", ["behind", "before"])
def test_no_kernel_leaves_its_buffers(end):
    done = run("-m", "tests.runtime.guarded_memory", end, *map(str, range(25)))
    last = (done.stdout.splitlines() or ["nothing"])[-1]
    assert done.returncode == 0, f"{last}: exit status {done.returncode}\n{done.stderr[-2000:]}"
    assert last == "random graph 24"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["behind", "before"])
def test_no_kernel_leaves_its_buffers_at_length(end):
    done = run("-m", "tests.runtime.guarded_memory", end, *map(str, range(1000, 1500)))
    last = (done.stdout.splitlines() or ["nothing"])[-1]
    assert done.returncode == 0, f"{last}: exit status {done.returncode}\n{done.stderr[-2000:]}"
