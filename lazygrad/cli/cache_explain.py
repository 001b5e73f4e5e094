"""`lazygrad cache explain`: in which field of the key two programs differ.

`explain A B` compares two entries.  `explain SCRIPT` runs a script and compares each of its
programs with the most similar one that was there before it; of a program that was found, that is
what was there when it was compiled, so a past miss is explained as well.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazygrad.cli import FINDING, OK, UsageError
from lazygrad.cli.cache_list import find_entry, lines_of, print_json, short_lines, unusable

if TYPE_CHECKING:
    from lazygrad_compiler.artifact import Artifact
    from lazygrad_compiler.ir.node import Graph
    from lazygrad_compiler.pipeline import Stages
    from lazygrad_runtime.cache import CompileCache
    from lazygrad_runtime.cache_entry import CacheEntry

MOST_CHANGES = 6
"""Sizes and constants of a graph that are shown."""

MOST_DIFFERENT = 12
"""Lines that came and went that are shown; with more of them there is no point in comparing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "lazygrad cache explain [--json] KEY KEY | SCRIPT [ARGS ...]"
    # The name that __main__ looks for, to tell the script's arguments from ours.
    parser.add_argument("script", metavar="KEY KEY | SCRIPT [ARGS ...]",
                        help="two programs to compare, or a Python file to run")
    parser.set_defaults(takes_script_arguments=True)


@dataclass(frozen=True, slots=True)
class Known:
    """A program as far as comparing goes."""

    key: str
    fields: dict[str, Any]
    created: float
    lines: list[str]
    compute: list[str]
    graph: str  # "" where it cannot be read

    @staticmethod
    def of(entry: CacheEntry) -> Known:
        from lazygrad_runtime import store
        from lazygrad_runtime.cache_entry import CacheDamage
        graph = ""
        with contextlib.suppress(CacheDamage, OSError, KeyError, UnicodeDecodeError):
            graph = entry.read(store.GRAPH_BLOB).decode()
        compute = [about for _, about, _ in entry.meta.get("launches", [])]
        return Known(entry.key, entry.fields, entry.created, lines_of(entry), compute, graph)


@dataclass(frozen=True, slots=True)
class Change:
    """A field of the key that differs.  details: of the graph, what in it."""

    field: str
    before: Any
    now: Any
    details: tuple[str, ...] = ()


def changes(before: Known, now: Known) -> list[Change]:
    """The differing fields, by name."""
    from lazygrad_runtime.cache_entry import differing_fields
    return [Change(name, before.fields.get(name), now.fields.get(name),
                   _details(name, before, now))
            for name in differing_fields(before.fields, now.fields)]


def _details(name: str, before: Known, now: Known) -> tuple[str, ...]:
    if name == "graph" and before.graph and now.graph:
        return graph_changes(before.graph, now.graph)
    if name == "features":
        had = set(str(before.fields.get(name, "")).split(","))
        has = set(str(now.fields.get(name, "")).split(","))
        return tuple(f"{feature[1:]}: {'now used' if feature[0] == '+' else 'no longer used'}"
                     for feature in sorted(has - had) if feature)
    return ()


_LINE = re.compile(r"%\d+ = (\w+)\((.*)\) : (\w+)\[(.*?)\](?:    # (.*))?$")


def graph_changes(before: str, now: str) -> tuple[str, ...]:
    """In what two graphs differ, in words: sizes and constants where the operations are the same,
    else the lines that came and went.
    """
    old, new = ([_LINE.match(line) for line in text.splitlines() if line.startswith("%")]
                for text in (before, now))
    same = len(old) == len(new) and all(
        a is not None and b is not None and a[1] == b[1] for a, b in zip(old, new))
    if not same:
        bare, bare_now = ([line.split("    # ")[0] for line in text.splitlines()]
                          for text in (before, now))
        lines = [line for line in difflib.unified_diff(bare, bare_now, lineterm="", n=0)
                 if not line.startswith(("---", "+++", "@@"))]
        if len(lines) > MOST_DIFFERENT:
            return (f"another program: {len(old)} operations there, {len(new)} here",)
        return tuple(lines)
    found: list[str] = []
    for a, b in zip(old, new):
        assert a is not None and b is not None
        where = f" ({b[5]})" if b[5] else ""
        what = f"input {b[2]}" if b[1] == "input" else b[1]
        if a[3] != b[3]:
            found.append(f"dtype of {what}: {a[3]} -> {b[3]}{where}")
        old_sizes, new_sizes = a[4].split(", "), b[4].split(", ")
        if len(old_sizes) != len(new_sizes):
            found.append(f"shape of {what}: [{a[4]}] -> [{b[4]}]{where}")
        elif b[1] == "input" or a[2] == b[2]:
            found += [f"dim {number} of {what}: {x} -> {y}{where}"
                      for number, (x, y) in enumerate(zip(old_sizes, new_sizes)) if x != y]
        if b[1] != "input" and a[2] != b[2]:
            found.append(f"{what}({a[2]}) -> {what}({b[2]}){where}")
    inputs = [text for text in found if " of input " in text]
    return _cut(inputs or found)


def _cut(found: Sequence[str]) -> tuple[str, ...]:
    lines = list(dict.fromkeys(found))
    rest = len(lines) - MOST_CHANGES
    more = (f"and {rest} more",) if rest > 0 else ()
    return (*lines[:MOST_CHANGES], *more)


