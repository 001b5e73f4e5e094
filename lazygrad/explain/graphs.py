"""Graph files and arrays for their inputs: reading, writing, and making some up."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_compiler.ir.text import parse_graph
from lazygrad_compiler.ir.verify import verify


class InputError(ValueError):
    """Arrays are missing, or not for this graph."""


def read_graph(path: str) -> Graph:
    """The first graph in a file, or in standard input for "-"; a dump of several stages will do.

    Raises OSError, and ParseError with the line in the file.
    """
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    return parse_graph(first_graph(text))


def first_graph(text: str) -> str:
    """The text with all lines but those of the first `graph(...)` to its `return` blank, so that
    line numbers stay; the text itself where it holds no such pair.
    """
    lines = text.splitlines()
    begin = next((n for n, line in enumerate(lines) if line.startswith("graph(")), None)
    if begin is None:
        return text
    end = next((n for n in range(begin, len(lines)) if lines[n].startswith("return")), None)
    if end is None:
        return text
    return "\n".join([""] * begin + lines[begin:end + 1]) + "\n"


def read_inputs(path: str, graph: Graph) -> list[numpy.ndarray]:
    """The arrays of an .npz file by the number that their names end in (`0`, `input0`, `arr_0`);
    others are left alone.

    Raises OSError and InputError.
    """
    try:
        with numpy.load(path, allow_pickle=False) as stored:
            names = list(stored.files)
            by_number = {int(digits): stored[name] for name in names
                         if (digits := name[len(name.rstrip("0123456789")):])}
    except ValueError as error:
        raise InputError(f"{path} is no .npz file of plain arrays: {error}") from None
    for leaf in graph.inputs():
        if leaf.attrs[0] not in by_number:
            raise InputError(f"{path} has no array for input {leaf.attrs[0]} ({_typed(leaf)}); "
                             f"it holds {', '.join(names) or 'nothing'}")
    count = 1 + max(by_number, default=-1)
    return fitted_inputs([by_number.get(number, numpy.zeros(0)) for number in range(count)], graph)


def fitted_inputs(arrays: Sequence[numpy.ndarray], graph: Graph) -> list[numpy.ndarray]:
    """The arrays, each with its input's dtype.  InputError where one is not for its input."""
    fitted = list(arrays)
    for leaf in graph.inputs():
        fitted[leaf.attrs[0]] = _fitted(fitted[leaf.attrs[0]], leaf, leaf.attrs[0])
    return fitted


def _typed(leaf: Node) -> str:
    return f"{leaf.dtype.name}{list(leaf.shape)}"


def _fitted(array: numpy.ndarray, leaf: Node, number: int) -> numpy.ndarray:
    wanted = numpy.dtype(leaf.dtype.numpy)
    if array.dtype.kind == "V" and array.dtype.itemsize == wanted.itemsize:
        array = array.view(wanted)  # NumPy stores bfloat16 and float8 as raw bytes
    if array.shape != tuple(leaf.shape) or array.dtype != wanted:
        raise InputError(f"input {number} is {_typed(leaf)}, and the array "
                         f"{array.dtype}{list(array.shape)}")
    return array


def write_inputs(path: str, arrays: Sequence[numpy.ndarray]) -> None:
    """The arrays as `input0`, `input1`, … of an .npz file."""
    numpy.savez(path, **{f"input{number}": array for number, array in enumerate(arrays)})  # type: ignore[arg-type]


def made_up_inputs(graph: Graph, seed: int = 0) -> list[numpy.ndarray]:
    """Random arrays that the graph runs on: small whole numbers where it uses them as indices.

    Raises InputError where none of the attempts runs.
    """
    verify(graph, dense_inputs=False)
    leaves = {leaf.attrs[0]: leaf for leaf in graph.inputs()}
    problem: Exception | None = None
    for highest in (9, 3, 1, 0):
        generator = numpy.random.default_rng(seed)
        arrays = [_random(generator, leaves[number].dtype, leaves[number].shape, highest)
                  if number in leaves else numpy.zeros(0)
                  for number in range(1 + max(leaves, default=-1))]
        try:
            interpret(graph, arrays)
        except IndexError as error:
            problem = error
            continue
        return arrays
    raise InputError(f"no made-up inputs run: {problem}. Give arrays with --inputs")


def _random(generator: numpy.random.Generator, dtype: DType, shape: Sequence[int],
            highest: int) -> numpy.ndarray:
    if dtype.kind == "bool":
        return generator.random(shape) < 0.5
    if dtype.is_integer:
        lowest = 0 if highest < 9 or dtype.kind == "unsigned" else -highest
        return generator.integers(lowest, highest, shape, endpoint=True).astype(dtype.numpy)
    values = generator.standard_normal(shape)
    if dtype.is_complex:
        return (values + 1j * generator.standard_normal(shape)).astype(dtype.numpy)
    return values.astype(dtype.numpy)
