"""The user's lines, and the names of variables assigned there."""

from __future__ import annotations

import ast
import functools
import linecache
import os

from lazygrad_compiler.ir.node import Location


def lines_of(location: Location) -> list[str]:
    """`train.py:12` for each line."""
    return [f"{os.path.basename(file)}:{number}" for file, number in location]


def place(location: Location) -> str:
    """The lines, each file once: `train.py:12,14, model.py:3`; or that they are not known."""
    by_file: dict[str, list[str]] = {}
    for file, number in location:
        by_file.setdefault(os.path.basename(file), []).append(str(number))
    return ", ".join(f"{file}:{','.join(dict.fromkeys(numbers))}"
                     for file, numbers in by_file.items()) or "unknown line"


@functools.cache
def _assigned(file: str) -> dict[int, str]:
    """What each line of a file assigns to: names by line; the statement's first line counts."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return {}
    found: dict[int, str] = {}
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
        elif isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
            target = statement.target
        else:
            continue
        if isinstance(target, (ast.Name, ast.Attribute)):
            for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1):
                found.setdefault(line, ast.unparse(target))
    return found


def variable_at(location: Location) -> str | None:
    """The variable that is assigned on the line where a value was made, if the line says so."""
    for file, line in location:
        name = _assigned(file).get(line)
        if name is not None:
            return name
    return None