def nearest(program: Known, others: Sequence[Known]) -> Known | None:
    """The one that differs in the fewest fields; among those one of the same lines, then of the
    same kernels, then the newest.
    """
    from lazygrad_runtime.cache_entry import differing_fields

    def distance(other: Known) -> tuple[int, int, bool, float]:
        return (len(differing_fields(program.fields, other.fields)),
                -len(set(program.lines) & set(other.lines)),
                program.compute != other.compute,
                -other.created)

    return min(others, key=distance, default=None)


# ---- two entries


def explain(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    cache = CompileCache()
    if unusable(cache):
        return FINDING
    if Path(options.script).is_file():
        return explain_script(cache, options)
    if len(options.script_arguments) != 1:
        if options.script_arguments or not re.fullmatch("[0-9a-fA-F]+", options.script):
            raise UsageError(f"{options.script}: there is no such file")
        raise UsageError("cache explain takes two keys, or a script")
    before, now = (Known.of(find_entry(cache, key))
                   for key in (options.script, options.script_arguments[0]))
    found = changes(before, now)
    if options.json:
        print_json({"before": before.key, "now": now.key,
                    "fields": [change.field for change in found],
                    "changes": [as_values(change) for change in found]})
    else:
        print(f"{before.key[:12]}  {short_lines(before.lines)}")
        print(f"{now.key[:12]}  {short_lines(now.lines)}")
        print_changes(found)
    return FINDING if found else OK


def as_values(change: Change) -> dict[str, Any]:
    return {"field": change.field, "before": change.before, "now": change.now,
            "details": list(change.details)}


def print_changes(found: Sequence[Change]) -> None:
    if not found:
        print("  no field differs: they are the same program")
    for change in found:
        if change.details:
            print(f"  {change.field} differs:")
            for line in change.details:
                print(f"    {line}")
        else:
            print(f"  {change.field} differs: {_short(change.before)} -> {_short(change.now)}")


def _short(value: Any) -> str:
    text = "(absent)" if value is None else str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


# ---- a script


@dataclass(frozen=True, slots=True)
class Explained:
    """A program that a script needed.  found: in the cache.  near: the most similar one that was
    there before it, None where there was none.
    """

    program: Known
    found: bool
    near: Known | None
    changes: list[Change]


class Explainer:
    """Listens for programs and compares each with what was there before it."""

    def __init__(self, cache: CompileCache):
        from lazygrad_runtime.cache_target import is_program
        self.known = {entry.key: Known.of(entry) for entry in cache.entries() if is_program(entry)}
        self.programs: list[Explained] = []

    def compiled(self, graph: Graph, stages: Stages | None, artifact: Artifact) -> None:
        import time

        from lazygrad_compiler.ir.text import print_graph
        from lazygrad_runtime import store
        from lazygrad_runtime.cache_entry import key_of
        from lazygrad_runtime.placed import target_of
        target = target_of(artifact.device)
        fields: dict[str, Any] = store.key_fields(print_graph(graph, locations=False), target)
        key = key_of(fields)
        lines = sorted({where for _, _, location in artifact.launches for where in location})
        earlier = self.known.get(key)
        program = Known(key, fields, earlier.created if earlier else time.time(),
                        [f"{file}:{line}" for file, line in lines],
                        [about for _, about, _ in artifact.launches], print_graph(graph))
        others = [other for other in self.known.values()
                  if other.key != key and other.created <= program.created]
        near = nearest(program, others)
        self.programs.append(Explained(
            program, stages is None, near, [] if near is None else changes(near, program)))
        self.known.setdefault(key, program)


def explain_script(cache: CompileCache, options: argparse.Namespace) -> int:
    from lazygrad.cli.running import run_script
    from lazygrad_runtime import store
    from lazygrad_runtime.program import forget_programs
    forget_programs()
    explainer = Explainer(cache)
    store.compile_callbacks.append(explainer.compiled)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            succeeded = run_script(options.script, options.script_arguments)
    finally:
        store.compile_callbacks.remove(explainer.compiled)
    programs = explainer.programs
    missed = [each for each in programs if not each.found]
    if options.json:
        print_json({"programs": [
            {"key": each.program.key, "found": each.found, "lines": each.program.lines,
             "compute": each.program.compute,
             "nearest": None if each.near is None else each.near.key,
             "fields": [change.field for change in each.changes],
             "changes": [as_values(change) for change in each.changes]} for each in programs]})
    else:
        for number, each in enumerate(programs):
            print_explained(number, each)
        print(f"{len(programs)} program{'s' * (len(programs) != 1)}: "
              f"{len(programs) - len(missed)} found, {len(missed)} compiled")
    return FINDING if missed or not succeeded else OK


def print_explained(number: int, each: Explained) -> None:
    outcome = "found; when it was compiled" if each.found else "compiled;"
    print(f"program {number}: {each.program.key[:12]}  {short_lines(each.program.lines)}")
    if each.near is None:
        print(f"  {outcome} there was nothing in the cache")
        return
    print(f"  {outcome} the most similar was {each.near.key[:12]} "
          f"({short_lines(each.near.lines) or 'no lines'})")
    print_changes(each.changes)
