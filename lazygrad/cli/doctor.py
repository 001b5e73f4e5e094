"""`lazygrad doctor`: what lazygrad found on this machine, and whether it computes right there."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy

from lazygrad.cli import FINDING, OK, human_bytes
from lazygrad.cli.cache import print_json

DESCRIPTION = """\
Says what lazygrad found on this machine (versions, processor, threads, cache folder), then compiles
and runs small programs and compares the results with NumPy.  Each line is ok or FAIL; the exit code
is 1 where one failed.  Paste the output into a bug report.
"""


@dataclass(frozen=True, slots=True)
class Check:
    """A line: what was looked at, whether it is as it should be, and what was found."""

    name: str
    ok: bool
    found: str

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'FAIL':4}  {self.name:22}  {self.found}"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "doctor", help="show versions and machine, and test that programs run right",
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    checks: list[Check] = []
    for name, look in (*FACTS, *SELF_TESTS):
        try:
            found = look()
            check = Check(name, True, found)
        except Exception as error:
            message = str(error).splitlines()
            check = Check(name, False, f"{type(error).__name__}: {message[0] if message else ''}")
        checks.append(check)
        if not options.json:
            print(check, flush=True)
    failed = [check.name for check in checks if not check.ok]
    if options.json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    elif failed:
        print(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}", file=sys.stderr)
    return FINDING if failed else OK


# ---- what there is


def lazygrad_version() -> str:
    try:
        return importlib.metadata.version("lazygrad")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed: runs from its source tree)"


def _llvm() -> str:
    import llvmlite
    import llvmlite.binding as llvm
    return f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(map(str, llvm.llvm_version_info))}"


def _processor() -> str:
    from lazygrad_compiler.target import host
    return f"{host().cpu} ({host().triple})"


def _features() -> str:
    from lazygrad_compiler.target import host
    used = [name[1:] for name in host().features.split(",") if name.startswith("+")]
    narrowed = "LAZYGRAD_CPU_FEATURES" in os.environ
    return (", ".join(used) or "none") + "; narrowed by LAZYGRAD_CPU_FEATURES" * narrowed


def _vectors() -> str:
    from lazygrad_compiler.target import host
    target = host()
    return (f"{target.simd_bytes * 8} bits ({target.lanes(32)} float32), "
            f"{target.registers} registers")


def _cpu_caches() -> str:
    from lazygrad_compiler.target import host
    return f"L1 {human_bytes(host().l1_bytes)}, L2 {human_bytes(host().l2_bytes)} per core"


def _threads() -> str:
    from lazygrad_runtime.machine import cpu_quota, usable_cpus
    from lazygrad_runtime.pool import get_num_threads
    quota = cpu_quota()
    limit = "" if quota is None else f", quota {quota:g}"
    setting = os.environ.get("LAZYGRAD_NUM_THREADS")
    asked = "" if setting is None else f" (LAZYGRAD_NUM_THREADS={setting})"
    return f"{get_num_threads()}{asked}; processors usable {usable_cpus()}{limit}"


def _memory() -> str:
    from lazygrad_runtime.machine import memory_limit
    limit = memory_limit()
    return "limit unknown" if limit is None else f"this process can have {human_bytes(limit)}"


def _cache_folder() -> str:
    """The folder's state; raises where programs cannot be kept in it."""
    import warnings

    from lazygrad_runtime.cache import CompileCache
    if os.environ.get("LAZYGRAD_CACHE", "").strip() == "0":
        return "switched off (LAZYGRAD_CACHE=0)"
    cache = CompileCache()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the cache warns where it cannot be used, and says why
        stats = cache.stats()
    if not stats["enabled"]:
        raise RuntimeError(f"{cache.path} cannot be used")
    if not os.access(cache.path, os.W_OK):
        raise PermissionError(f"{cache.path} cannot be written")
    return (f"{cache.path}, writable, owner {_owner(os.stat(cache.path).st_uid)}, "
            f"{stats['entries']} entries, {human_bytes(stats['bytes'])}")


def _owner(number: int) -> str:
    try:
        import pwd
        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return str(number)


FACTS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("python", lambda: f"{platform.python_version()} ({platform.python_implementation()})"),
    ("system", lambda: f"{platform.system()} {platform.machine()}"),
    ("lazygrad", lazygrad_version),
    ("numpy", lambda: numpy.__version__),
    ("llvm", _llvm),
    ("processor", _processor),
    ("features used", _features),
    ("vector registers", _vectors),
    ("data caches", _cpu_caches),
    ("threads", _threads),
    ("memory", _memory),
    ("compile cache", _cache_folder),
)


