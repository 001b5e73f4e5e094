"""What tests of the command line share: calling it here, and faults to plant in the compiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lazygrad.__main__ import main
from lazygrad_compiler import pipeline
from lazygrad_compiler.decisions import ledger
from lazygrad_compiler.ir.node import Graph, node, substitute
from lazygrad_compiler.loops.kernel import Launch, LoopKernel
from lazygrad_compiler.passes.optimize import Pass
from lazygrad_compiler.passes.rewrite import Any as Anything
from lazygrad_compiler.passes.rewrite import Op, RewriteRules, apply, make
from lazygrad_runtime import peak

GRAPH = """\
graph()
%0 = input(0) : float32[6, 8]    # net.py:1
%1 = input(1) : float32[8, 5]    # net.py:2
%2 = dot(%0, %1, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)) \
: float32[6, 5]    # net.py:3
%3 = const(0.0) : float32[6, 5]    # net.py:4
%4 = add(%2, %3) : float32[6, 5]    # net.py:4
%5 = tanh(%4) : float32[6, 5]    # net.py:5
%6 = sin(%5) : float32[6, 5]    # net.py:6
%7 = const(1.0) : float32[6, 5]    # net.py:7
%8 = mul(%6, %7) : float32[6, 5]    # net.py:7
%9 = exp(%8) : float32[6, 5]    # net.py:8
%10 = sum(%9, axes=(1,)) : float32[6]    # net.py:9
%11 = cos(%10) : float32[6]    # net.py:10
%12 = sqrt(%9) : float32[6, 5]    # net.py:11
%13 = sum(%12, axes=(0, 1)) : float32[]    # net.py:12
return %11, %13
"""

Call = Callable[..., tuple[int, str, str]]


def caller(capsys: pytest.CaptureFixture[str]) -> Call:
    """call("opt", path, …) -> exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def fake_peak(rounds: int = 1) -> peak.Peak:
    return peak.Peak(flops=1e11, read=1e10, copy=2e10, threads=2)


def graph_file(folder: Path, text: str = GRAPH) -> Path:
    path = folder / "net.txt"
    path.write_text(text)
    return path


wrong_rules = RewriteRules("wrong")


@wrong_rules.add(Op("tanh", Anything("x")))
def planted(x: Any) -> Any:
    """Sine and hyperbolic tangent are alike for small numbers only."""
    return make("sin", x)


def plant_rewrite(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A wrong rule in one pass and no other."""
    plant_in_pass(monkeypatch, name, by_rule=True)


def plant_wrong_erf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong rule in `simplify` for what is in the middle of models."""
    rules = RewriteRules("wrong")

    @rules.add(Op("erf", Anything("x")))
    def erf_is_almost_tanh(x: Any) -> Any:
        return make("tanh", x)

    replace_passes(monkeypatch, [
        (each, (lambda graph, right=right: apply(right(graph), rules))
         if each == "simplify" else right)
        for each, right in pipeline.opt_passes()])


def replace_passes(monkeypatch: pytest.MonkeyPatch, passes: list[tuple[str, Pass]]) -> None:
    """Stage opt with other passes, for any target."""
    monkeypatch.setattr(pipeline, "opt_passes", lambda target=None: passes)


def plant_in_pass(monkeypatch: pytest.MonkeyPatch, name: str, by_rule: bool) -> None:
    """A fault in one of all the passes of stage opt: a wrong rule, or, where rules have no part in
    it, a wrong operation in what the pass makes.
    """
    passes = pipeline.opt_passes()

    def faulty(right: Callable[[Graph], Graph]) -> Callable[[Graph], Graph]:
        def run(graph: Graph) -> Graph:
            made = right(graph)
            if by_rule:
                return apply(made, wrong_rules)
            return Graph(substitute(made.outputs, {
                each: node("sin", *each.inputs, location=each.location)
                for each in made.nodes() if each.op == "tanh"}))
        return run

    replace_passes(monkeypatch, [
        (each, faulty(right) if each == name else right) for each, right in passes])


def plant_on_decision(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Wrong code for `exp` where the compiler took its decision of that number, and only there."""
    taken = False
    right_partition = pipeline.partition

    def partition(graph: Graph, *more: Any) -> Any:
        nonlocal taken
        parts = right_partition(graph, *more)
        book = ledger()
        taken = book is None or len(book.taken) >= number
        return parts

    monkeypatch.setattr(pipeline, "partition", partition)
    for name in ("lower_row_group", "lower_contraction"):
        right = getattr(pipeline, name)

        def lower(*arguments: Any, right: Callable[..., Any] = right, **more: Any) -> Any:
            made = right(*arguments, **more)
            return _each(_with_sine, made) if taken else made

        monkeypatch.setattr(pipeline, name, lower)


def _each(change: Callable[[Launch], Launch], made: Any) -> Any:
    """A launch, or a list of them, changed."""
    return [change(launch) for launch in made] if isinstance(made, list) else change(made)


WRONG_CODE = {"exp": "sin"}


def _with_sine(launch: Launch) -> Launch:
    """The launch with its exponentials replaced by sines."""
    values = tuple(replace(value, op=WRONG_CODE.get(value.op, value.op))
                   for value in launch.kernel.values)
    return replace(launch, kernel=replace(launch.kernel, values=values))


def plant_in_kernels(monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    """Wrong code for `exp`: in all kernels, or in those only that sum or multiply as well."""
    for name in ("lower_row_group", "lower_contraction"):
        right = getattr(pipeline, name)

        def wrong(launch: Launch) -> Launch:
            kernel = launch.kernel
            alone = isinstance(kernel, LoopKernel) and not any(
                stage.reductions for stage in kernel.stages)
            return launch if alone and together else _with_sine(launch)

        def lower(*arguments: Any, right: Callable[..., Any] = right, **more: Any) -> Any:
            return _each(wrong, right(*arguments, **more))

        monkeypatch.setattr(pipeline, name, lower)
