"""Processes forked while another thread compiles or runs: the child computes and compiles."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

BUSY_PARENT = """
import gc, os, signal, threading, warnings
warnings.simplefilter("ignore")
import numpy
import lazygrad as lg
x = lg.from_numpy(numpy.linspace(0.0, 1.0, 64, dtype=numpy.float32))
(x * 2).sum().item()
stop, begun = threading.Event(), threading.Semaphore(0)

def compile_on():
    number = 0
    while not stop.is_set():
        number += 1
        begun.release()
        (x.exp() @ (x * number + number)).sum().item()

thread = threading.Thread(target=compile_on)
thread.start()
for attempt in range(4):
    begun.acquire()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        value = (x * (1000.0 + attempt) + 1).sum().item()
        assert gc.isenabled()
        print(value - 32 * (1000.0 + attempt), flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
thread.join()
"""


def test_a_child_forked_during_a_compile_compiles(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LAZYGRAD_CACHE": "0"}
    done = subprocess.run([sys.executable, "-c", BUSY_PARENT], env=environment, text=True,
                          capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert [round(float(line)) for line in done.stdout.split()] == [64] * 4


INTERRUPTED = """
import os, signal, threading
from lazygrad_compiler import forks

class Interrupting:
    \"\"\"A lock that a Ctrl-C comes to as it is given back.\"\"\"
    def __init__(self):
        self.inner = threading.Lock()
    def acquire(self, timeout):
        return self.inner.acquire(timeout=timeout)
    def release(self):
        signal.raise_signal(signal.SIGINT)
        self.inner.release()

first, second = Interrupting(), forks.lock(forks.LLVMLITE)
forks._ranked[:] = [(0, second), (1, first)]
try:
    child = os.fork()
    if child == 0:
        os._exit(7 * (first.inner.locked() or second.locked()))
    threading.Event().wait(60)
except KeyboardInterrupt:
    print("interrupted", first.inner.locked(), second.locked(),
          signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_an_interrupt_during_a_fork_leaves_no_lock_held(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], env=environment, text=True,
                          capture_output=True, timeout=200)
    assert done.stdout.split() == ["interrupted", "False", "False", "True", "0"], done.stderr