# ---- self-test


def compute(tensors: Sequence[Any]) -> list[numpy.ndarray]:
    """The values of pending tensors, freshly compiled: no cache is asked."""
    from lazygrad.debug import recorded_graph
    from lazygrad_compiler.pipeline import compile_graph
    from lazygrad_compiler.target import host
    from lazygrad_runtime.program import Program
    graph, leaves = recorded_graph(tensors)
    results = Program(compile_graph(graph, host())).run([leaf.payload for leaf in leaves])
    return [buffer.as_numpy(tensor.dtype.numpy, tuple(tensor.shape))
            for buffer, tensor in zip(results, tensors, strict=True)]


def _compare(got: numpy.ndarray, expected: numpy.ndarray, tolerance: float) -> str:
    """Raises ArithmeticError where the results differ by more than rounding."""
    if got.shape != expected.shape:
        raise ArithmeticError(f"the shape is {got.shape} instead of {expected.shape}")
    error = float(numpy.max(numpy.abs(got - expected) / (1 + numpy.abs(expected)), initial=0.0))
    if not error <= tolerance:  # not a number is a failure
        raise ArithmeticError(f"differs from NumPy by {error:.3g}; allowed is {tolerance:g}")
    return f"agrees with NumPy (largest difference {error:.1e})"


def _sample(*shape: int) -> numpy.ndarray:
    return numpy.random.default_rng(0).standard_normal(shape).astype(numpy.float32)


def test_elementwise() -> str:
    import lazygrad as lg
    x = _sample(37, 129)
    result, = compute([lg.exp(lg.tensor(x)) * 2 + lg.sin(lg.tensor(x))])
    return _compare(result, numpy.exp(x) * 2 + numpy.sin(x), 1e-5)


def test_matmul() -> str:
    import lazygrad as lg
    x, w = _sample(65, 130), _sample(130, 97)
    result, = compute([lg.tensor(x) @ lg.tensor(w)])
    return _compare(result, x.astype(numpy.float64) @ w, 1e-4)


def test_reduction() -> str:
    import lazygrad as lg
    x = _sample(65, 1030)
    result, = compute([lg.tensor(x).sum(dim=1)])
    return _compare(result, x.astype(numpy.float64).sum(axis=1), 1e-4)


def test_gradient() -> str:
    """The gradient of sum(tanh(x @ w)) for w, against the formula."""
    import lazygrad as lg
    x, values = _sample(33, 17), _sample(17, 5)
    w = lg.tensor(values, requires_grad=True)
    lg.tanh(lg.tensor(x) @ w).sum().backward()
    result, = compute([w.grad])
    return _compare(result, x.T @ (1 - numpy.tanh(x @ values) ** 2), 1e-4)


def test_cache_round_trip() -> str:
    """A program written to a fresh cache, read back, and run."""
    import lazygrad as lg
    from lazygrad.debug import recorded_graph
    from lazygrad_compiler.pipeline import Artifact, compile_graph
    from lazygrad_compiler.target import host
    from lazygrad_runtime.cache import CompileCache
    from lazygrad_runtime.program import Program
    x = _sample(100)
    tensor = lg.tensor(x) * 3 + 1
    graph, leaves = recorded_graph([tensor])
    artifact = compile_graph(graph, host())
    with contextlib.ExitStack() as stack:
        cache = CompileCache(stack.enter_context(tempfile.TemporaryDirectory()))
        cache.enabled = True  # a fresh folder: what LAZYGRAD_CACHE says is not about it
        fields = {"program": "doctor"}
        if not cache.store(fields, artifact.objects, artifact.description()):
            raise OSError(f"the program could not be written to {cache.path}")
        entry = cache.lookup(fields)
        if entry is None:
            raise OSError("the program just written was not found")
        described = entry.manifest["meta"]
        objects = {name: entry.read(name) for name in described["objects"]}
    program = Program(Artifact.from_description(described, objects))
    buffer, = program.run([leaf.payload for leaf in leaves])
    return _compare(buffer.as_numpy(numpy.float32, x.shape), x * 3 + 1, 1e-6)


SELF_TESTS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("run elementwise", test_elementwise),
    ("run matmul", test_matmul),
    ("run reduction", test_reduction),
    ("run gradient", test_gradient),
    ("cache round trip", test_cache_round_trip),
)
