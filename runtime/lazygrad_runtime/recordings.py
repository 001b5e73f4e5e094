"""Programs on disk by what was recorded, for processes that find theirs there and build no graph.

In: the key of pending nodes (`program.pending_key`).  Out: its artifact, and which of the leaves
that reads.

A key means something in its own process only, since templates count by identity.  `written` spells
it: each template by a hash of its graph.  Recordings that are written alike have one canonical
graph, so a note in the cache folder, under a name made of the spelling and of all else that
identifies a program, tells its entry's key.  To write a small GPT's key takes 5 ms; to unfold its
graph, to print and to forget that, 30.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.ir.composite import FIRST_PLACEHOLDER, Template
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.loop import Body
from lazygrad_compiler.ir.node import Dim, Graph, Node
from lazygrad_compiler.ir.text import format_value, print_graph
from lazygrad_compiler.target import host
from lazygrad_runtime import store

FORMAT = "1"
"""Of keys and their spelling."""

_digests: WeakKeyDictionary[Template | Body, str] = WeakKeyDictionary()


def written(key: Sequence[Any]) -> str | None:
    """The key, so that it means the same in every process; None where it cannot be spelled."""
    *parts, outputs = key
    try:
        lines = [_line(part) for part in parts]
    except TypeError:
        return None
    return "\n".join([*lines, f"return {outputs}"])


def _line(part: tuple[Any, ...]) -> str:
    first = part[0]
    if first.__class__ is str:
        return f"{first} {_spelled(part[1])} {part[2:]}"
    if first.__class__ is DType:
        return f"leaf {first.name} {_spelled(part[1])}"
    if first.__class__ is Template:
        return f"call {_digest(first)} {part[1:]}"
    return f"part {part}"


def _spelled(value: Any) -> str:
    if value.__class__ is tuple:
        return f"({','.join([_spelled(item) for item in value])})"
    if value.__class__ is Body:
        return _digest(value)
    if value.__class__ is Dim:
        raise TypeError("sizes that are symbols have no spelling of their own")
    return format_value(value, {})


def _digest(graph: Template | Body) -> str:
    found = _digests.get(graph)
    if found is None:
        inputs = [_place(each) if isinstance(each, Node) else f"{each[0].name}{_spelled(each[1])}"
                  for each in graph.inputs]
        text = f"{graph.name} {inputs}\n{print_graph(Graph(graph.outputs), locations=False)}"
        found = _digests[graph] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _place(placeholder: Node) -> str:
    """An input of a template, perhaps as a variable."""
    leaf = placeholder.inputs[0] if placeholder.op == "variable" else placeholder
    return f"{placeholder.op} {leaf.attrs[0] - FIRST_PLACEHOLDER}"


def find(recording: str) -> tuple[Artifact, list[int]] | None:
    """The artifact of a recording, written, and the places of the leaves that it reads; None where
    the disk does not know it.
    """
    return store.find_noted(_fields(recording))


def note(recording: str, graph: Graph, read: Sequence[int]) -> None:
    """Notes the recording of a canonical graph whose program is on disk."""
    store.note(_fields(recording), graph, read)


def _fields(recording: str) -> dict[str, Any]:
    text = f"{FORMAT}\n{recording}"
    return {"recording": hashlib.sha256(text.encode()).hexdigest(),
            **store.environment_fields(host())}
