"""A group of processes that may have less memory than the machine: programs are refused before
they run, processes go on, and none is killed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LIMIT = 700 << 20

START = """
import os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
import time
import lazygrad as lg
MB = 1 << 20
x = lg.rand(16, MB)
lg.synchronize()
def attempt(name, call):
    try:
        call()
    except MemoryError as error:
        assert "bytes asked for" in str(error), error
        print(name, "refused", flush=True)
    else:
        print(name, "ran", flush=True)
"""

PATHS = START + """
matrix = x.reshape(4096, 4096)
attempt("output", lambda: lg.rand(200, MB).numpy())
attempt("outputs", lambda: [(x.reshape(-1, 1).expand(-1, 6) * n).numpy() for n in (1.5, 2.5)])
attempt("arena", lambda: lg.stack([((matrix + i) @ matrix).cumsum(0) for i in range(12)])
        .sort(0)[0].sum().item())
@lg.compile
def wide(a, n):
    return (a.reshape(-1, 1).expand(-1, n) * 1.5).cumsum(0)
for n in (1, 1, 9, 9, 1):
    attempt("replay", lambda: wide(x, n).numpy())
kept = []
attempt("held", lambda: [kept.append(wide(x, 2)) or kept[-1].numpy() for _ in range(20)])
kept.clear()
w = lg.rand(4096, 4096, requires_grad=True)
def backward():
    h = matrix
    for _ in range(10):
        h = (h @ w).tanh()
    h.sum().backward()
    w.grad.numpy()
attempt("backward", backward)
w.grad = None
attempt("decomposition", lambda: lg.linalg.svd(lg.rand(5000, 5000))[0].numpy())
attempt("after", lambda: (x * 2).sum().item())
"""

TOGETHER = START + """
held, refused, until = [], 0, time.monotonic() + 4
while time.monotonic() < until:
    try:
        held.append((x * (len(held) % 3 + 1)).cumsum(1))
        held[-1].numpy()
    except MemoryError:
        refused += 1
        held.pop()
        del held[:2]
        time.sleep(0.01)
print(refused > 0, abs((x * 2).mean().item() - 1) < 0.01)
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group below this process's, with the limit."""
    made = None
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        root = Path("/sys/fs/cgroup")
        if "memory" in names.split(","):
            folder, name = root / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
        elif number == "0":
            folder, name = root / path.lstrip("/"), "memory.max"
        else:
            continue
        with contextlib.suppress(OSError):
            made = folder / f"lazygrad-test-{os.getpid()}"
            made.mkdir()
            (made / name).write_text(str(LIMIT))
            break
        if made is not None and made.exists():
            made.rmdir()
        made = None
    if made is None:
        pytest.skip("control groups cannot be made here")
    yield made
    made.rmdir()


def start(script: str, group: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", script, str(group)], env=environment,
                            stdout=subprocess.PIPE, text=True)


def test_programs_beyond_a_group_s_memory_are_refused(group: Path) -> None:
    process = start(PATHS, group)
    output = process.communicate(timeout=300)[0].splitlines()
    assert process.returncode == 0, output
    assert output == [
        "output refused", "outputs refused", "arena refused", "replay ran", "replay ran",
        "replay refused", "replay refused", "replay ran", "held refused", "backward refused",
        "decomposition refused", "after ran",
    ]


def test_two_processes_share_a_group_s_memory(group: Path) -> None:
    both = [start(TOGETHER, group) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs == ["True True"] * 2
