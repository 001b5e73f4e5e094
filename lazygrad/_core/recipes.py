"""Recipes: operations as native code records them (`native_record`).

Every so often a call of an operation whose results follow from its signature (`folded.FOLDED`,
`folded.SINGLE`) is looked at: where its result is one node over the arguments' nodes, native code
records the same signature from then on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from lazygrad._core import native_record as words
from lazygrad._core.context import now
from lazygrad._core.folded import SINGLE
from lazygrad._core.tensor import Tensor, node_of
from lazygrad._core.types import default
from lazygrad_compiler.ir import node as nodes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_runtime.native import Number, words_of

MOST_RECIPES = 8
"""Of one operation."""

_PLAIN = (int, float, bool, str, type(None), DType)
_MARKERS = ("const", "input", "variable", "stop_gradient", "transfer")


class Recipe(int):
    """The address of the words of one signature and its node."""

    kept: list[Any]


def remember(recipes: list[Recipe], name: str, arguments: Sequence[Any], result: Any) -> None:
    """Has native code record such calls of an operation from now on, if that can be.  `result` is
    what a call with these arguments has just given, the outermost one of this thread.
    """
    from lazygrad._core.plans import native_functions

    if result.__class__ is not Tensor or len(arguments) > words.MOST_ARGUMENTS \
            or now.recording is not None or now.traced is not None or now.autocast is not None \
            or nodes.placing:
        return
    cell, node = result._cell, result._cell.node
    if result._view is not None or result._detached or cell.version or node.payload is not None \
            or node.op in _MARKERS or cell.tracked is not (now.grad and node.differentiable):
        return
    described: list[Any] = []
    given: list[Node | None] = []
    for value in arguments:
        if isinstance(value, Tensor):
            each = node_of(value)
            if value._cell is cell or each.op in ("const", "stop_gradient"):
                return
            described += [Number(words.ARGUMENT_TENSOR), type(value), each.dtype, each.shape,
                          each.differentiable]
            given.append(each)
        elif type(value) in _PLAIN or (
                type(value) is tuple and all(type(each) in _PLAIN for each in value)):
            described += [Number(words.ARGUMENT_SAME), value, None, None, None]
            given.append(None)
        else:
            return
    call = node.call
    if call is not None and (len(call.template.outputs) > 1 or call.inside):
        return
    inputs: list[Any] = []
    for below in node.inputs if call is None else call.inputs:
        if below in given:
            inputs += [Number(words.INPUT_ARGUMENT), Number(given.index(below))]
        elif below.op == "const":
            inputs += [Number(words.INPUT_NODE), below]
        else:
            return
    if not inputs or type(node.location) is not tuple \
            or (call is None and OPS[node.op].kind == "indexed") or native_functions() is None:
        return
    tensors = [each for each in given if each is not None]
    if len(set(tensors)) < len(tensors) or (call is None and name not in SINGLE):
        return  # which of two it reads could not be told; it may depend on values
    lines: list[Any] = [None, None]
    refused = OPS["div"].name if name == "matmul" else Number(0)
    arrays = [words_of(described), words_of(inputs)]
    described_node = {
        words.RECIPE_COUNT: Number(len(arguments)),
        words.RECIPE_ARGUMENTS: Number(ctypes.addressof(arrays[0])),
        words.RECIPE_GRAD: now.grad, words.RECIPE_DTYPE: default.dtype,
        words.RECIPE_REFUSED: refused,
        words.RECIPE_TEMPLATE: Number(0) if call is None else call.template,
        words.RECIPE_INPUT_COUNT: Number(len(inputs) // words.INPUT_WORDS),
        words.RECIPE_INPUTS: Number(ctypes.addressof(arrays[1])),
        words.RECIPE_TRACKED: cell.tracked, words.RECIPE_LINES: lines,
        **{place: getattr(node, field) for field, place in words.NODE_FIELDS},
    }
    values = [described_node.get(place, Number(0)) for place in range(words.RECIPE_WORDS)]
    whole = words_of(values)
    recipe = Recipe(ctypes.addressof(whole))
    recipe.kept = [whole, arrays, values, described, inputs]
    recipes.insert(0, recipe)
    del recipes[MOST_RECIPES:]


