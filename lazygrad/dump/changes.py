"""What each graph pass changed: the texts around it, and the difference as a unified diff.

`print_graph` numbers the values of a graph anew, so that one operation less would change every
line below.  Here a value keeps its name through all passes for as long as it stays; one that takes
the place of another (the same operation from the same line, on other inputs) takes over its name.
The texts parse, and the first has the names of stage graph; applying all diffs to it in order gives
stage opt, up to names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_compiler.ir.text import print_graph
from lazygrad_compiler.pipeline import optimized


@dataclass(frozen=True, slots=True)
class Change:
    """One pass.  number: its place, from 1.  before, after: the graphs' texts, the same where it
    changed nothing.  operations: how many there were before and after.
    """

    number: int
    name: str
    before: str
    after: str
    operations: tuple[int, int]
    seconds: float

    @property
    def changed(self) -> bool:
        return self.before != self.after

    @property
    def file_name(self) -> str:
        return f"{self.number:02}-{self.name}"

    def heading(self) -> str:
        before, after = self.operations
        return (f"# ---- pass {self.number} {self.name}: {before} -> {after} operations, "
                f"{self.seconds * 1e3:.2f} ms ----")

    def diff(self) -> str:
        """A unified diff; "" where nothing changed."""
        return "".join(difflib.unified_diff(
            self.before.splitlines(keepends=True), self.after.splitlines(keepends=True),
            f"a/{self.file_name}", f"b/{self.file_name}"))


def pass_changes(graph: Graph) -> tuple[Change, ...]:
    """The passes from stage graph to stage opt, in order.  The graph is optimised once more."""
    names = _Names()
    texts = [names.print(graph)]
    found: list[Change] = []

    def observe(name: str, before: Graph, after: Graph, seconds: float) -> None:
        texts.append(texts[-1] if before == after else names.print(after))
        counts = (len(before.nodes()), len(after.nodes()))
        found.append(Change(len(found) + 1, name, texts[-2], texts[-1], counts, seconds))

    optimized(graph, observe)
    return tuple(found)


def changes_text(changes: Sequence[Change], as_diffs: bool) -> str:
    """The passes that changed something, each with its diff or the whole text after it."""
    parts = [f"{change.heading()}\n{(change.diff() if as_diffs else change.after).rstrip()}"
             for change in changes if change.changed]
    idle = [change.name for change in changes if not change.changed]
    if idle:
        parts.append(f"# ---- passes that changed nothing: {', '.join(idle)} ----")
    return "\n\n".join(parts)


class _Names:
    """Names of nodes, kept from text to text."""

    def __init__(self) -> None:
        self.names: dict[Node, str] = {}
        self.count = 0

    def print(self, graph: Graph) -> str:
        nodes = graph.nodes()
        alive = set(nodes)
        free: dict[tuple, list[str]] = {}
        for node, name in self.names.items():
            if node not in alive:
                free.setdefault(_likeness(node), []).append(name)
        kept = {node: self.names[node] for node in nodes if node in self.names}
        for node in nodes:
            if node not in kept:
                heirs = free.get(_likeness(node))
                kept[node] = heirs.pop(0) if heirs else self._fresh()
        self.names = kept
        return _renamed(print_graph(graph), [kept[node] for node in nodes])

    def _fresh(self) -> str:
        self.count += 1
        return str(self.count - 1)


def _likeness(node: Node) -> tuple:
    return node.op, node.dtype, node.shape, node.location


STRING = re.compile(r'("(?:[^"\\]|\\.)*")')


def _renamed(text: str, names: Sequence[str]) -> str:
    """The text of print_graph with other names; comments and strings stay as they are."""
    lines = []
    for line in text.splitlines():
        pieces = STRING.split(line)  # even ones are outside of strings
        for place in range(0, len(pieces), 2):
            code, mark, comment = pieces[place].partition("    # ")
            code = re.sub(r"%(\d+)", lambda found: "%" + names[int(found[1])], code)
            pieces[place] = code + mark + comment
            if mark:
                break
        lines.append("".join(pieces))
    return "\n".join(lines) + "\n"
