"""The compiler as it would be if nothing could be dumped or bisected: every statement that is there
for that only is taken out of its source as it is imported.

`install` comes before anything of the compiler is imported; `lines_of_lowering` and
`time_on_request` measure, in a process each:

    python -m tests.benchmarks.without_dumps lines|seconds whole|without

What a difference means: dumps that are switched off cost so much (tests/lazygrad/test_dump_cost.py
holds the lines under one per cent; `python -m tests.benchmarks.tools` measures seconds).
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.machinery
import importlib.util
import itertools
import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import CodeType, FrameType
from typing import Any

PACKAGES = ("lazygrad_compiler.", "lazygrad_runtime.")
FLAGS = {"annotated", "observer", "book", "ledger"}
"""Conditions of dumps and of `bisect`: their branch goes."""
LISTS = {"compile_callbacks", "run_callbacks", "listeners"}
"""What dumps listen to: loops over these go."""
CALLS = {"origin"}
"""Notes for linked lines: calls of these go."""

taken_out: list[str] = []
stripping = True


class _Stripper(ast.NodeTransformer):
    def __init__(self, module: str) -> None:
        self.module = module

    def _drop(self, node: ast.stmt, rest: list[ast.stmt] | None = None) -> Any:
        taken_out.append(f"{self.module}:{node.lineno}")
        return rest or ast.copy_location(ast.Pass(), node)

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        names = {each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)}
        names |= {each.attr for each in ast.walk(node.test) if isinstance(each, ast.Attribute)}
        return self._drop(node, node.orelse) if names & FLAGS else node

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        return self._drop(node) if isinstance(node.iter, ast.Name) and node.iter.id in LISTS \
            else node

    def visit_Expr(self, node: ast.Expr) -> Any:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) \
                and call.func.attr in CALLS:
            return self._drop(node)
        return node


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data: Any, path: Any, *,  # type: ignore[override]
                       _optimize: int = -1) -> CodeType:
        tree = ast.parse(data)
        if stripping:
            tree = _Stripper(self.name).visit(tree)
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def get_code(self, fullname: str) -> CodeType:
        """From the source: the bytecode beside it is that of the whole compiler."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(PACKAGES) or path is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None or spec.submodule_search_locations is not None:
            return None
        return importlib.util.spec_from_file_location(
            fullname, spec.origin, loader=_Loader(fullname, spec.origin))


def install(strip: bool = True) -> None:
    """From here on the compiler is imported without what serves dumps.  strip: False to take the
    same way and leave everything in, for seconds that can be compared.
    """
    global stripping
    stripping = strip
    assert "lazygrad_compiler.pipeline" not in sys.modules, "too late"
    sys.meta_path.insert(0, _Finder())


def example() -> tuple[Any, Any]:
    """A training step of a small network, and the target: contractions, reductions, many rules."""
    from lazygrad_compiler.ir.text import parse_graph
    from lazygrad_compiler.target import host

    lines = ["graph()", "%0 = input(0) : float32[64, 96]", "%1 = input(1) : float32[64, 10]"]
    names = ["%0"]

    def add(text: str) -> str:
        lines.append(f"%{len(lines) - 1} = {text}")
        return f"%{len(lines) - 2}"

    dot = "left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)"
    sizes = [96, 128, 64, 10]
    for number, (before, after) in enumerate(itertools.pairwise(sizes)):
        w = add(f"input({2 * number + 2}) : float32[{before}, {after}]")
        b = add(f"input({2 * number + 3}) : float32[{after}]")
        product = add(f"dot({names[-1]}, {w}, {dot}) : float32[64, {after}]")
        row = add(f"reshape({b}) : float32[1, {after}]")
        bias = add(f"expand({row}) : float32[64, {after}]")
        total = add(f"add({product}, {bias}) : float32[64, {after}]")
        names.append(add(f"tanh({total}) : float32[64, {after}]"))
    error = add(f"sub({names[-1]}, %1) : float32[64, 10]")
    square = add(f"mul({error}, {error}) : float32[64, 10]")
    loss = add(f"sum({square}, axes=(0, 1)) : float32[]")
    each = add(f"sum({square}, axes=(1,)) : float32[64]")
    lines.append(f"return {loss}, {each}, {names[1]}")
    return parse_graph("\n".join(lines) + "\n"), host()


def lines_of_lowering() -> tuple[int, str]:
    """How many lines of Python run from the graph to LLVM text, and a hash of that text."""
    from lazygrad_compiler.pipeline import lower

    graph, target = example()
    lower(graph, target)  # what is imported or kept the first time does not count
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    sys.settrace(trace)
    try:
        stages = lower(graph, target)
    finally:
        sys.settrace(None)
    text = "".join(kernel.llvm for kernel in stages.kernels) + stages.entry
    return lines, hashlib.sha256(text.encode()).hexdigest()[:16]


def time_on_request() -> None:
    """For each line that comes in, one compilation down to object code: its seconds go out."""
    from lazygrad_compiler.pipeline import compile_graph

    graph, target = example()
    compile_graph(graph, target)  # imports, and what is kept the first time
    gc.disable()
    print("ready", flush=True)
    for _ in sys.stdin:
        gc.collect()
        begun = time.perf_counter()
        compile_graph(graph, target)
        print(time.perf_counter() - begun, flush=True)


def main(what: str, which: str) -> None:
    install(strip=which == "without")
    if what == "seconds":
        time_on_request()
    else:
        print(*lines_of_lowering(), len(taken_out))


if __name__ == "__main__":
    main(*sys.argv[1:])
